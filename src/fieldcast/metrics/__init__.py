"""Metrics: sums that add over samples, lead times and processes, and the scores made from them."""

from fieldcast.metrics.pixels import PIXEL_METRICS, Metric
from fieldcast.metrics.structural_similarity import structural_similarity, valid_windows

METRICS: dict[str, Metric] = {metric.name: metric for metric in PIXEL_METRICS}

__all__ = ["METRICS", "Metric", "structural_similarity", "valid_windows"]
