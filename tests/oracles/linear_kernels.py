"""Plain readings of the runoff note's kernels in float64: autograd on equations 5 to 20, and 41 to 75 by hand.

A cell's cross-correlation weight w weighs x[i + delta], the note's true kernel M[xi] weighs X[x - xi]: M[xi] = w[-xi].
Shapes: T = N_tau frames, C = N_k fields, D = N_h hidden channels, X x Y pixels, R rivers.
"""

import itertools
from functools import partial

import torch

from fieldcast.layers.convolution import convolve

GATES = ("i", "f", "c", "o")  # in the order in which the cell's weights stand


def true_kernels(weight):
    """Cross-correlation weights (4 D, C, K, K) as {gate: M^g (D, C, K, K)}."""
    return dict(zip(GATES, weight.flip(2, 3).chunk(4), strict=True))


def same(kernel, maps):
    """True convolution (5) with zeros outside, of the size of the map."""
    half = kernel.shape[-1] // 2
    whole = convolve(maps, kernel, "full")
    return whole[..., half : half + maps.shape[-2], half : half + maps.shape[-1]]


def run(weights, frames):
    """All gates, cells and hidden maps (13 to 18) of frames (T, C, X, Y): lists over tau, states from tau = 0."""
    markov, memory = true_kernels(weights["input_gates.weight"]), true_kernels(weights["state_gates.weight"])
    bias = weights["pixel_bias"][0] if "pixel_bias" in weights else weights["state_gates.bias"][:, None, None]
    biases = dict(zip(GATES, bias.chunk(4), strict=True))
    zeros = frames.new_zeros(len(memory["i"]), *frames.shape[2:])
    hidden, cells, gates = [zeros], [zeros], [None]
    for frame in frames:
        gate = {g: same(markov[g], frame) + same(memory[g], hidden[-1]) + biases[g] for g in GATES}  # (13)
        kept = torch.sigmoid(gate["f"]) * cells[-1]
        cells.append(kept + torch.sigmoid(gate["i"]) * torch.tanh(gate["c"]))  # (17)
        hidden.append(torch.sigmoid(gate["o"]) * torch.tanh(cells[-1]))  # (18)
        gates.append(gate)
    return gates, cells, hidden


def rivers(weights, frames):
    """phi (R,) of frames (T, C, X, Y): equations 67 to 69 on the last hidden map."""
    hidden = run(weights, frames)[2][-1].flatten()
    first = weights["first.weight"] @ hidden + weights["first.bias"]
    second = weights["second.weight"] @ first.relu() + weights["second.bias"]
    return weights["third.weight"] @ second.relu() + weights["third.bias"]


def jacobian(weights, frames):
    """d phi / d frames (R, T, C, X, Y) by autograd (25)."""
    return torch.autograd.functional.jacobian(partial(rivers, weights), frames)


def slope(values):
    """sigma'(x) = sigma(x) (1 - sigma(x))."""
    return torch.sigmoid(values) * (1 - torch.sigmoid(values))


def by_kernel(kernels, gate, last_cell, cell):
    """d kappa' / d maps, (2, D, X, Y, C, X, Y): equations 43 to 47 with N, 54 to 58 with M, number by number."""
    num_hidden, num_maps, extent, _ = kernels["i"].shape
    half, size = extent // 2, tuple(cell.shape[1:])
    found = cell.new_zeros(2, num_hidden, *size, num_maps, *size)
    for h, x1, y1 in itertools.product(range(num_hidden), *map(range, size)):
        place = h, x1, y1
        i, f, c, o = (gate[g][place] for g in GATES)
        for k, x, y in itertools.product(range(num_maps), *map(range, size)):
            if abs(x1 - x) > half or abs(y1 - y) > half:
                continue
            n = {g: kernels[g][h, k, x1 - x + half, y1 - y + half] for g in GATES}
            of_cell = slope(f) * last_cell[place] * n["f"]  # (43), (54)
            of_cell += slope(i) * torch.tanh(c) * n["i"]  # (44), (55)
            of_cell += torch.sigmoid(i) / torch.cosh(c) ** 2 * n["c"]  # (45), (56)
            of_hidden = slope(o) * torch.tanh(cell[place]) * n["o"]  # (46), (57)
            of_hidden += torch.sigmoid(o) / torch.cosh(cell[place]) ** 2 * of_cell  # (47), (58)
            found[(0, *place, k, x, y)], found[(1, *place, k, x, y)] = of_cell, of_hidden
    return found


def by_cell(gate, cell):
    """d kappa' / d C[j - 1], (2, D, X, Y, D, X, Y): equations 41 and 42."""
    found = cell.new_zeros(2, *cell.shape, *cell.shape)
    for place in itertools.product(*map(range, cell.shape)):
        forget = torch.sigmoid(gate["f"][place])
        found[(0, *place, *place)] = forget
        found[(1, *place, *place)] = torch.sigmoid(gate["o"][place]) * forget / torch.cosh(cell[place]) ** 2
    return found


def note(weights, frames):
    """omega (R, T, C, X, Y) by the note's recipe: chi (62, 63) with Lambda (59) and lambda (60) as full matrices."""
    gates, cells, hidden = run(weights, frames)
    markov, memory = true_kernels(weights["input_gates.weight"]), true_kernels(weights["state_gates.weight"])
    num_states = 2 * cells[0].numel()
    large, small = [None], [None]
    for j in range(1, len(frames) + 1):
        through_cell = by_cell(gates[j], cells[j]).reshape(num_states, -1)
        through_hidden = by_kernel(memory, gates[j], cells[j - 1], cells[j]).reshape(num_states, -1)
        large.append(torch.cat([through_cell, through_hidden], dim=1))  # (59), s = 1 then 2
        small.append(by_kernel(markov, gates[j], cells[j - 1], cells[j]).reshape(num_states, -1))  # (60)
    omega = head_jacobian(weights, hidden[-1])
    found = []
    for tau in range(1, len(frames) + 1):
        chi = small[tau]
        for n in range(tau, len(frames)):
            chi = large[n + 1] @ chi  # (63)
        found.append(omega @ chi[num_states // 2 :])  # (65), (66)
    return torch.stack(found, dim=1).unflatten(2, frames.shape[1:])


def head_jacobian(weights, hidden):
    """Omega (R, D X Y): equations 70 to 74."""
    first = weights["first.weight"] @ hidden.flatten() + weights["first.bias"]  # (67)
    second = weights["second.weight"] @ first.relu() + weights["second.bias"]  # (68)
    return (
        weights["third.weight"]
        @ torch.diag((second > 0).double())
        @ weights["second.weight"]
        @ torch.diag((first > 0).double())
        @ weights["first.weight"]
    )
