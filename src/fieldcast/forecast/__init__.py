"""Forecasts with labels: xarray in, xarray out."""

from fieldcast.forecast.labels import decode_times, save_forecast
from fieldcast.forecast.run_forecast import forecast

__all__ = ["decode_times", "forecast", "save_forecast"]
