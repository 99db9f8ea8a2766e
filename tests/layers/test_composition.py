"""Composition of frames, and which frame is before which, against plain readings."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.cells import sigmoid
from oracles.vid_ode import move

from fieldcast.layers.composition import compose, frames_before
from fieldcast.layers.warp import warp


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (4, 1), (5, 7)])
@pytest.mark.parametrize("scale", [0.3, 3.0, 30.0])
def test_beyond_the_map_stands_its_border(size, scale):
    frames = torch.randn(2, 3, *size, dtype=torch.float64)
    flows = scale * torch.randn(2, 2, 2, *size, dtype=torch.float64)
    result = warp(frames, flows, outside="border")
    for sample in range(2):
        for link in range(2):
            expected = move(frames[sample].numpy(), flows[sample, link].numpy())
            np.testing.assert_allclose(result[sample, :, link].numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(1, 3), (5, 7), (64, 48)])
@pytest.mark.parametrize("outside", ["zeros", "border"])
def test_no_flow_is_the_identity(size, outside):
    frames = torch.rand(2, 3, *size, dtype=torch.float64)
    result = warp(frames, frames.new_zeros(2, 1, 2, *size), outside)[:, :, 0]
    torch.testing.assert_close(result, frames, rtol=0, atol=1e-13)


times = st.lists(st.integers(-6, 6), min_size=1, max_size=5, unique=True).map(sorted)


@settings(max_examples=25, deadline=None)
@given(input_times=times, target_times=times)
def test_the_frame_before_is_the_latest_that_is_known(input_times, target_times):
    before = frames_before(torch.tensor([input_times]), torch.tensor([target_times]))
    # Inputs are named by their places, targets by 100 and theirs.
    inputs = torch.arange(len(input_times))[:, None]
    targets = [torch.tensor([100 + place]) for place in range(len(target_times))]
    for step, found in enumerate(before.each(inputs, targets)):
        known = [(time, 1, place) for place, time in enumerate(input_times) if time <= target_times[step]]
        known += [(time, 0, 100 + place) for place, time in enumerate(target_times[:step]) if time >= input_times[0]]
        assert int(found) == max(known, default=(0, 0, 0))[2]


def test_each_sample_has_its_own_frame_before():
    before = frames_before(torch.tensor([[-2.0, 0.0], [-1.0, 0.0]]), torch.tensor([[-0.5, 1.0, 2.0], [0.25, 0.5, 1.0]]))
    inputs = torch.tensor([[0, 10], [1, 11]])  # (T, B)
    found = before.each(inputs, [torch.tensor([100, 110]), torch.tensor([101, 111]), torch.tensor([102, 112])])
    assert [row.tolist() for row in found] == [[0, 11], [1, 110], [101, 111]]


def test_frames_are_composed_from_the_warped_one_before():
    generator = torch.Generator().manual_seed(2)
    inputs = torch.rand(2, 1, 3, 4, 5, dtype=torch.float64, generator=generator)
    parts = torch.randn(3, 1, 6, 4, 5, dtype=torch.float64, generator=generator)
    before = frames_before(torch.tensor([[-1.0, 0.0]]), torch.tensor([[-0.5, 1.0, 2.0]]))
    frames, differences = compose(inputs, parts, before)
    numbers = parts[:, 0].numpy()
    first = move(inputs[0, 0].numpy(), numbers[0, :2])
    second = move(inputs[1, 0].numpy(), numbers[1, :2])
    third = move(second, numbers[2, :2])
    for step, warped in enumerate((first, second, third)):
        mask = sigmoid(numbers[step, 5:])
        expected = mask * warped + (1 - mask) * numbers[step, 2:5]
        np.testing.assert_allclose(frames[step, 0].numpy(), expected, rtol=0, atol=1e-12)
    assert torch.equal(differences, parts[:, :, 2:5])
