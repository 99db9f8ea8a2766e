"""Windows: against a slow reading of their definition, on random times with gaps."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldcast.data.windows import WindowSettings, find_windows, longest_run
from fieldcast.errors import ConfigError
from fieldcast.settings import read_settings

MINUTE = 60 * 10**9
gappy_times = st.lists(st.integers(1, 12), max_size=40).map(
    lambda steps: np.cumsum([0, *steps], dtype=np.int64) * MINUTE + 1_525_910_400 * 10**9
)


def slow_windows(times, num_frames, longest_step, stride):
    """Every start, tried one by one."""
    starts = []
    for start in range(len(times)):
        frames = times[start : start + num_frames]
        if len(frames) < num_frames or any(after - before > longest_step for before, after in pairwise(frames)):
            continue
        if starts and times[start] - times[starts[-1]] < stride:
            continue
        starts.append(start)
    return starts


@given(gappy_times, st.integers(1, 8), st.integers(1, 12), st.integers(0, 30))
def test_windows_are_the_slow_ones(times, num_frames, longest_step, stride):
    found = find_windows(times, num_frames, longest_step * MINUTE, stride * MINUTE)
    assert found.tolist() == slow_windows(times.tolist(), num_frames, longest_step * MINUTE, stride * MINUTE)


@given(gappy_times, st.integers(2, 8), st.integers(1, 12))
def test_no_window_crosses_a_gap(times, num_frames, longest_step):
    for start in find_windows(times, num_frames, longest_step * MINUTE, 0):
        assert np.diff(times[start : start + num_frames]).max() <= longest_step * MINUTE


@given(gappy_times, st.integers(1, 12))
def test_longest_run_is_the_longest_window(times, longest_step):
    longest = longest_run(times, longest_step * MINUTE)
    assert len(find_windows(times, longest, longest_step * MINUTE, 0)) > 0
    assert len(find_windows(times, longest + 1, longest_step * MINUTE, 0)) == 0


def test_no_frames():
    empty = np.zeros(0, dtype=np.int64)
    assert longest_run(empty, 1) == 0
    assert find_windows(empty, 1, 1, 1).tolist() == []


def test_stride_counts_time_not_frames():
    times = np.array([0, 5, 10, 15, 20, 60, 65, 70, 75]) * MINUTE
    assert find_windows(times, 2, 5 * MINUTE, 10 * MINUTE).tolist() == [0, 2, 5, 7]
    assert find_windows(times, 2, 5 * MINUTE, 0).tolist() == [0, 1, 2, 3, 5, 6, 7]


def test_settings_in_time():
    settings = WindowSettings(num_inputs=2, num_targets=3)
    assert settings.num_frames == 5
    assert settings.longest_step(5 * MINUTE) == 5 * MINUTE + 5 * MINUTE // 200
    assert WindowSettings(num_inputs=2, num_targets=3, max_gap="15 min").longest_step(5 * MINUTE) >= 15 * MINUTE
    assert settings.span(5 * MINUTE) >= 4 * 5 * MINUTE


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_inputs": 0}, "num_inputs = 0: at least 1"),
        ({"crop": 0}, "crop = 0: at least 1"),
        ({"max_gap": "5 minuets"}, "'5 minuets' is not a duration: write a number and one of s, sec"),
        ({"stride": "30"}, "'30' is not a duration"),
        ({"num_targets": 2.5}, r"'windows\.num_targets' = 2\.5: input should be a valid integer"),
    ],
)
def test_settings_that_make_no_sense(changes, message):
    with pytest.raises(ConfigError, match=message):
        read_settings(WindowSettings, {"num_inputs": 2, "num_targets": 2, **changes}, "windows")
