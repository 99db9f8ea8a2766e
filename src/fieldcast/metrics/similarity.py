"""Metrics that compare fields window by window: structural similarity at one scale and at several.

Shapes: B batch, S lead times, C channels, H rows, W columns; K sums of a metric.
"""

import torch
from torch import Tensor

from fieldcast.metrics.metric import Metric, Yardstick, without_missing
from fieldcast.metrics.structural_similarity import (
    WINDOWS,
    WindowName,
    luminance_and_structure,
    structural_similarity,
    valid_windows,
)

FAMILY = "similarity"

# Exponents of the scales, from the finest to the coarsest; they add to 1.
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)

# Each scale halves the frame, and the window has to fit into the last.
_MULTI_SCALE_EXTENT = len(WINDOWS["gaussian"].weights) * 2 ** (len(SCALE_WEIGHTS) - 1)


def gaussian_similarity_sums(predicted: Tensor, observed: Tensor, valid: Tensor, yardstick: Yardstick) -> Tensor:
    """Sum of the similarity over Gaussian windows whose pixels are all valid, and their number: (2, S)."""
    return _similarity_sums(predicted, observed, valid, yardstick, "gaussian")


def uniform_similarity_sums(predicted: Tensor, observed: Tensor, valid: Tensor, yardstick: Yardstick) -> Tensor:
    """Sum of the similarity over uniform windows whose pixels are all valid, and their number: (2, S)."""
    return _similarity_sums(predicted, observed, valid, yardstick, "uniform")


def multi_scale_similarity_sums(predicted: Tensor, observed: Tensor, valid: Tensor, yardstick: Yardstick) -> Tensor:
    """Sum of the multi-scale similarity over frames, and the number of frames that have it: (2, S).

        mean(l cs at scale 5)^w_5 * product over scales 1 to 4 of mean(cs)^w_scale

    with means over the Gaussian windows of one frame, one channel of one sample, whose pixels are all valid. A
    mean below 0 counts as 0. From one scale to the next 2 x 2 pixels become their mean, which is valid where all
    four are; an odd last row or column is left out. A frame without a window at some scale has no similarity.

    Source: Wang, Simoncelli and Bovik (2003), Asilomar Conf. Signals, eq. (7), with the weights of its section
    3.2; as in its authors' program the last factor is the mean of the product of luminance and structure.
    """
    sums = []
    for prediction, observation, counted in zip(predicted.unbind(1), observed.unbind(1), valid.unbind(1), strict=True):
        fields = without_missing(prediction, observation, counted)
        similarity, defined = _multi_scale_similarity(*fields, counted, yardstick.data_range)
        sums.append(torch.stack([torch.where(defined, similarity, 0).sum(), defined.sum()]))
    return torch.stack(sums, 1)


def mean_similarity(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """Sum divided by number."""
    return sums[0] / sums[1]


def _similarity_sums(
    predicted: Tensor, observed: Tensor, valid: Tensor, yardstick: Yardstick, window: WindowName
) -> Tensor:
    sums = []
    # One lead time after another: what is made of all of them at once would leave the cache.
    for prediction, observation, counted in zip(predicted.unbind(1), observed.unbind(1), valid.unbind(1), strict=True):
        fields = without_missing(prediction, observation, counted)
        complete = valid_windows(counted, window)
        similarity = torch.where(complete, structural_similarity(*fields, yardstick.data_range, window), 0)
        sums.append(torch.stack([part.sum(dtype=torch.float64) for part in (similarity, complete)]))
    return torch.stack(sums, 1)


def _multi_scale_similarity(
    predicted: Tensor, observed: Tensor, valid: Tensor, data_range: float
) -> tuple[Tensor, Tensor]:
    """Similarity of frames (B, C, H, W) without NaN, and whether they have one: (B, C) both."""
    similarity = torch.ones(predicted.shape[:2], dtype=torch.float64, device=predicted.device)
    for scale, weight in enumerate(SCALE_WEIGHTS, start=1):
        luminance, structure = luminance_and_structure(predicted, observed, data_range)
        factor = luminance * structure if scale == len(SCALE_WEIGHTS) else structure
        complete = valid_windows(valid)
        number = complete.sum((-2, -1))
        mean = torch.where(complete, factor, 0).sum((-2, -1), dtype=torch.float64) / number
        similarity = similarity * mean.clamp(min=0) ** weight
        predicted, observed = (torch.nn.functional.avg_pool2d(field, 2) for field in (predicted, observed))
        valid = torch.nn.functional.avg_pool2d(valid.float(), 2) == 1
    # A window at the last scale is made of valid pixels only, so that the finer scales have windows there too.
    return similarity, number > 0


def _lacks_gaussian(yardstick: Yardstick) -> str | None:
    return _lacks_room(yardstick, len(WINDOWS["gaussian"].weights))


def _lacks_uniform(yardstick: Yardstick) -> str | None:
    return _lacks_room(yardstick, len(WINDOWS["uniform"].weights))


def _lacks_scales(yardstick: Yardstick) -> str | None:
    return _lacks_room(yardstick, _MULTI_SCALE_EXTENT)


def _lacks_room(yardstick: Yardstick, extent: int) -> str | None:
    return f"frames of {extent} x {extent} pixels" if min(yardstick.shape) < extent else None


SIMILARITY_METRICS = (
    Metric(
        "ssim",
        "structural similarity",
        FAMILY,
        "11 x 11 Gaussian window of sigma 1.5, population variances, mean over windows without a missing pixel",
        "larger",
        "1",
        gaussian_similarity_sums,
        mean_similarity,
        lacks=_lacks_gaussian,
    ),
    Metric(
        "ssim-uniform",
        "structural similarity, uniform window",
        FAMILY,
        "7 x 7 uniform window, sample variances, mean over windows without a missing pixel",
        "larger",
        "1",
        uniform_similarity_sums,
        mean_similarity,
        lacks=_lacks_uniform,
    ),
    Metric(
        "ms-ssim",
        "multi-scale structural similarity",
        FAMILY,
        "5 scales, 11 x 11 Gaussian window of sigma 1.5, factors below 0 count as 0, mean over frames",
        "larger",
        "1",
        multi_scale_similarity_sums,
        mean_similarity,
        lacks=_lacks_scales,
    ),
)
