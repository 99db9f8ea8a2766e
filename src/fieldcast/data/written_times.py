"""Dates and times as people write them in tables: of one form, known for certain, brought to UTC."""

import datetime
import difflib
import logging
import re
import zoneinfo
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fieldcast.errors import ConfigError, DataError

_log = logging.getLogger(__name__)
_CLOCK = r"(?:[ T]+(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:\.(?P<fraction>\d{1,6}))?)?)?"
_OFFSET = r"[ ]?(?P<offset>Z|[+-]\d{2}:?\d{2})?"
_FORMS = {
    form: re.compile(day + _CLOCK + _OFFSET, re.ASCII)
    for form, day in {
        "year first": r"(?P<year>\d{4})(?P<mark>[-/.])(?P<first>\d{1,2})(?P=mark)(?P<last>\d{1,2})",
        "digits only": r"(?P<year>\d{4})(?P<mark>)(?P<first>\d{2})(?P<last>\d{2})",
        "year last": r"(?P<first>\d{1,2})(?P<mark>[-/.])(?P<last>\d{1,2})(?P=mark)(?P<year>\d{4})",
    }.items()
}
_EPOCH = datetime.datetime(1970, 1, 1)
_YEARS = (1678, 2261)  # what int64 nanoseconds since 1970 reach
_HOW = (
    'set timezone, such as "UTC", "-08:00" or "America/Vancouver" (daily values that go with the days of the weather '
    'take "UTC")'
)


class TimeReading(NamedTuple):
    """What is said about times that do not say it themselves: their zone, and whether 5/10/2018 is in October."""

    timezone: str | None = None
    day_first: bool | None = None


class _Written(NamedTuple):
    """A time, taken apart: the form it has, and its pieces by name."""

    form: tuple[str, str, bool, bool]  # layout, mark, whether it has a clock time, whether an offset
    pieces: dict[str, str | None]


