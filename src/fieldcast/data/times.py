"""Times as int64 nanoseconds since 1970-01-01 of a CF calendar: decoded, parsed, written and put on a grid.

A time never passes through ``datetime64``, so that 30 February of a 360-day calendar stays what it is.
"""

import datetime
import re
from dataclasses import dataclass

import cftime
import numpy as np

from fieldcast.data.source import NANOSECONDS
from fieldcast.errors import ConfigError, DataError

_CALENDARS = {
    # Standard and proleptic Gregorian differ before 1582 only, where no int64 nanosecond time lies.
    **dict.fromkeys(("standard", "gregorian", "proleptic_gregorian"), "standard"),
    **dict.fromkeys(("noleap", "365_day"), "noleap"),
    **dict.fromkeys(("all_leap", "366_day"), "all_leap"),
    "360_day": "360_day",
    "julian": "julian",
}
_MINUTE, _HOUR, _DAY = 60 * NANOSECONDS, 3600 * NANOSECONDS, 86400 * NANOSECONDS
_DURATIONS = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), NANOSECONDS),
    **dict.fromkeys(("min", "minute", "minutes"), _MINUTE),
    **dict.fromkeys(("h", "hour", "hours"), _HOUR),
    **dict.fromkeys(("d", "day", "days"), _DAY),
}
_TIME_UNITS = {
    **_DURATIONS,
    **dict.fromkeys(("secs",), NANOSECONDS),
    **dict.fromkeys(("mins",), _MINUTE),
    **dict.fromkeys(("hr", "hrs"), _HOUR),
    **dict.fromkeys(("ms", "msec", "millisecond", "milliseconds"), 1_000_000),
    **dict.fromkeys(("microsecond", "microseconds"), 1_000),
    **dict.fromkeys(("nanosecond", "nanoseconds"), 1),
}
_ISO = re.compile(
    r"(-?\d{4,})-(\d{2})-(\d{2})(?:[T ](\d{2}):(\d{2})(?::(\d{2})(?:\.(\d{1,6}))?)?)?Z?",
    re.ASCII,
)
# How round a step or a start can be, the roundest first.
_GRAINS = (_DAY, _HOUR, _MINUTE, 10 * NANOSECONDS, NANOSECONDS, 1_000_000, 1_000, 1)
_LIMIT = 2**63 - 1
_RANGE = "int64 nanoseconds since 1970 reach about 292 years to either side"


@dataclass(frozen=True)
class TimeAxis:
    """The times of a file: ``times`` (N,) int64 ns since 1970-01-01 of ``calendar``, in the file's order."""

    times: np.ndarray
    calendar: str


