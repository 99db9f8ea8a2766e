"""Metrics of rivers: the flow at stations against what was observed, as sums that add up, each station apart.

Shapes: B batch, S lead times, C channels, R stations; K sums of a metric. Series are (B, S, C, R).
"""

import torch
from torch import Tensor

from fieldcast.metrics.metric import Metric, Yardstick, without_missing

FAMILY = "rivers"

# A sum of squares about the mean is a difference of two sums, which float64 leaves uncertain by about 1e-16 of the
# larger and by more where many batches were added. Below this share of it flow counts as constant: a standard
# deviation of less than 1e-5 of the root mean square.
CONSTANT = 1e-10


def flow_sums(predicted: Tensor, observed: Tensor, valid: Tensor, yardstick: Yardstick) -> Tensor:
    """Number of valid pairs, sums of p, o, p^2, o^2, p o and (p - o)^2: (7, R, S)."""
    predicted, observed = (flow.double() for flow in without_missing(predicted, observed, valid))
    return _moment_sums(predicted, observed, valid)


def log_flow_sums(predicted: Tensor, observed: Tensor, valid: Tensor, yardstick: Yardstick) -> Tensor:
    """``flow_sums`` of the logarithms where both flows are above 0, and the number of all valid pairs: (8, R, S)."""
    # Not "above 0" but "not at or below 0": a forecast of NaN is no dry river, and shall make the score NaN.
    wet = valid & ~((predicted <= 0) | (observed <= 0))
    predicted, observed = (torch.where(wet, flow, 1).double().log() for flow in (predicted, observed))
    return torch.cat([_moment_sums(predicted, observed, wet), _per_station(valid)[None]])


def _moment_sums(predicted: Tensor, observed: Tensor, valid: Tensor) -> Tensor:
    products = (predicted.square(), observed.square(), predicted * observed, (predicted - observed).square())
    return torch.stack([_per_station(part) for part in (valid, predicted, observed, *products)])


