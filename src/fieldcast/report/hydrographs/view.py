"""Hydrographs as the page reads them: flow, scores of each river, and rivers in order of these.

Shapes: M models, the observed flow first, L lead times, N times, R stations.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import xarray as xr

from fieldcast.errors import DataError
from fieldcast.lead_times import lead_labels
from fieldcast.metrics import METRICS, Yardstick
from fieldcast.report.contents import BASELINES, OBSERVED, units_label
from fieldcast.report.series import OBSERVED_CLASS, Stroke, strokes

DIMENSIONS = ("model", "lead_time", "time", "station")
SCORES = {"nse": "NSE", "kge": "KGE"}


@dataclass(frozen=True)
class HydrographView:
    """Flow of rivers, checked.

    Raises:
        DataError: where there is no ``flow`` (model, lead_time, time, station), or its first model is not "observed".
    """

    hydrographs: xr.Dataset

    def __post_init__(self) -> None:
        if "flow" not in self.hydrographs:
            raise DataError(f"hydrographs have no variable 'flow', only {list(self.hydrographs.data_vars)}")
        if self.hydrographs["flow"].dims != DIMENSIONS:
            found = self.hydrographs["flow"].dims
            raise DataError(f"'flow' of hydrographs has dimensions {found}: transpose to {DIMENSIONS}")
        if self._names("model")[0] != OBSERVED:
            raise DataError(f"hydrographs start with '{self._names('model')[0]}': put '{OBSERVED}' first")

    def _names(self, dimension: str) -> list[str]:
        return [str(name) for name in self.hydrographs[dimension].values]

    @cached_property
    def models(self) -> list[str]:
        """Names of the models, without the observed flow."""
        return self._names("model")[1:]

    @cached_property
    def stations(self) -> list[str]:
        """Names of the stations, as they come."""
        return self._names("station")

    @cached_property
    def times(self) -> np.ndarray:
        """Valid times of the flow, (N,) datetime64."""
        return self.hydrographs["time"].values

    @cached_property
    def leads(self) -> list[str]:
        """Lead times in words."""
        return lead_labels(self.hydrographs["lead_time"].values)

    @cached_property
    def units(self) -> str:
        """Units of the flow."""
        return str(self.hydrographs["flow"].attrs.get("units", ""))

    @cached_property
    def quantity(self) -> str:
        """The flow's name and units."""
        return f"{self.hydrographs['flow'].attrs.get('long_name', 'flow')}{units_label(self.units)}"

    @cached_property
    def strokes(self) -> dict[str, Stroke]:
        """How each line is drawn, the observed flow first."""
        marked = self.hydrographs["baseline"].values.tolist() if "baseline" in self.hydrographs.coords else []
        baselines = [model for model in self.models if model in (*BASELINES, *marked)]
        trained = [model for model in self.models if model not in baselines]
        return {OBSERVED: Stroke("currentColor", "", OBSERVED_CLASS), **strokes(trained, baselines)}

    def flow(self, lead: int, station: int) -> dict[str, np.ndarray]:
        """Each line's flow (N,), the observed first."""
        values = self.hydrographs["flow"].values[:, lead, :, station]
        return dict(zip((OBSERVED, *self.models), values, strict=True))

    @cached_property
    def scores(self) -> dict[str, np.ndarray]:
        """NSE and KGE (M - 1, L, R) of the values at which both flows are known."""
        flow = torch.from_numpy(self.hydrographs["flow"].values.astype(np.float64)).transpose(1, 2)[:, :, :, None]
        observed, yardstick = flow[0], Yardstick(units=self.units, stations=tuple(self.stations))
        found: dict[str, list[np.ndarray]] = {name: [] for name in SCORES}
        for predicted in flow[1:]:
            valid = observed.isfinite() & predicted.isfinite()
            for name, scores in found.items():
                sums = METRICS[name].sums(predicted, observed, valid, yardstick)
                scores.append(METRICS[name].score(sums, yardstick).T.numpy())
        return {name: np.stack(scores) for name, scores in found.items()}

    def order(self, lead: int) -> list[int]:
        """Stations from the best NSE of the first model to the worst, those without one last."""
        return np.argsort(-self.scores["nse"][0, lead], kind="stable").tolist()

    def ranks(self, lead: int) -> dict[int, str]:
        """The stations of the best, the median and the worst NSE, and which of these they are."""
        scored = [station for station in self.order(lead) if np.isfinite(self.scores["nse"][0, lead, station])]
        order = scored or self.order(lead)
        found: dict[int, list[str]] = {}
        for word, rank in (("best", 0), ("median", (len(order) - 1) // 2), ("worst", len(order) - 1)):
            found.setdefault(order[rank], []).append(word)
        return {station: " and ".join(words) for station, words in found.items()}

    def scored(self, lead: int, station: int, model: str) -> str:
        """NSE and KGE of a model in words."""
        at = (self.models.index(model), lead, station)
        return ", ".join(f"{word} {efficiency_label(float(self.scores[name][at]))}" for name, word in SCORES.items())

    def heading(self, station: int) -> str:
        """The station's name with its title."""
        titles = self._names("title") if "title" in self.hydrographs.coords else self.stations
        return ", ".join(dict.fromkeys([self.stations[station], titles[station]]))

    def number(self, station: str) -> int:
        """Where a station stands.

        Raises:
            DataError: for one that is not there.
        """
        if station not in self.stations:
            raise DataError(f"hydrographs have no station '{station}': they have {', '.join(self.stations[:10])}")
        return self.stations.index(station)


def efficiency_label(value: float) -> str:
    """Word an efficiency to two decimals."""
    # Adding 0 makes -0.0 a plain zero.
    return f"{round(value, 2) + 0:.2f}".replace("-", "\N{MINUS SIGN}") if np.isfinite(value) else "undefined"
