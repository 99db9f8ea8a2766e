"""Times of samples: the thesis' sets, ends, order and distances, and what is refused."""

from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fieldcast.data.sampling import PRESETS, SamplingSettings, make_samplers
from fieldcast.data.windows import WindowSettings
from fieldcast.errors import ConfigError
from fieldcast.settings import read_settings

TEN = WindowSettings(num_inputs=10, num_targets=10)
SECOND = 10**9
# The thesis, table 5.3: size of the set, input interval, target interval.
TABLE_5_3 = {
    "thesis-regular": (1, (1, 10), (11, 20)),
    "thesis-irregular-inputs": (100, (1, 20), (21, 30)),
    "thesis-irregular-targets": (100, (1, 10), (11, 30)),
    "thesis-irregular": (100, (1, 15), (16, 30)),
}


def read(**values):
    return read_settings(SamplingSettings, values, "sampling")


def sampler(windows=TEN, seed=0, split="train", **values):
    return make_samplers(read(**values), windows, seed)[split]


def times_of(sampling, count=60):
    """Times of the first samples of a generator, counted from 1: (count, T + S)."""
    return np.stack([sampling.times(number, 0) for number in range(count)]) + 1


class TestThesis:
    @pytest.mark.parametrize("preset", TABLE_5_3)
    def test_table(self, preset):
        num_sets, inputs, targets = TABLE_5_3[preset]
        sets = sampler(preset=preset).sets + 1
        assert sets.shape == (num_sets, 20)
        assert len(np.unique(sets, axis=0)) == num_sets
        for times, (first, last) in ((sets[:, :10], inputs), (sets[:, 10:], targets)):
            assert (np.diff(times) > 0).all()
            assert (times[:, 0] == first).all()
            assert times.max() <= last
            assert np.issubdtype(times.dtype, np.integer)
        assert (sets[:, 9] == inputs[1]).all()
        if targets[1] - targets[0] >= 10:
            assert sets[:, -1].max() == targets[1]
            assert len(np.unique(sets[:, -1])) > 1

    @pytest.mark.parametrize("preset", ["thesis-irregular-inputs", "thesis-irregular"])
    def test_samples_take_all_sets_and_no_other(self, preset):
        chosen = sampler(preset=preset)
        seen = {tuple(times) for times in times_of(chosen, 1500)}
        assert seen == {tuple(times) for times in chosen.sets + 1}

    def test_sets_depend_on_the_seed_alone_and_splits_share_them(self):
        one = sampler(preset="thesis-irregular", seed=4)
        assert np.array_equal(one.sets, sampler(preset="thesis-irregular", seed=4, split="test").sets)
        assert not np.array_equal(one.sets, sampler(preset="thesis-irregular", seed=5).sets)
        fixed = SamplingSettings(preset="thesis-irregular", seed=4)
        assert np.array_equal(one.sets, make_samplers(fixed, TEN, 77)["train"].sets)

    def test_which_set_depends_on_split_and_number(self):
        train, test = (sampler(preset="thesis-irregular", split=split) for split in ("train", "test"))
        assert np.array_equal(times_of(train), times_of(sampler(preset="thesis-irregular")))
        assert not np.array_equal(times_of(train), times_of(test))

    def test_every_frame_between_the_ends_is_as_likely(self):
        sets = sampler(preset="thesis-irregular-inputs", num_sets=4000).sets + 1
        share = np.array([(sets[:, :10] == frame).any(1).mean() for frame in range(2, 20)])
        # 8 of 18; four standard deviations of a share of 4000.
        assert np.abs(share - 8 / 18).max() < 4 * np.sqrt(8 / 18 * 10 / 18 / 4000)

    def test_keys_beside_a_preset_override_it(self):
        small = WindowSettings(num_inputs=4, num_targets=3)
        sets = sampler(small, preset="thesis-irregular", input_interval=[1, 6], target_interval=[7, 12], num_sets=9)
        assert sets.sets.shape == (9, 7)
        assert set(sets.sets[:, 3] + 1) == {6}
        regular = sampler(small, preset="thesis-irregular-inputs", input_interval=[1, 8], num_sets=5)
        assert (regular.sets[:, 4:] + 1 == [9, 10, 11]).all()

    def test_a_preset_reads_back(self):
        for preset in PRESETS:
            chosen = read(preset=preset)
            assert read(**chosen.model_dump(mode="json")) == chosen


