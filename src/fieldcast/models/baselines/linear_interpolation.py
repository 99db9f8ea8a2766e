"""Straight lines in time between the inputs.

Shapes: B batch, T input frames, S target frames.
"""

from typing import ClassVar

import torch
from torch import Tensor

from fieldcast.models.base import Forecaster, ModelSettings, widen


class LinearInterpolation(Forecaster):
    """Each pixel changes at a steady rate from one input to the next, and not at all outside of them.

    X^(t) = X(a) + (t - a) / (b - a) (X(b) - X(a)) with a and b the input times around t; before the first input the
    first, after the last the last. Of normalised values: on a logarithmic scale rain grows by a steady factor.
    """

    irregular_inputs = True
    irregular_targets = True
    interpolates: ClassVar[bool] = True
    trained: ClassVar[bool] = False

    def __init__(self, settings: ModelSettings, num_channels: int) -> None:
        super().__init__()
        self.settings = settings

    def forward(self, inputs: Tensor, input_times: Tensor, target_times: Tensor) -> Tensor:
        """See ``Forecaster.forward``."""
        input_times, target_times = (times.contiguous() for times in self.seen_times(input_times, target_times))
        frames = widen(inputs)
        after = torch.searchsorted(input_times, target_times).clamp(max=input_times.shape[1] - 1)
        before = (after - 1).clamp(min=0)
        start, end = input_times.gather(1, before), input_times.gather(1, after)
        # Where both are the first input, nothing is divided by nothing.
        share = ((target_times - start) / (end - start).where(end > start, 1)).clamp(0, 1).to(frames)
        samples = torch.arange(len(inputs), device=inputs.device)[:, None]
        return torch.lerp(frames[samples, before], frames[samples, after], share[:, :, None, None, None])
