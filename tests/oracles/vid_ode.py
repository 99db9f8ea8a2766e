"""A plain reading of Vid-ODE in float64: one sample, one time and one pixel after another.

``weights`` holds the arrays of the model by the names of its state_dict. Inputs (T, C, H, W), forecasts (S, C, H, W).
"""

import math

import numpy as np
from oracles.cells import convolve, sigmoid
from oracles.models import part


def relu(values):
    return np.maximum(values, 0)


def normalise(weights, frame):
    """Batch norm with the statistics that it has learned."""
    mean, variance, scale, offset = (
        weights[name][:, None, None] for name in ("running_mean", "running_var", "weight", "bias")
    )
    return (frame - mean) / np.sqrt(variance + 1e-5) * scale + offset


def block(weights, frame, **options):
    return relu(normalise(part(weights, "1"), convolve(frame, weights["0.weight"], **options)))


def enlarge(frame):
    """Twice the size, bilinearly: pixel centres lie at half numbers, and the border goes on beyond the edge."""
    channels, height, width = frame.shape
    out = np.zeros((channels, 2 * height, 2 * width))
    for y in range(2 * height):
        for x in range(2 * width):
            row, column = (y + 0.5) / 2 - 0.5, (x + 0.5) / 2 - 0.5
            out[:, y, x] = value_at(frame, max(row, 0), max(column, 0))
    return out


def value_at(frame, row, column):
    """The bilinear value at a place, that of the nearest place on the map where it is outside."""
    _, height, width = frame.shape
    row, column = min(max(row, 0), height - 1), min(max(column, 0), width - 1)
    top, left = math.floor(row), math.floor(column)
    value = 0
    for i, weight_i in ((top, 1 - (row - top)), (top + 1, row - top)):
        for j, weight_j in ((left, 1 - (column - left)), (left + 1, column - left)):
            if weight_i * weight_j > 0:
                value = value + weight_i * weight_j * frame[:, i, j]
    return value


def move(frame, flow):
    """The frame sampled at (x, y) - flow, flow (2, H, W) with columns first."""
    out = np.zeros_like(frame)
    for y in range(frame.shape[1]):
        for x in range(frame.shape[2]):
            out[:, y, x] = value_at(frame, y - flow[1, y, x], x - flow[0, y, x])
    return out


def field(weights, state):
    """conv tanh conv tanh ... conv."""
    names = sorted({int(name.split(".")[0]) for name in weights})
    for place, name in enumerate(names):
        state = convolve(np.tanh(state) if place else state, weights[f"{name}.weight"], weights[f"{name}.bias"])
    return state


def runge_kutta(weights, state, elapsed, max_step):
    steps = max(1, math.ceil(abs(elapsed) / max_step - 1e-9))
    step = elapsed / steps
    for _ in range(steps):
        a = field(weights, state)
        b = field(weights, state + step / 2 * a)
        c = field(weights, state + step / 2 * b)
        d = field(weights, state + step * c)
        state = state + step * (a + 2 * b + 2 * c + d) / 6
    return state


def gru(weights, frame, hidden):
    """Release: both gates and the candidate each from one convolution of [x, h], the latter with r o h."""
    width = len(hidden)
    of_input, bias = weights["input_gates.weight"], weights["input_gates.bias"]
    of_gates = np.concatenate([of_input[: 2 * width], weights["state_gates.weight"]], axis=1)
    of_candidate = np.concatenate([of_input[2 * width :], weights["candidate.weight"]], axis=1)
    reset, new = np.split(sigmoid(convolve(np.concatenate([frame, hidden]), of_gates, bias[: 2 * width])), 2)
    candidate = np.tanh(convolve(np.concatenate([frame, reset * hidden]), of_candidate, bias[2 * width :]))
    return (1 - new) * hidden + new * candidate


def embed(weights, frame, num_halvings):
    multiple = 2**num_halvings
    frame = np.pad(frame, [(0, 0), (0, -frame.shape[1] % multiple), (0, -frame.shape[2] % multiple)])
    frame = block(part(weights, "0"), frame)
    for layer in range(num_halvings):
        frame = block(part(weights, str(layer + 1)), frame, stride=2, padding=1)
    return frame


def decode(weights, pair, num_halvings):
    for layer in range(num_halvings):
        pair = block(part(weights, str(2 * layer + 1)), enlarge(pair))
    last = part(weights, str(2 * num_halvings))
    return convolve(pair, last["weight"], last["bias"])


def vid_ode(weights, inputs, input_times, target_times, *, num_halvings, max_step):
    embedded = [embed(part(weights, "embedding"), frame, num_halvings) for frame in inputs]
    hidden, previous = np.zeros_like(embedded[0]), None
    for frame, time in reversed(list(zip(embedded, input_times, strict=True))):
        if previous is not None:
            hidden = hidden + (time - previous) * field(part(weights, "backward_ode.field"), hidden)
        hidden, previous = gru(part(weights, "cell"), frame, hidden), time
    hidden = relu(convolve(hidden, weights["start.0.weight"], weights["start.0.bias"]))
    state, now = convolve(hidden, weights["start.2.weight"], weights["start.2.bias"]), input_times[0]
    past = [(time, embedding, frame) for time, embedding, frame in zip(input_times, embedded, inputs, strict=True)]
    made, forecast = [], []
    _, channels, height, width = inputs.shape
    for time in target_times:
        state, now = runge_kutta(part(weights, "forward_ode.field"), state, time - now, max_step), time
        known = [item for item in past if item[0] <= time] or past[:1]
        before = known[-1] if not made or known[-1][0] >= made[-1][0] else made[-1]
        parts = decode(part(weights, "decoder"), np.concatenate([state, before[1]]), num_halvings)[:, :height, :width]
        warped = move(before[2], parts[:2])
        made.append((time, state, warped))
        mask = sigmoid(parts[2 + channels :])
        forecast.append(mask * warped + (1 - mask) * parts[2 : 2 + channels])
    return np.stack(forecast)
