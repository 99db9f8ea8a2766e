"""Metrics that compare events, values that reach a threshold, in contingency tables.

Shapes: B batch, S lead times, C channels, H rows, W columns; K sums of a metric; N thresholds.

The formulas write H for hits, M for misses, F for false alarms, R for correct negatives ("rejections") and n for
their sum. Sources: Jolliffe and Stephenson (2012), Forecast Verification, 2nd ed., chapter 3; Wilks (2011),
Statistical Methods in the Atmospheric Sciences, 3rd ed., sections 8.2.2 and 8.2.3; the names are those of the
WWRP/WGNE Joint Working Group on Forecast Verification Research of the WMO.
"""

import torch
from torch import Tensor

from fieldcast.metrics.metric import Metric, Yardstick

FAMILY = "events"


def contingency_sums(predicted: Tensor, observed: Tensor, valid: Tensor, yardstick: Yardstick) -> Tensor:
    """Numbers of hits, misses, false alarms and correct negatives among valid pixels: (4, N, S).

    An event is a value >= threshold, or < threshold where ``yardstick.event`` is "below". Each field is compared
    in its own dtype with the threshold rounded to that dtype, so that a float32 0.1 reaches the threshold 0.1, which
    no float32 number equals. A valid pixel that is NaN in either field makes its lead time NaN.
    """
    num_classes = len(yardstick.thresholds) + 2
    forecast, event = (classes(field, yardstick.thresholds) for field in (predicted, observed))
    num_leads = valid.shape[1]
    leads = torch.arange(num_leads, dtype=torch.int32, device=valid.device).view(-1, *[1] * (valid.ndim - 2))
    # Bin 0 takes the missing pixels: to multiply is faster than to select.
    bins = forecast.mul_(num_classes).add_(event).add_(leads * num_classes**2 + 1).mul_(valid)
    counts = torch.bincount(bins.flatten(), minlength=num_leads * num_classes**2 + 1)[1:].double()
    table = counts.view(num_leads, num_classes, num_classes)
    undefined = (table[:, -1].sum(1) + table[:, :, -1].sum(1)) > 0
    sums = _contingencies(table[:, :-1, :-1]).masked_fill(undefined, torch.nan)
    # Without "at or above", hits and correct negatives change places, and so do misses and false alarms.
    return sums.flip(0) if yardstick.event == "below" else sums


def classes(field: Tensor, thresholds: tuple[float, ...]) -> Tensor:
    """How many thresholds each value reaches, 0 to N, and N + 1 for NaN: int32 of the field's shape."""
    # Comparisons beat the binary search of torch.bucketize threefold for a handful of thresholds, and those that
    # write into the field's dtype beat those that write bool.
    reaches = torch.empty_like(field)
    reached = torch.ne(field, field, out=reaches) * (len(thresholds) + 1)
    for threshold in torch.tensor(thresholds, dtype=field.dtype, device=field.device):
        reached += torch.ge(field, threshold, out=reaches)
    return reached.int()


def events_of(field: Tensor, threshold: float, yardstick: Yardstick) -> Tensor:
    """1 where there is an event, as ``contingency_sums`` says, 0 elsewhere; of the field's dtype, faster than bool."""
    compare = torch.lt if yardstick.event == "below" else torch.ge
    limit = torch.tensor(threshold, dtype=field.dtype, device=field.device)
    return compare(field, limit, out=torch.empty_like(field))


def _contingencies(table: Tensor) -> Tensor:
    """Contingencies at every threshold (4, N, S), from the numbers per class predicted and observed (S, N+1, N+1)."""
    at_or_above = table.flip(1, 2).cumsum(1).cumsum(2).flip(1, 2)
    hits = at_or_above.diagonal(dim1=1, dim2=2)[:, 1:]
    misses = at_or_above[:, 0, 1:] - hits
    false_alarms = at_or_above[:, 1:, 0] - hits
    correct_negatives = at_or_above[:, :1, 0] - hits - misses - false_alarms
    return torch.stack([hits, misses, false_alarms, correct_negatives]).transpose(1, 2)


