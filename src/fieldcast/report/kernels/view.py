"""The kernel file as the page reads it: fields, grid, and sums over lag and space.

Shapes: Q outputs, T lags, H rows, W columns; the first row is the one that stands at the top of a map.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import xarray as xr

from fieldcast.errors import DataError
from fieldcast.lead_times import lead_labels, lead_unit
from fieldcast.report.contents import row_zero_is_bottom, units_label
from fieldcast.report.wording import number_label

PREFIX = "kernel_"
ATTRIBUTIONS = {
    "contribution": "contribution",
    "integrated_gradients": "integrated gradients",
    "occlusion": "occlusion",
}
MAX_LAG_MAPS = 40  # more lags than this are summed in groups
# Names of an axis of degrees, its units, and the letters of its two directions.
GEOGRAPHIC = (
    (("latitude", "lat"), ("degrees_north", "degree_north"), "NS"),
    (("longitude", "lon"), ("degrees_east", "degree_east"), "EW"),
)


class Field(NamedTuple):
    """An input field: its name in the file, what the page calls it, and the units of its kernel."""

    name: str
    label: str
    units: str


class LagGroups(NamedTuple):
    """Neighbouring lags that are shown as one map: where each group starts, and what it is called."""

    starts: np.ndarray
    labels: list[str]


@dataclass(frozen=True)
class KernelView:
    """A kernel file, checked.

    Raises:
        DataError: where it has no kernel, or one of other dimensions than (output, lag, row, column).
    """

    kernels: xr.Dataset

    def __post_init__(self) -> None:
        if not self.fields:
            raise DataError(f"the kernel file has no variable '{PREFIX}FIELD', only {list(self.kernels.data_vars)}")
        for field in self.fields:
            dimensions = self.kernels[PREFIX + field.name].dims
            if len(dimensions) != 4 or dimensions[:2] != ("output", "lag") or dimensions[2:] != self.axes:
                wanted = ("output", "lag", *self.axes)
                raise DataError(f"'{PREFIX}{field.name}' has dimensions {dimensions}: transpose to {wanted}")

    @cached_property
    def fields(self) -> list[Field]:
        """The input fields, in the order of the file."""
        names = [str(name).removeprefix(PREFIX) for name in self.kernels.data_vars if str(name).startswith(PREFIX)]
        errors = {f"error_{name}" for name in names}
        return [self._field(name) for name in names if name not in errors]

    def _field(self, name: str) -> Field:
        attributes = self.kernels[PREFIX + name].attrs
        label = str(attributes.get("field", name)).replace("_", " ")
        return Field(name, label, str(attributes.get("units", "")))

    @cached_property
    def axes(self) -> tuple[str, str]:
        """Names of the row and the column axis."""
        row, column = self.kernels[PREFIX + self.fields[0].name].dims[-2:]
        return str(row), str(column)

    @cached_property
    def outputs(self) -> list[str]:
        """Names of the outputs, sorted."""
        return sorted(str(name) for name in self.kernels["output"].values)

    def number(self, output: str) -> int:
        """Where an output stands in the file.

        Raises:
            DataError: for one that is not there.
        """
        names = [str(name) for name in self.kernels["output"].values]
        if output not in names:
            raise DataError(f"the kernel file has no output '{output}': it has {', '.join(names[:10])}")
        return names.index(output)

    def text(self, name: str, output: str) -> str:
        """A label of an output, "" where the file has none."""
        return str(self.kernels[name].values[self.number(output)]) if name in self.kernels.coords else ""

    def heading(self, output: str) -> str:
        """The output's name with its title, and its lead time where that is not 0."""
        lead = ""
        if "lead_time" in self.kernels.coords:
            value = self.kernels["lead_time"].values[self.number(output)]
            lead = lead_labels(np.atleast_1d(value))[0] if value else ""
        return ", ".join(dict.fromkeys(word for word in (output, self.text("title", output), lead) if word))

    def maps(self, variable: str, output: str) -> np.ndarray:
        """A variable (output, lag, row, column) of one output, the top row first, (T, H, W)."""
        values = self.kernels[variable].isel(output=self.number(output)).values.astype(np.float64)
        return values[:, ::-1] if row_zero_is_bottom(self.kernels[variable], self.axes[0]) else values

    def kernel(self, field: Field, output: str) -> np.ndarray:
        """The kernel of a field, (T, H, W)."""
        return self.maps(PREFIX + field.name, output)

    def attributions(self, field: Field) -> dict[str, str]:
        """Names in words of the attributions that a field has, and their variables."""
        found = {words: f"{name}_{field.name}" for name, words in ATTRIBUTIONS.items()}
        return {words: variable for words, variable in found.items() if variable in self.kernels.data_vars}

    def curve_error(self, field: Field, output: str) -> np.ndarray | None:
        """Standard error of the lag curve (T,), where the file has it: that of a sum is no sum of errors."""
        variable = f"lag_curve_error_{field.name}"
        if variable not in self.kernels.data_vars:
            return None
        return self.kernels[variable].isel(output=self.number(output)).values.astype(np.float64)

    @cached_property
    def output_units(self) -> str:
        """Units of the outputs, as their value has them."""
        return str(self.kernels["value"].attrs.get("units", "")) if "value" in self.kernels else ""

    @cached_property
    def lags(self) -> tuple[np.ndarray, str]:
        """Lags (T,) in the unit that suits them, and that unit."""
        values = self.kernels["lag"].values
        unit, size = lead_unit(values)
        return values / np.timedelta64(size, "s"), unit

    @cached_property
    def lag_groups(self) -> LagGroups:
        """One group a lag, or neighbours together where there are many."""
        labels = [label.removeprefix("+") for label in lead_labels(self.kernels["lag"].values)]
        size = -(-len(labels) // MAX_LAG_MAPS)
        starts = np.arange(0, len(labels), size)
        if size == 1:
            return LagGroups(starts, [f"lag {label}" for label in labels])
        ends = np.minimum(starts + size, len(labels)) - 1
        return LagGroups(
            starts, [f"lags {labels[a]} to {labels[b]}, summed" for a, b in zip(starts, ends, strict=True)]
        )

    def row_labels(self, step: int) -> list[str]:
        """What the page calls the rows of a map that is thinned by a step, the top one first."""
        return _middles(self._axis_labels(0), step)

    def column_labels(self, step: int) -> list[str]:
        """What the page calls the columns of a map that is thinned by a step."""
        return _middles(self._axis_labels(1), step)

    def _axis_labels(self, axis: int) -> list[str]:
        name = self.axes[axis]
        size = self.kernels.sizes[name]
        if name not in self.kernels.coords:
            return [f"{name} {place}" for place in range(size)]
        values = self.kernels[name].values.tolist()
        if is_geographic(self):
            letters = GEOGRAPHIC[axis][2]
            labels = [f"{number_label(abs(value), 6)}° {letters[value < 0]}" for value in values]
        else:
            units = units_label(str(self.kernels[name].attrs.get("units", "")))
            labels = [f"{name} {number_label(value, 6)}{units}" for value in values]
        return labels[::-1] if axis == 0 and row_zero_is_bottom(self.kernels, name) else labels


def _middles(labels: list[str], step: int) -> list[str]:
    """The middle one of each block of labels."""
    blocks = (labels[start : start + step] for start in range(0, len(labels), step))
    return [block[len(block) // 2] for block in blocks]


def is_geographic(view: KernelView) -> bool:
    """Whether the map's axes are latitude and longitude in degrees."""
    for axis, (names, units, _) in zip(view.axes, GEOGRAPHIC, strict=True):
        attributes = view.kernels[axis].attrs if axis in view.kernels.coords else {}
        known = axis in names or attributes.get("units") in units or attributes.get("standard_name") in names
        if axis not in view.kernels.coords or not known:
            return False
    return True


def lag_curve(kernel: np.ndarray) -> np.ndarray:
    """sum_{x,y} omega[lag, y, x] without missing values: a kernel (T, H, W) as (T,)."""
    return np.nansum(kernel, axis=(1, 2))


def lag_sum(maps: np.ndarray) -> np.ndarray:
    """sum_lag omega[lag, y, x]: maps (T, H, W) as (H, W), NaN where no lag has a value."""
    return np.where(np.isnan(maps).all(axis=0), np.nan, np.nansum(maps, axis=0))


def in_groups(maps: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Sums of neighbouring lags: maps (T, H, W) as (number of groups, H, W)."""
    return np.stack([lag_sum(group) for group in np.split(maps, starts[1:])])
