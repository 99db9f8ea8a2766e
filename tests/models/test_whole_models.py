"""Whole forecasters against a plain reading that goes one sample, time and layer after another."""

import numpy as np
import pytest
import torch
from oracles import models as oracle

from fieldcast.data import Batch
from fieldcast.models import build


def make(key, seed=0, num_channels=1, **settings):
    torch.manual_seed(seed)
    model = build(key, num_channels=num_channels, **settings).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
    return model, {name: value.numpy() for name, value in model.state_dict().items()}


def times(num_inputs, num_steps):
    return torch.arange(1 - num_inputs, 1.0)[None], torch.arange(1, num_steps + 1.0)[None]


@pytest.mark.parametrize(("options", "num_channels"), [
    ({"widths": [3, 2], "patch": 2, "peephole": "channel", "input_kernel": 5, "state_kernel": 3}, 2),
    ({"widths": [2, 3, 2], "patch": 4, "peephole": "none", "input_kernel": 3, "state_kernel": 1}, 1),
    ({"widths": [4], "patch": 1, "peephole": "channel", "input_kernel": 3, "state_kernel": 3}, 1),
])  # fmt: skip
def test_convlstm_is_its_figure(options, num_channels):
    model, weights = make("convlstm", num_channels=num_channels, **options)
    inputs = torch.rand(1, 3, num_channels, 4, 8, dtype=torch.float64)
    with torch.no_grad():
        result = model(inputs, *times(3, 3))
    expected = oracle.shi(weights, inputs[0].numpy(), 3, widths=options["widths"], patch=options["patch"])
    np.testing.assert_allclose(result[0].numpy(), expected, rtol=0, atol=1e-12)


STACKS = [
    ({"widths": [3, 2], "patch": 2, "kernel": 3, "bias": True, "forget_bias": 0.0}, 2),
    ({"widths": [2, 3, 2], "patch": 4, "kernel": 5, "bias": False, "forget_bias": 1.0}, 1),
]


@pytest.mark.parametrize(("options", "num_channels"), STACKS)
@pytest.mark.parametrize("taught", [None, (False, False, False), (True, False, True), (True, True, True)])
def test_convlstm_stack_feeds_its_own_frames_back_or_the_truth(options, num_channels, taught):
    model, weights = make("convlstm-stack", num_channels=num_channels, **options)
    inputs, targets = (torch.rand(1, 3, num_channels, 8, 4, dtype=torch.float64) for _ in range(2))
    input_times, target_times = times(3, 3)
    batch = Batch(inputs, input_times, targets, target_times, torch.ones_like(targets).bool(), torch.zeros(1).long())
    with torch.no_grad():
        if taught is None:
            result, truths = model(inputs, input_times, target_times), {}
        else:
            result = model.forward_train(batch, torch.tensor([taught]))[0]
            truths = {step + 1: targets[0, step].numpy() for step in range(3) if taught[step]}
    settings = {name: options[name] for name in ("widths", "patch", "forget_bias")}
    expected = oracle.stack(weights, inputs[0].numpy(), 3, **settings, truths=truths)
    np.testing.assert_allclose(result[0].numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("key", "options", "num_channels", "plain"), [
    ("convgru", {}, 1, {}),
    ("convgru", {"memory": "leaky", "state_dilation": 2, "coordinates": True, "upsample_bias": False}, 2,
     {"memory": "leaky", "dilation": 2, "coordinates": True}),
    ("convgru", {"strides": [3, 1], "widths": [2, 3]}, 1, {}),
    ("trajgru", {"num_links": 3}, 1, {"links": 3}),
    ("trajgru", {"num_links": 2, "flow_kernel": 5, "flow_width": 4, "memory": "leaky"}, 1,
     {"links": 2, "memory": "leaky"}),
])  # fmt: skip
def test_gru_encoder_forecaster_is_its_figure(key, options, num_channels, plain):
    options = {"widths": [2, 3, 4], "strides": [1, 2, 2], "head_width": 3, **options}
    depth = len(options["widths"])
    settings = {"up_widths": [3, 2, 2][:depth], "down_widths": [2, 2, 3][:depth], **options}
    model, weights = make(key, num_channels=num_channels, **settings)
    height, width = (8, 12) if depth == 3 else (6, 9)
    inputs = torch.rand(1, 2, num_channels, height, width, dtype=torch.float64)
    with torch.no_grad():
        result = model(inputs, *times(2, 2))
    shape = {"widths": options["widths"], "strides": options["strides"]}
    expected = oracle.encoder_forecaster(weights, inputs[0].numpy(), 2, **shape, **plain)
    np.testing.assert_allclose(result[0].numpy(), expected, rtol=0, atol=1e-11)
