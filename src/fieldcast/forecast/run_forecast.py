"""Forecasts from the last frames of a data set.

Shapes: M members, S lead times, C variables, H rows, W columns.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from fieldcast.data.batch import Batch
from fieldcast.data.times import decode_time, format_time
from fieldcast.errors import ConfigError, DataError
from fieldcast.evaluation import predict
from fieldcast.forecast.inputs import (
    MINUTE,
    check_fit,
    frame_times,
    latest_inputs,
    longest_lead,
    make_sample,
    models_that,
    open_inputs,
)
from fieldcast.forecast.labels import add_seen, label, label_flow
from fieldcast.models import Forecaster
from fieldcast.models.base import TIME_TOLERANCE
from fieldcast.processes import autocast, choose_device
from fieldcast.run import Run


def forecast(
    run: Run,
    inputs: xr.Dataset | str | Path,
    minutes: Sequence[float] = (),
    device: str = "auto",
    at: Sequence[str] = (),
    members: int | None = None,
) -> xr.Dataset:
    """Forecast from the last frames of a data set.

    Args:
        run: a trained run.
        inputs: past frames, as xarray or as the path of a NetCDF file or Zarr folder; units that the run's can be
            made from are converted.
        minutes: lead times, above 0; from 0 on where a run forecasts flow at stations.
        device: "auto", "cpu", "cuda".
        at: times to forecast, such as "2018-05-20T10:07" (UTC, in the calendar of the inputs), beside ``minutes`` or
            instead of them.
        members: so many random forecasts, the same each time, of a model that draws; None: the one that stands for all.

    Returns:
        every variable (init_time, lead_time, [number,] y, x) in the units of training, laid out by CF-1.11: the
        reference time is that of the last frame. Of a run with stations, the flow (init_time, lead_time, station).

    Raises:
        DataError: where variable, units, grid spacing, cadence or frames do not fit the checkpoint, and for lead times
            that the model can't forecast.
        ConfigError: for times that are not after the last frame and ascending, and for members of a model without.
    """
    leads, torch_device = _from_minutes(minutes, at, run), choose_device(device)
    model = run.model(torch_device)
    _check_members(members, model, run)
    opened = open_inputs(run, inputs)
    check_fit(opened, model, run)
    positions = latest_inputs(opened, run)
    origin = int(frame_times(opened)[positions[-1]])
    lead_times = np.union1d(leads, _from_times(at, origin, opened.source.calendar))
    _check_lead_times(lead_times, model, run)
    every = lead_times if run.stations else _with_steps(lead_times, run.best.state["cadence"])
    batch, frames = make_sample(opened, positions, origin + every, run)
    seen = ~torch.isnan(frames[-1])
    if not seen.any():
        raise DataError("the last input frame has no valid pixel")
    if members is None:
        normalised = predict(model, batch, torch_device, run.config.training.precision)[0]
    else:
        normalised = _draw(model, batch.without_targets().to(torch_device), members, run)
    if run.stations:
        return label_flow(run.target_normalizer.denormalise(normalised).numpy(), lead_times, origin, opened.source, run)
    asked = normalised[..., np.searchsorted(every, lead_times), :, :, :]
    physical = run.normalizer.denormalise(asked).numpy()
    return add_seen(label(physical, lead_times, origin, opened.source, run), seen.numpy(), run)


def _from_minutes(minutes: Sequence[float], at: Sequence[str], run: Run) -> np.ndarray:
    """Lead times, int64 ns."""
    try:
        values = [float(value) for value in minutes]
    except (TypeError, ValueError):
        raise ConfigError(f"minutes = {minutes!r}: a list of numbers, such as [5, 10, 30]") from None
    early = any(value < 0 or (value == 0 and not run.stations) for value in values)
    if early or not all(map(np.isfinite, values)) or sorted(set(values)) != values or not (values or len(at)):
        least = "from 0 on" if run.stations else "above 0"
        raise ConfigError(f"minutes = {values}: lead times {least}, ascending, each once, or times in 'at'")
    return np.round(np.array(values) * MINUTE).astype(np.int64)


def _from_times(at: Sequence[str], origin: int, calendar: str) -> np.ndarray:
    """Lead times, int64 ns, of times in words."""
    if isinstance(at, str) or not all(isinstance(text, str) for text in at):
        raise ConfigError(f"at = {at!r}: a list of times, such as ['2018-05-20T10:07']")
    times = [decode_time(text, calendar) for text in at]
    early = [text for text, time in zip(at, times, strict=True) if time <= origin]
    if early:
        raise ConfigError(f"at = '{early[0]}': the last input is of {format_time(origin, calendar)}, name later times")
    if sorted(set(times)) != times:
        raise ConfigError(f"at = {list(at)}: times in order, each once")
    return np.array(times, dtype=np.int64) - origin


def _with_steps(lead_times: np.ndarray, cadence: int) -> np.ndarray:
    """Lead times and the multiples of the cadence before them.

    A model that goes from target to target takes the steps that it took in training, whatever is asked for.
    """
    steps = cadence * np.arange(1, lead_times[-1] // cadence + 1)
    apart = abs(steps[:, None] - lead_times).min(axis=1) > TIME_TOLERANCE * cadence
    return np.union1d(steps[apart], lead_times)


def _check_lead_times(lead_times: np.ndarray, model: Forecaster, run: Run) -> None:
    """Refuse what the model can't forecast, and warn of what it never learnt."""
    cadence = run.best.state["cadence"]
    steps = lead_times / cadence
    odd = lead_times[(abs(steps - steps.round()) > TIME_TOLERANCE) | (steps.round() < (0 if run.stations else 1))]
    if len(odd) and (model.ignore_times or not model.irregular_targets):
        few = ", ".join(f"{count * cadence / MINUTE:g}" for count in (1, 2, 3))
        raise DataError(
            f"{run.model_name} forecasts at whole multiples of the cadence, {few} min and so on after the last input; "
            f"{_worded(odd)} came. Models that forecast at any time: {models_that('irregular_targets')}"
        )
    longest = longest_lead(run)
    if lead_times[-1] > longest:
        trained = f"the {longest / MINUTE:g} min" if longest else "the times between its inputs"
        warnings.warn(f"{_worded(lead_times[-1:])} is beyond {trained} that the model was trained for", stacklevel=3)


def _worded(lead_times: np.ndarray) -> str:
    return ", ".join(f"{lead / MINUTE:g}" for lead in lead_times) + " min"


def _check_members(members: int | None, model: Forecaster, run: Run) -> None:
    if members is None:
        return
    if type(members) is not int or members < 1:
        raise ConfigError(f"members = {members!r}: a whole number from 1")
    if not model.draws:
        raise ConfigError(
            f"members = {members}: {run.config.model_key} has one forecast for each input. "
            f"Models that draw several: {models_that('draws')}"
        )


@torch.inference_mode()
def _draw(model: Forecaster, batch: Batch, members: int, run: Run) -> Tensor:
    """Forecasts at random (M, S, C, H, W), normalised: one after the other, so that the first of many are the same."""
    device = batch.inputs.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(run.config.seed)
        with autocast(device, run.config.training.precision):
            drawn = [model.draw(batch.inputs, batch.input_times, batch.target_times) for _ in range(members)]
    return torch.cat(drawn).float().cpu()
