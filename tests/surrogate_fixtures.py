"""Small networks whose linear surrogates are known or quick to find."""

import torch
from torch import Tensor, nn

from fieldcast.explain.network import Network
from fieldcast.explain.outputs import Outputs
from fieldcast.models.base import Forecaster

SHAPE = (3, 2, 4, 5)  # T, C, H, W


class Function(Forecaster):
    """Q numbers of the inputs, as a row of Q pixels."""

    def __init__(self, function: nn.Module) -> None:
        super().__init__()
        self.function = function

    def forward(self, inputs: Tensor, input_times: Tensor, target_times: Tensor) -> Tensor:
        return self.function(inputs)[:, None, None, None]


def as_network(function: nn.Module, num_outputs: int, shape: tuple[int, ...] = SHAPE) -> Network:
    """The function of inputs (N, T, C, H, W) to (N, Q), its numbers named "0", "1", ..."""
    weights = torch.eye(num_outputs, dtype=torch.float64).view(num_outputs, 1, 1, 1, num_outputs)
    outputs = Outputs(tuple(str(number) for number in range(num_outputs)), weights)
    times = torch.arange(1.0 - shape[0], 1.0)[None]
    return Network(Function(function.double()), times, torch.ones(1, 1), outputs)


def smooth_network(num_outputs: int = 3, seed: int = 0, strength: float = 1.0, shape=SHAPE) -> Network:
    """Two layers with tanh between."""
    torch.manual_seed(seed)
    first, second = nn.Linear(torch.Size(shape).numel(), 8), nn.Linear(8, num_outputs)
    first.weight.data *= strength
    return as_network(nn.Sequential(nn.Flatten(1), first, nn.Tanh(), second), num_outputs, shape)


def linear_network(num_outputs: int = 3, seed: int = 0) -> Network:
    """One layer."""
    torch.manual_seed(seed)
    size = torch.Size(SHAPE).numel()
    return as_network(nn.Sequential(nn.Flatten(1), nn.Linear(size, num_outputs)), num_outputs)


def random_sequences(number: int, seed: int = 1, shape=SHAPE) -> Tensor:
    """Independent numbers (N, T, C, H, W), float64."""
    return torch.randn(number, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def autograd_kernels(network: Network, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Offset (Q,) and kernels (Q, T, C, H, W), one output after the other."""
    reference = reference.clone().requires_grad_()
    values = network(reference)[0]
    weights = torch.cat([torch.autograd.grad(value, reference, retain_graph=True)[0] for value in values])
    return (values - (weights * reference).flatten(1).sum(1)).detach(), weights
