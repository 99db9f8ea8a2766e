"""Rivers from weather maps: fields on a grid from NetCDF or Zarr, and the flow measured at stations at the same times.

Shapes: N times of the weather, n read, C variables, H rows, W columns, R stations.
"""

import logging

import numpy as np
from pydantic import field_validator, model_validator

from fieldcast.data.catchments import circles, parse_distance, read_catchments
from fieldcast.data.flow import FlowNormalizerSettings, refuse_negative
from fieldcast.data.flow_table import FlowSettings, FlowTable, read_flow
from fieldcast.data.netcdf import NetCDF, NetCDFConfig, NetCDFSequence
from fieldcast.data.source import SourceKind, Stations
from fieldcast.data.times import format_time
from fieldcast.errors import DataError

_log = logging.getLogger(__name__)


class RunoffConfig(NetCDFConfig, FlowSettings, FlowNormalizerSettings):
    """Which weather and which flow to read, in one table.

    The weather's settings are those of the source ``netcdf``. ``catchments`` is a NetCDF file or Zarr folder with a
    variable (station, rows, columns) of masks or shares on the weather's grid; ``catchment_radius`` (``"150 km"``)
    takes in its place the pixels within that distance of each gauge.
    """

    catchments: str | None = None
    catchment_radius: str | None = None

    @field_validator("catchment_radius")
    @classmethod
    def _is_distance(cls, radius: str | None) -> str | None:
        if radius is not None:
            parse_distance(radius)
        return radius

    @model_validator(mode="after")
    def _one_kind_of_catchments(self) -> "RunoffConfig":
        if self.catchments is not None and self.catchment_radius is not None:
            raise ValueError("catchments and catchment_radius say two things about the same: leave one out")
        return self


class Runoff:
    """An archive of weather, with the flow of rivers that models forecast from it.

    Flow comes to the weather's times by its own: a time of the weather without flow is a gap, which stays NaN, and flow
    at other times is left out.

    Raises:
        ConfigError: for settings that do not go with the files.
        DataError: where the files do not fit; the text names which.
    """

    kind: SourceKind = "archive"
    value_range: tuple[float, float] | None = None
    real_times = True

    def __init__(self, config: RunoffConfig) -> None:
        weather = NetCDF(config)
        self.variables, self.grid, self.shape = weather.variables, weather.grid, weather.shape
        self.cadence, self.calendar = weather.cadence, weather.calendar
        table = read_flow(config)
        self.flow = table.variable
        self.flow_settings = FlowNormalizerSettings(
            **{name: getattr(config, name) for name in FlowNormalizerSettings.model_fields}
        )
        self.stations = Stations(
            table.names, table.titles, table.latitudes, table.longitudes, self._catchments(config, table)
        )
        frames = weather.sequences("", None)[0]
        if table.calendar != self.calendar:
            raise DataError(f"{table.where} has the {table.calendar} calendar, {frames.name} the {self.calendar} one")
        self._sequence = RunoffSequence(frames, table)
        # A normaliser that is fitted to training time alone would make held-out flow below zero a gap.
        everything = np.arange(len(frames.times))
        for known in (self._sequence.read_flow(everything), self._sequence.read_usual(everything)):
            if known is not None:
                refuse_negative(self.flow_settings, table.names, known)

    def sequences(self, split: str, count: int | None) -> list["RunoffSequence"]:
        """The one sequence of the archive, whatever the split: time tells the splits apart."""
        return [self._sequence]

    def _catchments(self, config: RunoffConfig, table: FlowTable) -> np.ndarray | None:
        if config.catchments is not None:
            return read_catchments(config.catchments, table.names, self.grid, self.shape)
        if config.catchment_radius is not None:
            places = (table.latitudes, table.longitudes)
            return circles(table.names, places, parse_distance(config.catchment_radius), self.grid)
        return None


class RunoffSequence:
    """Frames of weather, with the flow at the same times: ``times`` (N,) int64 ns, strictly ascending."""

    def __init__(self, weather: NetCDFSequence, table: FlowTable) -> None:
        self.name = weather.name
        self.times = weather.times
        self._weather = weather
        where = _places(weather, table)
        self._flow = _aligned(table.flow, where)
        self._usual = None if table.usual is None else _aligned(table.usual, where)

    def read(self, positions: np.ndarray, window: tuple[slice, slice] | None = None) -> np.ndarray:
        """Weather at the positions, (n, C, H, W) float32 in the source's units, NaN where missing.

        Raises:
            DataError: as those of `NetCDFSequence` do.
        """
        return self._weather.read(positions, window)

    def read_flow(self, positions: np.ndarray) -> np.ndarray:
        """Flow at the positions, (n, 1, R) float32 in the units of the source's ``flow``, NaN where missing."""
        return self._flow[np.asarray(positions, dtype=np.int64)]

    def read_usual(self, positions: np.ndarray) -> np.ndarray | None:
        """What flow is usual at the times of the positions, (n, 1, R) float32; None where the source does not know."""
        return None if self._usual is None else self._usual[np.asarray(positions, dtype=np.int64)]


def _places(weather: NetCDFSequence, table: FlowTable) -> np.ndarray:
    """Row of the table at each of the weather's times, (N,), -1 where there is none."""
    places = np.searchsorted(table.times, weather.times).clip(max=len(table.times) - 1)
    known = table.times[places] == weather.times
    if not known.any():
        spans = [
            " to ".join(format_time(times[end], table.calendar) for end in (0, -1))
            for times in (table.times, weather.times)
        ]
        raise DataError(
            f"{table.where} and {weather.name} have no time in common: flow {spans[0]}, weather {spans[1]} (UTC); "
            "both must be labelled at the same hour"
        )
    first, last = weather.times[[0, -1]]
    within = int(((first <= table.times) & (table.times <= last)).sum())
    if within > known.sum():
        _log.warning(
            "%s: flow at %d times between frames of the weather is left out", table.where, within - known.sum()
        )
    _log.info("%s: flow at %d of %d times of the weather", table.where, known.sum(), len(known))
    return np.where(known, places, -1)


def _aligned(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Rows (N, 1, R) float32 of values, NaN where the place is -1."""
    rows = np.where((places >= 0)[:, None], values[places], np.nan)
    return rows.astype(np.float32)[:, None]
