"""Forecasts with labels: xarray in, xarray out.

Shapes: T input frames, S lead times, C variables, H rows, W columns.
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cftime
import numpy as np
import torch
import xarray as xr

from fieldcast.checkpoint import Checkpoint
from fieldcast.data import Normalizer
from fieldcast.data.batch import Batch
from fieldcast.data.dataset import make_batch, relative_times
from fieldcast.data.netcdf import NetCDF, NetCDFConfig, open_frames
from fieldcast.data.source import NANOSECONDS, Source
from fieldcast.environment import version
from fieldcast.errors import ConfigError, DataError
from fieldcast.evaluation import predict
from fieldcast.files import sha256, write_atomic
from fieldcast.models import MODELS
from fieldcast.processes import choose_device
from fieldcast.run import Run

GRID_TOLERANCE = 1e-4  # of a cell
MINUTE = 60 * NANOSECONDS


def forecast(run: Run, inputs: xr.Dataset | str | Path, minutes: Sequence[float], device: str = "auto") -> xr.Dataset:
    """Forecast from the last frames of a data set.

    Args:
        run: a trained run.
        inputs: past frames, as xarray or as the path of a NetCDF file or Zarr folder; units that the run's can be
            made from are converted.
        minutes: lead times, above 0.
        device: "auto", "cpu", "cuda".

    Returns:
        every variable (init_time, lead_time, y, x) in the units of training, laid out by CF-1.11: the reference time
        is that of the last frame.

    Raises:
        DataError: where variable, units, grid spacing, cadence or frames do not fit the checkpoint.
        ConfigError: for lead times that are not above 0 and ascending.
    """
    lead_times = _lead_times(minutes)
    state = run.best.state
    source = _open(run, inputs)
    _check_fit(source, state)
    longest = run.config.windows.num_targets * state["cadence"]
    if lead_times[-1] > longest:
        warnings.warn(
            f"{lead_times[-1] / MINUTE:g} min is beyond the {longest / MINUTE:g} min that the model was trained for",
            stacklevel=2,
        )
    batch, seen = latest_inputs(source, run, lead_times)
    torch_device = choose_device(device)
    frames = predict(run.model(torch_device), batch, torch_device, run.config.training.precision)
    physical = Normalizer.from_plain(state["normalizer"]).denormalise(frames)[0].numpy()
    return _label(physical, seen, lead_times, int(batch.origin[0]), source, run)


def save_forecast(result: xr.Dataset, path: Path) -> Path:
    """Write a forecast as NetCDF-4, compressed, whole or not at all."""
    encoding: dict[str, dict[str, Any]] = {
        str(name): {"zlib": True, "complevel": 4, "dtype": "float32", "_FillValue": np.float32(np.nan)}
        for name in result.data_vars
        if result[name].dtype.kind == "f"
    }
    # A coordinate has no missing values; xarray would give floats a fill value, which CF forbids.
    encoding |= {str(name): {"_FillValue": None} for name in result.coords if result[name].dtype.kind == "f"}
    return write_atomic(path, lambda beside: result.to_netcdf(beside, engine="h5netcdf", encoding=encoding))


def _lead_times(minutes: Sequence[float]) -> np.ndarray:
    """Lead times, int64 ns."""
    try:
        values = [float(value) for value in minutes]
    except (TypeError, ValueError):
        raise ConfigError(f"minutes = {minutes!r}: a list of numbers, such as [5, 10, 30]") from None
    if not values or any(not np.isfinite(value) or value <= 0 for value in values) or sorted(set(values)) != values:
        raise ConfigError(f"minutes = {values}: lead times above 0, ascending, each once")
    return np.round(np.array(values) * MINUTE).astype(np.int64)


def _open(run: Run, inputs: xr.Dataset | str | Path) -> Source:
    state = run.best.state
    trained = run.config.source.settings
    if not isinstance(trained, NetCDFConfig):
        raise DataError(
            f"this run was trained on '{run.config.source.key}': forecast takes NetCDF or xarray from a run "
            "that was trained on the source 'netcdf'"
        )
    if not isinstance(inputs, xr.Dataset | str | Path):
        raise DataError(
            f"forecast takes an xarray.Dataset or a path, {type(inputs).__name__} came; of a DataArray make one with "
            f"to_dataset(name='{trained.variables[0]}')"
        )
    units = tuple(variable["units"] for variable in state["variables"])
    settings = trained.model_copy(
        update={"units": units, "paths": str(inputs) if isinstance(inputs, str | Path) else ""}
    )
    return NetCDF(settings) if isinstance(inputs, str | Path) else open_frames(inputs, settings)


def _check_fit(source: Source, state: dict[str, Any]) -> None:
    own, wanted = source.grid.spacing(), state["grid"]["spacing"]
    for name, step, trained in zip(state["grid"]["names"], own, wanted, strict=True):
        if trained is not None and (step is None or abs(step - trained) > GRID_TOLERANCE * abs(trained)):
            came = "no coordinate" if step is None else f"a spacing of {step:g}"
            todo = f"give it the coordinate '{name}'" if step is None else "regrid it"
            raise DataError(f"the input has {came} along {name}, the model was trained on {trained:g}: {todo}")
    if abs(source.cadence - state["cadence"]) > state["cadence"] // 200:
        raise DataError(
            f"the input has a frame every {source.cadence / MINUTE:g} min, the model was trained on one every "
            f"{state['cadence'] / MINUTE:g} min"
        )
    if source.calendar != state["calendar"]:
        raise DataError(f"the input's calendar is {source.calendar}, the model was trained on {state['calendar']}")


def latest_inputs(source: Source, run: Run, lead_times: np.ndarray) -> tuple[Batch, np.ndarray]:
    """The last frames of a source as one sample with empty targets, and where its last input (C, H, W) has values.

    Raises:
        DataError: where there are too few frames, a gap, or no valid pixel.
    """
    windows, cadence = run.config.windows, run.best.state["cadence"]
    sequence = source.sequences("all", None)[0]
    if len(sequence.times) < windows.num_inputs:
        raise DataError(f"the model reads {windows.num_inputs} frames, the input has {len(sequence.times)}")
    positions = np.arange(len(sequence.times) - windows.num_inputs, len(sequence.times))
    times = sequence.times[positions]
    steps = np.diff(times)
    if len(steps) and steps.max() > windows.longest_step(cadence):
        where = int(np.flatnonzero(steps > windows.longest_step(cadence))[0])
        raise DataError(
            f"{steps[where] / MINUTE:g} min without a frame before input {where + 2} of the last {windows.num_inputs}: "
            f"the model was trained with steps of at most {windows.longest_step(cadence) / MINUTE:g} min"
        )
    frames = torch.from_numpy(sequence.read(positions))[None]
    seen = ~torch.isnan(frames[0, -1])
    if not seen.any():
        raise DataError("the last input frame has no valid pixel")
    origin = int(times[-1])
    relative = torch.cat(
        [relative_times(times, origin, cadence), relative_times(origin + lead_times, origin, cadence)]
    )[None]
    empty = torch.full_like(frames[:, :1], float("nan")).expand(-1, len(lead_times), -1, -1, -1)
    normalizer = Normalizer.from_plain(run.best.state["normalizer"])
    batch = make_batch(normalizer, torch.cat([frames, empty], dim=1), relative, windows.num_inputs)
    return replace(batch, origin=torch.tensor([origin])), seen.numpy()


def _label(physical: np.ndarray, seen: np.ndarray, lead_times: np.ndarray, origin: int, source: Source,
           run: Run) -> xr.Dataset:  # fmt: skip
    grid = source.grid
    names = (grid.row_name, grid.column_name)
    variables: dict[str, Any] = {}
    mapping = {"grid_mapping": grid.mapping[0]} if grid.mapping else {}
    for channel, variable in enumerate(run.best.state["variables"]):
        name, attributes = variable["name"], {**variable["attributes"], "units": variable["units"], **mapping}
        variables[name] = (("init_time", "lead_time", *names), physical[None, :, channel], attributes)
        if not seen[channel].all():
            variables[name][2]["ancillary_variables"] = f"{name}_valid"
            flags = {"flag_values": np.array([0, 1], np.uint8), "flag_meanings": "missing_input seen_input"}
            flags["long_name"] = f"whether the last input frame of {name} had a value"
            variables[f"{name}_valid"] = (("init_time", *names), seen[None, channel].astype(np.uint8), flags)
    if grid.mapping:
        variables[grid.mapping[0]] = ((), np.int32(0), grid.mapping[1])
    result = xr.Dataset(variables, _coordinates(lead_times, origin, source), _attributes(run.best, run))
    units = "seconds since 1970-01-01 00:00:00"
    for name in ("init_time", "valid_time"):
        result[name].encoding |= {"units": units, "calendar": source.calendar, "dtype": "int64"}
    result["lead_time"].encoding |= {"units": "seconds", "dtype": "int64"}
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
    if calendar == "standard":
        return times.astype("datetime64[ns]")
    seconds = (np.asarray(times) // NANOSECONDS).tolist()
    return np.array(cftime.num2date(seconds, "seconds since 1970-01-01", calendar=calendar), dtype=object)


def _attributes(checkpoint: Checkpoint, run: Run) -> dict[str, str]:
    step = checkpoint.state["progress"]["step"]
    weights = run.checkpoint_folder / f"step-{step:08d}" / "model.safetensors"
    return {
        "Conventions": "CF-1.11",
        "title": f"Forecast by {run.config.model_key}",
        "references": MODELS[run.config.model_key].paper,
        "source": f"fieldcast {version()} {run.config.model_key} {sha256(weights)}",
        "history": f"{np.datetime64('now')}Z fieldcast forecast of run '{run.config.name}', step {step}",
    }
