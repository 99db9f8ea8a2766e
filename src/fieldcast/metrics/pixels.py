"""Metrics that compare fields pixel by pixel, or the steps between neighbouring pixels, as sums that add up.

Shapes: B batch, S lead times, C channels, H rows, W columns; K sums of a metric; N = C H W pixels of a frame.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from fieldcast.metrics.metric import Metric, Yardstick, without_missing

FAMILY = "pixels"

# Far below what a forecast can resolve, far above the distance of 1 to the next float32, 6e-8.
PROBABILITY_MARGIN = 1e-6

# Rounding of float64 sums leaves a constant field a variance of this share of its mean square at most.
_ROUNDING = 1e-13


def error_sums(predicted: Tensor, observed: Tensor, valid: Tensor, yardstick: Yardstick) -> Tensor:
    """Sums of e^2, |e| and e = predicted - observed over valid pixels, and their number; of frames: (6, S).

    The last two rows are the sum of the frames' PSNR and the number of frames with a valid pixel, a frame being
    all channels of one sample at one lead time.
    """
    sums = []
    for error, counted in _errors(predicted, observed, valid):
        squares, number = torch.linalg.vecdot(error, error), counted.sum(1, dtype=torch.float64)
        decibels = torch.where(number > 0, _decibels(squares / number, yardstick), 0)
        parts = (squares, error.abs().sum(1), error.sum(1), number, decibels, number > 0)
        sums.append(torch.stack([part.sum(dtype=torch.float64) for part in parts]))
    return torch.stack(sums, 1)


def mean_squared_error(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """Sum of e^2 divided by the number."""
    return sums[0] / sums[3]


def mean_absolute_error(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """Sum of |e| divided by the number."""
    return sums[1] / sums[3]


def root_mean_squared_error(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """Square root of the mean of e^2."""
    return mean_squared_error(sums, yardstick).sqrt()


def mean_error(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """Sum of e divided by the number."""
    return sums[2] / sums[3]


def peak_signal_to_noise(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """10 log10(data_range^2 / MSE) of the pooled MSE, in dB; infinite where there is no error."""
    return _decibels(mean_squared_error(sums, yardstick), yardstick)


def frame_signal_to_noise(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """Mean over frames of 10 log10(data_range^2 / MSE of the frame), in dB; infinite if one frame has no error.

    Source: OpenSTL, ``openstl/core/metrics.py``.
    """
    return sums[4] / sums[5]


def batch_signal_to_noise_sums(predicted: Tensor, observed: Tensor, valid: Tensor, yardstick: Yardstick) -> Tensor:
    """PSNR of the MSE over the samples of this call, and 1 where a pixel was valid: (2, S).

    A call is a batch: of all sums these alone depend on how samples are put into batches, and are not those of
    the whole added up from its parts. They are here to compare with numbers that were made so.

    Source: thesis, chapter 5, whose tables have the mean over batches.
    """
    squares = [
        torch.stack([torch.linalg.vecdot(error, error).sum(), _number(counted)])
        for error, counted in _errors(predicted, observed, valid)
    ]
    total, number = torch.stack(squares, 1)
    decibels = _decibels(total / number, yardstick)
    return torch.stack([torch.where(number > 0, decibels, 0), (number > 0).double()])


def product_sums(predicted: Tensor, observed: Tensor, valid: Tensor, yardstick: Yardstick) -> Tensor:
    """Number of valid pixels, and over them the sums of p, o, p^2, o^2 and p o: (6, S)."""
    sums = []
    for fields in _lead_times(predicted, observed, valid):
        p, o = (field.double().flatten() for field in without_missing(*fields))
        parts = (_number(fields[2]), p.sum(), o.sum(), torch.dot(p, p), torch.dot(o, o), torch.dot(p, o))
        sums.append(torch.stack(parts))
    return torch.stack(sums, 1)


def correlation(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """Pearson's correlation, (E[po] - E[p] E[o]) / (sd(p) sd(o)); NaN where either field is constant."""
    p, o, pp, oo, po = sums[1:] / sums[0]
    variance_p, variance_o = pp - p.square(), oo - o.square()
    constant = (variance_p <= _ROUNDING * pp) | (variance_o <= _ROUNDING * oo)
    result = ((po - p * o) / (variance_p * variance_o).sqrt()).clamp(-1, 1)
    return torch.where(constant, torch.nan, result)


def cross_entropy_sums(predicted: Tensor, observed: Tensor, valid: Tensor, yardstick: Yardstick) -> Tensor:
    """Sum of the Bernoulli cross entropy over valid pixels, in nats, and their number: (2, S).

        -(o log p + (1 - o) log(1 - p)), with p kept within [1e-6, 1 - 1e-6]

    An observed value o outside [0, 1] has none: it makes its lead time NaN, but for values within 1e-6 of the
    bounds, which rounding may have put there and which count as the bound.
    """
    # log1p(-p) of p = 1 - 1e-6 rounded to float32 is off by 1 %; the bounds of the logarithm are not.
    bounds = math.log(PROBABILITY_MARGIN), math.log1p(-PROBABILITY_MARGIN)
    sums = []
    for fields in _lead_times(predicted, observed, valid):
        probability, observation = without_missing(*fields)
        target, probability = observation.clamp(0, 1), probability.clamp(0, 1)
        log_yes, log_no = probability.log().clamp_(*bounds), torch.log1p(-probability).clamp_(*bounds)
        entropy = -torch.lerp(log_no, log_yes, target)
        defined = (observation - target).abs_() <= PROBABILITY_MARGIN
        total = torch.where(fields[2], torch.where(defined, entropy, torch.nan), 0).sum(dtype=torch.float64)
        sums.append(torch.stack([total, _number(fields[2])]))
    return torch.stack(sums, 1)


