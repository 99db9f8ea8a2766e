"""At which times the inputs and the targets of a sample lie: regular or irregular, drawn once or for every sample.

Shapes: T inputs, S targets, N frames of the stretch of a sequence that a sample is taken from.
"""

from dataclasses import dataclass
from functools import cached_property
from math import comb, inf
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from fieldcast.data.splits import SPLITS
from fieldcast.data.thinning import BurstSettings, GapSettings, Thinning
from fieldcast.data.uniform import uniform
from fieldcast.data.windows import WindowSettings
from fieldcast.errors import ConfigError
from fieldcast.settings import Count, Settings, TupleOf, look_up

_SETS = 24
_DRAWS, _LATENESS = 28, 32  # the first of a stream for each split
_LEAST_STEP = 0.1

# The four assumptions of the thesis, table 5.3. Where an interval is left out, frames are regular.
PRESETS: dict[str, dict[str, Any]] = {
    "thesis-regular": {"num_sets": 1},
    "thesis-irregular-inputs": {"num_sets": 100, "input_interval": (1, 20)},
    "thesis-irregular-targets": {"num_sets": 100, "target_interval": (11, 30)},
    "thesis-irregular": {"num_sets": 100, "input_interval": (1, 15), "target_interval": (16, 30)},
}


class SamplingSettings(Settings):
    """Which frames, or which times, of a stretch of a sequence a sample is made of; by default one after the other.

    Intervals [first, last] count the frames of the stretch from 1 and hold both ends. Inputs always have the first and
    the last frame of theirs, targets the first of theirs; what lies between is drawn, without a choice where an
    interval holds just as many frames as are wanted. A key beside a preset overrides it.
    """

    preset: str | None = None
    task: Literal["forecast", "interpolate"] = "forecast"  # targets after the inputs, or between them
    input_interval: TupleOf[int] | None = None  # None: as long as there are frames
    target_interval: TupleOf[int] | None = None  # None: what follows the inputs; between: all but the first and last
    num_sets: Count | Literal["fresh"] = "fresh"  # distinct sets of times for all samples; fresh: each has its own
    real_numbers: bool = False  # whether times are any between the ends, rather than those of frames
    least_step: float | None = Field(None, gt=0, le=1)  # cadences between real numbers; None: 0.1
    jitter: float = Field(0.0, ge=0, le=0.9)  # cadences by which each frame is late at most
    gaps: GapSettings | None = None  # frames lost before samples are cut
    bursts: BurstSettings | None = None
    seed: int | None = Field(None, ge=0)  # None: the run's

    @model_validator(mode="before")
    @classmethod
    def _filled_in(cls, values: Any) -> Any:
        preset = values.get("preset") if isinstance(values, dict) else None
        return values if preset is None else {**look_up(PRESETS, preset, "preset"), **values}

    @model_validator(mode="after")
    def _fit_together(self) -> "SamplingSettings":
        for name in ("input_interval", "target_interval"):
            interval = getattr(self, name)
            if interval is not None and (len(interval) != 2 or not 1 <= interval[0] <= interval[1]):
                raise ValueError(f"{name} = {list(interval)}: write [first, last], counted from 1")
        if self.input_interval is not None and self.input_interval[0] != 1:
            raise ValueError(f"input_interval = {list(self.input_interval)}: begin with 1, the first frame of a sample")
        others = [name for name in ("jitter", "gaps", "bursts") if getattr(self, name)]
        if self.real_numbers and others:
            raise ValueError(f"real_numbers = true has no frames to move or to lose: leave out {', '.join(others)}")
        if self.least_step is not None and not self.real_numbers:
            raise ValueError("least_step is for real_numbers = true; other times are whole frames")
        if self.real_numbers and self.task == "interpolate" and self.target_interval is not None:
            raise ValueError("target_interval and real_numbers don't go together between inputs: leave one out")
        return self

    @property
    def renders(self) -> bool:
        """Whether frames are wanted at other times than those at which a source has them."""
        return self.real_numbers or self.jitter > 0

    @property
    def thins(self) -> bool:
        """Whether frames are lost before samples are cut."""
        return self.gaps is not None or self.bursts is not None

    def plan(self, windows: WindowSettings) -> "Plan":
        """What these settings make of so many inputs and targets.

        Raises:
            ConfigError: where they do not fit together.
        """
        if self.thins and windows.max_gap is None:
            raise ConfigError(
                "sampling: gaps and bursts need windows.max_gap, the longest step that a sample may have: without it "
                "samples lie between the gaps"
            )
        between = self.task == "interpolate"
        regular = windows.num_frames if between else windows.num_inputs
        last = regular if self.input_interval is None else self.input_interval[1]
        begin = last + windows.first_lead
        targets = (2, last - 1) if between else (begin, begin + windows.num_targets - 1)
        plan = Plan(self, windows, (1, last), self.target_interval or targets)
        plan.check()
        return plan


