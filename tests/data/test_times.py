"""Times: durations, ISO text, CF time axes of any calendar, cadence and snapping."""

import cftime
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldcast.data.times import (
    decode_axis,
    decode_time,
    format_time,
    most_common_difference,
    parse_duration,
    snap_to_grid,
)
from fieldcast.errors import ConfigError, DataError

SECOND = 10**9
CALENDARS = ["standard", "noleap", "all_leap", "360_day", "julian"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5 min", 300), ("3 s", 3), ("2 days", 172800), ("1.5 h", 5400), ("1day", 86400), ("10 seconds", 10), ("0 s", 0)],
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds * SECOND


@pytest.mark.parametrize("text", ["", "5", "min", "5 fortnights", "-5 min", "5 m", "1e3 s", "5 min 3 s"])
def test_a_text_that_is_no_duration_is_refused(text):
    with pytest.raises(ConfigError, match=r"not a duration"):
        parse_duration(text)


def test_iso_times_agree_with_numpy_and_know_their_calendar():
    for text in ("2018-05-10", "2018-05-10T06:00", "1969-12-31T23:59:59.5", "2000-02-29T00:00:01"):
        assert decode_time(text) == np.datetime64(text, "ns").astype(np.int64)
    assert decode_time("2018-05-10 06:00Z") == decode_time("2018-05-10T06:00:00")
    assert format_time(decode_time("2000-02-30", "360_day"), "360_day") == "2000-02-30T00:00:00"
    for text, calendar in (("2001-02-29", "standard"), ("2000-02-29", "noleap"), ("2000-01-31", "360_day")):
        with pytest.raises(ConfigError, match=calendar):
            decode_time(text, calendar)
    for text in ("yesterday", "2018-5-1", "10.05.2018", "2018-05-10T06"):
        with pytest.raises(ConfigError, match=r"is not a time"):
            decode_time(text)
    with pytest.raises(ConfigError, match=r"out of range"):
        decode_time("0001-01-01")


@given(st.integers(-(2**63) // 1000 + 1, 2**63 // 1000 - 1), st.sampled_from(CALENDARS))
def test_text_and_time_are_inverse(microseconds, calendar):
    assert decode_time(format_time(microseconds * 1000, calendar), calendar) == microseconds * 1000


@given(st.integers(-(10**9), 10**9), st.sampled_from(CALENDARS), st.sampled_from(["seconds", "minutes"]))
def test_integer_axes_agree_with_cftime(value, calendar, unit):
    units = f"{unit} since 1990-01-30 06:00"
    value = value // (1 if unit == "seconds" else 60)
    axis = decode_axis(np.array([value]), {"units": units, "calendar": calendar}, "file")
    date = cftime.num2date(value, units, calendar)
    assert format_time(axis.times[0], calendar) == date.strftime("%Y-%m-%dT%H:%M:%S")


def test_datetime64_of_any_resolution_and_cftime_objects():
    wanted = decode_time("2018-05-10T06:00")
    for resolution in ("h", "m", "s", "ms", "us", "ns"):
        values = np.array(["2018-05-10T06:00"], dtype=f"datetime64[{resolution}]")
        assert decode_axis(values, {}, "file").times.tolist() == [wanted]
    values = np.array([cftime.datetime(2000, 2, 30, calendar="360_day")], dtype=object)
    axis = decode_axis(values, {}, "file")
    assert axis.calendar == "360_day"
    assert format_time(axis.times[0], axis.calendar) == "2000-02-30T00:00:00"


@pytest.mark.parametrize("unit", ["hours", "days", "minutes", "seconds"])
def test_float_times_come_out_exact(unit):
    seconds = {"hours": 3600, "days": 86400, "minutes": 60, "seconds": 1}[unit]
    exact = np.arange(3000) * 300
    axis = decode_axis(exact / seconds + 160_895 * 3600 / seconds, {"units": f"{unit} since 2000-01-01T00:50:00"}, "f")
    start = decode_time("2000-01-01T00:50:00") + 160_895 * 3600 * SECOND
    assert (axis.times == start + exact * SECOND).all()


def test_a_time_zone_and_sub_second_times_are_kept():
    axis = decode_axis(np.array([0.0, 0.04, 0.08]), {"units": "seconds since 2000-01-01 00:00:00 +02:00"}, "f")
    assert axis.times[0] == decode_time("1999-12-31T22:00")
    assert np.diff(axis.times).tolist() == [40_000_000, 40_000_000]


def test_float32_times_that_lost_their_digits_are_refused():
    minutes = (25_000_000 + 5 * np.arange(20)).astype(np.float32)
    with pytest.raises(DataError, match=r"float32.*too coarse.*integers or float64"):
        decode_axis(minutes, {"units": "minutes since 1970-01-01"}, "radar.nc: 'time'")
    hours = (160_895 + np.arange(20) / 12).astype(np.float32)
    with pytest.raises(DataError, match=r"exact to 56.25 s only"):
        decode_axis(hours, {"units": "hours since 2000-01-01"}, "radar.nc: 'time'")


def test_float32_times_that_lost_nothing_are_read():
    hours = (1_000_000 + np.arange(20)).astype(np.float32)
    assert (np.diff(decode_axis(hours, {"units": "hours since 1900-01-01"}, "f").times) == 3600 * SECOND).all()
    minutes = (np.arange(20) / 12).astype(np.float32)
    assert (np.diff(decode_axis(minutes, {"units": "hours since 2018-05-10"}, "f").times) == 300 * SECOND).all()


@pytest.mark.parametrize(
    ("values", "attributes", "message"),
    [
        (np.array([0.0, np.nan]), {"units": "hours since 2000-01-01"}, "1 of 2 times are missing .index 1"),
        (np.array([0, -999]), {"units": "hours since 2000-01-01", "_FillValue": -999}, "index 1"),
        (np.array(["2000-01-01", "NaT"], dtype="datetime64[us]"), {}, "NaT, index 1"),
        (np.array([1]), {"units": "minuets since 2000-01-01"}, "minuets since"),
        (np.array([1]), {"units": "hours since yesterday"}, "hours since yesterday"),
        (np.array([1]), {"units": "hours since 2000-00-0x"}, "cannot be read"),
        (np.array([1]), {}, "time units ''"),
        (np.array([1]), {"units": "days since 2000-01-01", "calendar": "lunar"}, "unknown calendar 'lunar'"),
        (np.array([0, 10**6]), {"units": "days since 2000-01-01"}, "time 1 is out of range"),
        (np.array([1e300]), {"units": "days since 2000-01-01"}, "out of range"),
        (np.array(["1000-01-01"], dtype="datetime64[s]"), {}, "out of range"),
        (np.array(["noon"], dtype=object), {}, "cannot be read"),
    ],
)
def test_bad_axes_are_refused(values, attributes, message):
    with pytest.raises(DataError, match=f"a.nc.*{message}"):
        decode_axis(values, attributes, "a.nc")


def test_year_one_reference():
    axis = decode_axis(
        np.array([736_999.0]), {"units": "days since 0001-01-01", "calendar": "proleptic_gregorian"}, "f"
    )
    assert axis.calendar == "standard"
    assert format_time(axis.times[0]) == "2018-11-02T00:00:00"


def test_cadence_is_the_most_common_difference():
    assert most_common_difference(np.array([0, 5, 10, 20, 25]), "f") == 5
    with pytest.raises(DataError, match=r"at least two"):
        most_common_difference(np.array([0]), "f")


@given(
    st.integers(0, 2**31),
    st.sampled_from([60, 90, 300, 3600]),
    st.sampled_from([0, 50, 150]),
    st.lists(st.integers(1, 4), min_size=6, max_size=60),
)
def test_jitter_within_the_tolerance_is_taken_off(seed, step, phase, gaps):
    start = decode_time("2018-05-10") + phase * SECOND
    gaps[::2] = [1] * len(gaps[::2])
    exact = start + np.concatenate([[0], np.cumsum(gaps)]) * step * SECOND
    jitter = np.random.default_rng(seed).integers(-SECOND, SECOND, len(exact))
    snapped = snap_to_grid(exact + jitter, 3 * SECOND)
    assert np.abs(snapped - exact).max() <= 3 * SECOND
    assert (np.diff(snapped) % (np.diff(snapped).min())).max() == 0


def test_a_five_minute_series_with_jitter_is_exact_again_and_strangers_stay():
    exact = decode_time("2018-05-10") + np.arange(3000) * 300 * SECOND
    jitter = np.random.default_rng(0).integers(-3 * SECOND, 3 * SECOND, len(exact))
    jitter[1000] = 100 * SECOND
    snapped = snap_to_grid(exact + jitter, 3 * SECOND)
    stranger = np.arange(3000) == 1000
    assert (snapped[~stranger] == exact[~stranger]).all()
    assert snapped[1000] == exact[1000] + 100 * SECOND
    with pytest.raises(DataError, match=r"half or more of the step"):
        snap_to_grid(exact, 200 * SECOND)
