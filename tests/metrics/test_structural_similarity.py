"""Structural similarity against scikit-image, and its masks and gradients."""

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity as reference

from fieldcast.metrics.structural_similarity import luminance_and_structure, structural_similarity, valid_windows

OPTIONS = {
    "gaussian": {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False},
    "uniform": {},
}
WIDTHS = {"gaussian": 11, "uniform": 7}
SHAPES = [(11, 11), (11, 64), (40, 23), (64, 64), (130, 76)]

windows = pytest.mark.parametrize("window", OPTIONS)


def noise(generator, shape):
    return generator.random((2, *shape)), 1.0


def squares(generator, shape):
    frames = np.zeros((2, *shape))
    for frame in frames:
        for _ in range(3):
            row, column = generator.integers(0, shape[0] - 8), generator.integers(0, shape[1] - 8)
            frame[row : row + 14, column : column + 20] = 1
    return frames, 1.0


def kelvin(generator, shape):
    return 280 + 10 * generator.random((2, *shape)), 50.0


def rain(generator, shape):
    return generator.gamma(0.1, 20, (2, *shape)), 60.0


def flat(generator, shape):
    return np.array([0.7, 0.3])[:, None, None] * np.ones(shape), 1.0


@windows
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fields", [noise, squares, kelvin, rain, flat])
def test_mean_is_scikit_images(fields, shape, dtype, window):
    values, data_range = fields(np.random.default_rng(0), shape)
    frames = torch.tensor(values, dtype=dtype)
    expected = reference(*frames.double().numpy(), data_range=data_range, **OPTIONS[window])
    result = structural_similarity(*frames, data_range, window)
    assert result.dtype == dtype
    assert result.shape == tuple(size - WIDTHS[window] + 1 for size in shape)
    assert result.double().mean().item() == pytest.approx(expected, abs=1e-6 if dtype == torch.float32 else 1e-11)


@windows
@pytest.mark.parametrize("shape", [(24, 30), (130, 76)])
def test_map_is_scikit_images_at_every_position(shape, window):
    values, data_range = noise(np.random.default_rng(1), shape)
    _, expected = reference(*values, data_range=data_range, full=True, **OPTIONS[window])
    edge = WIDTHS[window] // 2
    result = structural_similarity(*torch.tensor(values), data_range, window)
    np.testing.assert_allclose(result, expected[edge:-edge, edge:-edge], atol=1e-12)


@windows
def test_float32_holds_where_flat_halves_differ_by_the_whole_range(window):
    """The hardest frames for float32: large flat areas far from the mean. scikit-image in float64 is the oracle."""
    frames = torch.zeros(2, 64, 64)
    frames[0, :, :32] = 1
    frames[1, :21] = 1
    expected = reference(*frames.double().numpy(), data_range=1.0, **OPTIONS[window])
    assert structural_similarity(*frames, 1.0, window).mean().item() == pytest.approx(expected, abs=2e-5)


@windows
def test_equal_frames_have_exactly_one(window):
    frames = 300 + torch.rand(2, 3, 20, 24)
    assert (structural_similarity(frames, frames, 1.0, window) == 1).all()


@windows
def test_frames_of_a_batch_do_not_mix(window):
    predicted, observed = torch.rand(2, 2, 3, 16, 18, dtype=torch.float64)
    together = structural_similarity(predicted, observed, 1.0, window)
    alone = structural_similarity(predicted[1, 2], observed[1, 2], 1.0, window)
    torch.testing.assert_close(together[1, 2], alone)


@windows
def test_gradient(window):
    predicted, observed = torch.rand(2, 12, 13, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    predicted.requires_grad_()
    observed.requires_grad_()
    frames = (predicted, observed)
    assert torch.autograd.gradcheck(lambda *pair: structural_similarity(*pair, 1.0, window), frames, fast_mode=True)


def test_gradient_across_tiles():
    predicted, observed = torch.rand(2, 90, 13, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    predicted.requires_grad_()
    direction = torch.rand_like(observed)
    structural_similarity(predicted, observed, 1.0).sum().backward()
    step = 1e-6 * direction
    with torch.no_grad():
        upper, lower = (structural_similarity(predicted + s, observed, 1.0).sum() for s in (step, -step))
    assert (predicted.grad * direction).sum().item() == pytest.approx((upper - lower).item() / 2e-6, rel=1e-6)


def test_low_precision_products_do_not_reach_it():
    frames = torch.rand(2, 20, 20)
    expected = structural_similarity(*frames, 1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(structural_similarity(*frames, 1.0), expected)
    before = torch.backends.mkldnn.matmul.fp32_precision
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    try:
        torch.testing.assert_close(structural_similarity(*frames, 1.0), expected, atol=1e-5, rtol=0)
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before
    assert structural_similarity(*frames.half(), 1.0).dtype == torch.float32


@windows
@pytest.mark.parametrize("shape", [(11, 11), (30, 25), (90, 140)])
def test_valid_windows_have_no_missing_pixel(shape, window):
    valid = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0)) > 0.01
    width = WIDTHS[window]
    expected = valid.unfold(-2, width, 1).unfold(-2, width, 1).flatten(-2).all(-1)
    assert torch.equal(valid_windows(valid, window), expected)


@windows
def test_frames_smaller_than_the_window_are_refused(window):
    width = WIDTHS[window]
    small = torch.ones(2, width, width - 1)
    with pytest.raises(ValueError, match=f"{width} x {width} pixels"):
        structural_similarity(small, small, 1.0, window)
    with pytest.raises(ValueError, match=f"{width} x {width} pixels"):
        valid_windows(small.bool(), window)


def test_other_bad_input_is_refused():
    frames = torch.ones(12, 12)
    with pytest.raises(ValueError, match="data_range = 0"):
        structural_similarity(frames, frames, 0.0)
    with pytest.raises(ValueError, match="unknown window 'gausian': did you mean 'gaussian'"):
        structural_similarity(frames, frames, 1.0, "gausian")
    with pytest.raises(ValueError, match=r"shapes \(12, 12\) and \(12, 11\)"):
        structural_similarity(frames, frames[:, :11], 1.0)


@windows
@pytest.mark.parametrize("shape", [(24, 30), (130, 76)])
def test_similarity_is_luminance_times_structure(shape, window):
    """Structure does not see a shift; where only a shift differs, luminance is all there is."""
    values, data_range = noise(np.random.default_rng(2), shape)
    predicted, observed = torch.tensor(values)
    luminance, structure = luminance_and_structure(predicted, observed, data_range, window)
    torch.testing.assert_close(luminance * structure, structural_similarity(predicted, observed, data_range, window))
    shifted, same = luminance_and_structure(predicted + 0.5, observed, data_range, window)
    torch.testing.assert_close(same, structure, atol=1e-11, rtol=0)
    assert (shifted < luminance).any()
    luminance, structure = luminance_and_structure(observed + 0.5, observed, data_range, window)
    torch.testing.assert_close(structure, torch.ones_like(structure), atol=1e-11, rtol=0)
    torch.testing.assert_close(luminance, structural_similarity(observed + 0.5, observed, data_range, window))
