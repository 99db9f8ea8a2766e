"""Where a kernel's weight lies at each lag, and how far that is from the place that it explains.

Shapes: T lags, H rows, W columns.
"""

import math
from typing import NamedTuple

import numpy as np

from fieldcast.data.catchments import great_circle
from fieldcast.report.contents import row_zero_is_bottom
from fieldcast.report.kernels.view import PREFIX, KernelView, is_geographic

REACH = 1e-3  # of the largest weight of a pixel: a close-up leaves out what lies below it
MARGIN = 0.15  # around a close-up, as a share of its longer side
CLOSE = 0.5  # of the map's area: a close-up that is larger is none
SMALLEST_SHARE = 0.01  # of the largest weight of a lag: below it a centre says nothing


class Ground(NamedTuple):
    """Coordinates of rows and columns, the map's first row first, and the unit of distances between them."""

    rows: np.ndarray
    columns: np.ndarray
    unit: str
    geographic: bool

    def at(self, places: np.ndarray) -> np.ndarray:
        """Coordinates (T, 2) of grid positions (T, 2) of row and column, between the grid's own by interpolation."""
        axes = (self.rows, self.columns)
        return np.stack([np.interp(places[:, axis], np.arange(len(axes[axis])), axes[axis]) for axis in (0, 1)], axis=1)

    def position(self, row: float, column: float) -> tuple[float, float] | None:
        """Grid position of coordinates; None where they lie outside the map."""
        found = [_position(axis, value) for axis, value in ((self.rows, row), (self.columns, column))]
        return (found[0], found[1]) if np.isfinite(found).all() else None

    def distances(self, places: np.ndarray, origin: tuple[float, float]) -> np.ndarray:
        """Distances (T,) of grid positions (T, 2) from coordinates."""
        known = self.at(places)
        if not self.geographic:
            return np.hypot(*(known - np.array(origin)).T)
        return great_circle(*known.T, *np.array(origin))


def _position(axis: np.ndarray, value: float) -> float:
    """Position along an axis of either direction, NaN more than half a step outside."""
    order = np.argsort(axis)
    places = np.arange(len(axis))
    if len(axis) < 2 or not np.isfinite(value):
        return np.nan
    margin = 0.5 * np.abs(np.diff(axis)).max()
    if not axis.min() - margin <= value <= axis.max() + margin:
        return np.nan
    return float(np.interp(value, axis[order], places[order]))


def ground_of(view: KernelView) -> Ground:
    """The map's coordinates: degrees, lengths, or grid steps where the file has none."""
    axes = [view.kernels[name] if name in view.kernels.coords else None for name in view.axes]
    sizes = [view.kernels.sizes[name] for name in view.axes]
    values = [
        np.arange(size, dtype=np.float64) if axis is None else np.asarray(axis.values, dtype=np.float64)
        for axis, size in zip(axes, sizes, strict=True)
    ]
    if row_zero_is_bottom(view.kernels, view.axes[0]):
        values[0] = values[0][::-1]
    geographic = is_geographic(view)
    lengths = {str(axis.attrs.get("units", "")) for axis in axes if axis is not None}
    unit = "km" if geographic else lengths.pop() if len(lengths) == 1 else ""
    return Ground(values[0], values[1], unit or "grid units", geographic)


def place_of(view: KernelView, output: str) -> tuple[float, float] | None:
    """Coordinates of an output on the map's axes, or None where it has none.

    A station has ``latitude`` and ``longitude``, a pixel ``output_ROW`` and ``output_COLUMN``.
    """
    own = tuple(f"output_{axis}" for axis in view.axes)
    pairs = [own, ("latitude", "longitude")] if ground_of(view).geographic else [own]
    for names in pairs:
        if all(name in view.kernels.coords and view.kernels[name].dims == ("output",) for name in names):
            row, column = (float(view.kernels[name].values[view.number(output)]) for name in names)
            if np.isfinite([row, column]).all():
                return row, column
    return None


def centres(maps: np.ndarray) -> np.ndarray:
    """sum |k| p / sum |k|: the centre of mass of each of the maps (T, H, W), in grid positions (T, 2) of row, column.

    NaN where the weight of a lag is below 1 % of the largest.
    """
    weights = np.nan_to_num(np.abs(maps))
    totals = weights.sum(axis=(1, 2))
    enough = (totals > 0) & (totals >= SMALLEST_SHARE * totals.max())
    rows = (weights.sum(axis=2) * np.arange(maps.shape[1])).sum(axis=1)
    columns = (weights.sum(axis=1) * np.arange(maps.shape[2])).sum(axis=1)
    found = np.full((len(maps), 2), np.nan)
    found[enough] = np.stack([rows, columns], axis=1)[enough] / totals[enough, None]
    return found


def close_up(view: KernelView, output: str) -> KernelView:
    """The part of the map where the kernel of an output has weight and where the output lies; all of it if large."""
    weight = np.sum([_weight(view, field.name, output) for field in view.fields], axis=0)
    coordinates = place_of(view, output)
    place = None if coordinates is None else ground_of(view).position(*coordinates)
    if place is not None:
        weight[round(place[0]), round(place[1])] = 1.0
    spans = [np.flatnonzero((weight >= REACH).any(axis=axis)) for axis in (1, 0)]
    if any(span.size == 0 for span in spans):
        return view
    margin = math.ceil(MARGIN * max(np.ptp(span) + 1 for span in spans)) + 1
    ends = [(max(span[0] - margin, 0), min(span[-1] + 1 + margin, size)) for span, size in zip(spans, weight.shape)]
    if math.prod(int(last - first) for first, last in ends) > CLOSE * weight.size:
        return view
    if row_zero_is_bottom(view.kernels, view.axes[0]):
        ends[0] = (weight.shape[0] - ends[0][1], weight.shape[0] - ends[0][0])
    chosen = {axis: slice(int(first), int(last)) for axis, (first, last) in zip(view.axes, ends, strict=True)}
    return KernelView(view.kernels.isel(chosen))


def _weight(view: KernelView, field: str, output: str) -> np.ndarray:
    """sum_lag |omega| of a field as a share of its largest value, (H, W)."""
    weight = np.nansum(np.abs(view.maps(PREFIX + field, output)), axis=0)
    return weight / (weight.max() or 1.0)