@st.composite
def plans(draw, real=False):
    """Settings, windows and a seed that fit together."""
    windows = WindowSettings(num_inputs=draw(st.integers(2, 6)), num_targets=draw(st.integers(1, 6)))
    more, later, room = (draw(st.integers(0, 6)) for _ in range(3))
    if draw(st.booleans()):
        last = windows.num_frames + more
        values = {"task": "interpolate", "input_interval": (1, last)}
        if not real and draw(st.booleans()):
            begin = draw(st.integers(2, last - windows.num_targets))
            end = draw(st.integers(begin + windows.num_targets - 1, last - 1))
            values["target_interval"] = (begin, end)
    else:
        last = windows.num_inputs + more
        first = last + 1 + later
        values = {"input_interval": (1, last), "target_interval": (first, first + windows.num_targets - 1 + room)}
    if real:
        values |= {"real_numbers": True, "least_step": draw(st.sampled_from([0.05, 0.5, 1.0]))}
    chosen = SamplingSettings(**values)
    if real:
        assume(more > 0 or (chosen.task == "forecast" and room > 0))
    return chosen, windows, draw(st.integers(0, 2**32))


def check_times(chosen, windows, seed):
    plan = chosen.plan(windows)
    sampling = make_samplers(chosen, windows, seed)["validation"]
    for number in range(4):
        times = sampling.times(number, 3) + 1
        inputs, targets = times[: windows.num_inputs], times[windows.num_inputs :]
        assert len(targets) == windows.num_targets
        assert (np.diff(inputs) > 0).all()
        assert (np.diff(targets) > 0).all()
        assert (inputs[0], inputs[-1]) == plan.inputs
        low, high = plan.targets if plan.settings.task == "forecast" or not chosen.real_numbers else plan.inputs
        assert low <= targets[0]
        assert targets[-1] <= high
        if chosen.task == "forecast":
            assert targets[0] == low
        assert len(np.unique(times)) == windows.num_frames
        assert np.array_equal(times, sampling.times(number, 3) + 1)
        yield np.sort(times)


@settings(max_examples=25, deadline=None)
@given(plans())
def test_whole_times(case):
    for times in check_times(*case):
        assert np.issubdtype(times.dtype, np.integer)


@settings(max_examples=25, deadline=None)
@given(plans(real=True))
def test_real_times(case):
    for times in check_times(*case):
        assert np.diff(times).min() >= case[0].least_step - 1e-9


def test_real_times_are_uniform_between_the_ends():
    windows = WindowSettings(num_inputs=3, num_targets=2)
    values = {"input_interval": [1, 11], "target_interval": [12, 20], "real_numbers": True, "least_step": 0.01}
    times = times_of(sampler(windows, **values), 2000)
    # The mean of a uniform number is the middle, within four standard deviations.
    for column, low, high in ((1, 1.01, 10.99), (4, 12.01, 20)):
        assert abs(times[:, column].mean() - (low + high) / 2) < 4 * (high - low) / np.sqrt(12 * 2000)
        assert times[:, column].min() < low + 0.05 * (high - low)
        assert times[:, column].max() > high - 0.05 * (high - low)


def test_each_sample_has_times_of_its_own():
    values = {"input_interval": [1, 20], "target_interval": [21, 40]}
    chosen = sampler(**values)
    assert chosen.sets is None
    assert len(np.unique(times_of(chosen), axis=0)) == 60
    assert not np.array_equal(chosen.times(0, 0), chosen.times(0, 1))
    assert not np.array_equal(times_of(chosen), times_of(sampler(seed=1, **values)))


