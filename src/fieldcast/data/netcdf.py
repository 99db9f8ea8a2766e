"""Frames from NetCDF, HDF5 and Zarr, and from xarray data sets: read lazily, labelled by CF, ordered by real time.

Shapes: N frames of the archive, n frames read, C variables, H rows, W columns.
"""

import logging
import threading
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from pydantic import Field, field_validator, model_validator

from fieldcast.data.axes import Axes, AxisNames, find_axes
from fieldcast.data.files import find_files, open_raw, read_values
from fieldcast.data.source import Grid, SourceKind, Variable
from fieldcast.data.times import decode_axis, format_time, most_common_difference, parse_duration, snap_to_grid
from fieldcast.data.units import conversion, converted_attributes
from fieldcast.errors import DataError
from fieldcast.settings import Settings, TupleOf, nearest

_log = logging.getLogger(__name__)
# Attributes that describe the bytes in the file or point to other variables of it.
_FILE_ATTRIBUTES = {
    *("units", "scale_factor", "add_offset", "_FillValue", "missing_value", "_Unsigned", "dtype"),
    *("valid_range", "valid_min", "valid_max", "coordinates", "grid_mapping", "bounds", "ancillary_variables"),
}
# What the NetCDF library leaves where nothing was written and the file names no fill value.
_UNWRITTEN = {"f": 9.969209968386869e36}


class NetCDFConfig(Settings):
    """Which files and variables to read.

    ``paths`` is a file, a Zarr folder, a pattern (``radar/*.nc``) or a list of them; ``rows``, ``columns`` and
    ``time`` name dimensions, found by CF attributes or common names where left out; ``units`` to convert to, one
    for all variables or one for each; times within ``tolerance`` (``"3 s"``) of the regular grid are moved onto it;
    variables whose packed size is within ``cache_megabytes`` stay in memory after the first read.
    """

    paths: str | TupleOf[str]
    variables: TupleOf[str]
    rows: str | None = None
    columns: str | None = None
    time: str | None = None
    units: str | TupleOf[str] | None = None
    tolerance: str | None = None
    cache_megabytes: int = Field(default=512, ge=0)

    @field_validator("variables")
    @classmethod
    def _some_and_distinct(cls, variables: tuple[str, ...]) -> tuple[str, ...]:
        if not variables or len(set(variables)) < len(variables):
            raise ValueError("name at least one variable, and each once")
        return variables

    @field_validator("tolerance")
    @classmethod
    def _is_duration(cls, tolerance: str | None) -> str | None:
        if tolerance is not None:
            parse_duration(tolerance)
        return tolerance

    @model_validator(mode="after")
    def _units_fit(self) -> "NetCDFConfig":
        if isinstance(self.units, tuple) and len(self.units) != len(self.variables):
            raise ValueError(f"units has {len(self.units)} entries for {len(self.variables)} variables")
        return self


class NetCDF:
    """An archive of frames in NetCDF-4/HDF5, NetCDF-3 or Zarr, as one sequence in order of time.

    Frames may lie in any number of files, in any order; a frame that is missing is a time that isn't there.

    Raises:
        DataError: where files, dimensions, times, types or units do not fit; the text names which.
    """

    kind: SourceKind = "archive"
    value_range: tuple[float, float] | None = None
    real_times = True

    def __init__(self, config: NetCDFConfig, opened: Sequence[tuple[str, xr.Dataset]] | None = None) -> None:
        if opened is None:
            opened = [(str(path), open_raw(path)) for path in find_files(config.paths)]
        name = opened[0][0] if len(opened) == 1 else f"{opened[0][0]} and {len(opened) - 1} more"
        parts = [_Part.of(dataset, config, where) for where, dataset in opened]
        _check_alike(parts)
        times, order = _merge(parts, parse_duration(config.tolerance) if config.tolerance else 0)
        if not len(times):
            raise DataError(f"{name}: no frames")
        first = parts[0]
        wanted = config.units if isinstance(config.units, tuple) else (config.units,) * len(config.variables)
        self.variables = tuple(
            _label(first.dataset[variable].attrs, variable, units)
            for variable, units in zip(config.variables, wanted, strict=True)
        )
        self.grid = first.grid()
        self.shape = first.shape
        self.calendar = first.calendar
        self.cadence = most_common_difference(times, name)
        packings = [
            {variable.name: _Packing.of(part, variable, self.cadence) for variable in self.variables} for part in parts
        ]
        archive = _Archive(parts, packings, order, config.cache_megabytes * 2**20)
        self._sequence = NetCDFSequence(name, times, archive, self.calendar)

    def sequences(self, split: str, count: int | None) -> list["NetCDFSequence"]:
        """The one sequence of the archive, whatever the split: time tells the splits apart."""
        return [self._sequence]


