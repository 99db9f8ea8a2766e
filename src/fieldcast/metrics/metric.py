"""What a metric is: sums that add, the score made of them, and what it has to know of the field it measures.

Shapes: B batch, S lead times, C channels, H rows, W columns, R stations, M members; K sums of a metric; D further
dimensions of a score, such as thresholds.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Orientation = Literal["smaller", "larger", "zero", "one", "none"]


class Yardstick(NamedTuple):
    """What scores of one field are measured with.

    Attributes:
        units: of the field.
        data_range: largest minus smallest value that the data can take, in these units.
        shape: (H, W) of a frame.
        thresholds: at which events begin, ascending, in these units.
        weights: of the classes between thresholds, one more than there are thresholds.
        scales: widths of neighbourhoods in pixels, odd.
        event: whether an event is a value at or above its threshold, or one below it.
        num_members: M of an ensemble.
        stations: names of the R stations of a river model.
    """

    units: str = "1"
    data_range: float = 1.0
    shape: tuple[int, int] = (1, 1)
    thresholds: tuple[float, ...] = ()
    weights: tuple[float, ...] = ()
    scales: tuple[int, ...] = ()
    event: Literal["at-or-above", "below"] = "at-or-above"
    num_members: int = 1
    stations: tuple[str, ...] = ()


Sums = Callable[[Tensor, Tensor, Tensor, Yardstick], Tensor]


def always(yardstick: Yardstick) -> str | None:
    """A metric that every field can have."""
    return None


class Metric(NamedTuple):
    """A score made of sums that add over samples, lead times and processes.

    ``sums(predicted, observed, valid, yardstick)`` takes fields, of which those pixels count where ``valid`` is
    True, and gives float64 (K, *D, S), added over everything but lead times. ``takes`` says what it compares with
    ``observed`` (B, S, C, H, W): "fields" of that shape, or "members" (M, B, S, C, H, W); or "stations", series
    (B, S, C, R) both. Metrics that name the same function of sums share them: it is computed once.

    ``score(sums, yardstick)`` takes (K, ...) and gives (...): NaN where it is not defined, as where nothing was
    valid. It may be handed sums of one lead time, of all added up, or of resampled blocks.

    ``orientation`` says which score is better: the smaller, the larger, the one nearer to zero or to one; "none"
    is a description, not a score. ``units`` is a template for the units of the field:
    ``metric.units.format(units="mm/h")``. ``dimensions`` are the names of D, keys of ``DIMENSIONS``. ``lacks``
    says why a field can't have this score ("no thresholds"), or None.
    """

    name: str
    long_name: str
    family: str
    convention: str
    orientation: Orientation
    units: str
    sums: Sums
    score: Callable[[Tensor, Yardstick], Tensor]
    dimensions: tuple[str, ...] = ()
    takes: Literal["fields", "members", "stations"] = "fields"
    lacks: Callable[[Yardstick], str | None] = always


def num_wavenumbers(shape: tuple[int, int]) -> int:
    """Rings of a radially averaged spectrum, one per cycle along the longer side, up to half a cycle per pixel."""
    return max(shape) // 2 + 1


# What the further dimensions of scores are, and the coordinate along each.
DIMENSIONS: dict[str, tuple[str, Callable[[Yardstick], list[float] | list[str]]]] = {
    "threshold": ("threshold of the event, in the field's units", lambda yardstick: list(yardstick.thresholds)),
    "scale": ("width of the neighbourhood in pixels", lambda yardstick: [float(s) for s in yardstick.scales]),
    "wavenumber": (
        "cycles per pixel",
        lambda yardstick: [k / max(yardstick.shape) for k in range(num_wavenumbers(yardstick.shape))],
    ),
    "probability": (
        "forecast probability",
        lambda yardstick: [m / yardstick.num_members for m in range(yardstick.num_members + 1)],
    ),
    "rank": ("members below the observation", lambda yardstick: [float(m) for m in range(yardstick.num_members + 1)]),
    "station": ("station of a river", lambda yardstick: list(yardstick.stations)),
}


def per_lead_time(values: Tensor) -> Tensor:
    """Add (B, S, ...) over all but the second axis, in float64: (S,)."""
    return values.transpose(0, 1).flatten(1).sum(1, dtype=torch.float64)


def without_missing(predicted: Tensor, observed: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Both fields with 0 where ``valid`` is False, since NaN times 0 is NaN."""
    return torch.where(valid, predicted, 0), torch.where(valid, observed, 0)
