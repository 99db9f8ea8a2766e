"""A plain reading of the runoff note's model, index by index in float64: equations 5 to 20 as FACTS corrects them.

The convolution is a true one: M[xi] weighs X[x - xi]. A framework's cross-correlation weight w weighs X[x + delta], so
M[xi, eta] = w[-xi, -eta]. Arrays of kernels are indexed [g][h, k, xi + half, eta + half], of maps [x, y].
"""

import math

import numpy as np

GATES = ("i", "f", "c", "o")  # in the order in which the network's weights stand


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def kernels(weight, width):
    """Cross-correlation weights (4 N_h, N, K, K) as true kernels of each gate."""
    return {gate: weight[g * width : (g + 1) * width, :, ::-1, ::-1] for g, gate in enumerate(GATES)}


def biases(values, width, size):
    """Biases per channel (4 N_h,) or per pixel (4 N_h, N_x, N_y), equation 12."""
    maps = values if values.ndim == 3 else np.broadcast_to(values[:, None, None], (len(values), *size))
    return {gate: maps[g * width : (g + 1) * width] for g, gate in enumerate(GATES)}


def convolve(kernel, maps, h, x, y):
    """sum over k, xi, eta of kernel_hk[xi, eta] maps_k[x - xi, y - eta], with zeros outside."""
    half = kernel.shape[2] // 2
    total = 0.0
    for k in range(len(maps)):
        for xi in range(-half, half + 1):
            for eta in range(-half, half + 1):
                row, column = x - xi, y - eta
                if 0 <= row < maps.shape[1] and 0 <= column < maps.shape[2]:
                    total += kernel[h, k, xi + half, eta + half] * maps[k, row, column]
    return total


def last_hidden(weights, frames, width):
    """H[N_tau] of equations 5, 6 and 14 to 18; frames (N_tau, N_k, N_x, N_y)."""
    size = frames.shape[2:]
    markov, memory = (kernels(weights[f"{name}_gates.weight"], width) for name in ("input", "state"))
    bias = weights["pixel_bias"][0] if "pixel_bias" in weights else weights["state_gates.bias"]
    bias = biases(bias, width, size)
    hidden, cell = np.zeros((width, *size)), np.zeros((width, *size))
    for frame in frames:
        new_hidden, new_cell = np.zeros_like(hidden), np.zeros_like(cell)
        for h, x, y in np.ndindex(width, *size):
            gate = {
                g: convolve(markov[g], frame, h, x, y) + convolve(memory[g], hidden, h, x, y) + bias[g][h, x, y]
                for g in GATES
            }
            # (17), (18)
            new_cell[h, x, y] = sigmoid(gate["f"]) * cell[h, x, y] + sigmoid(gate["i"]) * math.tanh(gate["c"])
            new_hidden[h, x, y] = sigmoid(gate["o"]) * math.tanh(new_cell[h, x, y])
        hidden, cell = new_hidden, new_cell
    return hidden


def dense(weights, hidden):
    """Equation 20 with its indices put right: W3_rb ReLU(W2_ba ReLU(W1_ah[x, y] H_h[x, y] + B1_a) + B2_b) + B3_r."""
    first, second, third = (weights[f"{name}.weight"] for name in ("first", "second", "third"))
    first = first.reshape(len(first), *hidden.shape)
    units = np.zeros(len(first))
    for a in range(len(first)):
        total = sum(first[a, h, x, y] * hidden[h, x, y] for h, x, y in np.ndindex(hidden.shape))
        units[a] = max(total + weights["first.bias"][a], 0)
    deeper = np.zeros(len(second))
    for b in range(len(second)):
        total = sum(second[b, a] * units[a] for a in range(len(units)))
        deeper[b] = max(total + weights["second.bias"][b], 0)
    return np.array([
        sum(third[r, b] * deeper[b] for b in range(len(deeper))) + weights["third.bias"][r] for r in range(len(third))
    ])  # fmt: skip


def catchment(weights, masks, hidden):
    """Each river's own last layer on a network of its catchment's mean: (leads, rivers)."""
    river_weights, river_biases = weights["river_weights"], weights["river_biases"]
    flow = np.zeros(river_biases.shape)
    for r, mask in enumerate(masks):
        total = sum(mask[x, y] for x, y in np.ndindex(mask.shape))
        pooled = [sum(mask[x, y] * state[x, y] for x, y in np.ndindex(mask.shape)) / total for state in hidden]
        units = [
            max(sum(w * p for w, p in zip(row, pooled, strict=True)) + bias, 0)
            for row, bias in zip(weights["first.weight"], weights["first.bias"], strict=True)
        ]
        deeper = [
            max(sum(w * u for w, u in zip(row, units, strict=True)) + bias, 0)
            for row, bias in zip(weights["second.weight"], weights["second.bias"], strict=True)
        ]
        for lead in range(len(flow)):
            own = sum(w * u for w, u in zip(river_weights[lead, r], deeper, strict=True))
            flow[lead, r] = own + river_biases[lead, r]
    return flow
