"""Warping against a plain reading, and what a flow of whole pixels must give."""

import numpy as np
import pytest
import torch
from oracles.cells import sample

from fieldcast.layers.warp import warp

SIZES = [(2, 2), (5, 7), (16, 9), (64, 64), (33, 48)]


def still(frames, num_links=1):
    return frames.new_zeros(len(frames), num_links, 2, *frames.shape[2:])


def rounding(dtype, size):
    """The place of a pixel is known to a few roundings of the map's length."""
    return 4 * max(size) * torch.finfo(dtype).eps


@pytest.mark.parametrize("size", [*SIZES, (480, 480)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_flow_leaves_every_pixel_in_place(size, dtype):
    frames = torch.rand(1, 2, *size, dtype=dtype)
    result = warp(frames, still(frames))[:, :, 0]
    assert result.dtype == dtype
    torch.testing.assert_close(result, frames, rtol=0, atol=rounding(dtype, size))


@pytest.mark.parametrize("autocast", [False, True])
def test_no_flow_leaves_every_pixel_in_place_in_bfloat16(autocast):
    frames = torch.rand(1, 2, 64, 64).bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        result = warp(frames, still(frames).float())[:, :, 0]
    torch.testing.assert_close(result.float(), frames.float(), rtol=0, atol=2**-8)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("right", "down"), [(1, 0), (0, 1), (-1, 2), (3, -2), (100, 0)])
def test_a_flow_of_whole_pixels_moves_the_map_and_zeros_enter(size, right, down):
    frames = torch.rand(2, 3, *size, dtype=torch.float64)
    flows = still(frames)
    flows[:, :, 0], flows[:, :, 1] = right, down
    expected = torch.zeros_like(frames)
    for y in range(size[0]):
        for x in range(size[1]):
            if 0 <= y - down < size[0] and 0 <= x - right < size[1]:
                expected[:, :, y, x] = frames[:, :, y - down, x - right]
    torch.testing.assert_close(warp(frames, flows)[:, :, 0], expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("size", [(2, 2), (5, 7), (8, 3), (11, 10)])
@pytest.mark.parametrize("scale", [0.3, 2.0, 20.0])
def test_any_flow_is_bilinear_sampling(size, scale):
    frames = torch.randn(2, 3, *size, dtype=torch.float64)
    flows = scale * torch.randn(2, 4, 2, *size, dtype=torch.float64)
    result = warp(frames, flows)
    assert result.shape == (2, 3, 4, *size)
    for batch in range(2):
        for link in range(4):
            expected = sample(frames[batch].numpy(), flows[batch, link].numpy())
            np.testing.assert_allclose(result[batch, :, link].numpy(), expected, rtol=0, atol=1e-12)


def test_links_in_one_call_are_each_link_alone():
    frames = torch.randn(2, 3, 12, 9)
    flows = 3 * torch.randn(2, 5, 2, 12, 9)
    together = warp(frames, flows)
    for link in range(5):
        torch.testing.assert_close(together[:, :, link], warp(frames, flows[:, link : link + 1])[:, :, 0])


def test_gradients_are_those_of_finite_differences():
    generator = torch.Generator().manual_seed(3)
    frames = torch.randn(2, 2, 4, 5, dtype=torch.float64, generator=generator, requires_grad=True)
    # Bilinear sampling has a kink at every whole pixel: stay between them, some far outside.
    whole = torch.randint(-2, 3, (2, 3, 2, 4, 5), generator=generator)
    part = 0.2 + 0.6 * torch.rand(whole.shape, dtype=torch.float64, generator=generator)
    flows = (whole + part).requires_grad_()
    assert torch.autograd.gradcheck(warp, (frames, flows))
    warp(frames, flows).square().sum().backward()
    assert frames.grad.abs().amax() > 0
    assert flows.grad.abs().amax() > 0


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_memory_layout_changes_nothing(layout):
    frames, flows = torch.randn(2, 4, 6, 7), torch.randn(2, 3, 2, 6, 7)
    torch.testing.assert_close(warp(frames.contiguous(memory_format=layout), flows), warp(frames, flows))


@pytest.mark.parametrize("size", [(1, 5), (5, 1), (1, 1)])
def test_a_map_one_pixel_wide_follows_the_equation_too(size):
    frames = torch.randn(1, 2, *size, dtype=torch.float64)
    flows = torch.full((1, 1, 2, *size), 0.3, dtype=torch.float64)
    expected = sample(frames[0].numpy(), flows[0, 0].numpy())
    np.testing.assert_allclose(warp(frames, flows)[0, :, 0].numpy(), expected, rtol=0, atol=1e-12)
