"""A plain reading of Latent ODE, one sample, one time and one pixel after another, in float64.

``weights`` holds the arrays of the model by the names of its state_dict; frames (T, C, H, W), H and W multiples of
what the model needs; times (T,) and (S,).
"""

import math

import numpy as np
from oracles.cells import convolve, leaky, sigmoid
from oracles.models import deconvolve, part


def linear(weights, name, vector):
    return weights[f"{name}.weight"] @ vector + weights[f"{name}.bias"]


def perceptron(weights, vector):
    """Linear layers, tanh after each but the last."""
    places = sorted(int(name.split(".")[0]) for name in weights if name.endswith("weight"))
    for place in places[:-1]:
        vector = np.tanh(linear(weights, str(place), vector))
    return linear(weights, str(places[-1]), vector)


def pooled(frame, grid):
    """Means over boxes, from floor(i H / G) up to ceil((i + 1) H / G)."""
    channels, height, width = frame.shape
    out = np.zeros((channels, grid, grid))
    for i in range(grid):
        for j in range(grid):
            rows = range(i * height // grid, -(-(i + 1) * height // grid))
            columns = range(j * width // grid, -(-(j + 1) * width // grid))
            values = [frame[:, row, column] for row in rows for column in columns]
            out[:, i, j] = sum(values) / len(values)
    return out


def resized(frame, size):
    """Bilinear values at the centres of ``size`` pixels, the border's beyond the outermost centres."""
    channels, height, width = frame.shape
    out = np.zeros((channels, *size))

    def neighbours(place, new, old):
        exact = max((place + 0.5) * old / new - 0.5, 0)
        low = min(int(exact), old - 1)
        return low, min(low + 1, old - 1), exact - low

    for y in range(size[0]):
        top, bottom, down = neighbours(y, size[0], height)
        for x in range(size[1]):
            left, right, across = neighbours(x, size[1], width)
            above = (1 - across) * frame[:, top, left] + across * frame[:, top, right]
            below = (1 - across) * frame[:, bottom, left] + across * frame[:, bottom, right]
            out[:, y, x] = (1 - down) * above + down * below
    return out


def num_layers(weights, name):
    return len([key for key in weights if key.startswith(f"{name}.") and key.endswith("convolution.weight")])


def encode(weights, frame, grid):
    for layer in range(num_layers(weights, "down")):
        own = part(weights, f"down.{layer}.convolution")
        frame = leaky(convolve(frame, own["weight"], own["bias"], stride=2, padding=1))
    return linear(weights, "output", pooled(frame, grid).reshape(-1))


def decode(weights, vector, grid, size):
    layers = num_layers(weights, "up")
    frame = leaky(linear(weights, "input", vector)).reshape(-1, grid, grid)
    frame = resized(frame, [side // 2**layers for side in size])
    for layer in range(layers):
        own = part(weights, f"up.{layer}.convolution")
        frame = leaky(deconvolve(frame, own["weight"], own["bias"], 2))
    return convolve(frame, weights["output.weight"], weights["output.bias"])


def euler(rate, state, step):
    return state + step * rate(state)


def rk4(rate, state, step):
    a = rate(state)
    b = rate(state + step / 2 * a)
    c = rate(state + step / 2 * b)
    d = rate(state + step * c)
    return state + step * (a + 2 * b + 2 * c + d) / 6


def solve(rate, state, start, end, advance, max_step):
    steps = max(1, math.ceil(abs(end - start) / max_step - 1e-3))
    for _ in range(steps):
        state = advance(rate, state, (end - start) / steps)
    return state


def path(rate, first, origin, times, advance, max_step):
    """{time: state}: from ``origin`` through the later times in order, and back through the earlier ones."""
    states = {origin: first}
    later, earlier = ({time for time in times if sign * (time - origin) > 0} for sign in (1, -1))
    for onward in (sorted(later), sorted(earlier, reverse=True)):
        state, now = first, origin
        for time in onward:
            state = solve(rate, state, now, time, advance, max_step)
            states[time], now = state, time
    return states


def gru(weights, features, mean, std):
    joint = np.concatenate([mean, std, features])
    keep, reset = (sigmoid(perceptron(part(weights, name), joint)) for name in ("update", "reset"))
    candidate = perceptron(part(weights, "candidate"), np.concatenate([reset * mean, reset * std, features]))
    width = len(mean)
    mean = keep * mean + (1 - keep) * candidate[:width]
    return mean, keep * std + (1 - keep) * np.abs(candidate[width:])


def posterior(weights, frames, times, *, grid, recognition):
    """Mean and standard deviation of q(z_0)."""
    field = part(weights, "recognition.field")
    width = len(weights["recognition.field.0.weight"][0])
    mean = std = np.zeros(width)
    later = None
    for frame, time in zip(frames[::-1], times[::-1], strict=True):
        if later is not None:
            mean = solve(lambda state: perceptron(field, state), mean, later, time, euler, recognition)
        mean, std = gru(part(weights, "cell"), encode(part(weights, "encoder"), frame, grid), mean, std)
        later = time
    joint = perceptron(part(weights, "head"), np.concatenate([mean, std]))
    latents = len(joint) // 2
    return joint[:latents], np.abs(joint[latents:]) + 1e-6


def frames_at(weights, start, input_times, target_times, *, grid, generation, size):
    """Frames at the inputs' times and at the targets'."""
    field = part(weights, "generation.field")
    everything = [*input_times, *target_times]
    states = path(lambda state: perceptron(field, state), start, input_times[0], everything, rk4, generation)
    frames = [decode(part(weights, "decoder"), states[time], grid, size) for time in everything]
    return np.stack(frames[: len(input_times)]), np.stack(frames[len(input_times) :])