def test_by_default_one_frame_comes_after_the_other():
    assert np.array_equal(times_of(sampler(), 3), [np.arange(1, 21)] * 3)
    between = sampler(WindowSettings(num_inputs=2, num_targets=3), task="interpolate")
    assert times_of(between, 2).tolist() == [[1, 5, 2, 3, 4]] * 2


@pytest.mark.parametrize(
    ("num_inputs", "num_targets", "values"),
    [
        (3, 2, {"input_interval": (1, 5), "target_interval": (6, 8)}),
        (1, 2, {"target_interval": (3, 6)}),
        (3, 2, {"task": "interpolate", "input_interval": (1, 7)}),
        (2, 2, {"task": "interpolate", "input_interval": (1, 7), "target_interval": (3, 6)}),
        (4, 1, {"task": "interpolate", "input_interval": (1, 6), "target_interval": (4, 5)}),
    ],
)
def test_all_sets_that_exist_are_drawn(num_inputs, num_targets, values):
    windows = WindowSettings(num_inputs=num_inputs, num_targets=num_targets)
    last = values.get("input_interval", (1, num_inputs))[1]
    between = "task" in values
    low, high = values.get("target_interval", (2, last - 1))
    wanted = {
        (*inputs, *targets)
        for inputs in combinations(range(1, last + 1), num_inputs)
        for targets in combinations(range(low, high + 1), num_targets)
        if inputs[0] == 1 and inputs[-1] == last
        if not set(inputs) & set(targets) and (between or targets[0] == low)
    }
    sets = sampler(windows, num_sets=len(wanted), **values).sets + 1
    assert {tuple(times) for times in sets.tolist()} == wanted
    with pytest.raises(ConfigError, match=f"the intervals have {len(wanted)} distinct sets"):
        sampler(windows, num_sets=len(wanted) + 1, **values)


@pytest.mark.parametrize("target_interval", [None, (4, 5)])
def test_every_set_between_inputs_is_as_likely(target_interval):
    windows = WindowSettings(num_inputs=4, num_targets=1)
    chosen = sampler(windows, task="interpolate", input_interval=(1, 6), target_interval=target_interval)
    sets, counts = np.unique(times_of(chosen, 3000), axis=0, return_counts=True)
    assert len(sets) == chosen.plan.num_possible
    share = 1 / len(sets)
    assert np.abs(counts / 3000 - share).max() < 4 * np.sqrt(share * (1 - share) / 3000)


def test_jitter_is_within_its_bound_and_each_sample_s_own():
    chosen = sampler(preset="thesis-regular", jitter=0.4)
    late = np.stack([chosen.lateness(number, 0) for number in range(200)])
    assert late.min() >= 0
    assert 0.39 < late.max() < 0.4
    assert abs(late.mean() - 0.2) < 4 * 0.4 / np.sqrt(12 * late.size)
    assert len(np.unique(late)) == late.size


