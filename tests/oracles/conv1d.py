"""A plain reading of conv1d, one pixel and one step after another, in float64, by the reference convolution.

``weights`` holds the tensors of the model by the names of its state_dict; inputs (T, C, H, W), forecasts (S, C, H, W).
"""

import torch

from fieldcast.layers.convolution import correlate


def next_steps(weights, window, *, activation, num_steps):
    """The steps after a window of one pixel, (C, L) -> (C, P)."""
    maps, layer = window, 0
    while f"layers.{layer}.weight" in weights:
        maps = activation(correlate(maps, weights[f"layers.{layer}.weight"]) + weights[f"layers.{layer}.bias"][:, None])
        layer += 1
    features = maps.reshape(-1)
    if "hidden.weight" in weights:
        features = activation(weights["hidden.weight"] @ features + weights["hidden.bias"])
    return (weights["output.weight"] @ features + weights["output.bias"]).reshape(-1, num_steps)


def forecast(weights, inputs, num_steps, *, window, steps_at_once, activation):
    """Forecasts of steps 1 to S; where they are further ahead than P they are read as inputs."""
    _, channels, height, width = inputs.shape
    out = torch.zeros(num_steps, channels, height, width, dtype=torch.float64)
    for row in range(height):
        for column in range(width):
            known = inputs[:, :, row, column].T
            ahead = 0
            while ahead < num_steps:
                found = next_steps(weights, known[:, -window:], activation=activation, num_steps=steps_at_once)
                known = torch.cat([known, found], dim=1)
                ahead += steps_at_once
            out[:, :, row, column] = known[:, len(inputs) : len(inputs) + num_steps].T
    return out
