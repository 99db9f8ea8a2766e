"""Linear kernels of a forecaster: which input, where and how long ago, moves which output.

Shapes: N sequences, T input frames, S targets, C fields, H rows, W columns, Q outputs.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from fieldcast.errors import ConfigError
from fieldcast.explain.adjoint import adjoint_kernels, rows_at_once
from fieldcast.explain.backward import backward_kernels, copies_at_once
from fieldcast.explain.cost import Way, cheapest_method, cost_of
from fieldcast.explain.forward_mode import forward_kernels
from fieldcast.explain.linear_steps import convlstm_regressor, is_convlstm_regressor
from fieldcast.explain.network import Network

Method = Literal["auto", "backward", "adjoint", "forward"]
Precision = Literal["float32", "bf16"]


@dataclass(frozen=True)
class LinearKernels:
    """The first-order expansion of a network at a reference, A_q = offset_q + <weights_q, X>.

    Runoff note, equations 22 to 25.

    Attributes:
        value: M_q(reference), (Q,) float64.
        offset: a_q = value - <weights, reference>, (Q,) float64.
        weights: omega, (Q, T, C, H, W), in units of the output per unit of the input.
    """

    value: Tensor
    offset: Tensor
    weights: Tensor

    def predict(self, inputs: Tensor) -> Tensor:
        """The surrogate's outputs (N, Q), float64, of inputs (N, T, C, H, W), none missing (``Network.filled``)."""
        return self.offset + inner_products(self.weights, inputs)


def join_kernels(parts: Sequence[LinearKernels]) -> LinearKernels:
    """The kernels of all outputs of the parts, in their order."""
    kept = [(part.value, part.offset, part.weights) for part in parts]
    return LinearKernels(*(torch.cat(some) for some in zip(*kept, strict=True)))


def inner_products(weights: Tensor, inputs: Tensor) -> Tensor:
    """<weights_q, inputs_n> in float64, (N, Q): weights (Q, ...), inputs (N, ...)."""
    wide = inputs.double().flatten(1)
    found = wide.new_empty(len(inputs), len(weights))
    # One output at a time through one buffer: the kernels in float64 would take twice their memory.
    buffer = wide.new_empty(wide.shape[1])
    for number, one in enumerate(weights):
        found[:, number] = wide @ buffer.copy_(one.flatten())
    return found


def linear_kernels(
    network: Network,
    reference: Tensor,
    method: Method = "auto",
    *,
    memory_megabytes: float = 512,
    precision: Precision = "float32",
) -> LinearKernels:
    """Offset and kernels at a reference sequence, in the network's units.

    a_q = M_q(X) - <omega_q, X>,   omega_qk[x, y, tau] = d M_q / d X_k[x, y, tau];   runoff note, equation 25.

    Args:
        network: the forecaster with its outputs.
        reference: X, (1, T, C, H, W) in physical units; missing pixels (NaN) are as in training.
        method: "backward", vector-Jacobian products, goes for any forecaster. For a ConvLSTM regressor there are the
            note's recursion from the outputs back, "adjoint", and from the inputs on, "forward". "auto" takes the
            fastest by ``cost.cheapest_method``.
        memory_megabytes: beside the result, about.
        precision: "float32" computes in the model's own. "bf16" takes the arguments of convolutions in bfloat16: all of
            them under autocast for "backward", those of the recursion for "adjoint", where kernels are then off by
            about 4e-3 of their largest; "forward" has no such way. Values are not touched by it. It is fast only where
            the processor itself multiplies in bfloat16 (AVX-512 BF16, AMX, GPUs): with AVX2 it takes ten times as long.

    Raises:
        ConfigError: for more than one reference, and a method or precision that is not there for this forecaster.
    """
    method, precision = _checked(network, reference, method, precision)
    reference = network.filled(reference.detach().to(network.dtype))
    narrow = precision == "bf16"
    if method == "adjoint":
        working = torch.bfloat16 if narrow else network.dtype
        values, weights = adjoint_kernels(network, reference, memory_megabytes, working)
    elif method == "forward":
        values, weights = forward_kernels(network, reference, memory_megabytes)
    else:
        with torch.autocast(reference.device.type, torch.bfloat16, enabled=narrow):
            values, weights = backward_kernels(network, reference, memory_megabytes)
    if narrow:
        with network.at_rest(), torch.no_grad():
            values = network(reference)[0]
    values = values.double()
    return LinearKernels(values, values - inner_products(weights, reference)[0], weights)


def _checked(network: Network, reference: Tensor, method: Method, precision: Precision) -> tuple[Way, Precision]:
    """The method that is meant."""
    for name, value, allowed in (("method", method, Method), ("precision", precision, Precision)):
        if value not in get_args(allowed):
            raise ConfigError(f"{name} = {value!r}: one of {', '.join(get_args(allowed))}")
    if reference.dim() != 5 or reference.shape[0] != 1:
        raise ConfigError(
            f"a reference is one sequence (1, frames, fields, rows, columns), not {tuple(reference.shape)}"
        )
    if method in ("adjoint", "forward") and not is_convlstm_regressor(network):
        raise ConfigError(
            f"method = {method!r} is for a runoff-convlstm, not for {type(network.model).__name__}: take backward"
        )
    if method == "forward" and precision == "bf16":
        raise ConfigError('precision = "bf16" is there for the methods adjoint and backward')
    if method == "auto":
        chosen = cheapest_method(network, reference)
        return ("adjoint" if precision == "bf16" and chosen == "forward" else chosen), precision
    return method, precision


def describe_run(network: Network, reference: Tensor, method: Method = "auto", *, memory_megabytes: float = 512) -> str:
    """What the kernels will cost, in one line, with a time measured on a small part of them.

    Arguments and errors as those of ``linear_kernels``.
    """
    chosen, _ = _checked(network, reference, method, "float32")
    whole = cost_of(network, reference, chosen, memory_megabytes)
    return whole.describe(predicted_seconds(network, reference, chosen, memory_megabytes))


PROBED_STEPS = 3


def predicted_seconds(network: Network, reference: Tensor, method: Way, memory_megabytes: float = 512) -> float:
    """Time of the kernels at a reference, from that of a few outputs and, of a recursion, a few steps.

    Time goes with multiply-adds: seconds = seconds of the part x multiply-adds / those of the part.
    """
    if method == "backward":
        num_outputs = max(2, copies_at_once(network, reference, memory_megabytes))
        part, some = network.with_outputs(slice(num_outputs)), reference
    else:
        row = convlstm_regressor(network).cell.hidden_width * reference[0, 0, 0].nbytes
        num_outputs = 2 * rows_at_once(row, memory_megabytes) if method == "adjoint" else len(network.outputs)
        part = network.with_outputs(slice(num_outputs))
        part = replace(part, input_times=part.input_times[:, -PROBED_STEPS:])
        some = reference[:, -PROBED_STEPS:]
    linear_kernels(part, some, method, memory_megabytes=memory_megabytes)  # warms up
    started = time.perf_counter()
    linear_kernels(part, some, method, memory_megabytes=memory_megabytes)
    seconds = time.perf_counter() - started
    whole = cost_of(network, reference, method, memory_megabytes)
    return seconds * whole.multiply_adds / cost_of(part, some, method, memory_megabytes).multiply_adds