def gradient_difference_sums(predicted: Tensor, observed: Tensor, valid: Tensor, yardstick: Yardstick) -> Tensor:
    """Sum of ||do| - |dp|| over pairs of valid neighbours in rows and in columns, and their number: (2, S).

    Source: Mathieu, Couprie and LeCun (2016), arXiv:1511.05440, eq. (6) with the exponent 1.
    """
    sums = []
    for prediction, observation, counted in _lead_times(predicted, observed, valid):
        fields = without_missing(prediction, observation, counted)
        sums.append(_step_error_sums(*fields, counted, -2) + _step_error_sums(*fields, counted, -1))
    return torch.stack(sums, 1)


def mean_of_sum(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """Sum divided by number."""
    return sums[0] / sums[1]


def _decibels(squared_error: Tensor, yardstick: Yardstick) -> Tensor:
    return 10 * torch.log10(yardstick.data_range**2 / squared_error)


def _errors(predicted: Tensor, observed: Tensor, valid: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """For each lead time the float64 errors (B, N), 0 where not valid, and the validity."""
    for prediction, observation, counted in _lead_times(predicted, observed, valid):
        yield torch.where(counted, prediction.double() - observation, 0).flatten(1), counted.flatten(1)


def _lead_times(predicted: Tensor, observed: Tensor, valid: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The fields of one lead time after another: what is made of all of them at once would leave the cache."""
    return zip(predicted.unbind(1), observed.unbind(1), valid.unbind(1), strict=True)


def _number(valid: Tensor) -> Tensor:
    """How many pixels are valid, in float64."""
    return valid.sum(dtype=torch.float64)


def _step_error_sums(predicted: Tensor, observed: Tensor, valid: Tensor, axis: int) -> Tensor:
    """Sum of the differences between the sizes of steps along an axis, and their number: (2,)."""
    valid_before, valid_after = _pairs(valid, axis)
    counted = valid_before & valid_after
    predicted_step, observed_step = (
        (after - before).abs_() for before, after in (_pairs(predicted, axis), _pairs(observed, axis))
    )
    difference = torch.where(counted, observed_step.sub_(predicted_step).abs_(), 0)
    return torch.stack([difference.sum(dtype=torch.float64), _number(counted)])


def _pairs(field: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Each pixel that has a successor along the axis, and this successor."""
    length = field.shape[axis] - 1
    return field.narrow(axis, 0, length), field.narrow(axis, 1, length)


def _lacks_probabilities(yardstick: Yardstick) -> str | None:
    return None if yardstick.units == "1" and yardstick.data_range == 1 else "values in [0, 1]"


def _lacks_neighbours(yardstick: Yardstick) -> str | None:
    return "frames of more than one pixel" if yardstick.shape == (1, 1) else None


PIXEL_METRICS = (
    Metric(
        "mse",
        "mean squared error",
        FAMILY,
        "mean over valid pixels",
        "smaller",
        "({units})^2",
        error_sums,
        mean_squared_error,
    ),
    Metric(
        "mae",
        "mean absolute error",
        FAMILY,
        "mean over valid pixels",
        "smaller",
        "{units}",
        error_sums,
        mean_absolute_error,
    ),
    Metric(
        "rmse",
        "root mean squared error",
        FAMILY,
        "square root of the mean over all valid pixels of all samples",
        "smaller",
        "{units}",
        error_sums,
        root_mean_squared_error,
    ),
    Metric(
        "bias",
        "mean error",
        FAMILY,
        "mean over valid pixels of predicted - observed",
        "zero",
        "{units}",
        error_sums,
        mean_error,
    ),
    Metric(
        "psnr",
        "peak signal-to-noise ratio",
        FAMILY,
        "10 log10(data range^2 / MSE), of the MSE over all samples, not a mean over frames",
        "larger",
        "dB",
        error_sums,
        peak_signal_to_noise,
    ),
    Metric(
        "psnr-frame",
        "peak signal-to-noise ratio, mean over frames",
        FAMILY,
        "10 log10(data range^2 / MSE of a frame), mean over frames; infinite if one frame has no error",
        "larger",
        "dB",
        error_sums,
        frame_signal_to_noise,
    ),
    Metric(
        "psnr-batch",
        "peak signal-to-noise ratio, mean over batches",
        FAMILY,
        "10 log10(data range^2 / MSE of a batch), mean over batches; depends on the batch size",
        "larger",
        "dB",
        batch_signal_to_noise_sums,
        mean_of_sum,
    ),
    Metric(
        "correlation",
        "Pearson correlation",
        FAMILY,
        "over all valid pixels of all samples together",
        "larger",
        "1",
        product_sums,
        correlation,
    ),
    Metric(
        "cross-entropy",
        "Bernoulli cross entropy",
        FAMILY,
        "mean over valid pixels, in nats, probabilities within [1e-6, 1 - 1e-6]",
        "smaller",
        "nat",
        cross_entropy_sums,
        mean_of_sum,
        lacks=_lacks_probabilities,
    ),
    Metric(
        "gdl",
        "gradient difference loss",
        FAMILY,
        "exponent 1, mean over pairs of valid neighbours in rows and columns",
        "smaller",
        "{units}",
        gradient_difference_sums,
        mean_of_sum,
        lacks=_lacks_neighbours,
    ),
)
