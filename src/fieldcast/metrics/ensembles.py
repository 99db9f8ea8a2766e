"""Metrics of ensembles: the distribution of the members against what was observed, as sums that add up.

Shapes: M members, B batch, S lead times, C channels, H rows, W columns; T thresholds; K sums of a metric; N valid
pixels of one lead time. Members are (M, B, S, C, H, W), what was observed and its validity (B, S, C, H, W).
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from fieldcast.metrics.events import events_of, lacks_thresholds
from fieldcast.metrics.metric import Metric, Yardstick

FAMILY = "ensembles"


def crps_sums(predicted: Tensor, observed: Tensor, valid: Tensor, yardstick: Yardstick) -> Tensor:
    """Sums over valid pixels of mean_i |x_i - o| and of sum_{i<j} |x_i - x_j|, and the number of pixels: (3, S)."""
    num_members, sums = len(predicted), []
    for members, truth in _valid_pixels(predicted, observed, valid):
        distance = torch.stack([(member.double() - truth).abs().sum() for member in members]).sum() / num_members
        # The gap between two neighbours is part of the distance of each pair that it lies between. No gap is
        # negative, so nothing cancels.
        num_below = torch.arange(1, num_members, dtype=torch.float64, device=truth.device)
        apart = num_below * (num_members - num_below) @ _ascending(members).double().diff(dim=0).sum(1)
        sums.append(torch.stack([distance, apart, _number(truth)]))
    return torch.stack(sums, 1)


def continuous_ranked_probability_score(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """CRPS of the members' empirical distribution: mean |x_i - o| - sum_{i,j} |x_i - x_j| / (2 M^2).

    Gneiting and Raftery (2007), eq. 21, with X and X' drawn from the members.
    """
    return (sums[0] - sums[1] / yardstick.num_members**2) / sums[2]


def fair_continuous_ranked_probability_score(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """CRPS that doesn't depend on how many members were drawn: with 2 M (M - 1) in place of 2 M^2.

    Ferro (2014). NaN for one member.
    """
    num_members = yardstick.num_members
    return (sums[0] - sums[1] / (num_members * (num_members - 1))) / sums[2]


def brier_sums(predicted: Tensor, observed: Tensor, valid: Tensor, yardstick: Yardstick) -> Tensor:
    """Forecasts of each of the M + 1 probabilities, then those of them with the event: (2 (M + 1), T, S)."""
    return _bin_counts(predicted, observed, valid, yardstick).movedim(2, 1).flatten(0, 1)


def brier_score(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """Mean of (p - e)^2, p the share of members with the event, e 1 where it was observed and 0 elsewhere.

    Brier (1950), of one category.
    """
    numbers, events = sums.chunk(2)
    probability = _probabilities(numbers)
    return (events * (1 - probability) ** 2 + (numbers - events) * probability**2).sum(0) / numbers.sum(0)


def brier_reliability(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """Mean over forecasts of (p - share of events where p was forecast)^2: Murphy (1973), first term."""
    numbers, events = sums.chunk(2)
    distance = _probabilities(numbers) - _shares(events, numbers)
    return (numbers * distance**2).sum(0) / numbers.sum(0)


def brier_resolution(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """Mean over forecasts of (share of events where p was forecast - share of all)^2: Murphy (1973), second term."""
    numbers, events = sums.chunk(2)
    distance = _shares(events, numbers) - events.sum(0) / numbers.sum(0)
    return (numbers * distance**2).sum(0) / numbers.sum(0)


def brier_uncertainty(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """c (1 - c) with c the share of all events: Murphy (1973), third term, and the Brier score of c itself."""
    numbers, events = sums.chunk(2)
    share = events.sum(0) / numbers.sum(0)
    return share * (1 - share)


def brier_skill(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """1 - brier / uncertainty; NaN where the event was always or never observed."""
    uncertainty = brier_uncertainty(sums, yardstick)
    return torch.where(uncertainty > 0, 1 - brier_score(sums, yardstick) / uncertainty, torch.nan)


def reliability_sums(predicted: Tensor, observed: Tensor, valid: Tensor, yardstick: Yardstick) -> Tensor:
    """Forecasts of each probability, those of them with the event, and forecasts of any: (3, T, M + 1, S)."""
    numbers, events = _bin_counts(predicted, observed, valid, yardstick)
    return torch.stack([numbers, events, numbers.sum(1, keepdim=True).expand_as(numbers)])


def observed_frequency(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """Share of events where a probability was forecast; NaN where it never was."""
    return sums[1] / sums[0]


def forecast_frequency(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """Share of forecasts that are of a probability."""
    return sums[0] / sums[2]


def rank_sums(predicted: Tensor, observed: Tensor, valid: Tensor, yardstick: Yardstick) -> Tensor:
    """Observations at each rank, 1 / (ties + 1) at each of the ranks that ties span; all: (2, M + 1, S)."""
    num_ranks, sums = len(predicted) + 1, []
    rank = torch.arange(num_ranks, device=observed.device)
    num_spanned = (rank - rank[:, None] + 1).clamp(min=1)
    for members, truth in _valid_pixels(predicted, observed, valid):
        span = (members < truth).sum(0) * num_ranks + (members <= truth).sum(0)
        # By lowest and highest rank: there are far fewer spans than pixels to share out.
        shares = _counts(span, num_ranks**2, _undefined(members, truth)).view(num_ranks, num_ranks) / num_spanned
        ranks = torch.stack([shares[: place + 1, place:].sum() for place in range(num_ranks)])
        sums.append(torch.stack([ranks, _number(truth).expand(num_ranks)]))
    return torch.stack(sums, 2)


def rank_frequency(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """Share of observations at a rank: Hamill (2001)."""
    return sums[0] / sums[1]


def spread_sums(predicted: Tensor, observed: Tensor, valid: Tensor, yardstick: Yardstick) -> Tensor:
    """Sums over valid pixels of sum_i (x_i - mean)^2 and of (mean - o)^2, and the number of pixels: (3, S)."""
    sums = []
    for members, truth in _valid_pixels(predicted, observed, valid):
        mean = members.mean(0, dtype=torch.float64)
        squares = torch.stack([(member - mean).square().sum() for member in members]).sum()
        sums.append(torch.stack([squares, (mean - truth).square().sum(), _number(truth)]))
    return torch.stack(sums, 1)


def ensemble_spread(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """sqrt((M + 1) / M) times the root of the mean variance of the members, which is taken with M - 1.

    The factor makes it equal to the RMSE of the mean where the observation is one more member: Fortin et al. (2014).
    NaN for one member.
    """
    num_members = yardstick.num_members
    return ((num_members + 1) / num_members * (sums[0] / (num_members - 1)) / sums[2]).sqrt()


def ensemble_root_mean_squared_error(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """Root of the mean squared error of the ensemble mean."""
    return (sums[1] / sums[2]).sqrt()


def spread_to_skill(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """Spread divided by the RMSE of the mean; NaN where there is no error."""
    error = ensemble_root_mean_squared_error(sums, yardstick)
    return torch.where(error > 0, ensemble_spread(sums, yardstick) / error, torch.nan)


def _valid_pixels(predicted: Tensor, observed: Tensor, valid: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """For each lead time the N valid pixels of the members (M, N) and of what was observed (N,).

    One lead time after another, since copies of all at once leave the cache.
    """
    fields = predicted.flatten(3).unbind(2), observed.flatten(2).unbind(1), valid.flatten(2).unbind(1)
    for members, truth, counted in zip(*fields, strict=True):
        # index_select, since indexing with a mask takes many times as long.
        where = counted.flatten().nonzero().squeeze(1)
        yield members.flatten(1).index_select(1, where), truth.flatten().index_select(0, where)


def _number(pixels: Tensor) -> Tensor:
    return torch.tensor(len(pixels), dtype=torch.float64, device=pixels.device)


def _ascending(members: Tensor) -> Tensor:
    """Sort along the members, pixel by pixel."""
    if members.device.type != "cpu":
        return members.sort(0).values
    # Sorting many short rows takes numpy a quarter of the time that it takes torch on a CPU.
    return torch.from_numpy(np.sort(members.numpy(), axis=0))


def _bin_counts(predicted: Tensor, observed: Tensor, valid: Tensor, yardstick: Yardstick) -> Tensor:
    """Forecasts of each probability 0/M, 1/M, ..., M/M, and those of them with the event: (2, T, M + 1, S)."""
    num_bins, counts = len(predicted) + 1, []
    for members, truth in _valid_pixels(predicted, observed, valid):
        undefined = _undefined(members, truth)
        for threshold in yardstick.thresholds:
            num_with = events_of(members, threshold, yardstick).sum(0, dtype=torch.int64)
            place = num_with * 2 + events_of(truth, threshold, yardstick).long()
            counts.append(_counts(place, num_bins * 2, undefined))
    shape = (observed.shape[1], len(yardstick.thresholds), num_bins, 2)
    without, with_event = torch.stack(counts).view(shape).movedim(0, 2).unbind(-1)
    return torch.stack([without + with_event, with_event])


def _undefined(members: Tensor, truth: Tensor) -> Tensor:
    """Whether any value is NaN, which no comparison would show."""
    return members.isnan().any() | truth.isnan().any()


def _counts(place: Tensor, num_places: int, undefined: Tensor) -> Tensor:
    """Pixels at each place, or NaN."""
    return torch.bincount(place, minlength=num_places).double().masked_fill(undefined, torch.nan)


def _probabilities(numbers: Tensor) -> Tensor:
    """0/M, 1/M, ..., M/M along the first axis of (M + 1, ...)."""
    num_members = len(numbers) - 1
    shares = torch.arange(num_members + 1, dtype=numbers.dtype, device=numbers.device) / num_members
    return shares.view(-1, *[1] * (numbers.ndim - 1))


def _shares(events: Tensor, numbers: Tensor) -> Tensor:
    """Share of events in each bin, 0 in an empty one, which counts for nothing."""
    return torch.where(numbers > 0, events / numbers, 0)


def _lacks_members(yardstick: Yardstick) -> str | None:
    return None if yardstick.num_members > 1 else "2 or more members"


ENSEMBLE_METRICS = (
    Metric(
        "crps",
        "continuous ranked probability score",
        FAMILY,
        "of the members' empirical distribution, mean over valid pixels; the MAE where there is one member",
        "smaller",
        "{units}",
        crps_sums,
        continuous_ranked_probability_score,
        takes="members",
    ),
    Metric(
        "crps-fair",
        "fair continuous ranked probability score",
        FAMILY,
        "corrected for the number of members, mean over valid pixels; may be below 0",
        "smaller",
        "{units}",
        crps_sums,
        fair_continuous_ranked_probability_score,
        takes="members",
        lacks=_lacks_members,
    ),
    Metric(
        "brier",
        "Brier score",
        FAMILY,
        "mean over valid pixels of (share of members with the event - event)^2",
        "smaller",
        "1",
        brier_sums,
        brier_score,
        ("threshold",),
        "members",
        lacks_thresholds,
    ),
    Metric(
        "brier-skill",
        "Brier skill score",
        FAMILY,
        "against forecasting the share of events among all valid pixels; undefined where all or none are events",
        "larger",
        "1",
        brier_sums,
        brier_skill,
        ("threshold",),
        "members",
        lacks_thresholds,
    ),
    Metric(
        "brier-reliability",
        "reliability term of the Brier score",
        FAMILY,
        "brier = reliability - resolution + uncertainty, a bin for each probability that members can give",
        "smaller",
        "1",
        brier_sums,
        brier_reliability,
        ("threshold",),
        "members",
        lacks_thresholds,
    ),
    Metric(
        "brier-resolution",
        "resolution term of the Brier score",
        FAMILY,
        "brier = reliability - resolution + uncertainty, a bin for each probability that members can give",
        "larger",
        "1",
        brier_sums,
        brier_resolution,
        ("threshold",),
        "members",
        lacks_thresholds,
    ),
    Metric(
        "brier-uncertainty",
        "uncertainty term of the Brier score",
        FAMILY,
        "share of events times share of none: of what was observed alone",
        "none",
        "1",
        brier_sums,
        brier_uncertainty,
        ("threshold",),
        "members",
        lacks_thresholds,
    ),
    Metric(
        "reliability",
        "observed frequency of forecast probabilities",
        FAMILY,
        "share of events where the probability was forecast; undefined where it never was",
        "none",
        "1",
        reliability_sums,
        observed_frequency,
        ("threshold", "probability"),
        "members",
        lacks_thresholds,
    ),
    Metric(
        "sharpness",
        "frequency of forecast probabilities",
        FAMILY,
        "share of the forecasts that are of the probability",
        "none",
        "1",
        reliability_sums,
        forecast_frequency,
        ("threshold", "probability"),
        "members",
        lacks_thresholds,
    ),
    Metric(
        "rank-histogram",
        "rank histogram",
        FAMILY,
        "share of observations with so many members below; a tie counts in equal parts for the ranks it spans",
        "none",
        "1",
        rank_sums,
        rank_frequency,
        ("rank",),
        "members",
    ),
    Metric(
        "spread",
        "ensemble spread",
        FAMILY,
        "root of the mean variance (with M - 1) over all valid pixels, times sqrt((M + 1) / M)",
        "none",
        "{units}",
        spread_sums,
        ensemble_spread,
        takes="members",
        lacks=_lacks_members,
    ),
    Metric(
        "ensemble-rmse",
        "root mean squared error of the ensemble mean",
        FAMILY,
        "square root of the mean over all valid pixels of all samples",
        "smaller",
        "{units}",
        spread_sums,
        ensemble_root_mean_squared_error,
        takes="members",
    ),
    Metric(
        "spread-skill",
        "spread divided by the error of the ensemble mean",
        FAMILY,
        "spread / ensemble-rmse; 1 where the observation is like one more member",
        "one",
        "1",
        spread_sums,
        spread_to_skill,
        takes="members",
        lacks=_lacks_members,
    ),
)
