"""Forecasts to look at: which samples, and the maps of every model side by side.

Shapes: M members, T input frames, S lead times, C variables, H rows, W columns.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr

from fieldcast.data import Samples
from fieldcast.data.source import Source, Variable
from fieldcast.evaluation import Tally, predict
from fieldcast.evaluation.forecasts import draw_members
from fieldcast.evaluation.table import units_of
from fieldcast.forecast import decode_times
from fieldcast.lead_times import lead_labels
from fieldcast.metrics import METRICS
from fieldcast.models import Forecaster
from fieldcast.report.contents import MAIN_METRIC, OBSERVED, REFERENCE, Case
from fieldcast.report.wording import number_label
from fieldcast.run import Run


class Choice(NamedTuple):
    """A sample's number in its split, and why it is shown."""

    number: int
    reason: str


class Ensemble(NamedTuple):
    """What the random forecasts of a model were drawn by when it was scored: its run's seed, and how many."""

    seed: int
    num_members: int


def choose_cases(tally: Tally, model: str) -> list[Choice]:
    """The sample with most in it, and those that speak best and worst for a model, each once.

    Against persistence where it was scored; the first sample stands for a stretch of several.
    """
    space = tally.spaces[0].name
    error = tally.scores(MAIN_METRIC, space, model).numpy()
    amount = (tally.observed[:, 0] / tally.observed[:, 1]).numpy()
    wanted: list[tuple[str, np.ndarray, np.ndarray | None]] = [("Most to forecast", amount, None)]
    if REFERENCE in tally.models:
        other = tally.scores(MAIN_METRIC, space, REFERENCE).numpy()
        wanted += [
            (f"Best of {model} against {REFERENCE}", other - error, other),
            (f"Worst of {model} against {REFERENCE}", error - other, other),
        ]
    wanted.append((f"Largest error of {model}", error, None))
    units = units_of(METRICS[MAIN_METRIC], tally.spaces[0].yardstick)
    choices: dict[int, str] = {}
    for words, values, reference in wanted:
        if not np.isfinite(values).any():
            continue
        place = int(np.nanargmax(values))
        against = "" if reference is None else f" against {number_label(float(reference[place]))}"
        number = tally.stretches[place].numbers[0]
        reason = f"{words}: MSE {number_label(float(error[place]))}{against}{'' if units == '1' else f' {units}'}"
        choices[number] = f"{choices[number]}; {reason[0].lower()}{reason[1:]}" if number in choices else reason
    return [Choice(number, reason) for number, reason in choices.items()]


def ensembles_of(runs: Mapping[str, Run]) -> dict[str, Ensemble]:
    """Of runs by the names of their models, those that are scored as ensembles."""
    members = {name: run.config.evaluation.num_members for name, run in runs.items()}
    return {name: Ensemble(runs[name].config.seed, number) for name, number in members.items() if number is not None}


def make_cases(
    models: dict[str, Forecaster],
    samples: Samples,
    choices: Sequence[Choice],
    precision: str = "float32",
    ensembles: Mapping[str, Ensemble] | None = None,
) -> list[Case]:
    """What was observed and what each model forecasts for some samples: a case for each of them and variable.

    Of a model among the ``ensembles`` it is the mean of the members that its scores are of.
    """
    drawn, cases = ensembles or {}, []
    for number, reason in choices:
        forecasts = {}
        for name, model in models.items():
            label = f"{name}, ensemble mean" if name in drawn else name
            forecasts[label] = _forecast(model, samples, number, precision, drawn.get(name))
        maps = _side_by_side(forecasts, samples, number)
        for channel, variable in enumerate(samples.source.variables):
            attributes = {"long_name": title(variable), **variable.attributes, "units": variable.units}
            one = maps.isel(variable=channel).rename(variable.name).assign_attrs(attributes)
            cases.append(Case(reason, one))
    return cases


def _forecast(
    model: Forecaster, samples: Samples, number: int, precision: str, ensemble: Ensemble | None
) -> np.ndarray:
    """Frames (S, C, H, W) of one sample in physical units, of an ensemble their mean."""
    batch, device = samples.batch([number]), torch.device("cpu")
    if ensemble is None:
        return samples.normalizer.denormalise(predict(model, batch, device, precision))[0].numpy()
    members = draw_members(model, batch, [(ensemble.seed, number)], ensemble.num_members, device, precision)
    # As scores take it: the mean of values in physical units.
    return samples.normalizer.denormalise(members).mean(0)[0].numpy()


def _side_by_side(forecasts: dict[str, np.ndarray], samples: Samples, number: int) -> xr.DataArray:
    """Maps (panel, variable, lead_time, y, x) of one sample in order of time, in physical units; a model has none of
    its inputs."""
    observed = samples.frames(number)
    unknown = np.full_like(observed[: samples.windows.num_inputs], np.nan)
    panels = [observed, *(np.concatenate([unknown, frames]) for frames in forecasts.values())]
    source = samples.source
    times = samples.times(number)
    coordinates = {
        "panel": [OBSERVED, *forecasts],
        "lead_time": (times - samples.origin(number)).astype("timedelta64[ns]"),
        "valid_time": ("lead_time", _valid_times(times, source)),
        "is_input": ("lead_time", np.arange(len(times)) < samples.windows.num_inputs),
    }
    grid = source.grid
    for axis, name, values in (("y", grid.row_name, grid.rows), ("x", grid.column_name, grid.columns)):
        if values is not None:
            coordinates[axis] = (axis, values, grid.attributes.get(name, {}))
    stacked = np.stack(panels).swapaxes(1, 2)
    maps = xr.DataArray(stacked, coordinates, ("panel", "variable", "lead_time", "y", "x"))
    # Targets between inputs come after them in a sample.
    return maps.isel(lead_time=np.argsort(times, kind="stable"))


def _valid_times(times: np.ndarray, source: Source) -> np.ndarray:
    """Dates of times (L,) int64 ns or, where nobody knows them, how long after the first frame in words."""
    if source.real_times:
        return decode_times(times, source.calendar)
    return np.array([label.removeprefix("+") for label in lead_labels(times.astype("timedelta64[ns]"))], dtype=object)


def title(variable: Variable) -> str:
    """A name to read, where the file gives none: by what it is rather than by what the file calls it."""
    return str(variable.attributes.get("standard_name", variable.name)).replace("_", " ")
