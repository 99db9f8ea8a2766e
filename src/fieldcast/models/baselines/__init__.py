"""Forecasts that need no training, as forecasters like any other."""
