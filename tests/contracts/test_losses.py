"""What every loss in the table does: least for a perfect forecast, sums that add, and no look at masked pixels."""

import pytest
import torch

from fieldcast.losses import LOSSES, LossConfig, counts, weighted_loss

B, S, C, H, W = 3, 2, 1, 13, 14


@pytest.fixture(params=list(LOSSES))
def loss(request):
    return LOSSES[request.param]


@pytest.fixture
def fields():
    """Targets of 0 or 1, where the least cross-entropy is 0 too, and forecasts near them."""
    generator = torch.Generator().manual_seed(2)
    target = (torch.rand(B, S, C, H, W, generator=generator) < 0.4).double()
    predicted = (target - 0.1).abs() + 0.05 * torch.rand(B, S, C, H, W, generator=generator).double()
    valid = torch.ones(B, S, C, H, W, dtype=torch.bool)
    valid[..., -1] = False
    valid[1, 0, 0, 0, :2] = False
    return predicted, target, valid


def test_the_config_has_a_weight_for_it():
    assert {name.replace("-", "_") for name in LOSSES} == set(LossConfig.model_fields)


def test_a_scalar_and_a_count(loss, fields):
    errors, count = loss.errors(*fields), loss.count(fields[2])
    assert errors.shape == ()
    assert errors.dtype == torch.float64
    assert 0 < int(count) <= int(fields[2].sum())


def test_a_perfect_forecast_is_best(loss, fields):
    predicted, target, valid = fields
    far = [float(loss.errors(target + share * (predicted - target), target, valid)) for share in (0.0, 0.3, 1.0)]
    assert far == sorted(far)
    assert far[0] == pytest.approx(0, abs=2e-6 * int(loss.count(valid)))
    assert far[0] < far[1] < far[2]


@pytest.mark.parametrize("filler", [float("nan"), float("inf"), -3.0])
def test_masked_targets_matter_neither_to_the_loss_nor_to_its_gradient(loss, fields, filler):
    predicted, target, valid = fields
    found = []
    for values in (target, torch.where(valid, target, filler)):
        leaf = predicted.clone().requires_grad_()
        errors = loss.errors(leaf, values, valid)
        errors.backward()
        found.append((errors.detach(), leaf.grad))
    torch.testing.assert_close(found[0], found[1])
    assert (found[0][1][~valid] == 0).all()
    assert found[0][1][valid].any()


def test_sums_and_counts_add_over_samples(loss, fields):
    parts = [[field[number : number + 1] for field in fields] for number in range(B)]
    torch.testing.assert_close(sum(loss.errors(*part) for part in parts), loss.errors(*fields))
    assert sum(int(loss.count(part[2])) for part in parts) == int(loss.count(fields[2]))


def test_nothing_valid_is_zero(loss, fields):
    nothing = torch.zeros_like(fields[2])
    assert float(loss.errors(*fields[:2], nothing)) == 0
    assert int(loss.count(nothing)) == 0


@pytest.mark.parametrize("name", list(LOSSES))
def test_one_alone_is_its_mean(name, fields):
    config = LossConfig(**{name.replace("-", "_"): 0.5})
    total, parts = weighted_loss(*fields, config, counts(fields[2], config))
    expected = 0.5 * LOSSES[name].errors(*fields) / LOSSES[name].count(fields[2])
    torch.testing.assert_close(total, expected)
    assert list(parts) == [name]


def test_half_precision_is_widened(loss, fields):
    predicted, target, valid = fields
    errors = loss.errors(predicted.bfloat16(), target.float(), valid)
    assert errors.dtype == torch.float32
