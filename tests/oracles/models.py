"""Plain readings of whole forecasters, one sample, one time and one layer after another, in float64.

``weights`` holds the arrays of the model by the names of its state_dict. Inputs (T, C, H, W), H and W multiples of
what the model needs; forecasts (S, C, H, W).
"""

from functools import partial

import numpy as np
from oracles.cells import convgru, convlstm, convolve, leaky, sigmoid, trajgru


def part(weights, name):
    """The weights of one part, by their names inside it."""
    return {key.removeprefix(f"{name}."): value for key, value in weights.items() if key.startswith(f"{name}.")}


def deconvolve(frame, weight, bias, stride):
    """Transposed convolution with padding 1: every pixel adds its kernel to the output, (C, D, K, K)."""
    _, width, size, _ = weight.shape
    _, height, length = frame.shape
    out = np.zeros((width, stride * height, stride * length))
    for y in range(height):
        for x in range(length):
            for i in range(size):
                for j in range(size):
                    row, column = y * stride - 1 + i, x * stride - 1 + j
                    if 0 <= row < stride * height and 0 <= column < stride * length:
                        out[:, row, column] += weight[:, :, i, j].T @ frame[:, y, x]
    return out if bias is None else out + bias[:, None, None]


def fold(frame, patch):
    """(C, H, W) -> (C P P, H / P, W / P): channel c P P + i P + j holds row i, column j of each patch."""
    return np.stack([channel[i::patch, j::patch] for channel in frame for i in range(patch) for j in range(patch)])


def unfold(frame, patch):
    channels, height, width = frame.shape
    out = np.zeros((channels // patch**2, height * patch, width * patch))
    for index, plane in enumerate(frame):
        channel, i, j = index // patch**2, index // patch % patch, index % patch
        out[channel, i::patch, j::patch] = plane
    return out


def nothing(width, frame):
    return np.zeros((width, *frame.shape[1:]))


def shi(weights, inputs, num_steps, *, widths, patch):
    """ConvLSTM encoder-forecaster, Shi et al. 2015, figure 3."""
    states = [(nothing(width, fold(inputs[0], patch)),) * 2 for width in widths]
    for image in inputs:
        frame = fold(image, patch)
        for layer, state in enumerate(states):
            states[layer] = convlstm(part(weights, f"encoder.{layer}"), frame, *state)
            frame = states[layer][0]
    forecast = []
    for _ in range(num_steps):
        frame = None
        for layer, state in enumerate(states):
            states[layer] = convlstm(part(weights, f"forecaster.{layer}"), frame, *state)
            frame = states[layer][0]
        hidden = np.concatenate([state[0] for state in states])
        forecast.append(unfold(sigmoid(convolve(hidden, weights["output.weight"], weights["output.bias"])), patch))
    return np.stack(forecast)


def stack(weights, inputs, num_steps, *, widths, patch, forget_bias, truths=()):
    """A stack of ConvLSTMs that reads the inputs, then its own forecasts; ``truths``: {step: frame} read instead."""
    states = [(nothing(width, fold(inputs[0], patch)),) * 2 for width in widths]
    forecast = []
    frames, truths = list(inputs), dict(truths)
    for time in range(len(inputs) + num_steps - 1):
        frame = fold(frames[time], patch)
        for layer, state in enumerate(states):
            states[layer] = convlstm(part(weights, f"cells.{layer}"), frame, *state, forget_bias)
            frame = states[layer][0]
        image = unfold(convolve(frame, weights["output.weight"], weights.get("output.bias")), patch)
        if time >= len(inputs) - 1:
            forecast.append(image)
            frames.append(truths.get(len(forecast), image))
    return np.stack(forecast)


def encoder_forecaster(weights, inputs, num_steps, *, widths, strides, memory="tanh", links=0, dilation=1,
                       coordinates=False):  # fmt: skip
    """The pyramid of GRUs, Shi et al. 2017, figure 1 and thesis tables A.1, A.2; TrajGRU where there are links."""
    cell = partial(trajgru, memory=memory) if links else partial(convgru, memory=memory, dilation=dilation)
    top_down = range(len(widths))[::-1]
    _, _, height, width = inputs.shape
    shrink = np.cumprod(strides)
    states = [np.zeros((d, height // s, width // s)) for d, s in zip(widths, shrink, strict=True)]
    for frame in inputs:
        if coordinates:
            rows, columns = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
            frame = np.concatenate([frame, [rows, columns, np.ones((height, width))]])
        for layer, stride in enumerate(strides):
            down = part(weights, f"down.{layer}.convolution")
            frame = leaky(convolve(frame, down["weight"], down["bias"], stride=stride, padding=1))
            states[layer] = frame = cell(part(weights, f"encoder.{layer}"), frame, states[layer])
    forecast = []
    for _ in range(num_steps):
        frame = None
        for layer in top_down:
            states[layer] = cell(part(weights, f"forecaster.{layer}"), frame, states[layer])
            up = part(weights, f"up.{layer}.convolution")
            frame = leaky(deconvolve(states[layer], up["weight"], up.get("bias"), strides[layer]))
        frame = leaky(convolve(frame, weights["head.weight"], weights["head.bias"]))
        forecast.append(convolve(frame, weights["output.weight"], weights["output.bias"]))
    return np.stack(forecast)
