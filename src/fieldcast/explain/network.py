"""A forecaster as a function from inputs to the outputs that are explained, in physical units.

Shapes: N sequences, T input frames, S targets, C fields, H rows, W columns, R stations, Q outputs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from fieldcast.explain.outputs import Outputs
from fieldcast.models.base import Forecaster

MEBIBYTE = 2**20


class Scale(Protocol):
    """A normaliser: element by element from physical units to those of the model and back."""

    def normalise(self, frames: Tensor) -> Tensor:
        """Physical -> normalised."""

    def denormalise(self, frames: Tensor) -> Tensor:
        """Normalised -> physical."""


@dataclass(frozen=True)
class Network:
    """M_q of a sequence: the runoff note's R_r = M_r({X_k[x, y, tau]}), equation 21, for any forecaster and outputs.

    Attributes:
        model: the forecaster.
        input_times: (1, T) in cadences, ascending, the last is 0; they need not be regular.
        target_times: (1, S) in cadences, ascending.
        outputs: Q linear numbers of the forecast in physical units.
        normalizer: of the inputs; None: they are handed over as they are.
        target_normalizer: of the forecast; None: it is taken as the model gives it.
    """

    model: Forecaster
    input_times: Tensor
    target_times: Tensor
    outputs: Outputs
    normalizer: Scale | None = None
    target_normalizer: Scale | None = None

    def __call__(self, inputs: Tensor) -> Tensor:
        """Outputs (N, Q) of inputs (N, T, C, H, W), differentiable; a missing input (NaN) is as in training."""
        return self.outputs.of(self.physical(self.forecast(self.normalised(inputs))))

    def with_outputs(self, chosen: slice) -> "Network":
        """The network with some of its outputs alone."""
        return replace(self, outputs=Outputs(self.outputs.names[chosen], self.outputs.weights[chosen]))

    def normalised(self, inputs: Tensor) -> Tensor:
        """Inputs as the model sees them, (N, T, C, H, W); missing ones are zeros."""
        inputs = self.normalizer.normalise(inputs) if self.normalizer is not None else inputs
        return torch.where(inputs.isnan(), 0, inputs)

    def forecast(self, inputs: Tensor) -> Tensor:
        """The model's own forecast (N, S, C, ...) of what it sees."""
        times = (times.to(inputs.device).expand(len(inputs), -1) for times in (self.input_times, self.target_times))
        return self.model(inputs, *times)

    def physical(self, forecast: Tensor) -> Tensor:
        """The forecast in physical units."""
        return self.target_normalizer.denormalise(forecast) if self.target_normalizer is not None else forecast

    def filled(self, inputs: Tensor) -> Tensor:
        """Inputs (N, T, C, H, W) in physical units with what missing ones stand for: what the model sees as zero."""
        missing = inputs.isnan()
        if not missing.any():
            return inputs
        zeros = torch.zeros_like(inputs)
        return torch.where(
            missing, self.normalizer.denormalise(zeros) if self.normalizer is not None else zeros, inputs
        )

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """The model as it forecasts, none of its weights asking for a gradient; afterwards it is as it was."""
        modes = {module: module.training for module in self.model.modules()}
        asking = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        try:
            self.model.eval()
            for parameter in asking:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter in asking:
                parameter.requires_grad_(True)
            for module, mode in modes.items():
                module.training = mode

    @property
    def dtype(self) -> torch.dtype:
        """What the model computes in."""
        return next((one.dtype for one in self.model.parameters()), torch.get_default_dtype())
