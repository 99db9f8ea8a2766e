"""What linear kernels cost, known before they are computed: multiply-adds and memory of each way, and the cheapest way.

Shapes, with the runoff note's letters: R outputs, T = N_tau input frames, C = N_k fields, D = N_h hidden channels,
H x W = N_x x N_y pixels, K x K = N_xi x N_eta taps, a and b units of a head's hidden layers.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fieldcast.explain.adjoint import rows_at_once
from fieldcast.explain.backward import TIMES_KEPT, copies_at_once, kept_bytes
from fieldcast.explain.linear_steps import convlstm_regressor, is_convlstm_regressor
from fieldcast.explain.network import MEBIBYTE, Network
from fieldcast.models.runoff_convlstm import DenseHead

Way = Literal["backward", "adjoint", "forward"]
# Where the forward recursion comes near, on small maps, a multiply-add of it takes about this many times as long as one
# of the adjoint: `benchmarks/linear_kernels.py --only rule`.
FORWARD_PENALTY = 4


@dataclass(frozen=True)
class Cost:
    """The cost of R kernels, each of ``shape`` (T, C, H, W); ``working_bytes`` come beside the result."""

    method: Way
    num_outputs: int
    shape: tuple[int, ...]
    multiply_adds: float
    result_bytes: int
    working_bytes: int

    def describe(self, seconds: float | None = None) -> str:
        """One line: "97 kernels of 30 x 7 x 60 x 60 (adjoint): 1.4e+11 multiply-adds, about 4 s, ..."."""
        time = f" about {seconds:.2g} s," if seconds is not None else ""
        return (
            f"{self.num_outputs} kernels of {' x '.join(map(str, self.shape))} ({self.method}): "
            f"{self.multiply_adds:.1e} multiply-adds,{time} {_megabytes(self.result_bytes)} result + "
            f"{_megabytes(self.working_bytes)}"
        )


def _megabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


class Sizes(NamedTuple):
    """What the cost of a recursion depends on, in the note's letters.

    ``num_rows`` of Omega go through the recursion: the outputs, or the units of a dense head's second layer where these
    are fewer; fewer still where not all are active. ``omega`` is the multiply-adds that Omega takes.
    """

    num_outputs: int  # R
    num_rows: int
    num_steps: int  # N_tau
    num_fields: int  # N_k
    width: int  # N_h
    num_pixels: int  # N_x N_y
    num_taps: int  # N_xi N_eta
    omega: int


def recursion_sizes(network: Network, reference: Tensor) -> Sizes:
    """Sizes of a ConvLSTM regressor with a reference (1, T, C, H, W)."""
    _, num_steps, num_fields, height, width = reference.shape
    model = convlstm_regressor(network)
    cell, head = model.cell, model.head
    num_outputs = num_rows = len(network.outputs)
    weights = head.first.weight.numel() + head.second.weight.numel()
    if isinstance(head, DenseHead):
        num_rows = min(num_rows, head.second.out_features)
        omega = num_rows * weights  # R (N_a N_b + N_a N_h N_x N_y)
    else:
        num_rivers = math.prod(network.outputs.weights.shape[3:]) * len(model.leads)
        omega = num_rivers * (weights + num_outputs * cell.hidden_width * height * width)
    return Sizes(
        num_outputs=num_outputs,
        num_rows=num_rows,
        num_steps=num_steps,
        num_fields=num_fields,
        width=cell.hidden_width,
        num_pixels=height * width,
        num_taps=cell.state_gates.weight[0, 0].numel(),
        omega=omega,
    )


def adjoint_multiply_adds(s: Sizes) -> float:
    """N_tau R N_x N_y 4 N_h (N_k + N_h) N_xi N_eta, and the head's Omega; with fewer rows, their mixing too."""
    step = s.num_pixels * 4 * s.width * (s.num_fields + s.width) * s.num_taps
    if s.num_rows < s.num_outputs:
        step += s.num_pixels * s.num_fields * s.num_outputs
    return s.num_steps * s.num_rows * step + s.omega


def forward_multiply_adds(s: Sizes) -> float:
    """Of the note's chi with the kernels' support: N_k N_x N_y changes begin at each step and go on to the last one.

    N_x N_y 4 N_h N_xi N_eta (N_k N_tau + N_h N_tau (N_tau - 1) / 2) for each, then R N_tau N_h N_x N_y (66).
    """
    gates = s.num_pixels * 4 * s.width * s.num_taps
    num_passes = s.num_steps * (s.num_steps - 1) / 2
    each = gates * (s.num_fields * s.num_steps + s.width * num_passes)
    each += s.num_rows * s.num_steps * s.width * s.num_pixels
    return s.num_fields * s.num_pixels * each + s.omega


