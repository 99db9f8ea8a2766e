"""Frames that go missing: sequences with gaps at random, or in bursts, before samples are cut out of them.

Shapes: N frames of a sequence, n of them that are left, C channels, H rows, W columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field, model_validator

from fieldcast.data.source import FrameSequence, RenderedSequence
from fieldcast.data.splits import SPLITS
from fieldcast.data.uniform import uniform
from fieldcast.data.windows import find_windows
from fieldcast.errors import DataError
from fieldcast.settings import Count, Settings

_GAPS, _BURSTS = 16, 20  # the first of a stream for each split
_LONGEST_SEARCH = 256  # lengths of a sample: where a sequence that never ends is given up


class GapSettings(Settings):
    """Frames that are lost at random, in gaps whose lengths have a geometric distribution.

    Whether a frame is lost depends on the one before it (Gilbert 1960): with rate r and mean length m, the frame after
    a lost one is lost with probability 1 - 1 / m, that after a kept one with r / (m (1 - r)).
    """

    rate: float = Field(ge=0, lt=1)  # share of all frames
    mean_length: float | None = Field(None, ge=1)  # frames; None: 1 / (1 - rate), each lost for itself

    @model_validator(mode="after")
    def _can_be(self) -> "GapSettings":
        shortest = self.rate / (1 - self.rate)
        if self.mean_length is not None and self.mean_length < shortest:
            raise ValueError(
                f"rate = {self.rate:g} needs gaps of {shortest:.3g} frames on average at least, "
                f"but mean_length = {self.mean_length:g}"
            )
        return self

    def kept(self, shares: np.ndarray) -> np.ndarray:
        """Which frames (N,) are left, by one random number in [0, 1) for each."""
        length = 1 / (1 - self.rate) if self.mean_length is None else self.mean_length
        after_kept, after_lost = self.rate / (length * (1 - self.rate)), 1 - 1 / length
        kept, lost_with = np.empty(len(shares), bool), self.rate
        for position, share in enumerate(shares.tolist()):
            kept[position] = share >= lost_with
            lost_with = after_kept if kept[position] else after_lost
        return kept


class BurstSettings(Settings):
    """So many frames as they come, then a pause of so many frames, and so on; each sequence begins anywhere in it."""

    num_frames: Count
    pause: Count  # frames left out

    def kept(self, count: int, share: float) -> np.ndarray:
        """Which of ``count`` frames are left; ``share`` in [0, 1) says where in the pattern the first one is."""
        period = self.num_frames + self.pause
        return (np.arange(count) + int(share * period)) % period < self.num_frames


@dataclass(frozen=True)
class Thinning:
    """What is left of each sequence of a split, a function of (seed, split, number of the sequence)."""

    gaps: GapSettings | None
    bursts: BurstSettings | None
    seed: int
    split: str

    def positions(self, number: int, count: int) -> np.ndarray:
        """Those of the first ``count`` frames of a sequence that are left; a larger count changes none of them."""
        kept, split = np.ones(count, bool), SPLITS.index(self.split)
        if self.gaps is not None:
            kept &= self.gaps.kept(uniform(self.seed, _GAPS + split, number, count))
        if self.bursts is not None:
            kept &= self.bursts.kept(count, float(uniform(self.seed, _BURSTS + split, number, 1)[0]))
        return np.flatnonzero(kept)

    def thin(self, sequences: Sequence[FrameSequence]) -> Sequence[FrameSequence]:
        """The sequences of an archive, without the frames that are lost."""
        if self.gaps is None and self.bursts is None:
            return sequences
        left = [self.positions(number, len(sequence.times)) for number, sequence in enumerate(sequences)]
        return [ThinnedSequence(sequence, kept) for sequence, kept in zip(sequences, left, strict=True)]


class ThinnedSequence:
    """A sequence of which only the frames at ``kept`` (n,) are left."""

    def __init__(self, sequence: FrameSequence, kept: np.ndarray) -> None:
        self.name, self.times = sequence.name, sequence.times[kept]
        self._sequence, self._kept = sequence, kept

    def read(self, positions: np.ndarray, window: tuple[slice, slice] | None = None) -> np.ndarray:
        """Frames at positions among those that are left; see `FrameSequence`."""
        return self._sequence.read(self._kept[positions], window)


class RunOfFrames:
    """Frames of a sequence that renders any time, at ``times`` (n,) int64 ns."""

    def __init__(self, sequence: RenderedSequence, times: np.ndarray, cadence: int) -> None:
        self.name, self.times = sequence.name, times
        self._sequence, self._cadence = sequence, cadence

    def read(self, positions: np.ndarray, window: tuple[slice, slice] | None = None) -> np.ndarray:
        """Frames at positions among the times; see `FrameSequence`."""
        rows, columns = window or (slice(None), slice(None))
        return self.read_at(self.times[positions] / self._cadence)[:, :, rows, columns]

    def read_at(self, times: np.ndarray) -> np.ndarray:
        """Frames at any times, as the sequence itself gives them; see `RenderedSequence`."""
        return self._sequence.read_at(times)


@dataclass(frozen=True)
class RunsOfFrames(Sequence):
    """Of each sequence of a generator, which goes on for as long as it is wanted, the first whole run that is left.

    A run has ``length`` frames and no step above ``longest_step`` ns.
    """

    sequences: Sequence[FrameSequence]
    thinning: Thinning
    length: int
    longest_step: int
    cadence: int

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, number):
        sequence, count = self.sequences[number], 2 * self.length
        assert isinstance(sequence, RenderedSequence)
        while count <= _LONGEST_SEARCH * self.length:
            times = self.thinning.positions(number, count) * self.cadence
            starts = find_windows(times, self.length, self.longest_step, 0)
            if len(starts):
                return RunOfFrames(sequence, times[starts[0] : starts[0] + self.length], self.cadence)
            count *= 2
        raise DataError(
            f"0 samples in the first {count // 2} frames of {sequence.name}: one needs {self.length} of the frames "
            f"that [sampling] leaves, with no step above {self.longest_step / self.cadence:.3g} cadences; raise "
            "windows.max_gap or lose fewer"
        )
