"""Metrics: sums that add over samples, lead times and processes, and the scores made from them."""

from fieldcast.metrics.balanced import BALANCED_METRICS
from fieldcast.metrics.ensembles import ENSEMBLE_METRICS
from fieldcast.metrics.events import EVENT_METRICS
from fieldcast.metrics.hydrology import RIVER_METRICS
from fieldcast.metrics.metric import DIMENSIONS, Metric, Yardstick
from fieldcast.metrics.neighbourhood import NEIGHBOURHOOD_METRICS
from fieldcast.metrics.pixels import PIXEL_METRICS
from fieldcast.metrics.similarity import SIMILARITY_METRICS
from fieldcast.metrics.structural_similarity import structural_similarity, valid_windows
from fieldcast.metrics.structure import STRUCTURE_METRICS

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        *PIXEL_METRICS,
        *BALANCED_METRICS,
        *SIMILARITY_METRICS,
        *EVENT_METRICS,
        *NEIGHBOURHOOD_METRICS,
        *STRUCTURE_METRICS,
        *ENSEMBLE_METRICS,
        *RIVER_METRICS,
    )
}

__all__ = ["DIMENSIONS", "METRICS", "Metric", "Yardstick", "structural_similarity", "valid_windows"]
