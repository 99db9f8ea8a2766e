"""Forecasts to look at: which samples, and the maps of every model side by side.

Shapes: T input frames, S lead times, C variables, H rows, W columns.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr

from fieldcast.data import Samples
from fieldcast.data.source import Source, Variable
from fieldcast.evaluation import Tally, predict
from fieldcast.evaluation.table import units_of
from fieldcast.forecast import decode_times
from fieldcast.lead_times import lead_labels
from fieldcast.metrics import METRICS
from fieldcast.models import Forecaster
from fieldcast.report.contents import MAIN_METRIC, OBSERVED, REFERENCE, Case
from fieldcast.report.wording import number_label


class Choice(NamedTuple):
    """A sample's number in its split, and why it is shown."""

    number: int
    reason: str


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


def make_cases(
    models: dict[str, Forecaster], samples: Samples, choices: Sequence[Choice], precision: str = "float32"
) -> list[Case]:
    """What was observed and what each model forecasts for some samples: a case for each of them and variable."""
    cases = []
    for number, reason in choices:
        maps = _side_by_side(models, samples, number, precision)
        for channel, variable in enumerate(samples.source.variables):
            attributes = {"long_name": title(variable), **variable.attributes, "units": variable.units}
            one = maps.isel(variable=channel).rename(variable.name).assign_attrs(attributes)
            cases.append(Case(reason, one))
    return cases


def _side_by_side(models: dict[str, Forecaster], samples: Samples, number: int, precision: str) -> xr.DataArray:
    """Maps (panel, variable, lead_time, y, x) of one sample in order of time, in physical units; a model has none of
    its inputs."""
    batch = samples.batch([number])
    observed = samples.frames(number)
    unknown = np.full_like(observed[: samples.windows.num_inputs], np.nan)
    panels = [observed]
    for model in models.values():
        future = samples.normalizer.denormalise(predict(model, batch, torch.device("cpu"), precision))
        panels.append(np.concatenate([unknown, future[0].numpy()]))
    source = samples.source
    times = samples.times(number)
    coordinates = {
        "panel": [OBSERVED, *models],
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
