"""Metrics that compare fields pixel by pixel and weigh rare observed values more, as sums that add up.

Shapes: B batch, S lead times, C channels, H rows, W columns; K sums of a metric.
"""

import torch
from torch import Tensor

from fieldcast.metrics.events import classes
from fieldcast.metrics.metric import Metric, Yardstick, per_lead_time, without_missing
from fieldcast.metrics.pixels import FAMILY


def balanced_error_sums(predicted: Tensor, observed: Tensor, valid: Tensor, yardstick: Yardstick) -> Tensor:
    """Sums of w e^2 and w |e|, e = predicted - observed, over valid pixels, and their number: (3, S).

    The weight w is that of the class of the observed value: ``yardstick.weights[k]`` where it reaches k of the
    thresholds (>=, compared in its own dtype, as in ``contingency_sums``).
    """
    predicted, observed = without_missing(predicted, observed, valid)
    error = (predicted.double() - observed.double()).abs_()
    weighted = _weights(observed, yardstick).mul_(error)
    absolute = per_lead_time(weighted)
    return torch.stack([per_lead_time(weighted.mul_(error)), absolute, per_lead_time(valid)])


def _weights(observed: Tensor, yardstick: Yardstick) -> Tensor:
    """Weight of each pixel, float64."""
    weights = torch.tensor([*yardstick.weights, torch.nan], dtype=torch.float64, device=observed.device)
    return weights.index_select(0, classes(observed, yardstick.thresholds).flatten()).view_as(observed)


def balanced_mean_squared_error(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """Sum of w e^2 divided by the number of pixels, not by the sum of weights.

    Source: Shi et al. (2017), arXiv:1706.03458, B-MSE of its benchmark, which adds over the pixels of a frame where
    this takes the mean. Its weights are 1, 2, 5, 10 and 30 below, between and above 2, 5, 10 and 30 mm/h, its errors
    those of reflectivities scaled to [0, 1].
    """
    return sums[0] / sums[2]


def balanced_mean_absolute_error(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """Sum of w |e| divided by the number of pixels, not by the sum of weights.

    Source: Shi et al. (2017), arXiv:1706.03458, B-MAE of its benchmark.
    """
    return sums[1] / sums[2]


def _lacks_weights(yardstick: Yardstick) -> str | None:
    return None if yardstick.weights else "weights"


BALANCED_METRICS = (
    Metric(
        "b-mse",
        "balanced mean squared error",
        FAMILY,
        "mean over valid pixels of e^2 times the weight of the observed value's class",
        "smaller",
        "({units})^2",
        balanced_error_sums,
        balanced_mean_squared_error,
        lacks=_lacks_weights,
    ),
    Metric(
        "b-mae",
        "balanced mean absolute error",
        FAMILY,
        "mean over valid pixels of |e| times the weight of the observed value's class",
        "smaller",
        "{units}",
        balanced_error_sums,
        balanced_mean_absolute_error,
        lacks=_lacks_weights,
    ),
)