@dataclass(frozen=True)
class Plan:
    """How the times of a sample are drawn: ``inputs`` and ``targets`` are intervals [first, last], counted from 1."""

    settings: SamplingSettings
    windows: WindowSettings
    inputs: tuple[int, ...]
    targets: tuple[int, ...]

    @property
    def between(self) -> bool:
        """Whether the targets lie between inputs."""
        return self.settings.task == "interpolate"

    @property
    def length(self) -> int:
        """N, the frames of the stretch."""
        return max(self.inputs[1], self.targets[1])

    def span(self, cadence: int) -> int:
        """Longest time from the first to the last frame of a sample, ns."""
        if self.settings.real_numbers:
            return (self.length - 1) * cadence
        late = round(self.settings.jitter * cadence)
        return (self.length - 1) * self.windows.longest_step(cadence) + late

    def check(self) -> None:
        """Refuse what does not fit.

        Raises:
            ConfigError: that says what came and what is allowed.
        """
        num_inputs, num_targets = self.windows.num_inputs, self.windows.num_targets
        (_, last), (begin, end) = self.inputs, self.targets
        if self.between:
            if num_inputs < 2:
                raise ConfigError(f"windows.num_inputs = {num_inputs}: to interpolate takes 2, one at either end")
            if begin < 2 or end > last - 1:
                raise ConfigError(
                    f"sampling.target_interval = {[begin, end]}: to interpolate, within {[2, last - 1]}, between the "
                    "first and the last input"
                )
            if last < self.windows.num_frames:
                raise ConfigError(
                    f"sampling.input_interval = {[1, last]} holds {last} frames, fewer than the "
                    f"{self.windows.num_frames} inputs and targets of windows"
                )
        elif begin < last + min(self.windows.first_lead, 1):
            raise ConfigError(
                f'sampling: targets from frame {begin} on overlap the inputs {[1, last]}; begin later, or set task = "'
                'interpolate"'
            )
        for name, count, (low, high) in (("input", num_inputs, self.inputs), ("target", num_targets, self.targets)):
            if count > high - low + 1:
                raise ConfigError(
                    f"sampling.{name}_interval = {[low, high]} holds {high - low + 1} frames, fewer than "
                    f"windows.num_{name}s = {count}"
                )
        if self.num_possible == 0:
            raise ConfigError(
                f"sampling.input_interval = {[1, last]}: 1 input can't be its first and its last frame; take [1, 1]"
            )
        wanted = self.settings.num_sets
        if self.settings.real_numbers and not self.is_free:
            raise ConfigError(
                "sampling.real_numbers: the intervals hold just the frames wanted; make one of them longer"
            )
        if wanted != "fresh" and wanted > self.num_possible:
            raise ConfigError(f"sampling.num_sets = {wanted}: the intervals have {self.num_possible} distinct sets")

    @property
    def is_free(self) -> bool:
        """Whether an interval holds more frames than are wanted."""
        windows, size = self.windows, self.targets[1] - self.targets[0] + 1
        if self.between:
            return self.inputs[1] > windows.num_frames
        return self.inputs[1] > windows.num_inputs or size > windows.num_targets

    @property
    def num_possible(self) -> float:
        """How many distinct sets of times there are, infinitely many real ones."""
        if self.settings.real_numbers:
            return inf
        num_inputs, num_targets, size = self.windows.num_inputs, self.windows.num_targets, self.inputs[1]
        slots = self.targets[1] - self.targets[0] + 1
        if self.between:
            return comb(slots, num_targets) * comb(size - 2 - num_targets, num_inputs - 2)
        inner = comb(size - 2, num_inputs - 2) if num_inputs > 1 and size > 1 else int(size == num_inputs)
        return inner * comb(slots - 1, num_targets - 1)

    def draw(self, shares: np.ndarray) -> np.ndarray:
        """Times (T + S,) of inputs and targets in cadences after the first frame, by 2 N random numbers in [0, 1)."""
        for_targets, for_inputs = np.split(shares, 2)
        if self.settings.real_numbers:
            return self._draw_real(for_inputs, for_targets) - 1
        num_inputs, num_targets = self.windows.num_inputs, self.windows.num_targets
        (first, last), (begin, end) = self.inputs, self.targets
        if self.between:
            targets = _choose(np.arange(begin, end + 1), num_targets, for_targets)
        else:
            targets = np.append(begin, _choose(np.arange(begin + 1, end + 1), num_targets - 1, for_targets))
        inner = np.setdiff1d(np.arange(first + 1, last), targets)
        inputs = np.unique([first, *_choose(inner, max(num_inputs - 2, 0), for_inputs), last])
        return np.append(inputs, targets) - 1

    def _draw_real(self, for_inputs: np.ndarray, for_targets: np.ndarray) -> np.ndarray:
        """Real times (T + S,), counted from 1."""
        windows, (begin, end) = self.windows, self.targets
        if self.between:
            times = self._between_ends(windows.num_frames, for_inputs)
            chosen = _choose(np.arange(1, len(times) - 1), windows.num_targets, for_targets)
            return np.append(np.delete(times, chosen), times[chosen])
        targets = np.arange(begin, end + 1.0)
        if len(targets) > windows.num_targets:
            targets = np.append(begin, _spread(begin, end, for_targets[: windows.num_targets - 1], self._least_step))
        return np.append(self._between_ends(windows.num_inputs, for_inputs), targets)

    def _between_ends(self, count: int, shares: np.ndarray) -> np.ndarray:
        """Real times of inputs, both ends among them."""
        first, last = self.inputs
        if count == last:
            return np.arange(first, last + 1.0)
        inner = _spread(first, last - self._least_step, shares[: count - 2], self._least_step)
        return np.array([first, *inner, last])

    @property
    def _least_step(self) -> float:
        return self.settings.least_step or _LEAST_STEP


