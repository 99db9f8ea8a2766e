"""Linear kernels of any forecaster by vector-Jacobian products.

Shapes: T input frames, C fields, H rows, W columns, Q outputs, n outputs taken at once.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from fieldcast.explain.network import MEBIBYTE, Network

FEWEST_COPIES = 4
TIMES_KEPT = 3  # the gradients, and what is computed on the way, come on top of what is kept


def backward_kernels(network: Network, reference: Tensor, memory_megabytes: float) -> tuple[Tensor, Tensor]:
    """Values (Q,) and kernels (Q, T, C, H, W): omega_q = d M_q / d X at the reference; runoff note, equation 25.

    Where at least four copies of the reference fit into the memory, they stand in one batch and output q is read off
    its own copy, so that one pass back from sum_q M_q(X_q) gives n kernels: samples of a batch don't mix in any
    forecaster. Elsewhere one pass forward is kept, and each output goes back through it alone. Measured on five
    forecasters: four copies cost as much for each output as a pass back alone, sixteen 0.1 to 0.8 of it.

    Args:
        network: what is differentiated.
        reference: (1, T, C, H, W) in physical units, none missing.
        memory_megabytes: for what the passes keep, beside the result.
    """
    with network.at_rest(), torch.enable_grad():
        size = copies_at_once(network, reference, memory_megabytes)
        parts = _by_copies(network, reference, size) if size > 1 else _one_by_one(network, reference)
        weights = reference.new_empty(len(network.outputs), *reference.shape[1:])
        values = reference.new_empty(len(network.outputs))
        for chosen, value, gradient in parts:
            values[chosen], weights[chosen] = value.detach(), gradient
    return values, weights


def copies_at_once(network: Network, reference: Tensor, memory_megabytes: float) -> int:
    """How many copies of the reference stand in one batch; 1: the outputs go back one by one."""
    size = int(memory_megabytes * MEBIBYTE / (TIMES_KEPT * kept_bytes(network, reference)))
    return min(size, len(network.outputs)) if size >= FEWEST_COPIES else 1


Part = tuple[slice, Tensor, Tensor]  # which outputs, their values (n,), their kernels (n, T, C, H, W)


def _by_copies(network: Network, reference: Tensor, size: int) -> Iterator[Part]:
    for start in range(0, len(network.outputs), size):
        chosen = slice(start, min(start + size, len(network.outputs)))
        copies = reference.repeat(chosen.stop - start, 1, 1, 1, 1).requires_grad_()
        own = network.with_outputs(chosen)(copies).diagonal()
        yield chosen, own, torch.autograd.grad(own.sum(), copies)[0]


def _one_by_one(network: Network, reference: Tensor) -> Iterator[Part]:
    source = reference.clone().requires_grad_()
    values = network(source)[0]
    for number, value in enumerate(values):
        yield slice(number, number + 1), value, torch.autograd.grad(value, source, retain_graph=True)[0]


def kept_bytes(network: Network, reference: Tensor) -> int:
    """Memory that a pass forward of one sequence keeps for the pass back, weights left out."""
    weights = {one.untyped_storage().data_ptr() for one in network.model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        # Held on to, so that no later one comes to lie in its place.
        kept[tensor.untyped_storage().data_ptr()] = tensor.detach()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with network.at_rest(), torch.enable_grad(), hooks:
        network(reference.clone().requires_grad_())
    return sum(one.untyped_storage().nbytes() for place, one in kept.items() if place not in weights) + reference.nbytes
