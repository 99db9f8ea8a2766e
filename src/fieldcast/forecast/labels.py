"""Forecasts as labelled data sets by CF-1.11, and as files.

Shapes: M members, S lead times, C variables, H rows, W columns, R stations.
"""

from pathlib import Path
from typing import Any

import cftime
import numpy as np
import xarray as xr

from fieldcast.data.source import NANOSECONDS, Source, Stations
from fieldcast.environment import version
from fieldcast.files import sha256, write_atomic
from fieldcast.models import MODELS
from fieldcast.run import Run

_UNITS = {"seconds": NANOSECONDS, "microseconds": 1000, "nanoseconds": 1}


def save_forecast(result: xr.Dataset, path: Path) -> Path:
    """Write a forecast, or what ``fill`` or ``explain`` gives, as NetCDF-4, compressed, whole or not at all."""
    encoding: dict[str, dict[str, Any]] = {
        str(name): {"zlib": True, "complevel": 4, "dtype": dtype.name, "_FillValue": dtype.type(np.nan)}
        for name, dtype in result.dtypes.items()
        if dtype.kind == "f"
    }
    # A coordinate has no missing values; xarray would give floats a fill value, which CF forbids.
    encoding |= {str(name): {"_FillValue": None} for name in result.coords if result[name].dtype.kind == "f"}
    return write_atomic(path, lambda beside: result.to_netcdf(beside, engine="h5netcdf", encoding=encoding))


def label(physical: np.ndarray, lead_times: np.ndarray, origin: int, source: Source, run: Run) -> xr.Dataset:
    """Put names, units, coordinates and attributes to a forecast.

    Args:
        physical: (S, C, H, W), or (M, S, C, H, W) of members.
        lead_times: (S,) int64 ns.
        origin: time of the last input, int64 ns.
        source: where the inputs come from.
        run: what forecast.
    """
    grid, members = source.grid, ("number",) if physical.ndim == 5 else ()
    dimensions = ("init_time", "lead_time", *members, grid.row_name, grid.column_name)
    mapping = {"grid_mapping": grid.mapping[0]} if grid.mapping else {}
    variables: dict[str, Any] = {}
    for channel, variable in enumerate(run.best.state["variables"]):
        values = physical[..., channel, :, :]
        attributes = {**variable["attributes"], "units": variable["units"], **mapping}
        variables[variable["name"]] = (dimensions, (values.swapaxes(0, 1) if members else values)[None], attributes)
    if grid.mapping:
        variables[grid.mapping[0]] = ((), np.int32(0), grid.mapping[1])
    result = xr.Dataset(variables, _coordinates(lead_times, origin, source), _attributes(run))
    if members:
        number = np.arange(len(physical), dtype=np.int32)
        result = result.assign_coords(number=("number", number, {"standard_name": "realization", "units": "1"}))
    return _with_encoded_times(result, lead_times, origin, source)


def label_flow(flow: np.ndarray, lead_times: np.ndarray, origin: int, source: Source, run: Run) -> xr.Dataset:
    """As ``label``, for the flow (S, 1, R) at the stations of a run."""
    assert run.stations is not None and run.flow is not None
    attributes = {**run.flow.attributes, "units": run.flow.units}
    variables = {run.flow.name: (("init_time", "lead_time", "station"), flow[None, :, 0], attributes)}
    result = xr.Dataset(variables, _coordinates(lead_times, origin, source), _attributes(run))
    result = result.drop_vars([source.grid.row_name, source.grid.column_name], errors="ignore")
    return _with_encoded_times(result.assign_coords(station_coordinates(run.stations)), lead_times, origin, source)


def station_coordinates(stations: Stations, dimension: str = "station") -> dict[str, Any]:
    """Coordinates of stations, by CF-1.11, along a dimension."""
    coordinates: dict[str, Any] = {dimension: (dimension, list(stations.names), {"cf_role": "timeseries_id"})}
    if stations.titles is not None:
        coordinates["title"] = (dimension, list(stations.titles), {"long_name": "name of the station"})
    places = (("latitude", "degrees_north", stations.latitudes), ("longitude", "degrees_east", stations.longitudes))
    for name, units, values in places:
        if values is not None:
            coordinates[name] = (dimension, np.asarray(values, np.float64), {"standard_name": name, "units": units})
    return coordinates