def open_frames(dataset: xr.Dataset, config: NetCDFConfig) -> NetCDF:
    """Make a source of an xarray data set, decoded or not, in memory or lazily opened; ``config.paths`` is not read.

    Raises:
        DataError: as `NetCDF` does.
    """
    return NetCDF(config, [("the data set", dataset)])


class NetCDFSequence:
    """The frames of an archive: ``times`` (N,) int64 ns since 1970-01-01 of the calendar, strictly ascending."""

    def __init__(self, name: str, times: np.ndarray, archive: "_Archive", calendar: str) -> None:
        self.name = name
        self.times = times
        self._archive = archive
        self._calendar = calendar

    def read(self, positions: np.ndarray, window: tuple[slice, slice] | None = None) -> np.ndarray:
        """Frames at the positions, (n, C, H, W) float32 in the source's units, NaN where missing.

        Raises:
            DataError: where a value is infinite, with its variable and time, or the file is damaged.
        """
        positions = np.asarray(positions, dtype=np.int64)
        frames = self._archive.read(positions, window or (slice(None), slice(None)))
        infinite = np.isinf(frames)
        if infinite.any():
            frame, channel = np.argwhere(infinite)[0][:2]
            when = format_time(self.times[positions[frame]], self._calendar)
            raise DataError(
                f"{self.name}: variable '{self._archive.names[channel]}' is infinite at {when} "
                f"({infinite[frame, channel].sum()} pixels); mark missing values as NaN or with _FillValue"
            )
        return frames


@dataclass(frozen=True)
class _Part:
    """One file: its data set with values as stored, and where its time, rows and columns are."""

    where: str
    dataset: xr.Dataset
    name: str  # of the first variable
    axes: Axes
    times: np.ndarray
    calendar: str

    @classmethod
    def of(cls, dataset: xr.Dataset, config: NetCDFConfig, where: str) -> "_Part":
        wanted = AxisNames(config.time, config.rows, config.columns)
        for name in config.variables:
            if name not in dataset.variables:
                raise DataError(f"{where}: no variable '{name}': {nearest(name, dataset.data_vars)}")
            _check_type(dataset[name], f"{where}: variable '{name}'")
        found = {name: find_axes(dataset, name, wanted, where) for name in config.variables}
        axes = found[config.variables[0]]
        for name, others in found.items():
            sizes = [dataset.sizes[dim] for dim in (others.rows, others.columns)]
            if others != axes:
                raise DataError(
                    f"{where}: '{name}' lies on ({others.time}, {others.rows}={sizes[0]}, {others.columns}={sizes[1]}),"
                    f" '{config.variables[0]}' on ({axes.time}, {axes.rows}, {axes.columns}); one grid is wanted"
                )
        variable = dataset[axes.time_variable]
        label = f"{where}: '{axes.time_variable}'"
        encoded = read_values(variable.variable, label)
        axis = decode_axis(encoded, variable.attrs, label)
        return cls(where, dataset, config.variables[0], axes, axis.times, axis.calendar)

    @property
    def shape(self) -> tuple[int, int]:
        return self.dataset.sizes[self.axes.rows], self.dataset.sizes[self.axes.columns]

    def grid(self) -> Grid:
        attributes, coordinates = {}, {}
        for name in (self.axes.rows, self.axes.columns):
            coordinate = self.dataset.variables.get(name)
            if coordinate is not None and coordinate.ndim == 1 and coordinate.dtype.kind in "iuf":
                raw = read_values(coordinate, f"{self.where}: '{name}'")
                coordinates[name] = _Packing.stored(coordinate.attrs, raw.dtype).unpack(raw)
                units = {"units": coordinate.attrs["units"]} if "units" in coordinate.attrs else {}
                attributes[name] = units | _plain(coordinate.attrs)
        rows, columns = coordinates.get(self.axes.rows), coordinates.get(self.axes.columns)
        return Grid(self.axes.rows, self.axes.columns, rows, columns, attributes, self._mapping())

    def _mapping(self) -> tuple[str, dict] | None:
        name = str(self.dataset[self.name].attrs.get("grid_mapping", ""))
        mapping = self.dataset.variables.get(name)
        return None if mapping is None else (name, _plain(mapping.attrs))

    def raw(self, name: str, positions: np.ndarray | None, window: tuple[slice, slice]) -> np.ndarray:
        """Stored values (n, H, W) at the positions, or of all frames."""
        variable = self.dataset.variables[name]
        index: dict[Hashable, int | slice | np.ndarray] = dict.fromkeys(variable.dims, 0)
        index |= {self.axes.rows: window[0], self.axes.columns: window[1]}
        order = [self.axes.rows, self.axes.columns]
        if self.axes.time is not None:
            index[self.axes.time] = slice(None) if positions is None else _contiguous(positions)
            order.insert(0, self.axes.time)
        part = variable.isel(index)
        values = read_values(part, f"{self.where}: '{name}'")
        values = values.transpose([part.dims.index(dim) for dim in order])
        if self.axes.time is None:
            values = np.broadcast_to(values, (1 if positions is None else len(positions), *values.shape))
        return values


