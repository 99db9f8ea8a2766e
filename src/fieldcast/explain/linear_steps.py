"""A ConvLSTM regressor, linearised at one sequence: the parts that the adjoint and the forward recursion share.

Equation numbers are those of the runoff note. Its convolutions are true ones (5), the cell's are correlations: the
cell's weight w[xi] is the note's M[-xi] or N[-xi]. The cell's gates stand in the order i, f, c, o.

Shapes: T input frames (N_tau), C fields (N_k), D hidden width (N_h), H rows, W columns, Q outputs, r rows of Omega that
are carried through the steps.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from fieldcast.cells import ConvLSTMCell
from fieldcast.errors import ConfigError
from fieldcast.explain.network import Network
from fieldcast.models.runoff_convlstm import DenseHead, RunoffConvLSTM


class LinearStep(NamedTuple):
    """What Lambda (59) and lambda (60) hold at one step beside the kernels N and M, each (1, D, H, W), channels last.

    A change dg of the four gates, which is M * dX + N * dH[j - 1] by (40) and (53), and one dC of the last cell make
        dC[j] = keep dC[j - 1] + by_input di + by_forget df + by_candidate dc,
        dH[j] = by_output do + by_cell dC[j].
    """

    by_input: Tensor  # sigma'(i) tanh(c), (44) and (55)
    by_forget: Tensor  # sigma'(f) C[j - 1], (43) and (54)
    by_candidate: Tensor  # sigma(i) / cosh^2(c), (45) and (56)
    by_output: Tensor  # sigma'(o) tanh(C[j]), (46) and (57)
    by_cell: Tensor  # sigma(o) / cosh^2(C[j]), (42), (47) and (58)
    keep: Tensor  # F, (41) and (42)


class Expansion(NamedTuple):
    """A network at a reference: outputs (Q,), its steps, and the chain rule's two ends.

    ``rows`` (Q, D, H, W) is Omega = d M / d H[N_tau] (74), in units of the outputs; or ``rows`` (r, D, H, W) are fewer
    and Omega = ``mix`` @ rows, with mix (Q, r). ``slope`` (T, C, H, W) is what a physical unit of each input is in the
    model's.
    """

    values: Tensor
    steps: list[LinearStep]
    rows: Tensor
    mix: Tensor | None
    slope: Tensor


def is_convlstm_regressor(network: Network) -> bool:
    """Whether the note's recursions hold: a ConvLSTM without peepholes, read at its last hidden map alone."""
    return isinstance(network.model, RunoffConvLSTM)


def convlstm_regressor(network: Network) -> RunoffConvLSTM:
    """The network's model, where the note's recursions hold for it.

    Raises:
        ConfigError: for any other forecaster.
    """
    if not isinstance(network.model, RunoffConvLSTM):
        raise ConfigError(
            "the recursions of the runoff note hold for a runoff-convlstm, not for "
            f'{type(network.model).__name__}: take method = "backward"'
        )
    return network.model


def expand(network: Network, reference: Tensor) -> Expansion:
    """Linearise a ConvLSTM regressor at a reference (1, T, C, H, W) in physical units."""
    model = convlstm_regressor(network)
    frames, slope = _with_slope(network.normalised, reference)
    forecast = network.forecast(frames)
    physical, by_forecast = _with_slope(network.physical, forecast)
    steps, hidden = linear_steps(model.cell, frames[0])
    leads = torch.tensor(model.leads, device=reference.device)
    asked = model.target_steps(network.input_times, network.target_times)[0].to(leads)
    by_target = network.outputs.weights.to(by_forecast) * by_forecast
    by_lead = by_target.new_zeros(len(network.outputs), len(leads), by_target.shape[-1])
    by_lead.index_add_(1, (asked[:, None] == leads).int().argmax(dim=1), by_target[:, :, 0])
    rows, mix = _omega(model, hidden, by_lead.flatten(1).to(hidden))
    return Expansion(network.outputs.of(physical)[0], steps, rows.unflatten(1, hidden.shape[1:]), mix, slope[0])


def _omega(model: RunoffConvLSTM, hidden: Tensor, by_flow: Tensor) -> tuple[Tensor, Tensor | None]:
    """Omega (74) as rows (r, D H W) and what mixes them; ``by_flow`` is the outputs' share in what the head gives.

    Where fewer units of the second layer are active than there are outputs, they are the rows.
    """
    head = model.head
    if not isinstance(head, DenseHead):
        return by_flow @ head.jacobian(hidden).flatten(1), None
    first = head.first(hidden.flatten(1))  # (67)
    active = head.second(first.relu())[0] > 0  # (68)
    mix = by_flow @ head.third.weight[:, active]  # (71)
    by_first = head.second.weight[active] * (first > 0)  # (72)
    if 0 < len(by_first) < len(mix):
        return by_first @ head.first.weight, mix  # (73)
    return mix @ by_first @ head.first.weight, None  # (73), few columns before many


def _with_slope(scale: Callable[[Tensor], Tensor], values: Tensor) -> tuple[Tensor, Tensor]:
    """What an element-by-element function makes of the values, and its derivative there."""
    with torch.enable_grad():
        values = values.detach().requires_grad_()
        scaled = scale(values)
        (slope,) = torch.autograd.grad(scaled.sum(), values)
    return scaled.detach(), slope


def linear_steps(cell: ConvLSTMCell, frames: Tensor) -> tuple[list[LinearStep], Tensor]:
    """The steps of a cell that reads frames (T, C, H, W) from zeros on, and its last hidden map (1, D, H, W)."""
    assert cell.peephole is None, "a peephole is one more way from the cell to the gates"
    projected = cell.project(frames.contiguous(memory_format=torch.channels_last))
    hidden, last = cell.start(projected[:1])
    steps = []
    for projection in projected.split(1):
        gates = projection + cell.state_gates(hidden)
        if cell.pixel_bias is not None:
            gates = gates + cell.pixel_bias
        i, f, c, o = (gate.contiguous(memory_format=torch.channels_last) for gate in gates.chunk(4, dim=1))
        i, f, c, o = i.sigmoid(), (f + cell.forget_bias).sigmoid(), c.tanh(), o.sigmoid()  # (14) to (16)
        now = f * last + i * c  # (17)
        squashed = now.tanh()
        steps.append(
            LinearStep(
                by_input=i * (1 - i) * c,
                by_forget=f * (1 - f) * last,
                by_candidate=i * (1 - c * c),
                by_output=o * (1 - o) * squashed,
                by_cell=o * (1 - squashed * squashed),
                keep=f,
            )
        )
        hidden, last = o * squashed, now  # (18)
    return steps, hidden