def _choose(slots: np.ndarray, count: int, shares: np.ndarray) -> np.ndarray:
    """``count`` of the slots, ascending, any as likely as any other."""
    return np.sort(slots[np.argsort(shares[: len(slots)], kind="stable")[:count]])


def _spread(first: float, last: float, shares: np.ndarray, least: float) -> np.ndarray:
    """Real numbers up to ``last``, each at least ``least`` above the one before and above ``first``; else uniform."""
    # Points that keep a distance are points that don't, in as much less room, moved apart.
    room = last - first - least * len(shares)
    return first + least * np.arange(1, len(shares) + 1) + room * np.sort(shares)


@dataclass(frozen=True)
class Sampler:
    """The times of each sample of a split: a function of (seed, split, sequence, place in the sequence) alone."""

    plan: Plan
    seed: int
    split: str

    @cached_property
    def sets(self) -> np.ndarray | None:
        """The distinct sets of times (K, T + S), the same for all splits; None where each sample has its own."""
        wanted = 1 if self.plan.num_possible == 1 else self.plan.settings.num_sets
        if wanted == "fresh":
            return None
        found: dict[bytes, np.ndarray] = {}
        number = 0
        while len(found) < wanted:
            times = self.plan.draw(uniform(self.seed, _SETS, number, 2 * self.plan.length))
            found.setdefault(times.tobytes(), times)
            number += 1
        return np.stack(list(found.values()))

    def times(self, sequence: int, start: int) -> np.ndarray:
        """Times (T + S,) in frames after the first of the sample's stretch: ascending inputs, ascending targets."""
        if self.sets is not None and len(self.sets) == 1:
            return self.sets[0]
        stream = _DRAWS + SPLITS.index(self.split)
        if self.sets is not None:
            return self.sets[int(uniform(self.seed, stream, sequence, 1, start)[0] * len(self.sets))]
        return self.plan.draw(uniform(self.seed, stream, sequence, 2 * self.plan.length, start))

    def lateness(self, sequence: int, start: int) -> np.ndarray:
        """By how many cadences each frame (T + S,) is late."""
        stream, count = _LATENESS + SPLITS.index(self.split), self.plan.windows.num_frames
        return self.plan.settings.jitter * uniform(self.seed, stream, sequence, count, start)

    @property
    def thinning(self) -> Thinning:
        """What is left of the sequences before samples are cut."""
        settings = self.plan.settings
        return Thinning(settings.gaps, settings.bursts, self.seed, self.split)


def make_samplers(settings: SamplingSettings, windows: WindowSettings, seed: int) -> dict[str, Sampler]:
    """The sampler of each split; ``seed`` is the run's, which the settings' own goes before.

    Raises:
        ConfigError: where settings and windows do not fit.
    """
    plan = settings.plan(windows)
    return {split: Sampler(plan, seed if settings.seed is None else settings.seed, split) for split in SPLITS}
