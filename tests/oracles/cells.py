"""Plain readings of the recurrent cells, one sample and one pixel at a time, in float64.

Shapes: C input width, D hidden width, F width of the flow generator, L links, K kernel, H rows, W columns.
``weights`` holds the arrays of one cell by the names of its state_dict; gates stand one under another in them.
"""

import numpy as np


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


def leaky(values):
    return np.where(values > 0, values, 0.2 * values)


MEMORIES = {"tanh": np.tanh, "leaky": leaky}


def convolve(frame, weight, bias=None, *, stride=1, padding=None, dilation=1):
    """Cross-correlation with zeros outside: (C, H, W), (D, C, K, K) -> (D, ., .), the same size unless told."""
    width, _, size, _ = weight.shape
    _, height, length = frame.shape
    reach = dilation * (size - 1)
    padding = reach // 2 if padding is None else padding
    rows, columns = ((side + 2 * padding - reach - 1) // stride + 1 for side in (height, length))
    out = np.zeros((width, rows, columns))
    for y in range(rows):
        for x in range(columns):
            for i in range(size):
                for j in range(size):
                    row, column = y * stride - padding + i * dilation, x * stride - padding + j * dilation
                    if 0 <= row < height and 0 <= column < length:
                        out[:, y, x] += weight[:, :, i, j] @ frame[:, row, column]
    return out if bias is None else out + bias[:, None, None]


def sample(frame, flow):
    """Bilinear values of (C, H, W) at (x, y) - flow, flow (2, H, W) with columns first, zeros outside."""
    _, height, width = frame.shape
    out = np.zeros_like(frame)
    for y in range(height):
        for x in range(width):
            column, row = x - flow[0, y, x], y - flow[1, y, x]
            left, top = int(np.floor(column)), int(np.floor(row))
            for i in (top, top + 1):
                for j in (left, left + 1):
                    if 0 <= i < height and 0 <= j < width:
                        out[:, y, x] += (1 - abs(row - i)) * (1 - abs(column - j)) * frame[:, i, j]
    return out


def convlstm(weights, frame, hidden, cell, forget_bias=0.0):
    """Shi et al. 2015, equation 3, gates in the order i, f, candidate, o; -> hidden, cell."""
    gates = convolve(hidden, weights["state_gates.weight"], weights.get("state_gates.bias"))
    if frame is not None:
        gates = gates + convolve(frame, weights["input_gates.weight"])
    gates = gates + weights.get("pixel_bias", np.zeros((1, 1, 1, 1)))[0]
    i, f, candidate, o = np.split(gates, 4)
    peephole_i, peephole_f, peephole_o = weights.get("peephole", np.zeros((3, 1, 1, 1)))
    kept = sigmoid(f + peephole_f * cell + forget_bias) * cell
    new = kept + sigmoid(i + peephole_i * cell) * np.tanh(candidate)
    return sigmoid(o + peephole_o * new) * np.tanh(new), new


def gated(x, h, hidden, memory):
    """Shi et al. 2017, equation 2 with z for 1 - z; x and h hold reset, update and memory."""
    (x_r, x_z, x_m), (h_r, h_z, h_m) = np.split(x, 3), np.split(h, 3)
    reset, keep = sigmoid(x_r + h_r), sigmoid(x_z + h_z)
    return keep * hidden + (1 - keep) * MEMORIES[memory](x_m + reset * h_m)


def convgru(weights, frame, hidden, memory="tanh", dilation=1):
    """The hidden map after one step."""
    h = convolve(hidden, weights["state_gates.weight"], weights["state_gates.bias"], dilation=dilation)
    x = np.zeros_like(h)
    if frame is not None:
        x = convolve(frame, weights["input_gates.weight"], weights["input_gates.bias"])
    return gated(x, h, hidden, memory)


def trajgru(weights, frame, hidden, memory="tanh"):
    """The hidden map after one step; Shi et al. 2017, equation 3."""
    features = convolve(hidden, weights["state_flow.weight"], weights["state_flow.bias"])
    if frame is not None:
        features = features + convolve(frame, weights["input_flow.weight"], weights["input_flow.bias"])
    flows = convolve(leaky(features), weights["flow.weight"], weights["flow.bias"])
    num_links = len(flows) // 2
    h = np.zeros((3 * len(hidden), *hidden.shape[1:])) + weights["state_gates.bias"][:, None, None]
    for link in range(num_links):
        # Column c * L + l of the 1x1 weight reads channel c along link l.
        weight = weights["state_gates.weight"][:, link::num_links]
        h = h + convolve(sample(hidden, flows[2 * link : 2 * link + 2]), weight)
    x = np.zeros_like(h)
    if frame is not None:
        x = convolve(frame, weights["input_gates.weight"], weights["input_gates.bias"])
    return gated(x, h, hidden, memory)
