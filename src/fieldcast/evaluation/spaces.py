"""Where fields are compared: each variable in its own units, and all of them in [0, 1]."""

from dataclasses import dataclass
from functools import cached_property

import torch

from fieldcast.data import Normalizer, Samples
from fieldcast.data.source import StationSource
from fieldcast.errors import ConfigError
from fieldcast.evaluation_settings import EvaluationSettings
from fieldcast.metrics import METRICS, Metric, Yardstick
from fieldcast.settings import nearest

UNIT = "unit"
# In [0, 1] a threshold in mm/h or an object of rain has no meaning of its own.
UNIT_FAMILIES = ("pixels", "similarity")
# Those that need no map: stations stand in its place.
STATION_METRICS = ("mse", "mae", "rmse", "bias", "correlation")


@dataclass(frozen=True)
class Space:
    """One variable in physical units, or all of them (``channel`` None) in [0, 1], and what its scores are measured
    with."""

    name: str
    channel: int | None
    yardstick: Yardstick

    @property
    def channels(self) -> slice:
        """The channels that belong to it."""
        return slice(None) if self.channel is None else slice(self.channel, self.channel + 1)

    @property
    def takes(self) -> tuple[str, ...]:
        """What its metrics compare with what was observed."""
        if self.yardstick.stations:
            return ("stations",)
        return ("fields", "members") if self.yardstick.num_members > 1 else ("fields",)

    def metrics(self) -> dict[str, Metric]:
        """The metrics that it can have."""
        return self._metrics

    @cached_property
    def _metrics(self) -> dict[str, Metric]:
        # Found once: every batch asks, and whether scipy is there takes a look at the disk.
        return {
            name: metric
            for name, metric in METRICS.items()
            if (metric.takes in self.takes or (self.yardstick.stations and name in STATION_METRICS))
            and metric.lacks(self.yardstick) is None
            and (self.channel is not None or metric.family in UNIT_FAMILIES)
        }


def describe_spaces(samples: Samples, settings: EvaluationSettings) -> list[Space]:
    """A physical space for each variable that is forecast, then the unit space.

    Raises:
        ConfigError: for events of a variable that the source doesn't have.
    """
    source, normalizer = samples.source, samples.target_normalizer
    if isinstance(source, StationSource):
        extent, names_of = float(normalizer.data_range().max()), source.stations.names
        one = Yardstick(source.flow.units, extent, stations=names_of)
        return [Space("physical", 0, one), Space(UNIT, None, Yardstick(stations=names_of))]
    assert isinstance(normalizer, Normalizer)
    names = [variable.name for variable in source.variables]
    chosen = settings.variable or names[0]
    if chosen not in names:
        raise ConfigError(f"evaluation.variable = '{chosen}': {nearest(chosen, names)}")
    ranges = normalizer.data_range().flatten().tolist()
    spaces = []
    unit = Yardstick(shape=source.shape)
    for channel, (variable, extent) in enumerate(zip(source.variables, ranges, strict=True)):
        yardstick = Yardstick(
            variable.units, extent, source.shape, scales=settings.scales, event=settings.event,
            num_members=settings.num_members or 1,
        )  # fmt: skip
        if variable.name == chosen:
            thresholds, weights = settings.events_of(variable.units)
            yardstick = yardstick._replace(thresholds=thresholds, weights=weights)
            if len(names) == 1 and thresholds:
                normalised = normalizer.transforms[0].forward(torch.tensor(thresholds, dtype=torch.float64))
                unit = unit._replace(thresholds=tuple(normalised.tolist()), weights=weights)
        spaces.append(Space(f"physical {variable.name}" if len(names) > 1 else "physical", channel, yardstick))
    return [*spaces, Space(UNIT, None, unit)]


def left_out(spaces: list[Space]) -> dict[str, str]:
    """What keeps a metric from every space: metric -> what is lacking."""
    has = {name for space in spaces for name in space.metrics()}
    first = spaces[0]
    missing = [metric for name, metric in METRICS.items() if name not in has and metric.takes in first.takes]
    return {metric.name: metric.lacks(first.yardstick) or "" for metric in missing}
