"""Frames that are lost: how many, in gaps of which lengths, and what is left of a sequence."""

from itertools import groupby

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldcast.data.thinning import BurstSettings, GapSettings, RunsOfFrames, Thinning
from fieldcast.errors import DataError

COUNT = 40_000


def thinning(seed=0, split="train", **values):
    return Thinning(values.get("gaps"), values.get("bursts"), seed, split)


def lengths_of(kept):
    """Lengths of the gaps, and of the runs between them."""
    runs = [(key, len(list(group))) for key, group in groupby(kept.tolist())][1:-1]
    return [np.array([length for key, length in runs if key == wanted]) for wanted in (False, True)]


@pytest.mark.parametrize(
    ("rate", "mean_length"), [(0.33, 1.0), (0.33, 4.0), (0.6, 1.5), (0.1, 10.0), (0.33, None), (0.8, None)]
)
def test_rate_and_lengths(rate, mean_length):
    positions = thinning(gaps=GapSettings(rate=rate, mean_length=mean_length)).positions(0, COUNT)
    kept = np.zeros(COUNT, bool)
    kept[positions] = True
    gaps, runs = lengths_of(kept)
    wanted = mean_length or 1 / (1 - rate)
    # A geometric length has variance m (m - 1): five standard deviations of its mean.
    assert abs(gaps.mean() - wanted) <= 5 * np.sqrt(wanted * (wanted - 1) / len(gaps))
    between = wanted * (1 - rate) / rate
    assert abs(runs.mean() - between) <= 5 * np.sqrt(between * (between - 1) / len(runs)) + 1e-9
    assert abs((~kept).mean() - rate) < 5 * np.sqrt(rate * (1 - rate) * 2 * wanted / COUNT)
    # Of geometric lengths, a share of (1 - 1 / m)^2 is above 2.
    share = (1 - 1 / wanted) ** 2
    assert abs((gaps > 2).mean() - share) <= 5 * np.sqrt(share * (1 - share) / len(gaps))


def test_by_default_frames_are_lost_independently():
    kept = np.zeros(COUNT, bool)
    kept[thinning(gaps=GapSettings(rate=0.4)).positions(0, COUNT)] = True
    after_lost, after_kept = kept[1:][~kept[:-1]].mean(), kept[1:][kept[:-1]].mean()
    assert after_lost == pytest.approx(0.6, abs=0.02)
    assert after_kept == pytest.approx(0.6, abs=0.02)


def test_the_first_frame_is_lost_as_often_as_any():
    gaps = thinning(gaps=GapSettings(rate=0.3, mean_length=3.0))
    lost = np.mean([0 not in gaps.positions(number, 1) for number in range(3000)])
    assert lost == pytest.approx(0.3, abs=4 * np.sqrt(0.21 / 3000))


def test_no_loss():
    assert np.array_equal(thinning(gaps=GapSettings(rate=0.0)).positions(3, 50), np.arange(50))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**40))
def test_bursts(num_frames, pause, seed):
    positions = thinning(seed, bursts=BurstSettings(num_frames=num_frames, pause=pause)).positions(2, 200)
    kept = np.zeros(200, bool)
    kept[positions] = True
    gaps, runs = lengths_of(kept)
    assert set(gaps) <= {pause}
    assert set(runs) <= {num_frames}


def test_what_is_lost_depends_on_seed_split_and_sequence():
    gaps = GapSettings(rate=0.4)
    one = thinning(7, "test", gaps=gaps).positions(2, 300)
    assert np.array_equal(one, thinning(7, "test", gaps=gaps).positions(2, 300))
    others = [(8, "test", 2), (7, "train", 2), (7, "test", 3)]
    assert all(not np.array_equal(one, thinning(seed, split, gaps=gaps).positions(n, 300)) for seed, split, n in others)
    assert np.array_equal(one[one < 120], thinning(7, "test", gaps=gaps).positions(2, 120))
    both = thinning(7, "test", gaps=gaps, bursts=BurstSettings(num_frames=3, pause=2)).positions(2, 300)
    bursts = thinning(7, "test", bursts=BurstSettings(num_frames=3, pause=2)).positions(2, 300)
    assert np.array_equal(both, np.intersect1d(one, bursts))


class Clock:
    """Endless frames whose value is their time in cadences."""

    name, times = "clock", np.arange(4) * 10

    def read(self, positions, window=None):
        raise AssertionError("a generator is asked by time")

    def read_at(self, times):
        return np.broadcast_to(np.asarray(times, np.float32)[:, None, None, None], (len(times), 1, 3, 4))


class TestRuns:
    def runs(self, longest_step, rate=0.5, length=8):
        gaps = thinning(gaps=GapSettings(rate=rate))
        return RunsOfFrames([Clock()] * 40, gaps, length, longest_step, 10), gaps

    @pytest.mark.parametrize("longest_step", [20, 30, 1000])
    def test_it_is_the_first_whole_run(self, longest_step):
        runs, gaps = self.runs(longest_step)
        for number in range(len(runs)):
            left = gaps.positions(number, 2000) * 10
            first = next(k for k in range(2000) if (np.diff(left[k : k + 8]) <= longest_step).all())
            assert np.array_equal(runs[number].times, left[first : first + 8])

    def test_frames(self):
        run = self.runs(30)[0][5]
        frames = run.read(np.array([6, 0]), (slice(0, 2), slice(1, 2)))
        assert frames.shape == (2, 1, 2, 1)
        assert (frames[:, 0, 0, 0] * 10).tolist() == run.times[[6, 0]].tolist()
        assert run.read_at(np.array([0.25]))[0, 0, 0, 0] == 0.25

    def test_none_is_there(self):
        runs, _ = self.runs(10, rate=0.95)
        with pytest.raises(DataError, match=r"0 samples in the first 2048 frames of clock: .*raise windows\.max_gap"):
            runs[0]
