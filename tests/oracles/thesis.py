"""Plain reading of the thesis' models, everything computed anew at every step, one sample at a time, in float64.

``weights`` holds the arrays of the model by the names of its state_dict; layers are counted from 0 at the bottom.
"""

import numpy as np
from oracles.cells import convolve, leaky, sigmoid, trajgru
from oracles.models import deconvolve, part


def convolution(weights, frame, stride=1, padding=None):
    return convolve(frame, weights["weight"], weights["bias"], stride=stride, padding=padding)


def patches(weights, frame):
    """Transposed convolution whose kernel is its stride: every pixel becomes a square."""
    weight, bias = weights["weight"], weights["bias"]
    factor = weight.shape[-1]
    out = np.zeros((weight.shape[1], factor * frame.shape[1], factor * frame.shape[2]))
    for y in range(frame.shape[1]):
        for x in range(frame.shape[2]):
            square = np.einsum("cdij,c->dij", weight, frame[:, y, x])
            out[:, factor * y : factor * (y + 1), factor * x : factor * (x + 1)] = square
    return out + bias[:, None, None]


def attend(weights, maps, times, query, of_inputs):
    """Attention state over maps[0..query] (equations 4.5 to 4.9), and the weights (query + 1, C)."""
    maps, times = maps[: query + 1], times[: query + 1]
    now = maps[query]
    velocities = [maps[0].mean((1, 2))]
    accelerations = [velocities[0]]
    for i in range(1, query + 1):
        elapsed = times[i] - times[i - 1]
        difference = maps[i] - maps[i - 1]
        velocities.append((np.abs(difference) if of_inputs else difference).mean((1, 2)) / elapsed)
        accelerations.append((velocities[i] - velocities[i - 1]) / elapsed)
    scores = []
    for i, past in enumerate(maps):
        compared = past - now if of_inputs else past
        correlation = convolution(part(weights, "past"), compared) + convolution(part(weights, "present"), now)
        keys = [np.full(len(past), times[i]), velocities[i], accelerations[i], np.tanh(correlation).mean((1, 2))]
        scores.append(weights["combine.weight"] @ np.concatenate(keys) + weights["combine.bias"])
    scores = np.array(scores)
    return maps, scores


def softmax(scores):
    powers = np.exp(scores - scores.max(0))
    return powers / powers.sum(0)


def encoding_attention(weights, frames, times, query):
    maps, scores = attend(part(weights, "attention"), frames, times, query, of_inputs=True)
    attended = sum(share[:, None, None] * past for share, past in zip(softmax(scores), maps, strict=True))
    return convolution(part(weights, "merge"), np.concatenate([attended, frames[query]]))


def decoding_attention(weights, states, times, window):
    """Over the newest ``window`` of the states so far, of which the last is the present one."""
    maps, scores = attend(part(weights, "attention"), states, times, len(states) - 1, of_inputs=False)
    shares = softmax(scores[-window:])
    attended = sum(share[:, None, None] * past for share, past in zip(shares, maps[-window:], strict=True))
    gates = convolution(part(weights, "state_gates"), states[-1])
    gates = gates + convolution(part(weights, "attention_gates"), attended)
    keep, take, candidate = np.split(gates, 3)
    return sigmoid(keep) * states[-1] + sigmoid(take) * np.tanh(candidate)


def encoder_zigzag(weights, top, bottom):
    lifted = leaky(patches(part(weights, "up"), top))
    gates = convolution(part(weights, "state_gates"), bottom) + convolution(part(weights, "zigzag_gates"), lifted)
    keep, take = np.split(sigmoid(gates), 2)
    return keep * bottom + take * lifted


def decoder_zigzag(weights, dropped, top, ode_state):
    gates = convolution(part(weights, "state_gates"), top) + convolution(part(weights, "zigzag_gates"), dropped)
    if ode_state is not None:
        gates = gates + convolution(part(weights, "ode_gates"), ode_state)
    return top + sigmoid(gates) * dropped


def field(weights, state):
    """The ODE's right-hand side: convolutions with tanh between them."""
    layers = sorted({int(name.split(".")[-2]) for name in weights})
    for number, layer in enumerate(layers):
        own = next(part(weights, name.rsplit(".", 1)[0]) for name in weights if name.split(".")[-2] == str(layer))
        state = convolution(own, state if number == 0 else np.tanh(state))
    return state