def nash_sutcliffe(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """1 - sum (p - o)^2 / sum (o - mean o)^2: Nash and Sutcliffe (1970). NaN where the observed flow is constant."""
    return 1 - _ratio(sums[6], _centred(sums[4], sums[2], sums[0]))


def positive_share(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """Share of valid pairs of which both flows are above 0."""
    return sums[0] / sums[7]


def correlation(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """Pearson's r of predicted and observed flow; NaN where either is constant."""
    number, predicted, observed = sums[0], sums[1], sums[2]
    covariance = sums[5] - predicted * observed / number
    variances = _centred(sums[3], predicted, number) * _centred(sums[4], observed, number)
    return _ratio(covariance, variances.sqrt())


def variability(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """Alpha: standard deviation of the predicted flow divided by that of the observed."""
    number, predicted, observed = sums[0], sums[1], sums[2]
    return _ratio(_centred(sums[3], predicted, number), _centred(sums[4], observed, number)).sqrt()


def bias_ratio(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """Beta: mean of the predicted flow divided by that of the observed."""
    return _ratio(sums[1], sums[2])


def relative_variability(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """Gamma: coefficient of variation of the predicted flow divided by that of the observed, alpha / beta."""
    return _ratio(variability(sums, yardstick), bias_ratio(sums, yardstick))


def kling_gupta(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """1 - sqrt((r - 1)^2 + (alpha - 1)^2 + (beta - 1)^2): Gupta et al. (2009), eq. 9 and 10."""
    return _kling_gupta(sums, yardstick, variability(sums, yardstick))


def modified_kling_gupta(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """1 - sqrt((r - 1)^2 + (gamma - 1)^2 + (beta - 1)^2): Kling et al. (2012)."""
    return _kling_gupta(sums, yardstick, relative_variability(sums, yardstick))


def _kling_gupta(sums: Tensor, yardstick: Yardstick, ratio: Tensor) -> Tensor:
    parts = (correlation(sums, yardstick), ratio, bias_ratio(sums, yardstick))
    return 1 - torch.stack([(part - 1).square() for part in parts]).sum(0).sqrt()


def percent_bias(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """100 sum (p - o) / sum o, in percent; NaN where the observed flows add up to 0."""
    return 100 * _ratio(sums[1] - sums[2], sums[2])


def peak_timing_sums(predicted: Tensor, observed: Tensor, valid: Tensor, yardstick: Yardstick) -> Tensor:
    """Sum of |steps between predicted and observed peak| and number of peaks, at the observed peak's lead: (2, R, S).

    A peak is the first largest value of a sample's hydrograph without a missing value, above its first and last one:
    a largest value at either end may be the flank of a flood that came before or comes after.
    """
    predicted, observed = without_missing(predicted, observed, valid)
    highest, ends = observed.amax(1), torch.maximum(observed[:, 0], observed[:, -1])
    peak = observed.argmax(1, keepdim=True)
    # The place of the largest of values with NaN is that of the NaN: nowhere.
    nowhere = predicted.isnan().any(1, keepdim=True)
    steps = (predicted.argmax(1, keepdim=True) - peak).abs().double().masked_fill(nowhere, torch.nan)
    lead = torch.arange(observed.shape[1], device=observed.device).view(-1, 1, 1)
    at_peak = (lead == peak) & (valid.all(1) & (highest > ends))[:, None]
    return torch.stack([_per_station(torch.where(at_peak, steps, 0)), _per_station(at_peak)])


def mean_peak_timing(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """Mean over the peaks; NaN where there is none."""
    return sums[0] / sums[1]


def _per_station(values: Tensor) -> Tensor:
    """Add (B, S, C, R) over samples and channels, in float64: (R, S)."""
    return values.sum((0, 2), dtype=torch.float64).transpose(0, 1)


def _centred(squares: Tensor, total: Tensor, number: Tensor) -> Tensor:
    """Sum of squares about the mean; 0 where rounding may be all there is of it."""
    centred = squares - total.square() / number
    return torch.where(centred <= CONSTANT * squares, 0, centred)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Divide; NaN where the divisor is 0."""
    return torch.where(whole != 0, part / whole, torch.nan)


RIVER_METRICS = (
    Metric(
        "nse",
        "Nash-Sutcliffe efficiency",
        FAMILY,
        "1 - squared error / variance of the observed flow, of all valid values of a station",
        "larger",
        "1",
        flow_sums,
        nash_sutcliffe,
        ("station",),
        "stations",
    ),
    Metric(
        "log-nse",
        "Nash-Sutcliffe efficiency of the logarithm of flow",
        FAMILY,
        "of the values at which predicted and observed flow are above 0; nothing is added before the logarithm",
        "larger",
        "1",
        log_flow_sums,
        nash_sutcliffe,
        ("station",),
        "stations",
    ),
    Metric(
        "log-nse-share",
        "share of values that the efficiency of the logarithm is made of",
        FAMILY,
        "valid values at which predicted and observed flow are above 0, divided by all valid values",
        "none",
        "1",
        log_flow_sums,
        positive_share,
        ("station",),
        "stations",
    ),
    Metric(
        "kge",
        "Kling-Gupta efficiency (2009)",
        FAMILY,
        "1 - distance of (correlation, ratio of standard deviations, ratio of means) from (1, 1, 1)",
        "larger",
        "1",
        flow_sums,
        kling_gupta,
        ("station",),
        "stations",
    ),
    Metric(
        "kge-2012",
        "Kling-Gupta efficiency (2012)",
        FAMILY,
        "1 - distance of (correlation, ratio of coefficients of variation, ratio of means) from (1, 1, 1)",
        "larger",
        "1",
        flow_sums,
        modified_kling_gupta,
        ("station",),
        "stations",
    ),
    Metric(
        "kge-correlation",
        "correlation in the Kling-Gupta efficiency",
        FAMILY,
        "Pearson's r of predicted and observed flow",
        "larger",
        "1",
        flow_sums,
        correlation,
        ("station",),
        "stations",
    ),
    Metric(
        "kge-variability",
        "variability ratio in the Kling-Gupta efficiency (2009)",
        FAMILY,
        "standard deviation of predicted divided by that of observed flow",
        "one",
        "1",
        flow_sums,
        variability,
        ("station",),
        "stations",
    ),
    Metric(
        "kge-variability-2012",
        "variability ratio in the Kling-Gupta efficiency (2012)",
        FAMILY,
        "coefficient of variation of predicted divided by that of observed flow",
        "one",
        "1",
        flow_sums,
        relative_variability,
        ("station",),
        "stations",
    ),
    Metric(
        "kge-bias",
        "bias ratio in the Kling-Gupta efficiency",
        FAMILY,
        "mean of predicted divided by that of observed flow",
        "one",
        "1",
        flow_sums,
        bias_ratio,
        ("station",),
        "stations",
    ),
    Metric(
        "percent-bias",
        "percent bias",
        FAMILY,
        "100 sum(predicted - observed) / sum(observed); above 0 is too much water",
        "zero",
        "%",
        flow_sums,
        percent_bias,
        ("station",),
        "stations",
    ),
    Metric(
        "peak-timing",
        "mean absolute error of the peak's time",
        FAMILY,
        "between largest predicted and observed value of a sample, counted at the observed peak's lead time; samples "
        "with missing values or with their largest observed value at the first or last lead time are left out",
        "smaller",
        "lead times",
        peak_timing_sums,
        mean_peak_timing,
        ("station",),
        "stations",
    ),
)
