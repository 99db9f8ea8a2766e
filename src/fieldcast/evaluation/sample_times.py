"""When the targets of samples are, in which rows of a table by lead time they count, and who can forecast them.

Shapes: N samples, T input frames, S targets, L lead times.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fieldcast.data import Samples
from fieldcast.data.dataset import relative_times
from fieldcast.data.source import NANOSECONDS
from fieldcast.models.base import TIME_TOLERANCE, Forecaster

SAMPLES_AT_ONCE = 4096


@dataclass(frozen=True)
class SampleTimes:
    """What the times of some samples have in common.

    Attributes:
        lead_times: (L,) int64 ns, ascending, each of them that of some target: those of every sample where all have
            the same, or else whole cadences.
        shared: whether all samples have the same target times.
        rounded: whether a target counts for a lead time that is not its own but the nearest.
        regular_inputs: whether the inputs of every sample are one cadence apart.
        regular_targets: whether every target is at a whole number of cadences after the last input.
        any_between: whether some target comes before a sample's last input.
        cadence: ns.
    """

    lead_times: np.ndarray
    shared: bool
    rounded: bool
    regular_inputs: bool
    regular_targets: bool
    any_between: bool
    cadence: int

    @property
    def seconds(self) -> list[float]:
        """The lead times in seconds."""
        return (self.lead_times / NANOSECONDS).tolist()

    def rows(self, samples: Samples, numbers: Sequence[int]) -> np.ndarray | None:
        """Which lead time each target of the samples with these numbers counts for, (N, S); None: each for its own."""
        if self.shared:
            return None
        targets = elapsed_times(samples, numbers)[:, samples.windows.num_inputs :]
        return np.searchsorted(self.lead_times, round_to(targets, self.cadence))

    def inability(self, model: Forecaster) -> str | None:
        """What keeps a model from forecasting these samples, or None."""
        return model.inability(self.regular_inputs, self.regular_targets, self.any_between)


def read_sample_times(samples: Samples, numbers: Sequence[int]) -> SampleTimes:
    """Look at the times of the samples with these numbers, and not at their frames."""
    cadence, num_inputs = samples.source.cadence, samples.windows.num_inputs
    first = elapsed_times(samples, numbers[:1])[0, num_inputs:]
    earliest = int(first[0])
    found = np.empty(0, np.int64)
    shared = whole = regular_inputs = True
    for start in range(0, len(numbers), SAMPLES_AT_ONCE):
        elapsed = elapsed_times(samples, numbers[start : start + SAMPLES_AT_ONCE])
        inputs, targets = elapsed[:, :num_inputs], elapsed[:, num_inputs:]
        nearest = round_to(targets, cadence)
        found = np.union1d(found, nearest)
        earliest = min(earliest, int(targets.min()))
        shared &= _close(targets, first, cadence)
        whole &= _close(targets, nearest, cadence)
        regular_inputs &= _close(inputs, np.arange(1 - num_inputs, 1) * cadence, cadence)
    return SampleTimes(
        lead_times=first if shared else found,
        shared=shared,
        rounded=not (shared or whole),
        regular_inputs=regular_inputs,
        regular_targets=whole and bool(found[0] >= min(samples.windows.first_lead, 1) * cadence),
        any_between=earliest < 0,
        cadence=cadence,
    )


def elapsed_times(samples: Samples, numbers: Sequence[int]) -> np.ndarray:
    """Times of inputs and targets after the last input, (N, T + S) int64 ns."""
    times = np.stack([samples.times(number) for number in numbers])
    last_input = samples.windows.num_inputs - 1
    return times - times[:, last_input : last_input + 1]


def lie_between(samples: Samples) -> bool:
    """Whether samples ask for times between their inputs only, as the first one does."""
    return bool((elapsed_times(samples, [0])[0, samples.windows.num_inputs :] < 0).all())


def round_to(times: np.ndarray, cadence: int) -> np.ndarray:
    """The nearest whole cadence in ns, the later one of two."""
    return (2 * times + cadence) // (2 * cadence) * cadence


def _close(times: np.ndarray, expected: np.ndarray, cadence: int) -> bool:
    # In cadences and float32, as models see them: who is let through here must not be refused there.
    seen, wanted = (relative_times(values, 0, cadence) for values in (times, expected))
    return bool(((seen - wanted).abs() <= TIME_TOLERANCE).all())
