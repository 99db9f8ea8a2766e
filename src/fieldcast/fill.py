"""Gaps of a sequence of frames, filled by a run that interpolates: xarray in, xarray out.

Shapes: N frames there are, K filled frames, T input frames, S missing times of a gap, C variables, H rows, W columns.
"""

import warnings
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr

from fieldcast.data.axes import Axes, AxisNames, find_axes
from fieldcast.data.dataset import FRAMES_AT_ONCE
from fieldcast.data.netcdf import NetCDFConfig, NetCDFSequence
from fieldcast.data.times import decode_axis, format_time, parse_duration
from fieldcast.errors import ConfigError, DataError
from fieldcast.evaluation import predict
from fieldcast.forecast.inputs import (
    MINUTE,
    Opened,
    check_fit,
    forgiven,
    frame_times,
    longest_step,
    make_sample,
    models_that,
    open_inputs,
)
from fieldcast.forecast.labels import decode_cftime, history_line, made_by, time_unit
from fieldcast.models import Forecaster
from fieldcast.processes import choose_device
from fieldcast.run import Run

FLAG = "_filled"  # after a variable's name


class Gap(NamedTuple):
    """Times without a frame between two frames that are there, and the frames around it that a model is to read."""

    length: int  # ns from the frame before to the frame after
    times: np.ndarray  # (S,) int64 ns
    inputs: np.ndarray  # (T,) positions among all frames


class Filled(NamedTuple):
    """What was made for times that were missing."""

    times: np.ndarray  # (K,) int64 ns
    frames: np.ndarray  # (K, C, H, W) in the run's units
    num_gaps: int


def fill(run: Run, inputs: xr.Dataset | str | Path, device: str = "auto", longest: str | None = None) -> xr.Dataset:
    """Fill the gaps in a sequence of frames.

    A frame is missing where the time of the run's cadence has none, or one without any value. Of each gap the model
    reads as many frames as the run was trained with, half of them from either side, the nearest ones. What is missing
    before the first frame or after the last is not filled: that would be a forecast. Gaps that are too long stay as
    they are, all of them if need be, and a warning says so.

    Args:
        run: a trained run of a model that interpolates.
        inputs: frames, as xarray or as the path of one NetCDF file or Zarr folder; units that the run's can be made
            from are converted, and back.
        device: "auto", "cpu", "cuda".
        longest: a duration such as "30 min", of the longest gap to fill, from the frame before it to the one after;
            None: as long as the run was trained to fill.

    Returns:
        the run's variables at all times, in the input's own units and order of dimensions; what was observed is as it
        was, bit by bit. For each variable NAME a flag NAME_filled (time): 0 observed, 1 filled. A pixel that no frame
        around the gap has is missing in the filled ones too.

    Raises:
        ConfigError: for a model that does not interpolate, and where no gap is as short as ``longest``.
        DataError: where variable, units, grid spacing, cadence or calendar do not fit the checkpoint, and where there
            are too few frames around a gap.
    """
    torch_device = choose_device(device)
    model = run.model(torch_device)
    _check_model(model, run)
    limit = _longest_gap(longest, run)
    opened = open_inputs(run, inputs)
    if len(opened.datasets) > 1:
        raise DataError(f"{inputs}: {len(opened.datasets)} files: fill takes one, join them first")
    check_fit(opened, model, run)
    sequence, times = opened.source.sequences("all", None)[0], frame_times(opened)
    seen = _seen(sequence)
    there = np.all(seen, axis=1)
    if not there.any():
        raise DataError(f"no frame of the input has values of {' and '.join(_names(run))}")
    found = find_gaps(times, there, run.best.state["cadence"], run.config.windows.num_inputs)
    gaps = [gap for gap in found if gap.length <= limit + forgiven(run)]
    _check_inputs(gaps, run)
    present = np.flatnonzero(there)
    outside = np.delete(times, np.s_[present[0] : present[-1] + 1])
    for text in [*_about_gaps(found, gaps, limit, run), *_about_ends(outside, run)]:
        warnings.warn(text, stacklevel=2)
    frames = [np.zeros((0, seen.shape[1], *opened.source.shape), np.float32)]
    frames += [_fill_gap(gap, opened, model, torch_device, run) for gap in gaps]
    missing = np.concatenate([times[:0], *(gap.times for gap in gaps)])
    return _label(opened, Filled(missing, np.concatenate(frames), len(gaps)), seen, run)


