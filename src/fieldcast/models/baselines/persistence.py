"""Eulerian persistence: nothing changes where it stands."""

from typing import ClassVar

import torch
from torch import Tensor

from fieldcast.models.base import Forecaster, ModelSettings


class Persistence(Forecaster):
    """The last input frame until the next one comes, and after the last for ever: X^(t) = X(last input time <= t).

    Before the first input it is the first. Eulerian persistence, Germann and Zawadzki 2002,
    doi 10.1175/1520-0493(2002)130<2859:SDOTPO>2.0.CO;2.
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
        newest = (torch.searchsorted(input_times, target_times, right=True) - 1).clamp(min=0)
        samples = torch.arange(len(inputs), device=inputs.device)[:, None]
        return inputs[samples, newest]