def ode_update(weights, before, after, hidden):
    """Equations 4.3 and 4.4, second half."""
    difference = convolution(part(weights, "combine"), np.concatenate([before, after]))
    d_r, d_z, d_m = np.split(convolution(part(weights, "difference_gates"), difference), 3)
    h_r, h_z, h_m = np.split(convolution(part(weights, "state_gates"), hidden), 3)
    reset, keep = sigmoid(h_r + d_r), sigmoid(h_z + d_z)
    return keep * hidden + (1 - keep) * np.tanh(h_m + reset * d_m)


def evolve(weights, side, layer, hidden, elapsed):
    name = f"{side}_evolutions.{layer}.weight"
    if name not in weights:
        return hidden
    return hidden * np.exp(-np.log1p(np.exp(weights[name])) * elapsed)[:, None, None]


def forecast(weights, inputs, input_times, target_times, *, widths, strides, encoder_attention=(),
             decoder_attention=(), window=10, zigzag=False, ode=False):  # fmt: skip
    """Inputs (T, C, H, W) at times (T,) -> frames (S, C, H, W) at times (S,); Euler's step from target to target."""
    _, _, height, width = inputs.shape
    factor = int(np.prod(strides))
    num_layers = len(widths)
    states = [np.zeros((d, height // s, width // s)) for d, s in zip(widths, np.cumprod(strides), strict=True)]
    seen = [[] for _ in widths]  # what comes into each encoder cell, before attention
    history = [[] for _ in widths]  # each layer's states
    for step, frame in enumerate(inputs):
        if zigzag and step:
            states[0] = encoder_zigzag(part(weights, "encoder_zigzag"), states[-1], states[0])
        for layer, stride in enumerate(strides):
            down = part(weights, f"down.{layer}.convolution")
            frame = leaky(convolve(frame, down["weight"], down["bias"], stride=stride, padding=1))
            seen[layer].append(frame)
            if layer in encoder_attention:
                frame = encoding_attention(part(weights, f"encoder_attention.{layer}"), seen[layer], input_times, step)
            if step:
                elapsed = input_times[step] - input_times[step - 1]
                states[layer] = evolve(weights, "encoder", layer, states[layer], elapsed)
            states[layer] = frame = trajgru(part(weights, f"encoder.{layer}"), frame, states[layer])
            history[layer].append(frame)
    foreseen = list(states)
    dropped = leaky(patch_down(part(weights, "decoder_zigzag.bridge"), states[0])) if zigzag else None
    times, last, result = list(input_times), 0.0, []
    for time in target_times:
        times.append(time)
        before = list(foreseen)
        if ode:
            foreseen = [
                state + (time - last) * field(part(weights, f"odes.{layer}"), state)
                for layer, state in enumerate(foreseen)
            ]
        if zigzag:
            ahead = foreseen[-1] if ode else None
            states[-1] = decoder_zigzag(part(weights, "decoder_zigzag"), dropped, states[-1], ahead)
        frame = None
        for layer in reversed(range(num_layers)):
            up = part(weights, f"up.{layer}.convolution")
            states[layer] = evolve(weights, "forecaster", layer, states[layer], time - last)
            states[layer] = trajgru(part(weights, f"forecaster.{layer}"), frame, states[layer])
            if ode:
                update = part(weights, f"ode_updates.{layer}")
                states[layer] = ode_update(update, before[layer], foreseen[layer], states[layer])
            history[layer].append(states[layer])
            upward = states[layer]
            if layer in decoder_attention:
                upward = decoding_attention(part(weights, f"decoder_attention.{layer}"), history[layer], times, window)
            frame = leaky(deconvolve(upward, up["weight"], up.get("bias"), strides[layer]))
            image = leaky(deconvolve(states[layer], up["weight"], up.get("bias"), strides[layer]))
        head = leaky(convolve(image, weights["head.weight"], weights["head.bias"]))
        result.append(convolve(head, weights["output.weight"], weights["output.bias"]))
        if zigzag:
            assert part(weights, "decoder_zigzag.down")["weight"].shape[-1] == factor
            dropped = leaky(patch_down(part(weights, "decoder_zigzag.down"), frame))
        last = time
    return np.stack(result)


def patch_down(weights, frame):
    """Convolution whose kernel is its stride: every square becomes a pixel."""
    return convolution(weights, frame, stride=weights["weight"].shape[-1], padding=0)