def find_gaps(times: np.ndarray, there: np.ndarray, cadence: int, num_inputs: int) -> list[Gap]:
    """The gaps between the first and the last frame that is there.

    A step of about n cadences lacks n - 1 frames, one cadence after the other from the frame before it.

    Args:
        times: (N,) int64 ns, ascending.
        there: (N,) bool, whether a frame has values.
        cadence: ns.
        num_inputs: T, frames to read around each gap: half before and half after, as far as there are any.
    """
    present = np.flatnonzero(there)
    gaps = []
    for place, (before, after) in enumerate(pairwise(present)):
        missing = [times[before + 1 : after]]
        for start, end in pairwise(times[before : after + 1]):
            # Half a step is no frame.
            count = (2 * (end - start) + cadence - 1) // (2 * cadence) - 1
            missing.append(start + cadence * np.arange(1, count + 1))
        wanted = np.sort(np.concatenate(missing))
        if len(wanted):
            num_after = min(num_inputs // 2, len(present) - place - 1)
            first = max(place + 1 + num_after - num_inputs, 0)
            gaps.append(Gap(int(times[after] - times[before]), wanted, present[first : first + num_inputs]))
    return gaps


def _seen(sequence: NetCDFSequence) -> np.ndarray:
    """Where a frame has any value of a variable: (N, C) bool."""
    positions = np.arange(len(sequence.times))
    pieces = [positions[first : first + FRAMES_AT_ONCE] for first in range(0, len(positions), FRAMES_AT_ONCE)]
    return np.concatenate([~np.isnan(sequence.read(piece)).all(axis=(2, 3)) for piece in pieces])


def _check_model(model: Forecaster, run: Run) -> None:
    key, others = run.config.model_key, f"Models that interpolate: {models_that('interpolates')}"
    if not model.interpolates:
        raise ConfigError(f"{key} forecasts only what comes after its inputs, it fills no gap. {others}")
    if model.ignore_times:
        raise ConfigError(f"this run of {key} ignores times, so it fills no gap: train one with ignore_times = false")
    if run.config.windows.num_inputs < 2:
        raise ConfigError("this run reads 1 frame, a gap has two sides: train one with windows.num_inputs from 2")


def _longest_gap(longest: str | None, run: Run) -> int:
    """How long a gap may be that is to be filled, ns."""
    cadence = run.best.state["cadence"]
    length = longest_step(run) if longest is None else parse_duration(str(longest))
    if length > cadence:
        return length
    if longest is None:
        raise ConfigError(
            f"this run was trained with inputs {cadence / MINUTE:g} min apart, so it has learnt to fill no gap: train "
            'one with sampling.task = "interpolate", or say with longest (--longest) how long a gap it is to fill'
        )
    raise ConfigError(
        f"longest = '{longest}': a gap lasts from the frame before it to the one after, longer than the cadence of "
        f"{cadence / MINUTE:g} min; where one frame is missing, {2 * cadence / MINUTE:g} min"
    )


def _check_inputs(gaps: list[Gap], run: Run) -> None:
    """Refuse a gap with too few frames around it."""
    num_inputs = run.config.windows.num_inputs
    for gap in gaps:
        if len(gap.inputs) < num_inputs:
            raise DataError(
                f"the gap {_between(gap.times, run)}: the model reads {num_inputs} frames around it, the input has "
                f"{len(gap.inputs)}"
            )


def _about_gaps(found: list[Gap], gaps: list[Gap], limit: int, run: Run) -> list[str]:
    """What a careful user may want to know of the gaps that were found and of those that are filled."""
    if not found:
        return ["no frame is missing between the first and the last: nothing was filled"]
    said, trained = [], longest_step(run)
    if left := len(found) - len(gaps):
        said.append(
            f"{left} of {len(found)} gaps are longer than {limit / MINUTE:g} min and stay as they are; "
            f"{_longest_of(found, run)}: longest (--longest) says how long a gap may be"
        )
    if gaps and not run.config.sampling.plan(run.config.windows).between:
        said.append('this run was trained to forecast, not to interpolate (sampling.task = "interpolate")')
    if beyond := sum(gap.length > trained + forgiven(run) for gap in gaps):
        said.append(
            f"{beyond} of {len(gaps)} filled gaps are longer than the {trained / MINUTE:g} min between inputs that the "
            f"run was trained with; {_longest_of(gaps, run)}"
        )
    return said


def _about_ends(outside: np.ndarray, run: Run) -> list[str]:
    if not len(outside):
        return []
    frames = f"{len(outside)} frames without a value {_between(outside, run)}"
    return [f"not filled, since nothing is before or after: {frames}"]


def _longest_of(gaps: list[Gap], run: Run) -> str:
    worst = max(gaps, key=lambda gap: gap.length)
    return f"the longest, {_between(worst.times, run)}, is {worst.length / MINUTE:g} min"


def _names(run: Run) -> list[str]:
    return [variable["name"] for variable in run.best.state["variables"]]


def _between(times: np.ndarray, run: Run) -> str:
    first, last = (format_time(int(time), run.best.state["calendar"]) for time in (times[0], times[-1]))
    return f"from {first} to {last}" if first != last else f"at {first}"


def _fill_gap(gap: Gap, opened: Opened, model: Forecaster, device: torch.device, run: Run) -> np.ndarray:
    """Frames (S, C, H, W) of a gap, in the run's units."""
    batch, frames = make_sample(opened, gap.inputs, gap.times, run)
    physical = run.normalizer.denormalise(predict(model, batch, device, run.config.training.precision)[0])
    # Where no radar has ever looked, the model saw zeros.
    return torch.where(torch.isnan(frames).all(dim=0), torch.nan, physical).numpy()


def _label(opened: Opened, filled: Filled, seen: np.ndarray, run: Run) -> xr.Dataset:
    """The input with the filled frames in their places, flags, and attributes that say so."""
    stored, settings, times = opened.datasets[0], run.config.source.settings, frame_times(opened)
    assert isinstance(settings, NetCDFConfig)
    names = _names(run)
    axes = find_axes(stored, names[0], AxisNames(settings.time, settings.rows, settings.columns), "the input")
    every = np.union1d(times, filled.times)
    result = _at_all_times(_learnt(stored, axes, names), axes, times, every)
    there = np.searchsorted(times, filled.times)
    is_new = times[there] != filled.times
    for channel, (factor, offset) in enumerate(opened.conversions(opened.source.cadence)[0]):
        # A frame can lack one variable and have another.
        missing = is_new | ~seen[there, channel]
        own = (filled.frames[missing, channel] - offset) / factor
        frames = xr.DataArray(own, dims=(axes.time, axes.rows, axes.columns))
        _insert(result, names[channel], frames, np.searchsorted(every, filled.times[missing]))
    attributes = result.attrs
    history = [str(attributes.get("history", "")), history_line("fill", run)]
    history[1] += f": {len(filled.times)} frames in {filled.num_gaps} gaps"
    source = [str(attributes.get("source", "")), f"gaps filled by {made_by(run)}"]
    attributes["Conventions"] = "CF-1.11"
    attributes["history"] = "\n".join(filter(None, history))
    attributes["source"] = "; ".join(filter(None, source))
    return result


def _learnt(stored: xr.Dataset, axes: Axes, names: list[str]) -> xr.Dataset:
    """The input, decoded, without what changes in time and the run never learnt."""
    # Flags tell what an earlier filling has made.
    known = (*names, *(f"{name}{FLAG}" for name in names), axes.time_variable)
    unknown = [str(name) for name, own in stored.variables.items() if axes.time in own.dims and name not in known]
    if unknown:
        warnings.warn(f"left out, since the run does not know them between frames: {', '.join(unknown)}", stacklevel=4)
    return xr.decode_cf(stored.drop_vars(unknown), decode_timedelta=False)


def _at_all_times(dataset: xr.Dataset, axes: Axes, times: np.ndarray, every: np.ndarray) -> xr.Dataset:
    """The data set in order of time; where a frame is to come, the next one stands in.

    Args:
        dataset: N frames in any order.
        axes: its dimensions.
        times: (N,) int64 ns, ascending.
        every: all times that are wanted, int64 ns, ascending.
    """
    stamps = dataset[axes.time_variable].values
    decoded = decode_axis(stamps, {}, "the input").times
    places, is_new = np.searchsorted(times, every), ~np.isin(every, times)
    order = np.argsort(decoded, kind="stable")[places]
    result = dataset.isel({axes.time: order}).load().drop_encoding()
    time = result[axes.time_variable]
    standard = stamps.dtype.kind == "M"
    stamps = time.values.astype("datetime64[ns]") if standard else time.values.copy()
    calendar = "standard" if standard else stamps[0].calendar
    stamps[is_new] = every[is_new].astype("datetime64[ns]") if standard else decode_cftime(every[is_new], calendar)
    attributes = {name: value for name, value in time.attrs.items() if name != "bounds"}
    unit = time_unit(np.append(decoded, every[is_new]))
    encoding = {"units": f"{unit} since 1970-01-01", "calendar": calendar, "dtype": "int64"}
    return result.assign_coords({axes.time_variable: xr.Variable(axes.time, stamps, attributes, encoding)})


def _insert(result: xr.Dataset, name: str, frames: xr.DataArray, places: np.ndarray) -> None:
    """Put frames (time, rows, columns) at places along the time of a variable, and a flag beside it."""
    time = frames.dims[0]
    field = result[name].astype(np.promote_types(result[name].dtype, np.float32))
    field[{time: places}] = frames.astype(field.dtype)
    beside = str(field.attrs.get("ancillary_variables", "")).split()
    flag = f"{name}{FLAG}"
    field.attrs["ancillary_variables"] = " ".join(
        [*(other for other in beside if other in result and other != flag), flag]
    )
    result[name] = field
    flags = result[flag].values.astype(np.uint8) if flag in result else np.zeros(result.sizes[time], np.uint8)
    flags[places] = 1
    about = {"flag_values": np.array([0, 1], np.uint8), "flag_meanings": "observed filled"}
    about["long_name"] = f"whether {name} was filled in by a model"
    result[flag] = (time, flags, about)
