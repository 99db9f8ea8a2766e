"""Linear kernels of a ConvLSTM regressor by the note's recursion read backwards, all outputs at once.

Equation numbers are those of the runoff note.

Shapes: T input frames (N_tau), C fields (N_k), D hidden width (N_h), H rows, W columns, Q outputs, n outputs at once,
K extent of the kernels.
"""

import torch
from torch import Tensor
from torch.nn import functional

from fieldcast.cells import ConvLSTMCell
from fieldcast.explain.linear_steps import Expansion, LinearStep, convlstm_regressor, expand
from fieldcast.explain.network import MEBIBYTE, Network

CACHED = 8 * MEBIBYTE  # of gate gradients: about eight maps of 60 x 60 with 16 hidden channels


def adjoint_kernels(
    network: Network, reference: Tensor, memory_megabytes: float, working: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Values (Q,) and kernels (Q, T, C, H, W) of a ConvLSTM regressor.

    omega = Omega Lambda[N_tau] ... Lambda[tau + 1] lambda[tau] (61), (75), multiplied from the left: a row of Omega
    passes every step once, where the note's chi (63) takes every input pixel through them.

    Args:
        network: what is differentiated.
        reference: (1, T, C, H, W) in physical units, none missing.
        memory_megabytes: for the outputs that are taken at once, beside the result.
        working: type of the convolutions' arguments.

    Raises:
        ConfigError: where the model is no ConvLSTM regressor.
    """
    with torch.no_grad(), network.at_rest():
        point = expand(network, reference)
        turned = turned_kernels(convlstm_regressor(network).cell).to(working)
        size = rows_at_once(point.rows[0].nbytes, memory_megabytes)
        if point.mix is None:
            return point.values, _kernels_of(point.rows, point, turned, size)
        weights = point.rows.new_zeros(len(point.values), *point.slope.shape)
        num_held = max(1, int(memory_megabytes * MEBIBYTE / 2 / weights[0].nbytes))
        for rows, mix in zip(point.rows.split(num_held), point.mix.split(num_held, dim=1), strict=True):
            weights.flatten(1).addmm_(mix, _kernels_of(rows, point, turned, size).flatten(1))
        return point.values, weights


def _kernels_of(rows: Tensor, point: Expansion, turned: Tensor, size: int) -> Tensor:
    """Kernels (n, T, C, H, W) of rows (n, D, H, W) of Omega, ``size`` of them at once."""
    found = rows.new_empty(len(rows), *point.slope.shape)
    for part, result in zip(rows.split(size), found.split(size), strict=True):
        _recurse(part, point.steps, turned, point.slope, result)
    return found


def rows_at_once(row_bytes: int, memory_megabytes: float) -> int:
    """How many outputs go through the steps together."""
    limit = min(CACHED, memory_megabytes * MEBIBYTE / 3)  # the rest of the recursion is twice as large
    return max(1, int(limit / (4 * row_bytes)))


def turned_kernels(cell: ConvLSTMCell) -> Tensor:
    """N's adjoint, then M's: (D + C, 4 D, K, K), and as many kernels of zeros as make the first a multiple of 8.

    The adjoint of a correlation is one with the kernel turned.
    """
    assert cell.input_gates is not None
    both = torch.cat([cell.state_gates.weight, cell.input_gates.weight], dim=1).transpose(0, 1).flip(2, 3)
    # Vectors are of 8 numbers: 24 maps take 3/4 of the time of 23.
    padded = functional.pad(both, (0, 0, 0, 0, 0, 0, 0, -len(both) % 8))
    return padded.contiguous(memory_format=torch.channels_last)


def _recurse(rows: Tensor, steps: list[LinearStep], turned: Tensor, slope: Tensor, result: Tensor) -> None:
    """Write into ``result`` (n, T, C, H, W) the kernels of the rows (n, D, H, W) of Omega.

    a = d M / d H[tau], b = d M / d C[tau] but for its way through H[tau], beta = d M / d C[tau], d = d M / d gates.
    """
    width, num_fields = rows.shape[1], result.shape[2]
    a = rows.permute(0, 2, 3, 1).contiguous()  # (75)
    b, beta = torch.zeros_like(a), torch.empty_like(a)
    d = turned.new_empty(*a.shape[:3], 4, width)
    by_gate, as_map = d.unbind(dim=3), d.flatten(3).permute(0, 3, 1, 2)
    # Buffers are written again and again: new ones of this size cost more than the arithmetic on them.
    for tau in reversed(range(len(steps))):
        by_input, by_forget, by_candidate, by_output, by_cell, keep = (one.permute(0, 2, 3, 1) for one in steps[tau])
        torch.addcmul(b, a, by_cell, out=beta)  # (42), (47), (58)
        torch.mul(beta, by_input, out=by_gate[0])  # (44), (55)
        torch.mul(beta, by_forget, out=by_gate[1])  # (43), (54)
        torch.mul(beta, by_candidate, out=by_gate[2])  # (45), (56)
        torch.mul(a, by_output, out=by_gate[3])  # (46), (57)
        back = functional.conv2d(as_map, turned, padding=turned.shape[-1] // 2)  # (40) and (53) at once
        torch.mul(back[:, width : width + num_fields], slope[tau], out=result[:, tau])  # omega[tau] (66)
        a = back[:, :width].permute(0, 2, 3, 1)
        torch.mul(beta, keep, out=b)  # (41)
