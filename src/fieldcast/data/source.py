"""What a source of frames looks like to the rest: sequences of frames with real times, and their labels."""

from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from fieldcast.data.flow import FlowNormalizerSettings

NANOSECONDS = 1_000_000_000

# Divided by time, divided by the source itself, or made in any number.
SourceKind = Literal["archive", "divided", "generator"]


@dataclass(frozen=True)
class Variable:
    """One channel: its name, units and the CF attributes that go back out with a forecast."""

    name: str
    units: str
    attributes: dict[str, str | float | int] = field(default_factory=dict)


@dataclass(frozen=True)
class Grid:
    """Where the pixels are: names and values of the row and column axes, and what else labels the map.

    ``rows`` (H,) and ``columns`` (W,) are coordinate values, or None where the axis has no coordinate;
    ``attributes`` maps an axis name to its attributes; ``mapping`` is the name and the attributes of the CF
    grid mapping, where there is one.
    """

    row_name: str = "y"
    column_name: str = "x"
    rows: np.ndarray | None = None
    columns: np.ndarray | None = None
    attributes: dict[str, dict] = field(default_factory=dict)
    mapping: tuple[str, dict] | None = None

    def spacing(self) -> tuple[float | None, float | None]:
        """Step of the row and column coordinate (signed, on average), None where there is none."""
        return _step(self.rows), _step(self.columns)


def _step(axis: np.ndarray | None) -> float | None:
    if axis is None or len(axis) < 2:
        return None
    # The mean step, because the differences of float32 coordinates are noisy.
    return (float(axis[-1]) - float(axis[0])) / (len(axis) - 1)


class FrameSequence(Protocol):
    """Frames in order of time; ``read`` fetches only the frames asked for."""

    name: str
    times: np.ndarray  # (N,) int64 ns since 1970-01-01 of the source's calendar, strictly ascending

    def read(self, positions: np.ndarray, window: tuple[slice, slice] | None = None) -> np.ndarray:
        """Frames at the positions, (n, C, H, W) float32 in physical units, NaN where missing;
        ``window`` is a pair of row and column slices that cuts a part out."""


@runtime_checkable
class RenderedSequence(FrameSequence, Protocol):
    """A sequence that has a frame at any time, past its end too; its ``times`` begin at 0."""

    def read_at(self, times: np.ndarray) -> np.ndarray:
        """Frames at the times (n,), in cadences from 0 on -> (n, C, H, W) float32 in physical units."""


@dataclass(frozen=True)
class Stations:
    """Gauges at which flow is measured, R of them.

    ``titles`` are names to read beside those that identify them; ``latitudes`` and ``longitudes`` (R,) are degrees
    north and east; ``catchments`` (R, H, W) is the share of each pixel that drains to the station. Each is None where
    unknown.
    """

    names: tuple[str, ...]
    titles: tuple[str, ...] | None = None
    latitudes: np.ndarray | None = None
    longitudes: np.ndarray | None = None
    catchments: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.names)


class Source(Protocol):
    """A place frames come from: an archive, which time splits; a divided archive, which comes with its own splits;
    or a generator, which is split by count."""

    kind: SourceKind
    variables: tuple[Variable, ...]
    value_range: tuple[float, float] | None  # where the format fixes it, as 8-bit video does
    grid: Grid
    shape: tuple[int, int]  # H, W
    cadence: int  # ns between regular frames: the time unit inside models
    calendar: str  # CF calendar of the times
    real_times: bool  # whether they say when it was, or only how long after the first frame

    def sequences(self, split: str, count: int | None) -> SequenceOf[FrameSequence]:
        """The source's sequences. An archive has the same for every split (time decides); a generator
        makes ``count`` of them; those of different splits of a generator or a divided archive share nothing."""


@dataclass(frozen=True)
class Drawn(SequenceOf):
    """Sequences of a generator's split, each made anew whenever it is asked for: all of them would fill the memory."""

    make: Callable[[int], Any]  # number -> FrameSequence
    numbers: range

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, place):
        if isinstance(place, slice):
            return Drawn(self.make, self.numbers[place])
        return self.make(self.numbers[place])


@runtime_checkable
class StationSequence(FrameSequence, Protocol):
    """A sequence of frames with what was measured at stations at the same times."""

    def read_flow(self, positions: np.ndarray) -> np.ndarray:
        """Flow at the positions, (n, 1, R) float32 in physical units, NaN where missing."""

    def read_usual(self, positions: np.ndarray) -> np.ndarray | None:
        """What flow is usual at the times of the positions, from other years, (n, 1, R); None where nobody knows."""


@runtime_checkable
class StationSource(Source, Protocol):
    """An archive of fields that flow at stations is forecast from; its sequences are ``StationSequence``."""

    stations: Stations
    flow: Variable  # what is measured there
    flow_settings: FlowNormalizerSettings


def forecast_variables(source: Source) -> tuple[Variable, ...]:
    """What a model of this source forecasts: the flow at its stations, or its fields."""
    return (source.flow,) if isinstance(source, StationSource) else source.variables
