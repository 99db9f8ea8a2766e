"""What a report is made of, and how its times and numbers are worded."""

import math
from dataclasses import dataclass

import numpy as np
import xarray as xr

from fieldcast.errors import DataError

BASELINES = ("persistence", "climatology", "optical-flow")
CASE_DIMENSIONS = ("panel", "lead_time", "y", "x")
OBSERVED = "observed"


@dataclass(frozen=True)
class ReportContents:
    """Scores, training history, cases, settings and environment of one run.

    ``scores`` has variables (space, model, lead_time) and ``<name>_overall`` (space, model), each with attributes
    ``long_name``, ``units_physical``, ``units_unit``, ``convention`` and ``orientation`` ("smaller", "larger", or
    "zero" where the nearest to zero is best). A case has dimensions (panel, lead_time, y, x), its first panel is
    "observed", lead times up to 0 are inputs, and a coordinate ``valid_time`` (lead_time).

    Raises:
        DataError: where a case does not look like this.
    """

    title: str
    scores: xr.Dataset
    history: list[dict]
    cases: list[xr.DataArray]
    settings: dict
    environment: dict

    def __post_init__(self) -> None:
        for number, case in enumerate(self.cases, start=1):
            if case.dims != CASE_DIMENSIONS:
                raise DataError(f"case {number} has dimensions {case.dims}: transpose to {CASE_DIMENSIONS}")
            if str(case.panel.values[0]) != OBSERVED:
                raise DataError(f"case {number} starts with panel '{case.panel.values[0]}': put '{OBSERVED}' first")

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics that have a value for each lead time."""
        return [str(name) for name, score in self.scores.data_vars.items() if "lead_time" in score.dims]

    @property
    def spaces(self) -> list[str]:
        """Names of the spaces scores were taken in, the physical one first."""
        return sorted((str(space) for space in self.scores["space"].values), key=lambda space: space != "physical")

    @property
    def models(self) -> list[str]:
        """Names of the models, trained ones before baselines."""
        return sorted((str(model) for model in self.scores["model"].values), key=lambda model: model in BASELINES)


def time_label(value) -> str:
    """Word a valid time: a datetime64 to the minute (or finer) with UTC, text as it is."""
    if not isinstance(value, np.datetime64):
        return str(value)
    if np.isnat(value):
        return "time unknown"
    second = value.astype("datetime64[s]")
    whole = second == value.astype("datetime64[m]")
    return str(np.datetime_as_string(second, unit="m" if whole else "s")).replace("T", " ") + " UTC"


def number_label(value: float) -> str:
    """Word a score to four digits; or say that it is undefined."""
    return f"{value:.4g}" if math.isfinite(value) else "undefined"


def units_label(units: str) -> str:
    """Units in brackets after a blank, or nothing where there are none."""
    if units in ("", "1"):
        return ""
    return f" [{units}]" if "(" in units else f" ({units})"


def quantity_label(values: xr.DataArray) -> str:
    """Name and units of a case's variable: "rain rate (mm/h)"."""
    name = values.attrs.get("long_name") or values.name or "value"
    return f"{name}{units_label(str(values.attrs.get('units', '')))}"


def row_zero_is_bottom(case: xr.DataArray) -> bool:
    """Whether y grows upward on the map and the first row is the lowest: a projected or geographic axis, ascending."""
    if "y" not in case.coords or case.sizes["y"] < 2:
        return False
    axis = case["y"]
    on_the_ground = axis.attrs.get("standard_name") in ("projection_y_coordinate", "latitude", "grid_latitude")
    return bool(on_the_ground and axis.values[-1] > axis.values[0])
