"""Kernels of a ConvLSTM regressor by the note's own recursion: changes of the input carried forward to the outputs.

Equation numbers are those of the runoff note.

Shapes: T input frames (N_tau), C fields (N_k), D hidden width (N_h), H rows, W columns, Q outputs, P directions,
m changes that are under way at once.
"""

import torch
from torch import Tensor

from fieldcast.cells import ConvLSTMCell
from fieldcast.errors import ConfigError
from fieldcast.explain.linear_steps import Expansion, LinearStep, convlstm_regressor, expand
from fieldcast.explain.network import MEBIBYTE, Network


def directional_kernels(
    network: Network, reference: Tensor, directions: Tensor, *, memory_megabytes: float = 512
) -> Tensor:
    """How much each output of a ConvLSTM regressor changes along each direction of its input.

    sum_{k x y tau} omega_qk[x, y, tau] direction_p[tau, k, x, y], or the same for each tau alone, without omega, for
    catchment means, empirical orthogonal functions, one number for each field. A direction takes about as long as the
    adjoint kernels of one output.

    Args:
        network: what is differentiated.
        reference: (1, T, C, H, W) in physical units; missing pixels (NaN) are as in training.
        directions: (P, T, C, H, W) in physical units; or (P, 1, C, H, W), each at one step after another.
        memory_megabytes: beside the result, about.

    Returns:
        (Q, P), or (Q, P, T) where the directions have one step.

    Raises:
        ConfigError: where the model is no ConvLSTM regressor, or the directions are of another shape.
    """
    allowed = (reference.shape[1], 1)
    if directions.dim() != 5 or directions.shape[1] not in allowed or directions.shape[2:] != reference.shape[2:]:
        raise ConfigError(
            f"directions of shape {tuple(directions.shape)}: of this reference they are (any, "
            f"{allowed[0]} or 1, {', '.join(map(str, reference.shape[2:]))})"
        )
    with torch.no_grad(), network.at_rest():
        reference = network.filled(reference.detach().to(network.dtype))
        return _along(network, expand(network, reference), directions.to(reference), memory_megabytes)


def forward_kernels(network: Network, reference: Tensor, memory_megabytes: float) -> tuple[Tensor, Tensor]:
    """Values (Q,) and kernels (Q, T, C, H, W) of a ConvLSTM regressor, from a change of every pixel at every step.

    omega = Omega Xi (66), Xi[tau] = chi[N_tau, tau] (65): for small maps.

    Args:
        network: what is differentiated.
        reference: (1, T, C, H, W) in physical units, none missing.
        memory_megabytes: beside the result, about.

    Raises:
        ConfigError: where the model is no ConvLSTM regressor.
    """
    with torch.no_grad(), network.at_rest():
        expansion = expand(network, reference)
        shape = reference.shape[2:]
        pixels = torch.eye(shape.numel(), dtype=reference.dtype, device=reference.device)
        sensitivities = _along(network, expansion, pixels.view(-1, 1, *shape), memory_megabytes)
    return expansion.values, sensitivities.transpose(1, 2).reshape(len(expansion.values), *reference.shape[1:])


def _along(network: Network, expansion: Expansion, directions: Tensor, memory_megabytes: float) -> Tensor:
    """``directional_kernels`` at an expansion."""
    cell = convlstm_regressor(network).cell
    one_by_one = directions.shape[1] == 1
    carry = _carry_each_step if one_by_one else _carry_together
    # Gates, their parts and both states of each change.
    needed = 12 * expansion.rows[0].nbytes * (len(expansion.steps) if one_by_one else 1)
    size = max(1, int(memory_megabytes * MEBIBYTE / needed))
    rows = expansion.rows.flatten(1)
    found = []
    for part in directions.split(size):
        hidden = carry(cell, expansion, part)  # (P, T or 1, D, H, W)
        found.append(torch.einsum("qd,ptd->qpt", rows, hidden.flatten(2)))  # (66), (75)
    sensitivities = torch.cat(found, dim=1)
    if expansion.mix is not None:
        sensitivities = torch.einsum("qr,rpt->qpt", expansion.mix, sensitivities)
    return sensitivities if one_by_one else sensitivities[..., 0]


def _carry_together(cell: ConvLSTMCell, expansion: Expansion, directions: Tensor) -> Tensor:
    """Change (P, 1, D, H, W) of the last hidden map by directions (P, T, C, H, W) that act at all steps."""
    hidden, memory = cell.start(directions[:, 0])
    for tau, step in enumerate(expansion.steps):
        changed = cell.project(directions[:, tau] * expansion.slope[tau])
        hidden, memory = _advance(step, changed + _state_gates(cell, hidden), memory)
    return hidden[:, None]


def _carry_each_step(cell: ConvLSTMCell, expansion: Expansion, directions: Tensor) -> Tensor:
    """Change (P, T, D, H, W) of the last hidden map by directions (P, 1, C, H, W), each at every step alone.

    chi[tau, tau] = lambda[tau], chi[n + 1, tau] = Lambda[n + 1] chi[n, tau] (63), for all tau <= n together: at each
    step P changes join those that are under way.
    """
    start = cell.start(directions[:, 0])
    hidden, memory = start.hidden[:0], start.cell[:0]
    for tau, step in enumerate(expansion.steps):
        changed = cell.project(directions[:, 0] * expansion.slope[tau])
        gates = torch.cat([_state_gates(cell, hidden), changed])
        hidden, memory = _advance(step, gates, torch.cat([memory, start.cell]))
    return hidden.unflatten(0, (-1, len(directions))).transpose(0, 1)


def _advance(step: LinearStep, gates: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """Lambda and lambda at work: changes of the hidden map and the cell (m, D, H, W) after a step.

    They are made by those of its gates (m, 4 D, H, W) and of the cell before it.
    """
    of_input, of_forget, of_candidate, of_output = gates.chunk(4, dim=1)
    after = step.keep * memory  # (41)
    after.addcmul_(step.by_forget, of_forget)  # (43), (54)
    after.addcmul_(step.by_input, of_input)  # (44), (55)
    after.addcmul_(step.by_candidate, of_candidate)  # (45), (56)
    return torch.addcmul(step.by_output * of_output, step.by_cell, after), after  # (42), (46), (47), (57), (58)


def _state_gates(cell: ConvLSTMCell, hidden: Tensor) -> Tensor:
    """N * dH (40): a change has no bias."""
    weight = cell.state_gates.weight
    return torch.conv2d(hidden, weight, padding=weight.shape[-1] // 2)