def _with_encoded_times(result: xr.Dataset, lead_times: np.ndarray, origin: int, source: Source) -> xr.Dataset:
    unit = time_unit(np.append(origin + lead_times, origin))
    for name in ("init_time", "valid_time"):
        result[name].encoding |= {"units": f"{unit} since 1970-01-01", "calendar": source.calendar, "dtype": "int64"}
    result["lead_time"].encoding |= {"units": time_unit(lead_times), "dtype": "int64"}
    return result


def add_seen(result: xr.Dataset, seen: np.ndarray, run: Run) -> xr.Dataset:
    """Beside each variable with a pixel that the last input lacks, say where it has one: ``seen`` (C, H, W) bool."""
    for channel, variable in enumerate(run.best.state["variables"]):
        name = variable["name"]
        if not seen[channel].all():
            flags = {"flag_values": np.array([0, 1], np.uint8), "flag_meanings": "missing_input seen_input"}
            flags["long_name"] = f"whether the last input frame of {name} had a value"
            dimensions = ("init_time", *result[name].dims[-2:])
            result[f"{name}_valid"] = (dimensions, seen[None, channel].astype(np.uint8), flags)
            result[name].attrs["ancillary_variables"] = f"{name}_valid"
    return result


def _coordinates(lead_times: np.ndarray, origin: int, source: Source) -> dict[str, Any]:
    init_time = decode_times(np.array([origin]), source.calendar)
    valid_time = decode_times(origin + lead_times, source.calendar)
    utc = {"units_metadata": "leap_seconds: utc"} if source.calendar == "standard" else {}
    coordinates: dict[str, Any] = {
        "init_time": ("init_time", init_time, {"standard_name": "forecast_reference_time", **utc}),
        "lead_time": ("lead_time", lead_times.astype("timedelta64[ns]"), {"standard_name": "forecast_period"}),
        "valid_time": (("init_time", "lead_time"), valid_time[None], {"standard_name": "time", **utc}),
    }
    grid = source.grid
    for name, values in ((grid.row_name, grid.rows), (grid.column_name, grid.columns)):
        if values is not None:
            coordinates[name] = (name, values, grid.attributes.get(name, {}))
    return coordinates


def decode_times(times: np.ndarray, calendar: str) -> np.ndarray:
    """Times (n,) int64 ns since 1970-01-01 as datetime64, or as cftime objects in a calendar that needs them."""
    return times.astype("datetime64[ns]") if calendar == "standard" else decode_cftime(times, calendar)


def decode_cftime(times: np.ndarray, calendar: str) -> np.ndarray:
    """Times (n,) int64 ns since 1970-01-01 as cftime objects, to the microsecond."""
    microseconds = (np.asarray(times) // 1000).tolist()
    return np.array(cftime.num2date(microseconds, "microseconds since 1970-01-01", calendar=calendar), dtype=object)


def time_unit(times: np.ndarray) -> str:
    """The longest unit of which times (n,) int64 ns are whole numbers: seconds, where nobody asked for parts of one."""
    return next(unit for unit, size in _UNITS.items() if not (times % size).any())


def made_by(run: Run) -> str:
    """What made a file: the version, the model, and the SHA-256 of its weights."""
    weights = run.checkpoint_folder / f"step-{run.best.state['progress']['step']:08d}" / "model.safetensors"
    return f"fieldcast {version()} {run.config.model_key} {sha256(weights)}"


def history_line(command: str, run: Run) -> str:
    """A line for the attribute ``history``."""
    step = run.best.state["progress"]["step"]
    return f"{np.datetime64('now')}Z fieldcast {command} of run '{run.config.name}', step {step}"


def _attributes(run: Run) -> dict[str, str]:
    return {
        "Conventions": "CF-1.11",
        "title": f"Forecast by {run.model_name}",
        "references": MODELS[run.config.model_key].paper,
        "source": made_by(run),
        "history": history_line("forecast", run),
    }
