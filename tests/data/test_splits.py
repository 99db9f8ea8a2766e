"""Splits: nothing shared, a sample's length apart, by time, by fraction and by count."""

from itertools import combinations, pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from conftest import radar_dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldcast.data.dataset import make_samples
from fieldcast.data.netcdf import NetCDFConfig, open_frames
from fieldcast.data.normalize import Normalizer, Transform
from fieldcast.data.splits import SPLITS, SplitSettings, split_intervals
from fieldcast.data.times import decode_time
from fieldcast.data.windows import WindowSettings
from fieldcast.errors import ConfigError, DataError
from fieldcast.settings import read_settings

MINUTE = 60 * 10**9
LATER = {"validation": ["2019-01-01", "2019-02-01"], "test": ["2020-01-01", "2020-02-01"]}
CALENDAR = SimpleNamespace(calendar="standard")
PLAIN = Normalizer((Transform("identity"),))


def read(**splits) -> SplitSettings:
    return read_settings(SplitSettings, splits, "splits")


def samples(splits, num_inputs=2, num_targets=2, dataset=None, **windows):
    source = open_frames(
        radar_dataset(60) if dataset is None else dataset, NetCDFConfig(paths="unused", variables=("rain",))
    )
    return make_samples(
        source, WindowSettings(num_inputs=num_inputs, num_targets=num_targets, **windows), splits, PLAIN
    )


def sequence(length, step=5):
    return SimpleNamespace(times=np.arange(length, dtype=np.int64) * step * MINUTE)


def frames_of(part):
    times = [part.sequences[which].times[start : start + part.windows.num_frames] for which, start in part.starts]
    return np.unique(np.concatenate(times))


def assert_apart(parts):
    """No frame shared, and from split to split at least a sample's length."""
    for one, other in combinations(parts.values(), 2):
        first, second = sorted((frames_of(one), frames_of(other)), key=lambda times: times[0])
        assert second[0] - first[-1] >= (one.windows.num_frames - 1) * 5 * MINUTE


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.floats(0.3, 0.5), st.floats(0.2, 0.3))
def test_fractions_are_apart(num_inputs, num_targets, train, validation):
    splits = read(train=train, validation=validation, test=round(0.98 - train - validation, 6))
    parts = samples(splits, num_inputs, num_targets, dataset=radar_dataset(100, extent=4))
    assert_apart(parts)
    assert parts["train"].starts[0] == (0, 0)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_times_in_any_order_are_apart(order):
    edges = ["2018-05-10", "2018-05-10T02:00", "2018-05-10T03:30", "2018-05-11"]
    days = [list(pair) for pair in pairwise(edges)]
    parts = samples(read(**{split: days[place] for split, place in zip(SPLITS, order)}))
    assert_apart(parts)
    for split, place in zip(SPLITS, order):
        begin, end = (decode_time(text) for text in days[place])
        assert begin <= frames_of(parts[split]).min()
        assert frames_of(parts[split]).max() < end


def test_intervals_with_room_between_are_taken_whole():
    splits = read(
        train=["2018-05-10", "2018-05-10T01:00"],
        validation=["2018-05-10T02:00", "2018-05-10T03:00"],
        test=["2018-05-10T04:00", "2018-05-10T05:00"],
    )
    parts = samples(splits)
    assert [len(frames_of(parts[split])) for split in SPLITS] == [12, 12, 12]
    assert frames_of(parts["validation"])[0] == decode_time("2018-05-10T02:00")


def test_overlap_is_an_error():
    with pytest.raises(ConfigError, match=r"splits\.train and splits\.validation overlap in time"):
        samples(
            read(
                train=["2018-05-10", "2018-05-10T02:05"],
                validation=["2018-05-10T02:00", "2018-05-10T03:00"],
                test=["2018-05-10T04:00", "2018-05-10T05:00"],
            )
        )


@pytest.mark.parametrize("interval", [["2018-05-11", "2018-05-10"], ["2018-05-10", "2018-05-10"]])
def test_empty_interval_is_an_error(interval):
    with pytest.raises(ConfigError, match=r"splits\.test: .* is not before"):
        samples(read(train=["2018-05-10", "2018-05-10T02:00"], validation=["2018-05-12", "2018-05-13"], test=interval))


def test_fractions_over_several_sequences():
    sequences = [sequence(10), sequence(30), sequence(20)]
    intervals = split_intervals(read(train=0.5, validation=0.25, test=0.25), CALENDAR, sequences, 10 * MINUTE)
    kept = {
        split: [
            int(((one.times >= begin) & (one.times < end)).sum())
            for one, [(begin, end)] in zip(sequences, intervals[split])
        ]
        for split in SPLITS
    }
    assert kept == {"train": [10, 20, 0], "validation": [0, 8, 5], "test": [0, 0, 13]}


