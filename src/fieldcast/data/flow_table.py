"""Measured flow of rivers from a NetCDF or Zarr file or a text table, and where the stations are.

Shapes: N times of the file, R stations taken.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import xarray as xr
from pydantic import field_validator

from fieldcast.data.files import find_files, open_raw, read_values
from fieldcast.data.source import NANOSECONDS, Variable
from fieldcast.data.text_table import DecimalMark, read_table
from fieldcast.data.times import decode_axis, format_time, most_common_difference
from fieldcast.data.units import conversion, kind_of, normalise
from fieldcast.data.written_times import TimeReading, read_times
from fieldcast.errors import ConfigError, DataError
from fieldcast.settings import Settings, TupleOf, nearest

_log = logging.getLogger(__name__)
_TEXT = (".csv", ".txt", ".tsv")
_OF_TEXT = ("timezone", "day_first", "decimal")
_OF_NETCDF = ("flow_variable", "usual_variable")
_NAMES = ("station", "station_id", "gauge_id", "station_name", "name", "id")
_PLACES = {"latitude": ("latitude", "lat"), "longitude": ("longitude", "lon"), "area": ("area",), "title": ("title",)}
# How tables often write that a value is missing.
_SUSPECT = (-99.0, -99.9, -99.99, -999.0, -999.9, -999.99, -9999.0, -99999.0, -999999.0)
_LARGEST = 1e30  # no flow; near what files leave where nothing was written
FLOW_UNITS = "m3/s"


class FlowSettings(Settings):
    """Which file of flow to read, and how.

    ``flow`` is a NetCDF file or Zarr folder with a variable (time, station), or a text table: times in the first
    column, a column for each station. ``flow_units`` says what a text table is in, or overrides a file's own;
    ``stations`` takes some, in this order; ``station_table`` is a text table with the columns ``station`` and any of
    ``latitude``, ``longitude``, ``area`` (km2) and ``title``; ``missing`` lists what stands for no value. For text
    tables, ``timezone``, ``day_first`` and ``decimal`` say what the text does not. ``usual_variable`` is a variable of
    the NetCDF file with the flow that is usual at each time, known from other years.
    """

    flow: str
    flow_variable: str | None = None
    usual_variable: str | None = None
    flow_units: str | None = None
    stations: TupleOf[str] | None = None
    station_table: str | None = None
    missing: TupleOf[float | str] | None = None
    timezone: str | None = None
    day_first: bool | None = None
    decimal: DecimalMark | None = None

    @field_validator("stations")
    @classmethod
    def _some_stations(cls, stations: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if stations is not None and (not stations or len(set(stations)) < len(stations)):
            raise ValueError("name at least one station, and each once; leave it out to take all")
        return stations


@dataclass(frozen=True)
class FlowTable:
    """Flow (N, R) float64 at ``times`` (N,) int64 ns, strictly ascending, NaN where missing; ``usual`` alike.

    ``latitudes``, ``longitudes`` (R,) are degrees north and east, ``areas`` (R,) km2; None where unknown.
    """

    where: str
    variable: Variable
    names: tuple[str, ...]
    times: np.ndarray
    calendar: str
    flow: np.ndarray
    usual: np.ndarray | None = None
    titles: tuple[str, ...] | None = None
    latitudes: np.ndarray | None = None
    longitudes: np.ndarray | None = None
    areas: np.ndarray | None = None


def read_flow(settings: FlowSettings) -> FlowTable:
    """Read the flow of the stations asked for, in m3/s, or in units of 1 where it comes normalised.

    Raises:
        ConfigError: for settings that are of no use to the file, and times without a zone.
        DataError: where files, stations, times, values or units do not fit; the text names which.
    """
    found = find_files(settings.flow)
    if len(found) > 1:
        raise DataError(f"{settings.flow}: {len(found)} files; all flow is wanted in one")
    is_text = found[0].suffix.lower() in _TEXT
    _refuse_useless(settings, is_text, found[0])
    table = _read_text(found[0], settings) if is_text else _read_netcdf(found[0], settings)
    usual = None if table.usual is None else _marked(table, table.usual, settings.missing)
    table = _in_order(replace(table, flow=_marked(table, table.flow, settings.missing), usual=usual))
    if settings.station_table is not None:
        table = _placed(table, settings.station_table, settings.decimal)
    _check_places(table)
    return _in_standard_units(table)


def _refuse_useless(settings: FlowSettings, is_text: bool, path: Path) -> None:
    useless = [name for name in (_OF_NETCDF if is_text else _OF_TEXT) if getattr(settings, name) is not None]
    if settings.station_table is not None and "decimal" in useless:
        useless.remove("decimal")
    if not is_text and any(isinstance(item, str) for item in settings.missing or ()):
        useless.append("text in missing")
    if useless:
        kind = "NetCDF or Zarr" if is_text else "text tables"
        raise ConfigError(f"{path}: {', '.join(useless)}: for {kind} only")


def _read_text(path: Path, settings: FlowSettings) -> FlowTable:
    table = read_table(path)
    unnamed = [number for number, name in enumerate(table.header) if not name and number and any(table.column(number))]
    if unnamed:
        raise DataError(f"{path}: column {unnamed[0] + 1} has no name; each station's column is called after it")
    if settings.flow_units is None:
        raise ConfigError(f'{path}: a text table says no units: set flow_units, such as "{FLOW_UNITS}"')
    names = [name for name in table.header[1:] if name]
    taken = tuple(names[place] for place in take(names, settings.stations, str(path)))
    texts = [item for item in settings.missing or () if isinstance(item, str)]
    flow = table.numbers([table.header.index(name) for name in taken], settings.decimal, texts)
    times = read_times(
        table.column(0), table.lines, TimeReading(settings.timezone, settings.day_first), f"{path}: '{table.header[0]}'"
    )
    return FlowTable(str(path), Variable("flow", settings.flow_units), taken, times, "standard", flow)


def _read_netcdf(path: Path, settings: FlowSettings) -> FlowTable:
    raw = open_raw(path)
    name = settings.flow_variable or _only_variable(raw, settings.usual_variable, path)
    if name not in raw.variables:
        raise DataError(f"{path}: no variable '{name}': {nearest(name, raw.data_vars)}")
    time_name = _time_of(raw, name, path)
    time = raw.variables[time_name]
    axis = decode_axis(read_values(time, f"{path}: '{time_name}'"), time.attrs, f"{path}: '{time_name}'")
    dataset = xr.decode_cf(raw, decode_times=False, decode_coords=False)
    along = next(dim for dim in dataset[name].dims if dim != time.dims[0])
    names = station_names(dataset, str(along), path)
    taken = take(names, settings.stations, str(path))
    order = (time.dims[0], along)

    def values(variable: str) -> np.ndarray:
        if variable not in dataset.variables or set(dataset[variable].dims) != set(order):
            raise DataError(f"{path}: no variable '{variable}' on ({', '.join(map(str, order))}), as '{name}' is")
        if dataset[variable].dtype.kind not in "iuf":
            raise DataError(f"{path}: '{variable}' has type {dataset[variable].dtype}; numbers are wanted")
        found = dataset[variable].transpose(*order).variable
        return read_values(found, f"{path}: '{variable}'").astype(np.float64)[:, taken]

    found = {key: _along(dataset, str(along), words) for key, words in _PLACES.items()}
    places = {key: None if item is None else item.to_numpy()[taken] for key, item in found.items()}
    areas = places["area"]
    if found["area"] is not None and areas is not None:
        factor, _ = conversion(str(found["area"].attrs.get("units", "")), "km2", 1, variable=f"{path}: area")
        areas = areas * factor
    titles = places["title"]
    return FlowTable(
        str(path),
        Variable(name, _units_of(dataset, name, settings, path), _attributes(dataset[name].attrs)),
        tuple(names[place] for place in taken),
        axis.times,
        axis.calendar,
        values(name),
        None if settings.usual_variable is None else values(settings.usual_variable),
        None if titles is None else tuple(_text(item) for item in titles),
        places["latitude"],
        places["longitude"],
        areas,
    )


def take(names: Sequence[str], wanted: Sequence[str] | None, where: str) -> list[int]:
    """Positions of the stations wanted, in their order; of all where ``wanted`` is None.

    Raises:
        DataError: for a name that is not there, with the nearest one, and for one that is there twice.
    """
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{where}: two stations are called '{twice[0]}'")
    if wanted is None:
        return list(range(len(names)))
    for name in wanted:
        if name not in names:
            raise DataError(f"{where}: no station '{name}': {nearest(name, names)}")
    return [names.index(name) for name in wanted]


def station_names(dataset: xr.Dataset, along: str, path: Path) -> list[str]:
    """Names on the dimension ``along``: the coordinate that CF marks as such, or one with a common name.

    Raises:
        DataError: where there are none.
    """
    marked = [
        name
        for name in dataset.variables
        if dataset[name].dims == (along,) and dataset[name].attrs.get("cf_role") == "timeseries_id"
    ]
    found = dataset[marked[0]] if marked else _along(dataset, along, (along, *_NAMES))
    if found is None:
        raise DataError(
            f"{path}: no names of stations on dimension '{along}': wanted is a coordinate called {', '.join(_NAMES)}"
        )
    return [_text(item) for item in found.to_numpy()]


def _along(dataset: xr.Dataset, along: str, words: Sequence[str]) -> xr.DataArray | None:
    """The variable on this dimension alone that has the first of the names."""
    by_word = {str(name).lower(): name for name in dataset.variables if dataset[name].dims == (along,)}
    return next((dataset[by_word[word.lower()]] for word in words if word.lower() in by_word), None)


def _text(item) -> str:
    return (item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item)).strip()


def _only_variable(dataset: xr.Dataset, usual: str | None, path: Path) -> str:
    """The one variable that could be flow: of two dimensions, one of them time."""
    flat = [str(name) for name in dataset.data_vars if dataset[name].ndim == 2 and _times_along(dataset, str(name))]
    flat = [name for name in flat if name != usual]
    if len(flat) != 1:
        listed = f"each of {', '.join(flat)} could be it" if flat else f"there are {', '.join(map(str, dataset))}"
        raise DataError(f"{path}: which variable is the flow (time, station)? {listed}: set flow_variable")
    return flat[0]


def _time_of(dataset: xr.Dataset, name: str, path: Path) -> str:
    found = _times_along(dataset, name)
    if dataset[name].ndim != 2 or len(found) != 1:
        dims = ", ".join(f"{dim}={size}" for dim, size in dataset[name].sizes.items())
        raise DataError(
            f"{path}: '{name}' has dimensions ({dims}); wanted (time, station), with one coordinate of times in units "
            "such as 'days since 2000-01-01'"
        )
    return found[0]


def _times_along(dataset: xr.Dataset, name: str) -> list[str]:
    """Variables that hold the times of a dimension of ``name``: one called after it, or any."""
    found = [
        str(other)
        for other, variable in dataset.variables.items()
        if variable.ndim == 1
        and variable.dims[0] in dataset[name].dims
        and " since " in str(variable.attrs.get("units", ""))
    ]
    return [other for other in found if other in dataset[name].dims] or found


def _units_of(dataset: xr.Dataset, name: str, settings: FlowSettings, path: Path) -> str:
    own = str(dataset[name].attrs.get("units", ""))
    wanted = settings.flow_units
    if not own and wanted is None:
        raise ConfigError(f"{path}: '{name}' has no units: set flow_units, such as \"{FLOW_UNITS}\"")
    if settings.usual_variable in dataset.variables:
        other = str(dataset[settings.usual_variable].attrs.get("units", own))
        if normalise(other) != normalise(own):
            raise DataError(f"{path}: '{settings.usual_variable}' is in '{other}', '{name}' in '{own}'")
    if wanted is not None and own and normalise(wanted) != normalise(own):
        _log.warning("%s: '%s' is taken to be in '%s', though the file says '%s'", path, name, wanted, own)
    return own if wanted is None else wanted


def _attributes(attributes: dict) -> dict[str, str | float | int]:
    """What stays true of the flow in other units."""
    return {key: attributes[key] for key in ("standard_name", "long_name", "comment") if key in attributes}


def _marked(table: FlowTable, flow: np.ndarray, missing: Sequence[float | str] | None) -> np.ndarray:
    """Flow (N, R) with NaN for what is declared missing."""
    declared = [item for item in missing or () if not isinstance(item, str)]
    flow = np.where(np.isin(flow, declared), np.nan, flow)
    wrong = np.isinf(flow) | (np.abs(flow) > _LARGEST)
    suspect = np.isin(flow, _SUSPECT) if missing is None else np.zeros_like(wrong)
    for found, advice in (
        (wrong, "mark missing values as NaN, with _FillValue, or with `missing`"),
        (suspect, "if it marks missing values, set missing = [{value:g}], if it is flow, missing = []"),
    ):
        if found.any():
            row, column = np.argwhere(found)[0]
            value = flow[row, column]
            count = int((flow == value).sum())
            raise DataError(
                f"{table.where}: flow is {value:g} at station '{table.names[column]}', "
                f"{format_time(table.times[row], table.calendar)} ({count} such): {advice.format(value=value)}"
            )
    return flow


def _in_order(table: FlowTable) -> FlowTable:
    order = np.argsort(table.times, kind="stable")
    times = table.times[order]
    repeated = np.flatnonzero(np.diff(times) == 0)
    if len(repeated):
        listed = ", ".join(format_time(times[place], table.calendar) for place in repeated[:3])
        raise DataError(f"{table.where}: {len(repeated)} times come twice: {listed}; keep one row of each")
    usual = None if table.usual is None else table.usual[order]
    return replace(table, times=times, flow=table.flow[order], usual=usual)


def _placed(table: FlowTable, path: str, decimal: DecimalMark | None) -> FlowTable:
    """The table with what the station table says of its stations."""
    found = find_files(path)
    if len(found) > 1:
        raise DataError(f"{path}: {len(found)} files; all stations are wanted in one")
    text = read_table(found[0])
    header = [name.casefold() for name in text.header]
    if "station" not in header or not set(_PLACES) & set(header):
        raise DataError(
            f"{text.where}: columns {', '.join(text.header)}; wanted are 'station' and any of {', '.join(_PLACES)}"
        )
    rows = take(text.column(header.index("station")), table.names, text.where)

    def numbers(name: str, known: np.ndarray | None) -> np.ndarray | None:
        return known if name not in header else text.numbers([header.index(name)], decimal)[rows, 0]

    titles = table.titles
    if "title" in header:
        cells = text.column(header.index("title"))
        titles = tuple(cells[row] for row in rows)
    return replace(
        table,
        titles=titles,
        latitudes=numbers("latitude", table.latitudes),
        longitudes=numbers("longitude", table.longitudes),
        areas=numbers("area", table.areas),
    )


def _check_places(table: FlowTable) -> None:
    for what, values, low, high in (
        ("latitude", table.latitudes, -90, 90),
        ("longitude", table.longitudes, -180, 360),
        ("area in km2", table.areas, np.nextafter(0, 1), 1e8),
    ):
        for name, value in zip(table.names, [] if values is None else values, strict=values is not None):
            if not low <= value <= high:
                raise DataError(f"station '{name}' has the {what} {value:g}; from {low:g} to {high:g} is possible")


def _in_standard_units(table: FlowTable) -> FlowTable:
    """The table in m3/s; what was normalised stays as it is, and a depth is spread over each station's area."""
    units, kind = table.variable.units, kind_of(table.variable.units)
    label = f"{table.where}: {table.variable.name}"
    factor: float | np.ndarray
    if kind == "fraction":
        target, factor = "1", conversion(units, "1", 1, variable=label)[0]
    elif kind in ("rate", "amount"):
        if table.areas is None:
            raise DataError(
                f"{label} is in '{units}', a depth: to become {FLOW_UNITS} it needs the area of each basin, as a "
                "coordinate 'area' of the stations or a column 'area' (km2) of station_table"
            )
        cadence = most_common_difference(table.times, table.where) if kind == "amount" else 3600 * NANOSECONDS
        # 1 mm/h over 1 km2 is 1000 m3 in 3600 s.
        target, factor = FLOW_UNITS, conversion(units, "mm/h", cadence, variable=label)[0] * table.areas / 3.6
    else:
        target, factor = FLOW_UNITS, conversion(units, FLOW_UNITS, 1, variable=label)[0]
    usual = None if table.usual is None else table.usual * factor
    variable = replace(table.variable, units=target)
    return replace(table, variable=variable, flow=table.flow * factor, usual=usual)
