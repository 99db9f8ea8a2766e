"""Lead times in words.

Shapes: L lead times.
"""

import math

import numpy as np

from fieldcast.data.source import NANOSECONDS

_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


def lead_labels(lead_times: np.ndarray) -> list[str]:
    """Word lead times (L,) timedelta64 with their sign, all in one unit, to four digits of the longest: "+25 min"."""
    unit, size = lead_unit(lead_times)
    values = lead_times.astype("timedelta64[ns]").astype(np.int64) / (size * NANOSECONDS)
    longest = float(np.abs(values).max(initial=0))
    decimals = max(0, 3 - math.floor(math.log10(longest))) if longest > 0 else 0
    return [f"{_signed(value, decimals)} {unit}" for value in values.tolist()]


def lead_unit(lead_times: np.ndarray) -> tuple[str, int]:
    """The largest unit that keeps lead times (L,) whole, else one that suits the longest; and its length in seconds."""
    nanoseconds = lead_times.astype("timedelta64[ns]").astype(np.int64)
    for unit, size in _UNITS[:-1]:
        if nanoseconds.any() and not (nanoseconds % (size * NANOSECONDS)).any():
            return unit, size
    longest = np.abs(nanoseconds).max(initial=0) / NANOSECONDS
    return next(((unit, size) for unit, size in _UNITS if longest >= 2 * size), _UNITS[-1])


def _signed(value: float, decimals: int) -> str:
    text = f"{abs(value):.{decimals}f}"
    text = text.rstrip("0").rstrip(".") if decimals else text
    if text == "0":
        return text
    return f"{'+' if value > 0 else '-'}{text}"
