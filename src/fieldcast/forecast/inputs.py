"""What a trained run reads: frames that fit it, as one sample.

Shapes: T input frames, S target times, C variables, H rows, W columns.
"""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from fieldcast.data.batch import Batch
from fieldcast.data.dataset import make_batch, relative_times
from fieldcast.data.files import find_files, open_raw
from fieldcast.data.netcdf import NetCDF, NetCDFConfig
from fieldcast.data.source import NANOSECONDS
from fieldcast.data.units import conversion
from fieldcast.errors import DataError
from fieldcast.models import MODELS, Forecaster, build
from fieldcast.run import Run

GRID_TOLERANCE = 1e-4  # of a cell
MINUTE = 60 * NANOSECONDS


class Opened(NamedTuple):
    """Frames in a run's units, and the data sets that they come from, as stored."""

    source: NetCDF
    datasets: list[xr.Dataset]

    def conversions(self, cadence: int) -> list[list[tuple[float, float]]]:
        """For each data set and variable, factor and offset from its own units to the run's at a cadence in ns."""
        return [
            [
                conversion(str(own.get("units", "")), variable.units, cadence, str(own.get("standard_name", "")))
                for variable in self.source.variables
                for own in [dataset[variable.name].attrs]
            ]
            for dataset in self.datasets
        ]


def open_inputs(run: Run, inputs: xr.Dataset | str | Path) -> Opened:
    """Open frames as the run's source would.

    Raises:
        DataError: where they can't be read, or the run was trained on another kind of source.
    """
    trained = run.config.source.settings
    if not isinstance(trained, NetCDFConfig):
        raise DataError(
            f"this run was trained on '{run.config.source.key}': frames from NetCDF or xarray go to a run "
            "that was trained on the source 'netcdf' or 'runoff'"
        )
    if not isinstance(inputs, xr.Dataset | str | Path):
        raise DataError(
            f"an xarray.Dataset or a path is wanted, {type(inputs).__name__} came; of a DataArray make one with "
            f"to_dataset(name='{trained.variables[0]}')"
        )
    if isinstance(inputs, xr.Dataset):
        named = [("the data set", inputs)]
    else:
        named = [(str(path), open_raw(path)) for path in find_files(str(inputs))]
    units = tuple(variable["units"] for variable in run.best.state["variables"])
    return Opened(NetCDF(trained.model_copy(update={"units": units}), named), [dataset for _, dataset in named])


def check_fit(opened: Opened, model: Forecaster, run: Run) -> None:
    """Refuse frames that a run's model was not made for.

    Raises:
        DataError: for another spacing, cadence or calendar than that of training.
    """
    source, state = opened.source, run.best.state
    own, wanted = source.grid.spacing(), state["grid"]["spacing"]
    for name, step, trained in zip(state["grid"]["names"], own, wanted, strict=True):
        if trained is not None and (step is None or abs(step - trained) > GRID_TOLERANCE * abs(trained)):
            came = "no coordinate" if step is None else f"a spacing of {step:g}"
            todo = f"give it the coordinate '{name}'" if step is None else "regrid it"
            raise DataError(f"the input has {came} along {name}, the model was trained on {trained:g}: {todo}")
    _check_cadence(opened, model, state["cadence"])
    if source.calendar != state["calendar"]:
        raise DataError(f"the input's calendar is {source.calendar}, the model was trained on {state['calendar']}")


def _check_cadence(opened: Opened, model: Forecaster, trained: int) -> None:
    """Refuse another cadence, unless it is that of a few frames of which some are missing."""
    cadence = opened.source.cadence
    if abs(cadence - trained) <= trained // 200:
        return
    text = (
        f"the input has a frame every {cadence / MINUTE:g} min, the model was trained on one every "
        f"{trained / MINUTE:g} min"
    )
    if cadence < trained or not model.irregular_inputs:
        raise DataError(text)
    if opened.conversions(cadence) != opened.conversions(trained):
        raise DataError(f"{text}, so how long its amounts took to fall is unclear: give rates")


def latest_inputs(opened: Opened, run: Run) -> np.ndarray:
    """Positions (T,) of the last frames, as many as the run reads, whenever they are.

    Raises:
        DataError: where there are too few frames, or a longer step between them than in training.
    """
    num_inputs, times = run.config.windows.num_inputs, frame_times(opened)
    if len(times) < num_inputs:
        raise DataError(f"the model reads {num_inputs} frames, the input has {len(times)}")
    positions = np.arange(len(times) - num_inputs, len(times))
    steps, longest = np.diff(times[positions]), longest_step(run)
    too_long = np.flatnonzero(steps > longest + forgiven(run))
    if len(too_long):
        where = int(too_long[0])
        raise DataError(
            f"{steps[where] / MINUTE:g} min without a frame before input {where + 2} of the last {num_inputs}: "
            f"the model was trained with steps of at most {longest / MINUTE:g} min. Fill the gap first "
            "(`fieldcast fill`), or train with a longer windows.max_gap"
        )
    return positions


def frame_times(opened: Opened) -> np.ndarray:
    """Times (N,) of all frames, ascending, int64 ns."""
    return opened.source.sequences("all", None)[0].times


def longest_step(run: Run) -> int:
    """Longest step between two inputs that the run was trained with, ns."""
    plan = run.config.sampling.plan(run.config.windows)
    # Where inputs are some of a stretch of frames, the others can be missing all together.
    return (plan.inputs[1] - run.config.windows.num_inputs + 1) * _frame_step(run)


def longest_lead(run: Run) -> int:
    """Longest time after the last input that the run was trained for, ns; none where it was trained to interpolate."""
    plan = run.config.sampling.plan(run.config.windows)
    return 0 if plan.between else (plan.targets[1] - plan.inputs[1]) * _frame_step(run)


def forgiven(run: Run) -> int:
    """By how much a step may be longer than in training, ns: time stamps are rounded."""
    return run.best.state["cadence"] // 200


def _frame_step(run: Run) -> int:
    return run.config.windows.longest_step(run.best.state["cadence"]) - forgiven(run)


def make_sample(opened: Opened, positions: np.ndarray, target_times: np.ndarray, run: Run) -> tuple[Batch, Tensor]:
    """One sample without targets.

    Args:
        opened: where the frames are.
        positions: (T,) of the inputs.
        target_times: (S,) int64 ns.
        run: whose normaliser and cadence it takes.

    Returns:
        the sample, and its inputs (T, C, H, W) in the run's units, NaN where missing.
    """
    sequence, cadence = opened.source.sequences("all", None)[0], run.best.state["cadence"]
    frames = torch.from_numpy(sequence.read(positions))
    origin = int(sequence.times[positions[-1]])
    times = relative_times(np.concatenate([sequence.times[positions], target_times]), origin, cadence)
    place = (1, len(run.stations)) if run.stations else frames.shape[1:]
    unknown = torch.full((1, len(target_times), *place), torch.nan)
    batch = make_batch(run, frames[None], unknown, times[None])
    return replace(batch, origin=torch.tensor([origin])), frames


def models_that(ability: str) -> str:
    """Names of the models of maps to train that have an ability such as "interpolates", by their default settings."""
    of_maps = [key for key, row in MODELS.items() if row.forecaster.trained and not row.forecaster.forecasts_stations]
    with torch.device("meta"):
        names = [key for key in of_maps if getattr(build(key), ability)]
    return ", ".join(names) or "none"
