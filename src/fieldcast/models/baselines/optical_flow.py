"""Forecasts along an optical flow that pysteps finds; needs the extra ``nowcast``.

Shapes: B batch, T input frames, S target frames, C channels, H rows, W columns.
"""

import contextlib
import importlib
import importlib.util
import io
import warnings
from collections.abc import Callable
from functools import cache
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fieldcast.errors import MissingExtra
from fieldcast.layers.advection import advect
from fieldcast.models.base import TIME_TOLERANCE, Forecaster, ModelSettings, widen


class OpticalFlowSettings(ModelSettings):
    """How many of the last input frames the motion is found in."""

    num_frames: int = Field(default=3, ge=2)


class OpticalFlow(Forecaster):
    """The last input frame, carried along the motion of the last few.

    X^(t, x) = X(0, x - D(t, x)), D along the Lucas-Kanade motion field of pysteps (Pulkkinen et al. 2019,
    doi 10.5194/gmd-12-4185-2019, section 2.3.1), by the scheme of ``layers.advection``; where rain would come from
    outside of the map, the last frame stays. Each channel has a motion of its own, since wind moves rain otherwise
    than temperature. It is found in normalised frames: pysteps stretches them over 8 bits, in which a rain rate that
    is not on a logarithmic scale shows little but its peaks.

    Raises:
        MissingExtra: without pysteps and OpenCV, when it forecasts.
    """

    irregular_inputs = True
    irregular_targets = True
    trained: ClassVar[bool] = False

    def __init__(self, settings: OpticalFlowSettings, num_channels: int) -> None:
        super().__init__()
        self.settings = settings

    def forward(self, inputs: Tensor, input_times: Tensor, target_times: Tensor) -> Tensor:
        """See ``Forecaster.forward``."""
        input_times, target_times = self.seen_times(input_times, target_times)
        batch, _, num_channels = inputs.shape[:3]
        recent = slice(-self.settings.num_frames, None)
        # A channel is a sample of its own from here on: (B C, T, H, W).
        frames = inputs[:, recent].transpose(1, 2).flatten(0, 1)
        times = input_times[:, recent].repeat_interleave(num_channels, 0)
        motions = [find_motion(*pair) for pair in zip(_to_numpy(frames), _to_numpy(times), strict=True)]
        motion = torch.from_numpy(np.stack(motions)).to(target_times)
        last = widen(frames[:, -1:])
        carried = advect(last, motion, target_times.repeat_interleave(num_channels, 0), last)
        return carried[:, :, 0].unflatten(0, (batch, num_channels)).transpose(1, 2)


def has_optical_flow() -> bool:
    """Whether the extra ``nowcast`` is installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("cv2", "pysteps"))


def find_motion(frames: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Motion field of a few frames by Lucas-Kanade, as pysteps has it.

    Frames that are evenly spaced go to pysteps together, which pools their vectors; of others it is the mean of
    the motions of all pairs that have any, each divided by its own interval.

    Args:
        frames: (T, H, W).
        times: (T,), ascending.

    Returns:
        (2, H, W), columns first, in pixels per unit of time; 0 where there is nothing to track.
    """
    # A frame without contrast has nothing to track, and a track that ends in one leads nowhere.
    shown = np.ptp(frames, axis=(1, 2)) > 0
    frames, times = frames[shown], times[shown]
    still = np.zeros((2, *frames.shape[1:]))
    if len(frames) < 2 or 1 in frames.shape[1:]:
        return still
    track, steps = _import_lucas_kanade(), np.diff(times)
    with warnings.catch_warnings():
        # pysteps warns of every sample with few vectors.
        warnings.simplefilter("ignore")
        if np.ptp(steps) <= TIME_TOLERANCE * steps.mean():
            return track(frames) / steps.mean()
        pairs = [track(frames[first : first + 2]) / step for first, step in enumerate(steps)]
    moving = [motion for motion in pairs if motion.any()]
    return np.mean(moving, axis=0) if moving else still


def _to_numpy(values: Tensor) -> np.ndarray:
    return values.detach().cpu().double().numpy()


@cache
def _import_lucas_kanade() -> Callable[[np.ndarray], np.ndarray]:
    try:
        # pysteps tells standard output where its settings are.
        with contextlib.redirect_stdout(io.StringIO()):
            importlib.import_module("cv2")  # without which pysteps can be imported, but can't track
            return importlib.import_module("pysteps.motion.lucaskanade").dense_lucaskanade
    except ImportError:
        raise MissingExtra("optical flow", "nowcast") from None
