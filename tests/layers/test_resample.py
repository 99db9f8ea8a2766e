"""Changes of resolution and their inverses."""

import numpy as np
import pytest
import torch
from oracles.cells import convolve, leaky
from oracles.models import deconvolve, fold, unfold

from fieldcast.layers.resample import Downsample, Upsample, from_patches, pad_to_multiple, to_patches, with_coordinates

STRIDES = [1, 2, 3, 4, 5]


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 4), (16, 5)])
def test_down_divides_the_size_and_up_gives_it_back(stride, rows, columns):
    frames = torch.randn(2, 3, stride * rows, stride * columns)
    low = Downsample(3, 5, stride)(frames)
    assert low.shape == (2, 5, rows, columns)
    assert Upsample(5, 4, stride)(low).shape == (2, 4, stride * rows, stride * columns)


@pytest.mark.parametrize(("stride", "down", "up"), [(1, 3, 3), (2, 3, 4), (3, 5, 5), (5, 7, 7)])
def test_kernels_are_the_published_ones(stride, down, up):
    assert Downsample(1, 1, stride).convolution.kernel_size == (down, down)
    assert Upsample(1, 1, stride).convolution.kernel_size == (up, up)


@pytest.mark.parametrize("stride", STRIDES)
def test_down_and_up_are_plain_convolutions(stride):
    frames = torch.randn(1, 2, 2 * stride, 3 * stride, dtype=torch.float64)
    down, up = Downsample(2, 3, stride).double(), Upsample(3, 2, stride).double()
    weights = [part.detach().numpy() for part in (*down.parameters(), *up.parameters())]
    with torch.no_grad():
        low = down(frames)
        high = up(low)
    expected = leaky(convolve(frames[0].numpy(), *weights[:2], stride=stride, padding=1))
    np.testing.assert_allclose(low[0].numpy(), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(high[0].numpy(), leaky(deconvolve(expected, *weights[2:], stride)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_patches_round_trip(patch):
    frames = torch.randn(2, 3, 8, 12)
    patches = to_patches(frames, patch)
    assert patches.shape == (2, 3 * patch**2, 8 // patch, 12 // patch)
    assert torch.equal(from_patches(patches, patch), frames)
    np.testing.assert_array_equal(patches[1].numpy(), fold(frames[1].numpy(), patch))
    np.testing.assert_array_equal(unfold(patches[1].numpy(), patch), frames[1].numpy())


@pytest.mark.parametrize(("size", "multiple", "padded"), [
    ((13, 17), 4, (16, 20)), ((16, 20), 4, (16, 20)), ((1, 1), 30, (30, 30)), ((5, 6), 1, (5, 6)), ((8, 7), 8, (8, 8)),
])  # fmt: skip
def test_padding_adds_zeros_below_and_to_the_right(size, multiple, padded):
    frames = torch.randn(2, 3, 1, *size)
    result = pad_to_multiple(frames, multiple)
    assert result.shape == (2, 3, 1, *padded)
    assert torch.equal(result[..., : size[0], : size[1]], frames)
    assert result.count_nonzero() == frames.count_nonzero()


def test_coordinates_run_from_minus_one_to_one():
    frames = torch.randn(2, 2, 5, 4, dtype=torch.float64)
    result = with_coordinates(frames)
    assert result.shape == (2, 5, 5, 4)
    assert result.dtype == torch.float64
    assert torch.equal(result[:, :2], frames)
    assert result[1, 2, :, 3].tolist() == [-1, -0.5, 0, 0.5, 1]
    np.testing.assert_allclose(result[0, 3, 2], [-1, -1 / 3, 1 / 3, 1], atol=1e-15)
    assert (result[:, 4] == 1).all()


def test_coordinates_of_a_single_pixel_are_finite():
    assert with_coordinates(torch.zeros(1, 1, 1, 1)).isfinite().all()
