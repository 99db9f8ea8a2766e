"""Losses against plain numpy in float64, their gradients, and how parts of a batch add."""

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from skimage.metrics import structural_similarity

from fieldcast.errors import ConfigError
from fieldcast.losses import LOSSES, LossConfig, counts, weighted_loss
from fieldcast.settings import read_settings

THESIS = LossConfig(mse=1.0, mae=1.0, ssim=0.05)
EVERYTHING = LossConfig(mse=1.0, mae=0.5, ssim=0.05, cross_entropy=0.2)
SHAPE = (4, 2, 1, 14, 15)

losses = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())


def fields(share_missing=0.01, shape=SHAPE, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    predicted, target = torch.rand(2, *shape, generator=generator, dtype=dtype) * 0.98 + 0.01
    valid = torch.rand(shape, generator=generator) >= share_missing
    return predicted.requires_grad_(), target.masked_fill(~valid, torch.nan), valid


def similarity_map(predicted, target):
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    return structural_similarity(predicted, target, full=True, **options)[1][5:-5, 5:-5]


def plain_errors(name, predicted, target, valid):
    """Sum and number in float64, by loops or numpy's own masked sums."""
    predicted, target = (np.where(valid, field.detach().double(), 0) for field in (predicted, target))
    if name == "ssim":
        errors, number = 0.0, 0
        for frame in np.ndindex(predicted.shape[:3]):
            dissimilarity = 1 - similarity_map(predicted[frame], target[frame])
            for row, column in np.ndindex(dissimilarity.shape):
                if valid[frame][row : row + 11, column : column + 11].all():
                    errors, number = errors + dissimilarity[row, column], number + 1
        return errors, number
    predicted, target = predicted[valid], target[valid]
    terms = {
        "mse": lambda: (predicted - target) ** 2,
        "mae": lambda: np.abs(predicted - target),
        "cross-entropy": lambda: -target * np.log(predicted) - (1 - target) * np.log(1 - predicted),
    }
    return terms[name]().sum(), len(target)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("share_missing", [0.0, 0.01])
def test_errors_and_counts_are_plain_numpys(name, share_missing):
    predicted, target, valid = fields(share_missing)
    expected, number = plain_errors(name, predicted, target, valid)
    errors = LOSSES[name].errors(predicted, target, valid)
    assert errors.dtype == torch.float32
    assert errors.item() == pytest.approx(expected, rel=2e-6)
    assert LOSSES[name].count(valid).item() == number


def test_the_thesis_loss_is_the_sum_of_means():
    predicted, target, valid = fields(share_missing=0.0)
    loss, parts = weighted_loss(predicted, target, valid, THESIS, counts(valid, THESIS))
    error = (predicted - target).detach().double()
    pairs = zip(predicted.detach().flatten(0, 2).double(), target.flatten(0, 2).double(), strict=True)
    dissimilarity = 1 - np.mean([similarity_map(*map(np.asarray, pair)) for pair in pairs])
    expected = error.square().mean() + error.abs().mean() + 0.05 * dissimilarity
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert set(parts) == {"mse", "mae", "ssim"}
    assert parts["ssim"].item() == pytest.approx(0.05 * dissimilarity, rel=1e-6)
    assert sum(parts.values()).item() == pytest.approx(loss.item(), rel=1e-6)
    assert not any(part.requires_grad for part in parts.values())


@losses
def test_gradient(loss):
    predicted, target, valid = fields(share_missing=0.004, shape=(1, 1, 1, 12, 13), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda field: loss.errors(field, target, valid), predicted)


@losses
def test_masked_nan_leaves_the_gradient_finite_and_zero_there(loss):
    predicted, target, valid = fields()
    assert target.isnan().any()
    loss.errors(predicted, target, valid).backward()
    assert predicted.grad.isfinite().all()
    assert (predicted.grad[~valid] == 0).all()
    assert (predicted.grad[valid] != 0).any()


@losses
def test_masked_predictions_and_targets_do_not_matter(loss):
    predicted, target, valid = fields()
    other = torch.where(valid, predicted, torch.inf)
    assert loss.errors(other, target.nan_to_num(7.0), valid) == loss.errors(predicted, target, valid)


def gradient(predicted, target, valid, global_counts):
    predicted = predicted.detach().requires_grad_()
    loss, parts = weighted_loss(predicted, target, valid, EVERYTHING, global_counts)
    loss.backward()
    return loss.detach(), parts, predicted.grad


def test_halves_with_global_counts_add_to_the_whole():
    predicted, target, valid = fields(share_missing=0.01)
    valid[:2, :, :, :5] = False
    halves = [(predicted[part], target[part], valid[part]) for part in (slice(0, 2), slice(2, 4))]
    own_counts = [counts(half[2], EVERYTHING) for half in halves]
    global_counts = {name: own_counts[0][name] + own_counts[1][name] for name in own_counts[0]}
    assert global_counts == counts(valid, EVERYTHING)
    assert own_counts[0]["mse"] != own_counts[1]["mse"]
    whole_loss, whole_parts, whole_gradient = gradient(predicted, target, valid, global_counts)
    results = [gradient(*half, global_counts) for half in halves]
    torch.testing.assert_close(sum(result[0] for result in results), whole_loss)
    for name, part in whole_parts.items():
        torch.testing.assert_close(sum(result[1][name] for result in results), part)
    torch.testing.assert_close(torch.cat([result[2] for result in results]), whole_gradient)


def test_counts_of_any_dtype_leave_the_loss_in_float32():
    predicted, target, valid = fields()
    own = counts(valid, EVERYTHING)
    wide = {name: number.double() for name, number in own.items()}
    results = [weighted_loss(predicted, target, valid, EVERYTHING, numbers)[0] for numbers in (own, wide)]
    assert results[0].dtype == results[1].dtype == torch.float32
    assert results[0] == results[1]


def test_nothing_valid_is_no_loss_and_no_gradient():
    predicted, target, valid = fields()
    valid[:] = False
    loss, _, grown = gradient(predicted, target, valid, counts(valid, EVERYTHING))
    assert loss == 0
    assert (grown == 0).all()


def test_autocast_and_bfloat16_predictions_are_summed_in_float32():
    predicted, target, valid = fields()
    low = predicted.detach().bfloat16()
    for loss in LOSSES.values():
        expected = loss.errors(low.float(), target, valid)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            errors = loss.errors(low, target, valid)
        assert errors.dtype == torch.float32
        assert errors == expected


def test_certain_predictions_have_finite_cross_entropy():
    predicted, target = torch.tensor([[[[[0.0, 1.0, 0.0, 1.0]]]]]), torch.tensor([[[[[0.0, 1.0, 1.0, 0.0]]]]])
    errors = LOSSES["cross-entropy"].errors(predicted, target, torch.ones_like(target, dtype=torch.bool))
    assert errors.item() == pytest.approx(-2 * math.log(1e-6), rel=5e-3)


def test_small_frames_are_refused_by_ssim_only():
    predicted, target, valid = fields(shape=(1, 1, 1, 10, 12))
    LOSSES["mse"].errors(predicted, target, valid)
    for refuse in (lambda: counts(valid, THESIS), lambda: LOSSES["ssim"].errors(predicted, target, valid)):
        with pytest.raises(ValueError, match=r"frames of shape \(10, 12\).* 11 x 11 pixels"):
            refuse()


def test_config_has_the_weights_above_zero():
    assert THESIS.weights() == {"mse": 1.0, "mae": 1.0, "ssim": 0.05}
    assert LossConfig(cross_entropy=1).weights() == {"cross-entropy": 1.0}
    assert {name.replace("-", "_") for name in LOSSES} == set(LossConfig.model_fields)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "'loss': every weight is 0; set at least one of mse, mae, ssim, cross_entropy above 0"),
        ({"mse": -1.0}, "'loss.mse' = -1.0: input should be greater than or equal to 0"),
        ({"mse": 1.0, "sim": 0.05}, "unknown key 'loss.sim': did you mean 'ssim'"),
        ({"mse": "1"}, "'loss.mse' = '1': input should be a valid number"),
    ],
)
def test_bad_config_is_refused(values, message):
    with pytest.raises(ConfigError) as caught:
        read_settings(LossConfig, values, "loss")
    assert message in str(caught.value)


def test_config_is_frozen():
    with pytest.raises(ValidationError):
        THESIS.mse = 2.0