@dataclass(frozen=True)
class _Packing:
    """How a file stores a variable: physical = scale * stored + offset, missing where stored is one of the fills."""

    scale: float
    offset: float
    fills: tuple
    unsigned: bool

    @classmethod
    def stored(cls, attributes: dict, dtype: np.dtype) -> "_Packing":
        fills = [item for key in ("_FillValue", "missing_value") for item in np.ravel(attributes.get(key, ()))]
        if "_FillValue" not in attributes and dtype.kind in _UNWRITTEN:
            fills.append(_UNWRITTEN[dtype.kind])
        if dtype.kind == "f":
            with np.errstate(over="ignore"):
                fills = [dtype.type(fill) for fill in fills]
        scale = float(np.ravel(attributes.get("scale_factor", 1.0))[0])
        offset = float(np.ravel(attributes.get("add_offset", 0.0))[0])
        unsigned = str(attributes.get("_Unsigned", "false")).lower() == "true" and dtype.kind == "i"
        return cls(scale, offset, tuple(fills), unsigned)

    @classmethod
    def of(cls, part: _Part, variable: Variable, cadence: int) -> "_Packing":
        """Unpacking and conversion to the units of ``variable`` in one step."""
        field = part.dataset[variable.name]
        stored = cls.stored(field.attrs, field.dtype)
        units = _units(field.attrs)
        if variable.units and not units:
            raise DataError(f"{part.where}: '{variable.name}' has no units; wanted '{variable.units}'")
        standard_name = str(field.attrs.get("standard_name", ""))
        label = f"{part.where}: {variable.name}"
        factor, offset = conversion(units, variable.units, cadence, standard_name, label)
        return cls(stored.scale * factor, stored.offset * factor + offset, stored.fills, stored.unsigned)

    def unpack(self, raw: np.ndarray) -> np.ndarray:
        """Stored values as float64, NaN where missing."""
        stored = raw.view(raw.dtype.str.replace("i", "u")) if self.unsigned else raw
        values = stored.astype(np.float64)
        if self.scale != 1.0 or self.offset != 0.0:
            values *= self.scale
            values += self.offset
        for fill in self.fills:
            values[raw == fill] = np.nan
        return values


class _Archive:
    """All frames of all files, in order; keeps stored values in memory where they fit. Safe to use from threads."""

    def __init__(
        self, parts: list[_Part], packings: list[dict[str, _Packing]], order: np.ndarray, cache_bytes: int
    ) -> None:
        self.names = list(packings[0])
        self._parts = parts
        self._packings = packings
        self._order = order
        size = sum(part.dataset[name].dtype.itemsize * part.dataset[name].size for part in parts for name in self.names)
        self._keeps = size <= cache_bytes
        self._cache: dict[tuple[int, str], np.ndarray] = {}
        self._lock = threading.Lock()

    def read(self, positions: np.ndarray, window: tuple[slice, slice]) -> np.ndarray:
        """Frames (n, C, H, W) float32 at the positions in order of time."""
        numbers, local = self._order[positions].T
        height, width = (
            len(range(*part.indices(size))) for part, size in zip(window, self._parts[0].shape, strict=True)
        )
        frames = np.empty((len(positions), len(self.names), height, width), dtype=np.float32)
        with np.errstate(over="ignore"):
            for number in np.unique(numbers):
                here = numbers == number
                for channel, name in enumerate(self.names):
                    raw = self._raw(number, name, local[here], window)
                    frames[here, channel] = self._packings[number][name].unpack(raw)
        return frames

    def _raw(self, number: int, name: str, positions: np.ndarray, window: tuple[slice, slice]) -> np.ndarray:
        part = self._parts[number]
        with self._lock:
            if not self._keeps:
                return part.raw(name, positions, window)
            if (number, name) not in self._cache:
                self._cache[number, name] = part.raw(name, None, (slice(None), slice(None)))
        return self._cache[number, name][:, window[0], window[1]][positions]


