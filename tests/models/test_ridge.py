"""Ridge regression against least squares, the closed primal form, and cross-validation by refitting."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldcast.models.baselines import ridge as module
from fieldcast.models.baselines.ridge import Blocks, fit_dual, fit_ridge, inner_products


def draw(num_samples=20, num_features=50, num_outputs=3, seed=0):
    """Features far from centred, and targets with a linear part."""
    random = np.random.default_rng(seed)
    features = random.standard_normal((num_samples, num_features)) + 3 * random.random(num_features)
    targets = features[:, :num_outputs] + random.standard_normal((num_samples, num_outputs)) + 7
    return features, targets


def fit(features, targets, **options):
    if "valid" in options:
        options["valid"] = torch.from_numpy(options["valid"])
    return fit_ridge(torch.from_numpy(features), torch.from_numpy(targets), **options)


def primal(features, targets, penalty):
    """(X'X + penalty) w = X'y of the centred, one output."""
    centred, middle = features - features.mean(0), targets.mean()
    weights = np.linalg.solve(centred.T @ centred + penalty * np.eye(features.shape[1]), centred.T @ (targets - middle))
    return weights, middle - features.mean(0) @ weights


def scale(features):
    return ((features - features.mean(0)) ** 2).sum(1).mean()


@pytest.mark.parametrize("num_features", [30, 60])
def test_without_a_penalty_it_is_least_squares(num_features):
    """Of many features the solution of the least norm, with the intercept free: that of the centred problem."""
    features, targets = draw(num_features=num_features)
    result = fit(features, targets, shares=(1e-9,))
    middle = features.mean(0)
    expected = np.linalg.lstsq(features - middle, targets - targets.mean(0), rcond=None)[0]
    np.testing.assert_allclose(result.weights, expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(result.intercepts, targets.mean(0) - middle @ expected, rtol=0, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    num_samples=st.integers(2, 15),
    num_features=st.integers(1, 30),
    share=st.sampled_from([1e-4, 0.1, 1, 100]),
)
def test_it_is_the_closed_primal_form(seed, num_samples, num_features, share):
    features, targets = draw(num_samples, num_features, min(num_features, 2), seed)
    result = fit(features, targets, shares=(share,))
    for output in range(targets.shape[1]):
        assert float(result.penalties[output]) == pytest.approx(share * scale(features))
        weights, intercept = primal(features, targets[:, output], share * scale(features))
        np.testing.assert_allclose(result.weights[:, output], weights, rtol=0, atol=1e-9)
        assert float(result.intercepts[output]) == pytest.approx(intercept, abs=1e-8)


def test_each_output_is_fitted_to_its_own_samples():
    features, targets = draw(num_outputs=4)
    valid = np.random.default_rng(1).random(targets.shape) > 0.3
    valid[:, 3] = valid[:, 0]  # two outputs that are solved together
    result = fit(features, np.where(valid, targets, 1e9), valid=valid, shares=(0.1,))
    for output in range(4):
        own = valid[:, output]
        weights, intercept = primal(features[own], targets[own, output], 0.1 * scale(features[own]))
        np.testing.assert_allclose(result.weights[:, output], weights, rtol=0, atol=1e-10)
        assert float(result.intercepts[output]) == pytest.approx(intercept, abs=1e-9)


def held_out_errors(features, targets, own, share, blocks):
    """Squared error of blocks, each guessed by a fit to what is left of the output's own samples; one output."""
    total, num_samples = 0.0, len(features)
    penalty = share * scale(features[own])
    for number in range(blocks.num_blocks):
        first, stop = (num_samples * end // blocks.num_blocks for end in (number, number + 1))
        place = np.arange(num_samples)
        near = (place >= first - blocks.gap) & (place < stop + blocks.gap)
        scored, kept = own & (place >= first) & (place < stop), own & ~near
        if scored.any() and kept.any():
            weights, intercept = primal(features[kept], targets[kept], penalty)
            total += ((targets[scored] - features[scored] @ weights - intercept) ** 2).sum()
    return total


@pytest.mark.parametrize("blocks", [Blocks(4, 0), Blocks(3, 2), Blocks(5, 1)])
@pytest.mark.parametrize("num_features", [8, 60])
def test_the_penalty_is_that_of_cross_validation_by_refitting(blocks, num_features):
    features, targets = draw(23, num_features, 6)
    targets += 2 * np.random.default_rng(9).standard_normal(targets.shape) * np.arange(6)
    valid = np.random.default_rng(2).random(targets.shape) > 0.2
    valid[:, :2] = True
    shares = (100.0, 10.0, 1.0, 0.1, 0.01)
    result = fit(features, targets, valid=valid, shares=shares, blocks=blocks)
    chosen = set()
    for output in range(6):
        own = valid[:, output]
        errors = [held_out_errors(features, targets[:, output], own, share, blocks) for share in shares]
        best = shares[int(np.argmin(errors))]
        assert float(result.penalties[output]) == pytest.approx(best * scale(features[own]))
        chosen.add(best)
    assert len(chosen) > 1, "the test tells penalties apart"


def test_overlapping_samples_need_the_gap():
    """Neighbours that are nearly copies reward no penalty at all, though there is nothing to learn."""
    random = np.random.default_rng(4)
    slow = np.repeat(random.standard_normal((12, 40)), 10, axis=0)
    features = slow + 0.01 * random.standard_normal(slow.shape)
    targets = np.repeat(random.standard_normal((12, 1)), 10, axis=0)
    alone, apart = (
        float(fit(features, targets, blocks=blocks).penalties[0]) for blocks in (Blocks(120, 0), Blocks(12, 5))
    )
    assert apart > 100 * alone


def test_samples_that_are_alike_and_outputs_that_are_hardly_known():
    features, targets = np.ones((6, 4)), np.arange(18.0).reshape(6, 3)
    valid = np.zeros((6, 3), dtype=bool)
    valid[:, 0] = valid[2, 1] = True
    result = fit(features, targets, valid=valid)
    np.testing.assert_allclose(result.weights, np.zeros((4, 3)), rtol=0, atol=1e-9)
    np.testing.assert_allclose(result.intercepts, [targets[:, 0].mean(), targets[2, 1], 0], rtol=0, atol=1e-9)


def test_features_that_come_in_pieces_and_in_float32(monkeypatch):
    features, targets = draw(num_features=30)
    features = features.astype(np.float32)
    whole = fit(features.astype(np.float64), targets, shares=(0.1,))
    monkeypatch.setattr(module, "FEATURES_AT_ONCE", 7)
    pieces = fit(features, targets, shares=(0.1,))
    for part, expected in zip(pieces, whole, strict=True):
        torch.testing.assert_close(part, expected, rtol=0, atol=1e-10)


def test_the_dual_form_forecasts_as_the_weights_do():
    features, targets = draw()
    inputs, known = torch.from_numpy(features), torch.ones(targets.shape, dtype=torch.bool)
    dual = fit_dual(inner_products(inputs), torch.from_numpy(targets), known, shares=(0.1,))
    other = torch.from_numpy(draw(seed=5)[0])
    by_samples = other @ inputs.T @ dual.coefficients + dual.intercepts
    straight = fit(features, targets, shares=(0.1,))
    torch.testing.assert_close(by_samples, other @ straight.weights + straight.intercepts, rtol=0, atol=1e-9)