def note_multiply_adds(s: Sizes) -> float:
    """The note's own count (76), with its slips mended: tau summed over, the decoder gone, the head's terms whole.

    N_tau N_k 2 N_h N_p^2 + N_tau (N_tau - 1) / 2 N_k 2 N_h N_p^2 2 N_h N_p + R (N_a N_b + N_a N_h N_p)
    + N_tau R N_k N_h N_p^2 with N_p = N_x N_y: Lambda and lambda as full matrices.
    """
    chi = s.num_fields * 2 * s.width * s.num_pixels**2
    passes = s.num_steps * (s.num_steps - 1) / 2 * chi * 2 * s.width * s.num_pixels
    return s.num_steps * chi + passes + s.omega + s.num_steps * s.num_outputs * chi / 2


def cost_of(network: Network, reference: Tensor, method: Way, memory_megabytes: float = 512) -> Cost:
    """The cost of the kernels at a reference (1, T, C, H, W).

    That of the recursions is a formula; that of "backward" is counted on one pass of the network there and back, and
    leaves out what works value by value.
    """
    num_outputs, shape = len(network.outputs), tuple(reference.shape[1:])
    item = torch.empty(0, dtype=network.dtype).element_size()
    result = num_outputs * math.prod(shape) * item
    if method == "backward":
        counted, working = _backward_cost(network, reference.to(network.dtype), memory_megabytes)
        return Cost(method, num_outputs, shape, counted, result, working)
    s = recursion_sizes(network, reference)
    if method == "adjoint":
        working = _adjoint_bytes(s, item, memory_megabytes)
        return Cost(method, num_outputs, shape, adjoint_multiply_adds(s), result, working)
    changes = 12 * s.num_steps * s.num_fields * s.num_pixels * _row_bytes(s, item)
    busy = min(int(memory_megabytes * MEBIBYTE), changes)
    return Cost(method, num_outputs, shape, forward_multiply_adds(s), result, _held_bytes(s, item) + busy)


def _row_bytes(s: Sizes, item: int) -> int:
    """Memory of a hidden map."""
    return s.width * s.num_pixels * item


def _held_bytes(s: Sizes, item: int) -> int:
    """Memory of Omega and of what the steps keep."""
    return (s.num_rows + 6 * s.num_steps) * _row_bytes(s, item)


def _adjoint_bytes(s: Sizes, item: int, memory_megabytes: float) -> int:
    """Memory of the adjoint recursion beside the result: a, b, beta, d, what the convolution gives, rows to mix."""
    row = _row_bytes(s, item)
    at_once = min(rows_at_once(row, memory_megabytes), s.num_rows)
    busy = at_once * (8 * row + s.num_fields * s.num_pixels * item)
    if s.num_rows < s.num_outputs:
        all_rows = s.num_rows * s.num_steps * s.num_fields * s.num_pixels * item
        busy += min(int(memory_megabytes * MEBIBYTE / 2), all_rows)
    return _held_bytes(s, item) + busy


def _backward_cost(network: Network, reference: Tensor, memory_megabytes: float) -> tuple[float, int]:
    """Multiply-adds of all passes, and the memory that they keep."""
    at_once = copies_at_once(network, reference, memory_megabytes)
    with network.at_rest(), torch.enable_grad():
        source = network.filled(reference).requires_grad_()
        with FlopCounterMode(display=False) as ahead:
            first = network(source)[0, 0]
        with FlopCounterMode(display=False) as back:
            torch.autograd.grad(first, source)
    num_ahead = len(network.outputs) if at_once > 1 else 1
    counted = num_ahead * ahead.get_total_flops() + len(network.outputs) * back.get_total_flops()
    return counted / 2, TIMES_KEPT * at_once * kept_bytes(network, reference)


def cheapest_method(network: Network, reference: Tensor) -> Way:
    """The fastest way for a reference (1, T, C, H, W).

    "backward" for all but ConvLSTM regressors. For these the adjoint recursion, unless the map is so small and the
    outputs so many that the forward one takes less than a quarter of its multiply-adds, Omega left out: about
    C H W (T + 1) < R (C + D) / (2 D).
    """
    if not is_convlstm_regressor(network):
        return "backward"
    sizes = recursion_sizes(network, reference)._replace(omega=0)
    return "forward" if FORWARD_PENALTY * forward_multiply_adds(sizes) < adjoint_multiply_adds(sizes) else "adjoint"