def _check_type(field: xr.DataArray, where: str) -> None:
    # A boolean is stored as int8 with its type beside it.
    stored_as = str(field.attrs.get("dtype", field.dtype))
    if field.dtype.kind not in "iuf" or stored_as == "bool":
        raise DataError(f"{where} has type {stored_as}; integers or real floating-point numbers are wanted")


def _check_alike(parts: list[_Part]) -> None:
    """Refuse files of another calendar or grid than the first one's."""
    first, grid = parts[0], parts[0].grid()
    for part in parts[1:]:
        if part.calendar != first.calendar:
            raise DataError(f"{part.where} has the {part.calendar} calendar, {first.where} the {first.calendar} one")
        if part.shape != first.shape:
            raise DataError(f"{part.where} has {part.shape} rows and columns, {first.where} has {first.shape}")
        other = part.grid()
        for name, ours, theirs in (("rows", grid.rows, other.rows), ("columns", grid.columns, other.columns)):
            if not same_axis(ours, theirs):
                raise DataError(f"{part.where}: the coordinates of its {name} differ from those of {first.where}")


def same_axis(ours: np.ndarray | None, theirs: np.ndarray | None) -> bool:
    """Equal to a ten-thousandth of a cell, or both absent."""
    if ours is None or theirs is None:
        return ours is theirs
    cell = np.abs(np.median(np.diff(ours))) if len(ours) > 1 else 1.0
    return bool(np.allclose(ours, theirs, rtol=0, atol=1e-4 * cell, equal_nan=True))


def _merge(parts: list[_Part], tolerance: int) -> tuple[np.ndarray, np.ndarray]:
    """Times (N,) in order, and the number of the file and the position in it of each, (N, 2)."""
    times = np.concatenate([part.times for part in parts])
    where = np.concatenate(
        [
            np.stack([np.full(len(part.times), number), np.arange(len(part.times))], axis=1)
            for number, part in enumerate(parts)
        ]
    )
    ascending = np.argsort(times, kind="stable")
    where = where[ascending]
    found, times = times[ascending], snap_to_grid(times[ascending], tolerance)
    if tolerance:
        _log.info("%d of %d times moved onto the regular grid", (found != times).sum(), len(times))
    repeated = np.flatnonzero(np.diff(times) <= 0)
    if len(repeated):
        listed = [
            f"{format_time(times[index], parts[0].calendar)} ("
            + " and ".join(dict.fromkeys(parts[where[i, 0]].where for i in (index, index + 1)))
            + ")"
            for index in repeated[:3]
        ]
        raise DataError(f"{len(repeated)} times come twice: {', '.join(listed)}; keep one frame of each")
    return times, where


def _label(attributes: dict, name: str, units: str | None) -> Variable:
    own = _units(attributes)
    target = own if units is None else units
    return Variable(name, target, converted_attributes(_plain(attributes), target))


def _units(attributes: dict) -> str:
    return str(attributes.get("units", ""))


def _plain(attributes: dict) -> dict[str, str | float | int]:
    """CF attributes of one value each, as plain Python values."""
    kept = {key: item.item() if isinstance(item, np.generic) else item for key, item in attributes.items()}
    return {
        key: item for key, item in kept.items() if key not in _FILE_ATTRIBUTES and isinstance(item, str | float | int)
    }


def _contiguous(positions: np.ndarray) -> slice | np.ndarray:
    """A slice where the positions are consecutive, which backends read in one piece."""
    if len(positions) and (np.diff(positions) == 1).all():
        return slice(int(positions[0]), int(positions[-1]) + 1)
    return positions
