"""What of a run's forecast is explained: rivers by name, a pixel or a region, at lead times.

Shapes: S targets, C fields, H rows, W columns, Q outputs.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fieldcast.data import Samples
from fieldcast.data.source import Variable, forecast_variables
from fieldcast.errors import ConfigError
from fieldcast.explain.outputs import Outputs, join_outputs, pixel_output, region_output, station_outputs
from fieldcast.models.base import TIME_TOLERANCE
from fieldcast.run import Run
from fieldcast.settings import nearest

MINUTE = 60 * 10**9


class Place(NamedTuple):
    """A pixel, or a region of pixels from first to before last, and the variable that is explained there.

    ``variable`` None: the first that the run forecasts.
    """

    rows: tuple[int, int]
    columns: tuple[int, int]
    variable: str | None = None


class Asked(NamedTuple):
    """What is to be explained: stations (None: all), or a place of a map, at lead times (none: those of the run)."""

    station: str | Sequence[str] | None = None
    place: Place | None = None
    minutes: Sequence[float] = ()


def read_place(pixel: str | None, region: str | None, variable: str | None) -> Place | None:
    """A place as the command line words it: "ROW,COLUMN", or "TOP:BOTTOM,LEFT:RIGHT"; None where there is none.

    Raises:
        ConfigError: for other words.
    """
    if pixel is not None and region is not None:
        raise ConfigError("a pixel and a region: name one of them")
    if pixel is None and region is None:
        if variable is not None:
            raise ConfigError(f"variable = '{variable}' is of a pixel or a region: name one too")
        return None
    text, pattern = (pixel, r"(\d+),(\d+)") if pixel is not None else (region, r"(\d+):(\d+),(\d+):(\d+)")
    found = re.fullmatch(pattern, (text or "").replace(" ", ""))
    if found is None:
        raise ConfigError(f"'{text}': a pixel is ROW,COLUMN (40,60), a region TOP:BOTTOM,LEFT:RIGHT (10:20,30:50)")
    ends = [int(number) for number in found.groups()]
    if len(ends) == 2:
        ends = [ends[0], ends[0] + 1, ends[1], ends[1] + 1]
    return Place((ends[0], ends[1]), (ends[2], ends[3]), variable)


class Labels(NamedTuple):
    """What the Q outputs are: of which variable, at which stations or which place of a map, at which lead times in
    cadences."""

    variable: Variable
    leads: list[float]
    stations: list[int] | None = None
    place: Place | None = None


def choose_outputs(run: Run, samples: Samples, number: int, asked: Asked) -> tuple[Tensor, Outputs, Labels]:
    """The target times (1, S) that the model is asked for, and the outputs among what it gives.

    Raises:
        ConfigError: for stations of a map, a place of stations, an unknown name, or a place outside the map.
    """
    trained = samples.batch([number]).target_times[0].tolist()
    chosen = [value * MINUTE / run.best.state["cadence"] for value in asked.minutes]
    if sorted(set(chosen)) != chosen:
        raise ConfigError(f"minutes = {list(asked.minutes)}: lead times in order, each once")
    if run.stations is not None:
        return _of_stations(run, asked, chosen or trained)
    place = asked.place
    if asked.station is not None or place is None:
        raise ConfigError("this run forecasts maps: name a pixel or a region, not a station")
    leads = chosen or trained[-1:]
    # A model that goes from target to target takes the steps that it took in training.
    before = [time for time in trained if time < leads[-1] and min(abs(time - lead) for lead in leads) > TIME_TOLERANCE]
    times = sorted([*before, *leads])
    variables = [variable.name for variable in forecast_variables(samples.source)]
    name = place.variable or variables[0]
    if name not in variables:
        raise ConfigError(f"variable '{name}': {nearest(name, variables)}")
    field, shape = variables.index(name), (len(times), len(variables), *samples.source.shape)
    outputs = [_of_place(place, shape, times.index(lead), field, lead, len(leads) > 1) for lead in leads]
    labels = Labels(forecast_variables(samples.source)[field], leads, place=place)
    return torch.tensor([times], dtype=torch.float32), join_outputs(outputs), labels


def _of_stations(run: Run, asked: Asked, leads: list[float]) -> tuple[Tensor, Outputs, Labels]:
    assert run.stations is not None and run.flow is not None
    station = asked.station
    if asked.place is not None:
        raise ConfigError("this run forecasts flow at stations: name a station, not a pixel or a region")
    known = run.stations.names
    names = list(known) if station is None else [station] if isinstance(station, str) else list(station)
    for name in names:
        if name not in known:
            raise ConfigError(f"unknown station '{name}': {nearest(name, known)}")
    numbers = [known.index(name) for name in names]
    outputs = station_outputs(names, numbers, len(known), leads)
    repeated = [number for number in numbers for _ in leads]
    labels = Labels(run.flow, [lead for _ in numbers for lead in leads], repeated)
    return torch.tensor([leads], dtype=torch.float32), outputs, labels


def _of_place(
    place: Place, shape: tuple[int, int, int, int], target: int, field: int, lead: float, named: bool
) -> Outputs:
    (top, bottom), (left, right) = place.rows, place.columns
    if not (0 <= top < bottom <= shape[2] and 0 <= left < right <= shape[3]):
        raise ConfigError(
            f"rows {top}:{bottom}, columns {left}:{right}: the map has rows 0:{shape[2]} and columns 0:{shape[3]}"
        )
    ending = f" +{lead:g}" if named else ""
    if (bottom - top, right - left) == (1, 1):
        return pixel_output(f"pixel {top},{left}{ending}", shape, (target, field, top, left))
    region = torch.from_numpy(np.zeros(shape[2:], np.float32))
    region[top:bottom, left:right] = 1
    return region_output(f"region {top}:{bottom},{left}:{right}{ending}", shape, target, field, region)
