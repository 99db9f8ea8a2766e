"""A small made-up archive of weather and rivers, in memory."""

from dataclasses import dataclass, field

import numpy as np

from fieldcast.data import make_samples
from fieldcast.data.flow import FlowNormalizerSettings
from fieldcast.data.normalize import NormalizerSettings
from fieldcast.data.source import Grid, Stations, Variable
from fieldcast.data.splits import SplitSettings
from fieldcast.data.windows import WindowSettings

DAY = 86400 * 10**9


@dataclass
class Record:
    """Weather (n, C, H, W) and flow (n, 1, R) at the same times."""

    times: np.ndarray
    weather: np.ndarray
    flow: np.ndarray
    usual: np.ndarray | None = None
    name: str = "record"

    def read(self, positions, window=None):
        rows, columns = window or (slice(None), slice(None))
        return self.weather[positions][:, :, rows, columns]

    def read_flow(self, positions):
        return self.flow[positions]

    def read_usual(self, positions):
        return None if self.usual is None else self.usual[positions]


@dataclass
class Rivers:
    """An archive of one record; rivers run on the rain of their own pixel, of today and of the two days before."""

    record: Record
    kind: str = "archive"
    variables: tuple = (Variable("rain", "mm"), Variable("warmth", "K"))
    value_range: tuple | None = None
    grid: Grid = field(default_factory=Grid)
    cadence: int = DAY
    calendar: str = "standard"
    real_times: bool = True
    flow: Variable = Variable("discharge", "m3 s-1")  # noqa: RUF009 - it is frozen
    flow_settings: FlowNormalizerSettings = FlowNormalizerSettings(flow_transform="identity")  # noqa: RUF009

    @property
    def shape(self):
        return self.record.weather.shape[2:]

    @property
    def stations(self):
        return Stations(tuple(f"river {number}" for number in range(self.record.flow.shape[2])))

    def sequences(self, split, count):
        return [self.record]


def make_rivers(num_days=120, num_stations=3, size=(4, 5), seed=0, noise=0.05, gaps=0.0):
    """Rivers whose flow is linear in the rain but for some noise, with gaps."""
    random = np.random.default_rng(seed)
    weather = random.random((num_days, 2, *size)).astype(np.float32)
    pixels = weather[:, 0].reshape(num_days, -1)[:, 1 : num_stations + 1]
    lagged = [np.concatenate([pixels[:1].repeat(lag, axis=0), pixels[: num_days - lag]]) for lag in range(3)]
    flow = 10 + 5 * lagged[0] + 3 * lagged[1] + lagged[2] + noise * random.standard_normal(pixels.shape)
    flow[random.random(flow.shape) < gaps] = np.nan
    times = np.int64(6000) * DAY + DAY * np.arange(num_days)
    return Rivers(Record(times, weather, flow[:, None].astype(np.float32)))


def samples_of(rivers, num_inputs=4, num_targets=1, first_lead=0):
    """Samples of the three splits, in order of time."""
    return make_samples(
        rivers,
        WindowSettings(num_inputs=num_inputs, num_targets=num_targets, first_lead=first_lead),
        SplitSettings(train=0.6, validation=0.2, test=0.2),
        NormalizerSettings(transform="scale"),
    )
