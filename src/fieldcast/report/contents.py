"""What a report is made of."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import xarray as xr

from fieldcast.data.dataset import spread
from fieldcast.errors import DataError

MAIN_METRIC = "mse"  # what is claimed is of this one
REFERENCE = "persistence"
BASELINES = (
    "persistence",
    "lagrangian-persistence",
    "climatology",
    "optical-flow",
    "linear-interpolation",
    "ridge-regression",
)
CASE_DIMENSIONS = ("panel", "lead_time", "y", "x")
OBSERVED = "observed"
PHYSICAL = "physical"
PLAIN = ("space", "model", "lead_time")


@dataclass(frozen=True)
class Case:
    """One sample to look at, and why it is shown.

    ``frames`` has dimensions (panel, lead_time, y, x), in order of time, and its first panel is "observed". Along
    ``lead_time`` lie the coordinates ``valid_time`` and ``is_input``, which says what the models were given.

    Raises:
        DataError: where the frames do not look like this.
    """

    heading: str
    frames: xr.DataArray

    def __post_init__(self) -> None:
        if self.frames.dims != CASE_DIMENSIONS:
            raise DataError(f"case '{self.heading}' has dimensions {self.frames.dims}: transpose to {CASE_DIMENSIONS}")
        if str(self.frames.panel.values[0]) != OBSERVED:
            first = self.frames.panel.values[0]
            raise DataError(f"case '{self.heading}' starts with panel '{first}': put '{OBSERVED}' first")
        missing = [name for name in ("valid_time", "is_input") if name not in self.frames.coords]
        if missing:
            raise DataError(f"case '{self.heading}' has no coordinate {' and '.join(missing)}")


@dataclass(frozen=True)
class ReportPart:
    """Scores and cases of one data set.

    A metric NAME is a variable (space, model, *D, lead_time), with attributes ``long_name``, ``family``,
    ``convention``, ``orientation`` and ``units_SPACE``. Beside it there may be ``NAME_overall`` over all lead times,
    ``NAME_difference`` (space, baseline, model, ...) of the models' scores minus the baseline's, and for each of them
    the bounds of an interval (bound, ...), as ``NAME_interval`` or ``NAME_overall_difference_interval``.
    ``hydrographs`` are observed and forecast flow of stations, as `hydrographs_html` takes them.
    """

    name: str
    scores: xr.Dataset
    cases: list[Case] = field(default_factory=list)
    hydrographs: xr.Dataset | None = None

    @cached_property
    def metrics(self) -> list[str]:
        """Names of all metrics, those with further dimensions among them."""
        variables = self.scores.variables
        return [str(name) for name in self.scores.data_vars if _is_metric(str(name), variables[name].dims)]

    @cached_property
    def plain_metrics(self) -> list[str]:
        """Names of the metrics that have one value for each lead time."""
        return self.metrics_along()

    def metrics_along(self, *dimensions: str) -> list[str]:
        """Names of the metrics whose further dimensions are exactly these."""
        wanted = {*PLAIN, *dimensions}
        return [name for name in self.metrics if set(self.scores.variables[name].dims) == wanted]

    def is_score(self, name: str) -> bool:
        """Whether a metric has a better and a worse."""
        return self.orientation(name) != "none"

    def orientation(self, name: str) -> str:
        """Which value is better: "smaller", "larger", the one nearest to "zero" or to "one", or "none"."""
        return str(self.scores.variables[name].attrs.get("orientation", "smaller"))

    def title(self, name: str, space: str | None = None) -> str:
        """The metric's long name, with its units in a space."""
        attributes = self.scores.variables[name].attrs
        units = str(attributes.get(f"units_{space}", "")) if space else ""
        return f"{attributes.get('long_name', name)}{units_label(units)}"

    @cached_property
    def spaces(self) -> list[str]:
        """Names of the spaces that scores were taken in, the physical ones first."""
        names = [str(space) for space in self.scores["space"].values]
        return sorted(names, key=lambda space: not space.startswith(PHYSICAL))

    @cached_property
    def shown_spaces(self) -> list[str]:
        """The spaces that figures are drawn in: the physical ones, or the first there is."""
        return [space for space in self.spaces if space.startswith(PHYSICAL)] or self.spaces[:1]

    @cached_property
    def models(self) -> list[str]:
        """Names of the models, trained ones before baselines."""
        return sorted((str(model) for model in self.scores["model"].values), key=self.is_baseline)

    @cached_property
    def trained(self) -> list[str]:
        """Names of the models that were trained."""
        return [model for model in self.models if not self.is_baseline(model)]

    @cached_property
    def baselines(self) -> list[str]:
        """Names of the baselines that were scored, persistence first."""
        known = [model for model in BASELINES if model in self.models]
        return known + [model for model in self.models if self.is_baseline(model) and model not in known]

    def is_baseline(self, model: str) -> bool:
        """Whether a model is one that needs no training."""
        marked = self.scores["baseline"].values if "baseline" in self.scores.coords else ()
        return model in BASELINES or model in [str(name) for name in marked]

    def models_with(self, name: str, space: str) -> list[str]:
        """Models for which a variable has any value in a space."""
        score = self.scores[name].sel(space=space, model=self.models).transpose("model", ...)
        known = np.isfinite(score.values).reshape(len(self.models), -1).any(axis=1)
        return [model for model, has_value in zip(self.models, known, strict=True) if has_value]

    def interval(self, name: str, space: str) -> xr.DataArray | None:
        """Bounds of a variable's interval in a space, or None where there are none."""
        if f"{name}_interval" not in self.scores.variables:
            return None
        bounds = self.scores[f"{name}_interval"].sel(space=space)
        return bounds if np.isfinite(bounds.values).any() else None


