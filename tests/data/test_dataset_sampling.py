"""Samples at irregular times: the frames are those of the said times, whatever the source."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
import xarray as xr

from fieldcast.data import source_settings
from fieldcast.data.dataset import frames_and_times, make_samples
from fieldcast.data.moving_mnist import MovingMNIST
from fieldcast.data.netcdf import NetCDFConfig, open_frames
from fieldcast.data.normalize import Normalizer, NormalizerSettings, Transform
from fieldcast.data.sampling import SamplingSettings
from fieldcast.data.splits import SplitSettings
from fieldcast.data.windows import WindowSettings
from fieldcast.errors import ConfigError, DataError
from fieldcast.settings import read_settings

MINUTE = 60 * 10**9
SECOND = 10**9
START = np.datetime64("2018-05-10", "ns")
FRACTIONS = SplitSettings(train=0.5, validation=0.25, test=0.25)
PLAIN = Normalizer((Transform("scale", 0.0, 1.0),))

SAMPLINGS = {
    "regular": {},
    "sets": {"input_interval": [1, 7], "target_interval": [8, 13], "num_sets": 5},
    "fresh": {"input_interval": [1, 7], "target_interval": [9, 13]},
    "between": {"task": "interpolate", "input_interval": [1, 12]},
    "a hole": {"task": "interpolate", "input_interval": [1, 7], "target_interval": [3, 5]},
    "gaps": {"gaps": {"rate": 0.3, "mean_length": 1.0}},
    "bursts": {"bursts": {"num_frames": 4, "pause": 2}},
    "gaps and sets": {"gaps": {"rate": 0.3}, "input_interval": [1, 7], "target_interval": [8, 12], "num_sets": 9},
    "gaps and between": {"gaps": {"rate": 0.3}, "task": "interpolate", "input_interval": [1, 9]},
}
RENDERED = {
    "real numbers": {"real_numbers": True, "input_interval": [1, 7], "target_interval": [8, 13]},
    "real sets": {"real_numbers": True, "input_interval": [1, 7], "target_interval": [8, 13], "num_sets": 3},
    "real, between": {"real_numbers": True, "task": "interpolate", "input_interval": [1, 13]},
    "jitter": {"jitter": 0.6},
    "jitter in sets": {"jitter": 0.3, "input_interval": [1, 7], "target_interval": [8, 13], "num_sets": 4},
    "jitter after gaps": {"jitter": 0.5, "gaps": {"rate": 0.4}},
}


def read(**values):
    return read_settings(SamplingSettings, values, "sampling")


def clock_dataset(num_frames=320, lost=16):
    """A frame every 5 minutes, some missing, whose value is the number of minutes since the first."""
    left = np.sort(np.random.default_rng(3).permutation(num_frames)[lost:])
    minutes = (5.0 * left)[:, None, None] * np.ones((1, 3, 4))
    times = START + left * np.timedelta64(5, "m")
    return xr.Dataset({"rain": (("time", "y", "x"), minutes, {"units": "mm"})}, {"time": times})


def radar(seed=0, dataset=None, normalizer=PLAIN, max_gap="20 min", **sampling):
    source = open_frames(dataset or clock_dataset(), NetCDFConfig(paths="unused", variables=("rain",)))
    windows = WindowSettings(num_inputs=4, num_targets=3, max_gap=max_gap)
    return make_samples(source, windows, FRACTIONS, normalizer, read(**sampling), seed)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    images = np.zeros((40, 28, 28), np.uint8)
    for number, image in enumerate(images):
        image[8:20, 10 : 16 + number % 5] = 100 + number
    path = tmp_path_factory.mktemp("digits") / "digits.npz"
    np.savez(path, images=images)
    return source_settings({"key": "moving-mnist", "digits": str(path), "size": 32, "num_frames": 13})


def moving(digits, seed=0, **sampling):
    windows = WindowSettings(num_inputs=4, num_targets=3, max_gap="4 s")
    counts = SplitSettings(train=12, validation=4, test=4)
    return make_samples(digits.open(7), windows, counts, PLAIN, read(**sampling), seed)


def minutes_of(times):
    return (times - START.astype(np.int64)) / MINUTE


def check_order(part):
    for number in range(0, len(part), max(1, len(part) // 8)):
        times, batch = part.times(number), part.batch([number])
        inputs, targets = times[:4], times[4:]
        assert times.dtype == np.int64
        assert (np.diff(inputs) > 0).all()
        assert (np.diff(targets) > 0).all()
        assert part.origin(number) == inputs[-1] == int(batch.origin[0])
        assert batch.input_times[0, -1] == 0
        relative = torch.cat([batch.input_times, batch.target_times], 1)[0].double().numpy()
        np.testing.assert_allclose(relative, (times - times[3]) / part.source.cadence, rtol=1e-6)
        assert times.max() - times.min() <= part.span
        between = part.sampler.plan.settings.task == "interpolate"
        assert (targets > inputs[-1]).all() != between
        if between:
            assert inputs[0] < targets[0]
            assert targets[-1] < inputs[-1]


@pytest.mark.parametrize("name", SAMPLINGS)
class TestArchive:
    def test_frames_are_those_of_the_times(self, name):
        dataset = clock_dataset()
        known = set(dataset.time.values.astype(np.int64).tolist())
        for part in radar(dataset=dataset, **SAMPLINGS[name]).values():
            check_order(part)
            for number in range(0, len(part), 5):
                times, frames = part.times(number), part.frames(number)
                assert known.issuperset(times.tolist())
                assert (frames == minutes_of(times)[:, None, None, None]).all()
            batch, truth = part.batch_and_truth([0, len(part) - 1])
            assert (truth[0, :, 0, 0, 0].numpy() == minutes_of(part.times(0))[4:]).all()
            assert (batch.inputs[1, :, 0, 0, 0].numpy() == minutes_of(part.times(len(part) - 1))[:4]).all()

    def test_splits_stay_a_sample_apart(self, name):
        parts = radar(**SAMPLINGS[name])
        seen = [np.concatenate([part.times(number) for number in range(len(part))]) for part in parts.values()]
        for before, after in pairwise(seen):
            assert after.min() - before.max() >= parts["train"].span

    def test_every_frame_once(self, name):
        part = radar(**SAMPLINGS[name])["train"]
        frames, times = (np.concatenate(pieces) for pieces in zip(*frames_and_times(part), strict=True))
        wanted = np.unique([part.times(number) for number in range(len(part))])
        assert np.array_equal(times, wanted)
        assert (frames[:, 0, 0, 0] == minutes_of(times)).all()

    def test_the_same_seed_gives_the_same(self, name):
        one, again, other = (radar(seed=seed, **SAMPLINGS[name])["test"] for seed in (1, 1, 2))
        times, others = ([part.times(k).tolist() for k in range(len(part))] for part in (one, other))
        assert times == [again.times(number).tolist() for number in range(len(again))]
        assert (times == others) == (name in ("regular", "a hole"))


def test_a_seed_of_its_own_goes_before_the_run_s():
    values = {"input_interval": (1, 7), "gaps": {"rate": 0.3}, "seed": 5}
    source = open_frames(clock_dataset(), NetCDFConfig(paths="unused", variables=("rain",)))
    windows = WindowSettings(num_inputs=4, num_targets=3, max_gap="20 min")
    parts = [make_samples(source, windows, FRACTIONS, PLAIN, read(**values), seed)["test"] for seed in (0, 1)]
    assert parts[0].starts == parts[1].starts
    assert all(np.array_equal(parts[0].times(k), parts[1].times(k)) for k in range(len(parts[0])))


def test_regular_sampling_changes_nothing():
    source = open_frames(clock_dataset(), NetCDFConfig(paths="unused", variables=("rain",)))
    windows = WindowSettings(num_inputs=4, num_targets=3)
    bare = make_samples(source, windows, FRACTIONS, PLAIN)
    named = make_samples(source, windows, FRACTIONS, PLAIN, read(preset="thesis-regular"), 3)
    for split, part in bare.items():
        assert part.starts == named[split].starts
        for number, (which, start) in enumerate(part.starts):
            assert np.array_equal(part.times(number), part.sequences[which].times[start : start + 7])
            assert np.array_equal(named[split].times(number), part.times(number))


def test_a_part_of_the_samples_keeps_its_times():
    part = radar(**SAMPLINGS["fresh"])["train"]
    some = replace(part, starts=[part.starts[number] for number in (5, 50)])
    assert np.array_equal(some.times(1), part.times(50))


def test_a_third_of_the_frames_is_gone():
    dataset = clock_dataset(3000, 0)
    part = radar(dataset=dataset, max_gap="1 h", gaps={"rate": 0.33})["train"]
    assert len(part.sequences[0].times) == pytest.approx(0.67 * 3000, abs=5 * np.sqrt(3000 * 0.33 * 0.67))
    steps = np.diff(np.stack([part.times(number) for number in range(len(part))]), axis=1) / (5 * MINUTE)
    assert steps.mean() == pytest.approx(1 / 0.67, abs=0.1)


def test_only_frames_of_samples_fit_the_normalizer():
    dataset = clock_dataset(400, 0)
    bursts = {"num_frames": 7, "pause": 3}
    part = radar(dataset=dataset, max_gap="5 min", bursts=bursts)["train"]
    lost = np.setdiff1d(dataset.time.values.astype(np.int64), part.sequences[0].times)
    dataset["rain"].loc[{"time": lost.astype("datetime64[ns]")}] = 1e6
    fitted = radar(dataset=dataset, max_gap="5 min", normalizer=NormalizerSettings(), bursts=bursts)["train"]
    assert fitted.normalizer.transforms[0].high < 1e6


def test_an_archive_that_comes_divided(monkeypatch):
    days = {name: clock_dataset(lost=lost) for name, lost in (("train", 3), ("validation", 30), ("test", 60))}
    source, *others = [open_frames(day, NetCDFConfig(paths="unused", variables=("rain",))) for day in days.values()]
    own = dict(zip(days, [source.sequences("", None), *(other.sequences("", None) for other in others)], strict=True))
    monkeypatch.setattr(source, "kind", "divided", raising=False)
    monkeypatch.setattr(source, "sequences", lambda split, count: own[split])
    windows = WindowSettings(num_inputs=4, num_targets=3, max_gap="20 min")
    splits = SplitSettings(train="source", validation="source", test="source")
    parts = make_samples(source, windows, splits, PLAIN, read(**SAMPLINGS["gaps and sets"]))
    left = {split: part.sequences[0].times for split, part in parts.items()}
    for split, part in parts.items():
        assert set(left[split]) < set(days[split].time.values.astype(np.int64))
        assert (part.frames(9)[:, 0, 0, 0] == minutes_of(part.times(9))).all()
    assert set(left["train"]) != set(left["validation"])


def test_crops():
    windows = WindowSettings(num_inputs=4, num_targets=3, max_gap="20 min", crop=2)
    source = open_frames(clock_dataset(), NetCDFConfig(paths="unused", variables=("rain",)))
    part = make_samples(source, windows, FRACTIONS, PLAIN, read(**SAMPLINGS["fresh"]))["train"]
    assert part.batch([3], [(1, 2)]).inputs.shape == (1, 4, 1, 2, 2)


@pytest.mark.parametrize("name", [*SAMPLINGS, *RENDERED])
class TestGenerator:
    def test_frames_are_rendered_at_the_times(self, digits, name):
        source = digits.open(7)
        for split, part in moving(digits, **{**SAMPLINGS, **RENDERED}[name]).items():
            check_order(part)
            for number in range(len(part)):
                sequence = source.sequence(split, number)
                wanted = sequence.read_at(part.times(number) / SECOND)
                assert np.array_equal(part.frames(number), wanted)
                cut = (slice(3, 9), slice(10, 30))
                assert np.array_equal(part.frames(number, cut), wanted[:, :, cut[0], cut[1]])

    def test_every_frame_once(self, digits, name):
        part = moving(digits, **{**SAMPLINGS, **RENDERED}[name])["train"]
        pieces = list(frames_and_times(part))
        assert sum(len(times) for _, times in pieces) == 12 * 7
        assert len(pieces) == 12
        for number, (frames, times) in enumerate(pieces):
            order = np.argsort(part.times(number))
            assert np.array_equal(np.sort(times), part.times(number)[order])
            assert np.array_equal(frames[np.argsort(times)], part.frames(number)[order])

    def test_the_seed_decides(self, digits, name):
        values = {**SAMPLINGS, **RENDERED}[name]
        one, again, other = (moving(digits, seed=seed, **values)["validation"] for seed in (1, 1, 2))
        assert torch.equal(one.batch(range(4)).targets, again.batch(range(4)).targets)
        same = [np.array_equal(one.times(number), other.times(number)) for number in range(4)]
        assert all(same) == (name in ("regular", "a hole"))


@pytest.mark.parametrize("name", RENDERED)
def test_times_are_no_whole_cadences(digits, name):
    part = moving(digits, **RENDERED[name])["train"]
    odd = np.stack([part.times(number) for number in range(len(part))]) % SECOND != 0
    assert odd.any(1).all()


class TestRefused:
    @pytest.mark.parametrize("name", RENDERED)
    def test_an_archive_does_not_render(self, name):
        with pytest.raises(DataError, match="real_numbers and jitter need a source that renders any time"):
            radar(**RENDERED[name])

    @pytest.mark.parametrize("name", ["gaps", "jitter"])
    def test_a_generator_that_does_not_render(self, digits, monkeypatch, name):
        class Still:
            name, times = "still", np.arange(13) * SECOND

            def read(self, positions, window=None):
                raise AssertionError

        monkeypatch.setattr(MovingMNIST, "sequences", lambda self, split, count: [Still()] * count)
        assert len(moving(digits)["train"]) == 12
        with pytest.raises(DataError, match="gaps and bursts of a generator need a source that renders any time"):
            moving(digits, **{**SAMPLINGS, **RENDERED}[name])

    def test_a_generator_that_is_too_short(self, digits):
        with pytest.raises(DataError, match="a sample needs 14 frames, this source makes sequences of 13"):
            moving(digits, target_interval=[5, 14])

    def test_too_few_frames_left(self):
        with pytest.raises(DataError, match=r"0 train samples: one needs 7 frames of those that \[sampling\] leaves"):
            radar(bursts={"num_frames": 4, "pause": 5})

    def test_settings_that_do_not_fit_the_windows(self):
        with pytest.raises(ConfigError, match=r"sampling\.input_interval = \[1, 3\] holds 3 frames"):
            radar(input_interval=[1, 3])
