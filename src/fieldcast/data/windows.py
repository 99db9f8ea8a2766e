"""Samples as windows of consecutive frames, chosen by time."""

import numpy as np
from pydantic import model_validator

from fieldcast.data.times import parse_duration
from fieldcast.settings import Settings


class WindowSettings(Settings):
    """How samples are cut out of a longer sequence."""

    num_inputs: int
    num_targets: int
    first_lead: int = 1  # frames from the last input to the first target; 0: flow at stations when the weather ends
    max_gap: str | None = None  # longest step between two frames of a sample; None: the cadence
    stride: str | None = None  # shortest time between the starts of two samples; None: every frame starts one
    crop: int | None = None  # rows and columns of a random part that a training sample is cut down to

    @model_validator(mode="after")
    def _sensible(self) -> "WindowSettings":
        for name in ("num_inputs", "num_targets", "crop"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} = {value}: at least 1")
        if self.first_lead < 0:
            raise ValueError(f"first_lead = {self.first_lead}: at least 0, the time of the last input")
        for name in ("max_gap", "stride"):
            if getattr(self, name) is not None:
                parse_duration(getattr(self, name))
        return self

    @property
    def num_frames(self) -> int:
        """Frames of one sample, inputs and targets."""
        return self.num_inputs + self.num_targets

    def longest_step(self, cadence: int) -> int:
        """Longest allowed step between two frames of a sample, ns."""
        # Half a percent of the cadence forgives rounded time stamps.
        return (parse_duration(self.max_gap) if self.max_gap else cadence) + cadence // 200

    def span(self, cadence: int) -> int:
        """Longest time from the first to the last frame of a sample, ns."""
        return (self.num_frames - 1) * self.longest_step(cadence)


def find_windows(times: np.ndarray, num_frames: int, longest_step: int, stride: int) -> np.ndarray:
    """Starts of all windows of ``num_frames`` consecutive frames that cross no longer step.

    Args:
        times: (N,) int64 ns, ascending.
        num_frames: frames of a window.
        longest_step: ns.
        stride: ns; a window starts at least this long after the one before.

    Returns:
        positions (n,) of the first frames, ascending.
    """
    num_starts = len(times) - num_frames + 1
    if num_starts < 1:
        return np.zeros(0, dtype=np.int64)
    breaks = np.concatenate([[0], np.cumsum(np.diff(times) > longest_step)])
    starts = np.flatnonzero(breaks[num_frames - 1 :] == breaks[:num_starts])
    if stride <= 0:
        return starts
    kept, earliest = [], None
    for start in starts:
        if earliest is None or times[start] >= earliest:
            kept.append(start)
            earliest = times[start] + stride
    return np.asarray(kept, dtype=np.int64)


def longest_run(times: np.ndarray, longest_step: int) -> int:
    """Number of frames in the longest stretch without a longer step."""
    if not len(times):
        return 0
    breaks = np.flatnonzero(np.diff(times) > longest_step)
    edges = np.concatenate([[-1], breaks, [len(times) - 1]])
    return int(np.diff(edges).max())
