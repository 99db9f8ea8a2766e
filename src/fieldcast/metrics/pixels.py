"""Metrics that compare fields pixel by pixel or window by window, as sums that add up.

Shapes: B batch, S lead times, C channels, H rows, W columns; K sums of a metric.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fieldcast.metrics.structural_similarity import WindowName, structural_similarity, valid_windows


class Metric(NamedTuple):
    """A score made of sums that add over samples, lead times and processes.

    ``sums(predicted, observed, valid, data_range)`` takes fields (B, S, C, H, W), of which those pixels count
    where ``valid`` is True, and gives float64 (K, S), added over B, C, H and W.

    ``score(sums, data_range)`` takes (K, S) and gives (S,), or takes (K,), added over lead times as well, and
    gives a scalar: NaN where nothing was valid.

    ``orientation`` says which score is better: the smaller, the larger, or the one nearer to zero. ``units``
    is a template for the units of the field: ``metric.units.format(units="mm/h")``.
    """

    name: str
    long_name: str
    convention: str
    orientation: Literal["smaller", "larger", "zero"]
    units: str
    sums: Callable[[Tensor, Tensor, Tensor, float], Tensor]
    score: Callable[[Tensor, float], Tensor]


def squared_error_sums(predicted: Tensor, observed: Tensor, valid: Tensor, data_range: float) -> Tensor:
    """Sum of (predicted - observed)^2 over valid pixels, and their number: (2, S)."""
    return _sum_and_count(_error(predicted, observed, valid).square(), valid)


def absolute_error_sums(predicted: Tensor, observed: Tensor, valid: Tensor, data_range: float) -> Tensor:
    """Sum of |predicted - observed| over valid pixels, and their number: (2, S)."""
    return _sum_and_count(_error(predicted, observed, valid).abs(), valid)


def error_sums(predicted: Tensor, observed: Tensor, valid: Tensor, data_range: float) -> Tensor:
    """Sum of predicted - observed over valid pixels, and their number: (2, S)."""
    return _sum_and_count(_error(predicted, observed, valid), valid)


def structural_similarity_sums(
    predicted: Tensor, observed: Tensor, valid: Tensor, data_range: float, window: WindowName
) -> Tensor:
    """Sum of the structural similarity over the windows whose pixels are all valid, and their number: (2, S).

    Raises:
        DataError: for frames smaller than the window.
    """
    predicted, observed = (torch.where(valid, field, 0) for field in (predicted, observed))
    complete = valid_windows(valid, window)
    similarity = structural_similarity(predicted, observed, data_range, window)
    return _sum_and_count(torch.where(complete, similarity, 0), complete)


def mean_score(sums: Tensor, data_range: float) -> Tensor:
    """Sum divided by number."""
    return sums[0] / sums[1]


def root_mean_score(sums: Tensor, data_range: float) -> Tensor:
    """Square root of sum divided by number."""
    return mean_score(sums, data_range).sqrt()


def peak_signal_to_noise_score(sums: Tensor, data_range: float) -> Tensor:
    """10 log10(data_range^2 / MSE) of the pooled MSE, in dB; infinite where there is no error."""
    return 10 * torch.log10(data_range**2 / mean_score(sums, data_range))


def _error(predicted: Tensor, observed: Tensor, valid: Tensor) -> Tensor:
    # A masked pixel may be NaN, and NaN times 0 is NaN: it is replaced before any arithmetic.
    return torch.where(valid, predicted, 0).double() - torch.where(valid, observed, 0).double()


def _sum_and_count(values: Tensor, counted: Tensor) -> Tensor:
    assert values.shape == counted.shape, f"{tuple(values.shape)} values, validity {tuple(counted.shape)}"
    return torch.stack([_per_lead_time(values), _per_lead_time(counted)])


def _per_lead_time(values: Tensor) -> Tensor:
    return values.transpose(0, 1).flatten(1).sum(1, dtype=torch.float64)


PIXEL_METRICS = (
    Metric(
        "mse", "mean squared error", "mean over valid pixels", "smaller", "({units})^2", squared_error_sums, mean_score
    ),
    Metric(
        "mae", "mean absolute error", "mean over valid pixels", "smaller", "{units}", absolute_error_sums, mean_score
    ),
    Metric(
        "rmse",
        "root mean squared error",
        "square root of the mean over all valid pixels of all samples",
        "smaller",
        "{units}",
        squared_error_sums,
        root_mean_score,
    ),
    Metric(
        "bias",
        "mean error",
        "mean over valid pixels of predicted - observed",
        "zero",
        "{units}",
        error_sums,
        mean_score,
    ),
    Metric(
        "psnr",
        "peak signal-to-noise ratio",
        "10 log10(data range^2 / MSE), of the MSE over all samples, not a mean over frames",
        "larger",
        "dB",
        squared_error_sums,
        peak_signal_to_noise_score,
    ),
    Metric(
        "ssim",
        "structural similarity",
        "11 x 11 Gaussian window of sigma 1.5, population variances, mean over windows without a missing pixel",
        "larger",
        "1",
        partial(structural_similarity_sums, window="gaussian"),
        mean_score,
    ),
    Metric(
        "ssim-uniform",
        "structural similarity, uniform window",
        "7 x 7 uniform window, sample variances, mean over windows without a missing pixel",
        "larger",
        "1",
        partial(structural_similarity_sums, window="uniform"),
        mean_score,
    ),
)