def probability_of_detection(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """H / (H + M): the share of observed events that were forecast; NaN without observed events."""
    hits, misses, _, _ = sums
    return hits / (hits + misses)


def false_alarm_ratio(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """F / (H + F): the share of forecast events that were not observed; NaN without forecast events."""
    hits, _, false_alarms, _ = sums
    return false_alarms / (hits + false_alarms)


def critical_success_index(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """H / (H + M + F), or threat score: NaN with neither observed nor forecast events, 0 with only one of them."""
    hits, misses, false_alarms, _ = sums
    return hits / (hits + misses + false_alarms)


def gilbert_skill_score(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """CSI less the hits H_r = (H + M) (H + F) / n of a random forecast: (H - H_r) / (H + M + F - H_r).

    Multiplied by n it needs no H_r, and its 0 / 0 are exact: (H R - M F) / (n (M + F) + H R - M F). NaN where all
    pixels are events or none is, forecast and observed alike; 0 where either is constant and the other is not.
    """
    covariance, errors = _covariance_and_errors(sums)
    return covariance / (errors + covariance)


def heidke_skill_score(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """Share of correct forecasts against a random forecast's: 2 (H R - M F) / ((H + M) (M + R) + (H + F) (F + R)).

    The denominator is n (M + F) + 2 (H R - M F), so HSS = 2 GSS / (1 + GSS), undefined at the same places.
    """
    covariance, errors = _covariance_and_errors(sums)
    return 2 * covariance / (errors + 2 * covariance)


def _covariance_and_errors(sums: Tensor) -> tuple[Tensor, Tensor]:
    """H R - M F and n (M + F)."""
    hits, misses, false_alarms, correct_negatives = sums
    return hits * correct_negatives - misses * false_alarms, sums.sum(0) * (misses + false_alarms)


def frequency_bias(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """(H + F) / (H + M): forecast events per observed event; NaN without observed events, never infinite."""
    hits, misses, false_alarms, _ = sums
    return torch.where(hits + misses > 0, (hits + false_alarms) / (hits + misses), torch.nan)


def number_of_events(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """H + M: observed events; NaN where nothing was valid."""
    hits, misses, _, _ = sums
    return torch.where(sums.sum(0) > 0, hits + misses, torch.nan)


def lacks_thresholds(yardstick: Yardstick) -> str | None:
    """What a field without thresholds has no events for."""
    return None if yardstick.thresholds else "thresholds"


_EVENTS = "events at or above the threshold (or below, where the field says so)"

EVENT_METRICS = (
    Metric(
        "pod",
        "probability of detection",
        FAMILY,
        f"share of the observed events that were forecast; {_EVENTS}, over all valid pixels of all samples",
        "larger",
        "1",
        contingency_sums,
        probability_of_detection,
        dimensions=("threshold",),
        lacks=lacks_thresholds,
    ),
    Metric(
        "far",
        "false alarm ratio",
        FAMILY,
        f"share of the forecast events that were not observed; {_EVENTS}, over all valid pixels of all samples",
        "smaller",
        "1",
        contingency_sums,
        false_alarm_ratio,
        dimensions=("threshold",),
        lacks=lacks_thresholds,
    ),
    Metric(
        "csi",
        "critical success index",
        FAMILY,
        f"hits per hit, miss or false alarm; {_EVENTS}, over all valid pixels of all samples",
        "larger",
        "1",
        contingency_sums,
        critical_success_index,
        dimensions=("threshold",),
        lacks=lacks_thresholds,
    ),
    Metric(
        "gss",
        "Gilbert skill score (equitable threat score)",
        FAMILY,
        f"critical success index without the hits of chance; {_EVENTS}, over all valid pixels of all samples",
        "larger",
        "1",
        contingency_sums,
        gilbert_skill_score,
        dimensions=("threshold",),
        lacks=lacks_thresholds,
    ),
    Metric(
        "hss",
        "Heidke skill score",
        FAMILY,
        f"share correct against that of chance; {_EVENTS}, over all valid pixels of all samples",
        "larger",
        "1",
        contingency_sums,
        heidke_skill_score,
        dimensions=("threshold",),
        lacks=lacks_thresholds,
    ),
    Metric(
        "frequency-bias",
        "frequency bias",
        FAMILY,
        f"forecast events per observed event; {_EVENTS}, over all valid pixels of all samples",
        "one",
        "1",
        contingency_sums,
        frequency_bias,
        dimensions=("threshold",),
        lacks=lacks_thresholds,
    ),
    Metric(
        "num-events",
        "number of observed events",
        FAMILY,
        f"pixels; {_EVENTS}, over all valid pixels of all samples",
        "none",
        "1",
        contingency_sums,
        number_of_events,
        dimensions=("threshold",),
        lacks=lacks_thresholds,
    ),
)