def test_span():
    window = WindowSettings(num_inputs=10, num_targets=10)
    assert sampler().plan.span(SECOND) == window.span(SECOND)
    assert sampler(preset="thesis-irregular").plan.span(SECOND) >= 29 * SECOND
    real = {"input_interval": [1, 20], "target_interval": [21, 40], "real_numbers": True}
    assert sampler(**real).plan.span(SECOND) == 39 * SECOND
    assert sampler(jitter=0.5).plan.span(SECOND) >= 19.5 * SECOND
    gappy = WindowSettings(num_inputs=10, num_targets=10, max_gap="4 s")
    assert sampler(gappy, gaps={"rate": 0.3}).plan.span(SECOND) >= 19 * 4 * SECOND


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"preset": "thesis-iregular"}, "unknown preset 'thesis-iregular': did you mean 'thesis-irregular'"),
        ({"input_interval": [5, 1]}, r"input_interval = \[5, 1\]: write \[first, last\], counted from 1"),
        ({"target_interval": [11, 20, 30]}, r"target_interval = \[11, 20, 30\]: write \[first, last\]"),
        ({"input_interval": [0, 9]}, r"input_interval = \[0, 9\]: write"),
        ({"input_interval": [2, 11]}, r"input_interval = \[2, 11\]: begin with 1"),
        ({"input_interval": [1, 9]}, r"sampling\.input_interval = \[1, 9\] holds 9 frames, fewer than .*inputs = 10"),
        ({"target_interval": [11, 19]}, r"sampling\.target_interval = \[11, 19\] holds 9 frames, fewer than"),
        ({"target_interval": [10, 19]}, r"targets from frame 10 on overlap the inputs \[1, 10\]"),
        ({"num_sets": 0}, r"'sampling\.num_sets' = 0"),
        ({"num_sets": "new"}, r"'sampling\.num_sets' = 'new': .*'fresh'"),
        ({"num_sets": 2}, r"sampling\.num_sets = 2: the intervals have 1 distinct sets"),
        ({"input_interval": [1, 11], "num_sets": 10}, f"num_sets = 10: the intervals have {comb(9, 8)} distinct"),
        ({"real_numbers": True}, "real_numbers: the intervals hold just the frames wanted"),
        ({"least_step": 0.2}, "least_step is for real_numbers = true"),
        ({"real_numbers": True, "least_step": 0.0}, r"'sampling\.least_step' = 0\.0"),
        ({"real_numbers": True, "jitter": 0.2}, "real_numbers = true has no frames .* leave out jitter"),
        ({"real_numbers": True, "gaps": {"rate": 0.2}}, "leave out gaps"),
        ({"jitter": 0.95}, r"'sampling\.jitter' = 0\.95"),
        ({"gaps": {"rate": 1.0}}, r"'sampling\.gaps\.rate' = 1\.0: input should be less than 1"),
        ({"gaps": {"rate": -0.1}}, r"'sampling\.gaps\.rate' = -0\.1"),
        ({"gaps": {"rate": 0.6, "mean_length": 1.2}}, r"rate = 0\.6 needs gaps of 1\.5 frames on average at least"),
        ({"gaps": {"rat": 0.6}}, r"unknown key 'sampling\.gaps\.rat': did you mean 'rate'"),
        ({"gaps": {"rate": 0.2}}, r"gaps and bursts need windows\.max_gap"),
        ({"bursts": {"num_frames": 5, "pause": 0}}, r"'sampling\.bursts\.pause' = 0"),
        ({"task": "fill"}, r"'sampling\.task' = 'fill'"),
        ({"task": "interpolate", "input_interval": [1, 19]}, r"holds 19 frames, fewer than the 20 inputs and targets"),
        ({"task": "interpolate", "target_interval": [1, 12]}, r"target_interval = \[1, 12\]: .* within \[2, 19\]"),
        ({"task": "interpolate", "target_interval": [9, 20]}, r"target_interval = \[9, 20\]: .* within \[2, 19\]"),
        (
            {"task": "interpolate", "target_interval": [9, 19], "real_numbers": True},
            "target_interval and real_numbers don't go together",
        ),
    ],
)
def test_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        read(**values).plan(TEN)


def test_one_input_has_one_place():
    one = WindowSettings(num_inputs=1, num_targets=3)
    assert times_of(sampler(one, target_interval=[2, 9]))[:, 0].tolist() == [1] * 60
    with pytest.raises(ConfigError, match="1 input can't be its first and its last frame"):
        sampler(one, input_interval=[1, 4])
    with pytest.raises(ConfigError, match=r"num_inputs = 1: to interpolate takes 2"):
        sampler(one, task="interpolate")
