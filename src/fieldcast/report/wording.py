"""How times, numbers and lists are worded."""

import math

import numpy as np
import xarray as xr

from fieldcast.report.contents import units_label


def time_label(value) -> str:
    """Word a valid time: a datetime64 to the minute (or finer) with UTC, text as it is."""
    if not isinstance(value, np.datetime64):
        return str(value)
    if np.isnat(value):
        return "time unknown"
    second = value.astype("datetime64[s]")
    whole = second == value.astype("datetime64[m]")
    return str(np.datetime_as_string(second, unit="m" if whole else "s")).replace("T", " ") + " UTC"


def number_label(value: float, digits: int = 4) -> str:
    """Word a score to some digits; or say that it is undefined."""
    if not math.isfinite(value):
        return "undefined"
    whole = abs(value) >= 10**digits and float(value).is_integer()
    return f"{value:.0f}" if whole else f"{value:.{digits}g}".replace("-", "\N{MINUS SIGN}")


def interval_label(low: float, high: float) -> str:
    """Word an interval to three digits: "0.12 to 0.2"."""
    return f"{number_label(low, 3)} to {number_label(high, 3)}"


def quantity_label(values: xr.DataArray) -> str:
    """Name and units of a case's variable: "rain rate (mm/h)"."""
    name = values.attrs.get("long_name") or values.name or "value"
    return f"{name}{units_label(str(values.attrs.get('units', '')))}"


def listed(words: list[str]) -> str:
    """Words joined for a sentence: "a, b and c"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def neighbours_joined(chosen: np.ndarray, labels: list[str]) -> str:
    """The labels that are chosen, neighbours joined: "+5 min to +15 min, +30 min"."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], chosen, [False]]).astype(int)))
    runs = [(labels[start], labels[end - 1]) for start, end in zip(edges[::2], edges[1::2], strict=True)]
    return ", ".join(start if start == end else f"{start} to {end}" for start, end in runs)