def test_a_split_of_several_intervals_keeps_clear_of_the_others():
    settings = read(
        train=[["2020-01-01", "2020-01-10"], ["2020-01-20", "2020-01-30"]],
        validation=["2020-02-01", "2020-02-03"],
        test=[["2020-01-10", "2020-01-20"]],
    )
    day = 24 * 60 * MINUTE
    intervals = split_intervals(settings, CALENDAR, [sequence(10)], 2 * day)
    start = decode_time("2020-01-01", "standard")
    days = {split: [tuple((end - start) // day for end in one) for one in own[0]] for split, own in intervals.items()}
    assert days == {"train": [(0, 9), (21, 29)], "test": [(11, 19)], "validation": [(31, 33)]}


def test_intervals_of_one_split_that_overlap():
    settings = read(train=[["2018-01-01", "2018-01-10"], ["2018-01-09", "2018-01-12"]], **LATER)
    with pytest.raises(ConfigError, match=r"intervals of splits\.train overlap"):
        split_intervals(settings, CALENDAR, [sequence(10)], MINUTE)


def test_samples_of_several_intervals_lie_in_them():
    hours = np.datetime64("2020-01-01", "ns") + np.arange(120) * np.timedelta64(1, "h")
    frames = xr.Dataset(
        {"rain": (("time", "y", "x"), np.zeros((120, 2, 2), np.float32), {"units": "1"})}, {"time": hours}
    )
    source = open_frames(frames, NetCDFConfig(paths="", variables=("rain",)))
    splits = read(
        train=[["2020-01-01", "2020-01-02"], ["2020-01-04", "2020-01-05"]],
        validation=["2020-01-03", "2020-01-04"],
        test=["2020-01-02", "2020-01-03"],
    )
    samples = make_samples(source, WindowSettings(num_inputs=3, num_targets=1), splits, PLAIN)
    begins = [samples["train"].times(number)[0] // (60 * MINUTE) for number in range(len(samples["train"]))]
    first = hours[0].astype(np.int64) // (60 * MINUTE)
    assert [int(begin - first) for begin in begins] == [*range(21), *range(76, 93)]


def test_split_without_a_sample():
    with pytest.raises(DataError, match=r"0 validation samples: one needs 4 frames .* splits\.validation has 0"):
        samples(read(train=["2018-05-10", "2018-05-11"], **LATER))


def test_gaps_in_the_data():
    whole = radar_dataset(60)
    parts = samples(read(train=0.5, validation=0.25, test=0.25), dataset=whole.drop_isel(time=[5, 6]))
    assert [start for _, start in parts["train"].starts][:4] == [0, 1, 5, 6]
    loose = samples(read(train=0.5, validation=0.25, test=0.25), dataset=whole.drop_isel(time=[5, 6]), max_gap="15 min")
    assert [start for _, start in loose["train"].starts][:6] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": 0.5, "test": 0.5}, r"missing key 'splits\.validation'"),
        ({"train": 0.8, "validation": 0.2, "test": 0.2}, "add up to 1.2, more than 1"),
        ({"train": 0.8, "validation": 10, "test": 0.1}, "all splits are of one kind"),
        ({"train": 0.8, "validation": 0.1, "test": 0.0}, "no split may be empty"),
        ({"train": 5, "validation": 1, "test": 0}, "no split may be empty"),
        ({split: ["2018-05-10"] for split in SPLITS}, r'an interval is \["start", "end"\]'),
        ({"train": "2018", "validation": 0.1, "test": 0.1}, r"'splits\.train' = '2018': .*tuple.*number"),
        (
            {"training": 0.8, "train": 0.5, "validation": 0.1, "test": 0.1},
            r"unknown key 'splits\.training': did you mean 'train'",
        ),
    ],
)
def test_settings_that_make_no_sense(splits, message):
    with pytest.raises(ConfigError, match=message):
        read(**splits)


def test_times_that_are_none():
    with pytest.raises(ConfigError, match=r"splits\.train: 'May 10' is not a time: write 2018-05-10"):
        samples(read(train=["May 10", "2018-05-11"], **LATER))


def test_counts_are_for_generators_only(tiny_config):
    with pytest.raises(DataError, match="this source takes splits as times or fractions"):
        samples(read(train=8, validation=1, test=1))
    config = tiny_config()
    with pytest.raises(DataError, match="this source takes splits as counts of sequences, such as train = 10000"):
        make_samples(config.source.open(0), config.windows, read(train=0.5, validation=0.2, test=0.2), PLAIN)
    parts = make_samples(config.source.open(0), config.windows, read(train=8, validation=3, test=2), PLAIN)
    assert [len(parts[split]) for split in SPLITS] == [8, 3, 2]