def read_times(texts: Sequence[str], lines: Sequence[int], reading: TimeReading, where: str) -> np.ndarray:
    """Read times of one form as (N,) int64 ns since 1970-01-01 UTC; ``lines`` are those of the file, for the errors.

    Raises:
        ConfigError: where the zone is missing, unknown, or given beside times that carry their own.
        DataError: for what is no time, two forms in one column, days and months that can't be told apart, and local
            times that came twice or never, as clocks were changed.
    """
    written = [_take_apart(text, line, where) for text, line in zip(texts, lines, strict=True)]
    forms = {item.form: place for place, item in reversed(list(enumerate(written)))}
    if len(forms) > 1:
        shown = " and ".join(f"'{texts[place]}' (line {lines[place]})" for place in sorted(forms.values())[:2])
        raise DataError(f"{where}: times are written in {len(forms)} forms, {shown}: write all in one")
    layout, _, _, has_offset = written[0].form
    day_first = layout == "year last" and _day_comes_first(written, texts, lines, reading, where)
    _log.info("%s: times such as '%s' are read %s", where, texts[0], "day first" if day_first else "month before day")
    moments = [
        _moment(item.pieces, day_first, f"{where}, line {line}: '{text}'")
        for item, text, line in zip(written, texts, lines, strict=True)
    ]
    if has_offset:
        if reading.timezone is not None:
            raise ConfigError(f"{where}: times such as '{texts[0]}' carry their own offset: leave timezone out")
        shifts = [_offset(str(item.pieces["offset"])) for item in written]
    else:
        shifts = _local_offsets(moments, lines, reading.timezone, where)
    microsecond = datetime.timedelta(microseconds=1)
    utc = [(moment - shift - _EPOCH) // microsecond for moment, shift in zip(moments, shifts, strict=True)]
    return np.array(utc, dtype=np.int64) * 1000


def _take_apart(text: str, line: int, where: str) -> _Written:
    for layout, pattern in _FORMS.items():
        if match := pattern.fullmatch(text):
            pieces = match.groupdict()
            return _Written(
                (layout, pieces["mark"], pieces["hour"] is not None, pieces["offset"] is not None),
                pieces,
            )
    raise DataError(
        f"{where}, line {line}: '{text}' is no time that can be read: write 2018-05-10, 2018-05-10 06:00, 10.05.2018, "
        "or 20180510"
    )


def _day_comes_first(
    written: list[_Written], texts: Sequence[str], lines: Sequence[int], reading: TimeReading, where: str
) -> bool:
    days, months = (
        [place for place, item in enumerate(written) if int(item.pieces[name] or 0) > 12] for name in ("first", "last")
    )
    if days and months:
        shown = " and ".join(f"'{texts[place]}' (line {lines[place]})" for place in sorted((days[0], months[0])))
        raise DataError(f"{where}: the day comes first in some times and the month in others, {shown}")
    if not days and not months and reading.day_first is None:
        raise DataError(
            f"{where}, line {lines[0]}: nothing tells whether the day or the month comes first in '{texts[0]}' and all "
            "other times: set day_first = true or false"
        )
    told = bool(days) if days or months else bool(reading.day_first)
    if reading.day_first is not None and told != reading.day_first:
        place = (days or months)[0]
        raise DataError(
            f"{where}, line {lines[place]}: '{texts[place]}' does not fit day_first = {str(reading.day_first).lower()}"
        )
    return told


def _moment(pieces: dict[str, str | None], day_first: bool, where: str) -> datetime.datetime:
    year, first, last, hour, minute, second = (
        int(pieces[name] or 0) for name in ("year", "first", "last", "hour", "minute", "second")
    )
    month, day = (last, first) if day_first else (first, last)
    if not _YEARS[0] <= year <= _YEARS[1]:
        raise DataError(f"{where}: years from {_YEARS[0]} to {_YEARS[1]} can be read")
    try:
        fraction = int((pieces["fraction"] or "").ljust(6, "0"))
        return datetime.datetime(year, month, day, hour, minute, second, fraction)
    except ValueError as error:
        raise DataError(f"{where} is no time of the calendar: {error}") from None


def _offset(text: str) -> datetime.timedelta:
    if text == "Z":
        return datetime.timedelta(0)
    sign = -1 if text[0] == "-" else 1
    return sign * datetime.timedelta(hours=int(text[1:3]), minutes=int(text[-2:]))


def _local_offsets(
    moments: list[datetime.datetime], lines: Sequence[int], name: str | None, where: str
) -> list[datetime.timedelta]:
    """What to take off each local time, which must have come exactly once."""
    zone = _zone(name, where)
    shifts: list[datetime.timedelta] = []
    twice: list[int] = []
    never: list[int] = []
    for moment, line in zip(moments, lines, strict=True):
        first, second = (moment.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
        shift = first.utcoffset() or datetime.timedelta(0)
        if shift != second.utcoffset():
            # Where clocks went forward, a time in between is not what it was after a way to UTC and back.
            returned = first.astimezone(datetime.UTC).astimezone(zone).replace(tzinfo=None)
            (twice if returned == moment else never).append(line)
        shifts.append(shift)
    for faults, what in ((twice, "came twice as clocks were put back"), (never, "never came as clocks went forward")):
        if faults:
            listed = ", ".join(map(str, faults[:5])) + (" ..." if len(faults) > 5 else "")
            raise DataError(
                f"{where}: {len(faults)} local times {what} in {name} (line {listed}): write times in UTC or with an "
                'offset, or set timezone to an offset such as "-08:00" if clocks weren\'t changed'
            )
    return shifts


def _zone(name: str | None, where: str) -> datetime.tzinfo:
    if name is None:
        raise ConfigError(f"{where}: the times do not say their zone: {_HOW}")
    try:
        if re.fullmatch(r"[+-]\d{2}:\d{2}", name):
            return datetime.timezone(_offset(name))
        return datetime.UTC if name == "UTC" else zoneinfo.ZoneInfo(name)
    # A name that is a folder of zones is met with OSError.
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        close = difflib.get_close_matches(name, zoneinfo.available_timezones(), n=1)
        meant = f"did you mean '{close[0]}'? " if close else ""
        raise ConfigError(f"{where}: unknown timezone '{name}': {meant}{_HOW}") from None