def parse_duration(text: str) -> int:
    """Read a duration such as ``"5 min"``, ``"1.5 h"``, ``"3 s"`` or ``"2 days"`` as nanoseconds.

    Raises:
        ConfigError: where the text is not a number above or equal to 0 and a unit.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", text)
    if not match or match[2] not in _DURATIONS:
        raise ConfigError(f"'{text}' is not a duration: write a number and one of {', '.join(_DURATIONS)}")
    whole, _, fraction = match[1].partition(".")
    unit = _DURATIONS[match[2]]
    return int(whole) * unit + (int(fraction) * unit // 10 ** len(fraction) if fraction else 0)


def decode_time(text: str, calendar: str = "standard") -> int:
    """Read an ISO date or time (UTC) of a calendar: ``"2018-05-10"``, ``"2018-05-10T06:00"`` -> ns since 1970-01-01.

    Raises:
        ConfigError: where the text is no ISO time, or the calendar does not have that day.
    """
    match = _ISO.fullmatch(text.strip())
    if not match:
        raise ConfigError(f"'{text}' is not a time: write 2018-05-10, 2018-05-10T06:00 or 2018-05-10T06:00:00")
    numbers = [int(part or 0) for part in match.groups()[:6]]
    microseconds = int((match[7] or "").ljust(6, "0"))
    try:
        date = cftime.datetime(*numbers, microseconds, calendar=calendar)
    except ValueError as error:
        raise ConfigError(f"'{text}' is not a time of the {calendar} calendar: {error}") from None
    nanoseconds = _since_1970(date)
    if abs(nanoseconds) > _LIMIT:
        raise ConfigError(f"'{text}' is out of range: {_RANGE}")
    return nanoseconds


def format_time(nanoseconds: int, calendar: str = "standard") -> str:
    """Write a time as ISO text, the inverse of `decode_time`: ``"2018-05-10T06:00:00"``, to the microsecond."""
    # cftime adds a timedelta exactly, while num2date may go through floats.
    step = datetime.timedelta(microseconds=int(nanoseconds) // 1000)
    date = cftime.datetime(1970, 1, 1, calendar=calendar) + step
    fraction = f".{date.microsecond:06d}".rstrip("0") if date.microsecond else ""
    return date.strftime("%Y-%m-%dT%H:%M:%S") + fraction


def decode_axis(values: np.ndarray, attributes: dict, where: str) -> TimeAxis:
    """Decode the times of a file, of any CF calendar, exactly.

    ``values`` (N,) are numbers with CF ``units`` and ``calendar`` in the attributes, ``datetime64``, or cftime
    objects. Floats that all lie within 1 ms of whole minutes or seconds are those.

    Raises:
        DataError: for a missing or infinite time (its index), units that say nothing, an unknown calendar,
            a time beyond int64 nanoseconds, or float32 numbers too coarse for their own spacing.
    """
    values = np.asarray(values).ravel()
    if values.dtype.kind == "M":
        return TimeAxis(_from_datetime64(values, where), "standard")
    if values.dtype.kind == "O" and len(values) and all(isinstance(item, cftime.datetime) for item in values):
        times = [_since_1970(item) for item in values]
        return TimeAxis(_checked_range(times, where), known_calendar(values[0].calendar, where))
    if values.dtype.kind not in "iuf":
        raise DataError(f"{where}: times of type {values.dtype} cannot be read; numbers 'since' a date are wanted")
    own_calendar = str(attributes.get("calendar", "standard")).lower()
    calendar = known_calendar(own_calendar, where)
    # A reference date before 1582 needs the file's own name: proleptic and standard differ there.
    unit, reference = _time_units(attributes.get("units", ""), own_calendar, where)
    _refuse_missing(values, attributes, where)
    if values.dtype.kind in "iu":
        return TimeAxis(_checked_range([reference + int(value) * unit for value in values], where), calendar)
    return TimeAxis(_from_floats(values, unit, reference, where), calendar)


def known_calendar(name: str, where: str) -> str:
    """Give the one name of a CF calendar that has several.

    Raises:
        DataError: for a calendar that CF does not have.
    """
    if str(name).lower() not in _CALENDARS:
        raise DataError(f"{where}: unknown calendar '{name}' (allowed: {', '.join(_CALENDARS)})")
    return _CALENDARS[str(name).lower()]


def most_common_difference(times: np.ndarray, where: str) -> int:
    """Give the cadence of ascending times (N,): their most common difference in ns, the smaller of equals.

    Raises:
        DataError: where there are fewer than two times.
    """
    if len(times) < 2:
        raise DataError(f"{where}: {len(times)} frame has no cadence; at least two frames are needed")
    differences, counts = np.unique(np.diff(times), return_counts=True)
    return int(differences[np.argmax(counts)])


def snap_to_grid(times: np.ndarray, tolerance: int) -> np.ndarray:
    """Move ascending times (N,) that are within ``tolerance`` ns of a regular grid onto it; the others stay.

    The grid's step and start are the roundest ones (hours, minutes, seconds, ...) that take up the most times.

    Raises:
        DataError: where the tolerance is half a step or more, so that a time could go to either side.
    """
    differences = np.diff(times)
    if not len(differences) or tolerance == 0:
        return times
    ordered = np.sort(differences)
    ends = np.searchsorted(ordered, ordered + 2 * tolerance, side="right")
    largest = int(np.argmax(ends - np.arange(len(ordered))))
    cluster = ordered[largest : ends[largest]]
    rough = max(int(np.median(cluster)), 1)
    # Steps are counted one by one, so that an error of the rough step does not add up over a long series.
    counts = np.concatenate([[0], np.cumsum(np.rint(differences / rough))])
    slope = np.polyfit(counts, (times - times[0]).astype(np.float64), 1)[0] if counts[-1] else rough
    steps = {step for grain in _GRAINS if (step := _rounded(int(slope), grain)) > 2 * tolerance}
    if not steps:
        raise DataError(
            f"a tolerance of {tolerance / NANOSECONDS:g} s is half or more of the step of {slope / NANOSECONDS:g} s"
        )
    grids = [_grid(times, step, tolerance) for step in sorted(steps, key=_roundness, reverse=True)]
    distances, on_grid = max(grids, key=lambda pair: int(pair[1].sum()))
    return np.where(on_grid, times - distances, times)


def _grid(times: np.ndarray, step: int, tolerance: int) -> tuple[np.ndarray, np.ndarray]:
    """Distances of the times (N,) to the roundest grid of this step, and which are within the tolerance."""
    phase = int(np.median(_distance(times - times[0], step)))
    origins = [_rounded(int(times[0]) + phase, grain) for grain in _GRAINS]
    distances = [_distance(times - origin, step) for origin in origins]
    return max(((item, np.abs(item) <= tolerance) for item in distances), key=lambda pair: int(pair[1].sum()))


def _distance(times: np.ndarray, step: int) -> np.ndarray:
    return (times + step // 2) % step - step // 2


def _rounded(value: int, grain: int) -> int:
    return (value + grain // 2) // grain * grain


def _roundness(step: int) -> int:
    return next(grain for grain in _GRAINS if step % grain == 0)


def _since_1970(date: cftime.datetime) -> int:
    step = date - cftime.datetime(1970, 1, 1, calendar=date.calendar)
    return 1000 * (step // datetime.timedelta(microseconds=1))


def _time_units(units: str, calendar: str, where: str) -> tuple[int, int]:
    """Length of the unit, and its reference date, both in ns."""
    match = re.fullmatch(r"\s*([a-z]+)\s+since\s+(.+)", str(units), re.IGNORECASE)
    if not match or match[1].lower() not in _TIME_UNITS:
        raise DataError(
            f"{where}: time units '{units}' cannot be read; wanted '<unit> since <date>' with one of "
            "seconds, minutes, hours, days"
        )
    try:
        date = cftime.num2date(0, f"days since {match[2]}", calendar)
    # cftime meets an incomplete date with a TypeError.
    except (ValueError, TypeError) as error:
        raise DataError(f"{where}: time units '{units}' ({calendar} calendar) cannot be read: {error}") from None
    return _TIME_UNITS[match[1].lower()], _since_1970(date)


def _refuse_missing(values: np.ndarray, attributes: dict, where: str) -> None:
    fills = [attributes[key] for key in ("_FillValue", "missing_value") if key in attributes]
    if values.dtype == np.int64:
        # NaT, as xarray writes it.
        fills.append(np.iinfo(np.int64).min)
    missing = np.isin(values, fills) | ~np.isfinite(values)
    if missing.any():
        listed = ", ".join(str(index) for index in np.flatnonzero(missing)[:5])
        raise DataError(
            f"{where}: {missing.sum()} of {len(values)} times are missing (index {listed}); "
            "drop those frames from the file"
        )


def _from_datetime64(values: np.ndarray, where: str) -> np.ndarray:
    missing = np.flatnonzero(np.isnat(values))
    if len(missing):
        listed = ", ".join(str(index) for index in missing[:5])
        raise DataError(f"{where}: {len(missing)} of {len(values)} times are missing (NaT, index {listed})")
    unit, multiple = np.datetime_data(values.dtype)
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
    if unit not in per_second:
        values, unit, multiple = values.astype("datetime64[s]"), "s", 1
    step = 10**9 // per_second[unit] * multiple
    return _checked_range([int(value) * step for value in values.astype(np.int64)], where)


def _from_floats(values: np.ndarray, unit: int, reference: int, where: str) -> np.ndarray:
    resolution = float(np.spacing(np.abs(values).max())) if len(values) else 0.0
    if values.dtype.itemsize < 8:
        _refuse_coarse(values, resolution, unit, where)
    exact = values.astype(np.float64)
    whole = np.floor(exact)
    # Whole and fraction apart: their product in one float64 would be 64 ns coarse after 2005.
    times = _checked_range(
        [
            reference + int(count) * unit + round(float(rest) * unit)
            for count, rest in zip(whole, exact - whole, strict=True)
        ],
        where,
    )
    slack = max(1_000_000, round(resolution * unit))
    for grain in (_MINUTE, NANOSECONDS):
        if 4 * slack < grain and (np.abs(_distance(times, grain)) <= slack).all():
            return times - _distance(times, grain)
    return times


def _refuse_coarse(values: np.ndarray, resolution: float, unit: int, where: str) -> None:
    """Refuse times whose last digit was rounded away by more than a thousandth of the spacing."""
    exact = values.astype(np.float64)
    lossless = (np.mod(exact, 8 * resolution) == 0).all()
    spacing = float(np.median(np.abs(np.diff(exact)))) if len(exact) > 1 else 0.0
    if not lossless and resolution > spacing / 1000:
        raise DataError(
            f"{where}: {values.dtype} times are exact to {resolution * unit / NANOSECONDS:g} s only, too coarse for "
            f"frames {spacing * unit / NANOSECONDS:g} s apart; write them as integers or float64"
        )


def _checked_range(times: list[int], where: str) -> np.ndarray:
    for index, time in enumerate(times):
        if abs(time) > _LIMIT:
            raise DataError(f"{where}: time {index} is out of range: {_RANGE}")
    return np.array(times, dtype=np.int64)