@dataclass(frozen=True)
class ReportContents:
    """All that a report shows.

    Attributes:
        title: of the page.
        parts: one for each data set; a run has one.
        histories: rows of training by model, with ``step``, ``train_loss``, ``validation_loss``, ``learning_rate``.
        settings: nested plain values.
        environment: versions and machine, plain values.
        table: rows of a benchmark, empty for a run; columns as they come.
        kernels: linear kernels of the trained model, as `kernels_html` takes them.
    """

    title: str
    parts: list[ReportPart]
    histories: dict[str, list[dict]]
    settings: dict
    environment: dict
    table: list[dict] = field(default_factory=list)
    kernels: xr.Dataset | None = None


def _is_metric(name: str, dimensions: tuple[Hashable, ...]) -> bool:
    comparisons = ("_difference", "_interval", "_overall", "_spread")
    compared = {"bound", "baseline"} & set(dimensions)
    return set(PLAIN) <= set(dimensions) and not compared and not name.endswith(comparisons)


def lead_name(part: ReportPart) -> str:
    """What the scores call lead times, which says where they are rounded."""
    return str(part.scores.lead_time.attrs.get("long_name", "lead time"))


def spread_forecasts(frames: xr.DataArray, most: int) -> list[int]:
    """Positions of at most so many forecast times, spread evenly; of all times where none is a forecast."""
    forecast = np.flatnonzero(~frames.is_input.values)
    forecast = forecast if forecast.size else np.arange(frames.sizes["lead_time"])
    return forecast[spread(len(forecast), most)].tolist()


def units_label(units: str) -> str:
    """Units in brackets after a blank, or nothing where there are none."""
    if units in ("", "1"):
        return ""
    return f" [{units}]" if "(" in units else f" ({units})"


def row_zero_is_bottom(frames: xr.DataArray | xr.Dataset, axis: str = "y") -> bool:
    """Whether rows grow upward on the map and the first is the lowest: a projected or geographic axis, ascending."""
    if axis not in frames.coords or frames.sizes[axis] < 2:
        return False
    rows = frames[axis]
    on_the_ground = rows.attrs.get("standard_name") in ("projection_y_coordinate", "latitude", "grid_latitude")
    return bool((on_the_ground or axis in ("lat", "latitude")) and rows.values[-1] > rows.values[0])
