import numpy as np
import pytest
import torch
from surrogate_fixtures import SHAPE, random_sequences, smooth_network

from fieldcast.explain.least_squares import least_squares_bound, num_overlapping, ridge_surrogate
from fieldcast.explain.optimal_reference import (
    SearchSettings,
    Series,
    best_data_sequences,
    optimal_references,
    predict,
    unexplained,
)


def low_rank(number, rank, seed=3):
    """Sequences that span a few dimensions, with fields of very different size."""
    size = torch.Size(SHAPE).numel()
    parts = torch.randn(number, rank, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    basis = torch.randn(rank, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64) / rank**0.5
    fields = (parts @ basis).view(number, *SHAPE)
    return fields * torch.tensor([1.0, 1e-3])[:, None, None] + torch.tensor([280.0, 0.0])[:, None, None]


def targets_of(inputs, seed=0):
    network = smooth_network(strength=2.0)
    noise = torch.randn(len(inputs), 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return network(inputs - torch.tensor([280.0, 0.0])[:, None, None]).detach() + 0.1 * noise


def test_the_bound_is_that_of_ordinary_least_squares():
    inputs = low_rank(60, 12)
    targets = targets_of(inputs)
    targets[:20, 1] = torch.nan
    bound = least_squares_bound(Series(inputs, targets))
    for place, target in enumerate(targets.T.numpy()):
        known = ~np.isnan(target)
        level, size = (torch.tensor(pair, dtype=torch.float64)[:, None, None] for pair in ([280, 0], [1, 1e-3]))
        design = np.column_stack([np.ones(known.sum()), ((inputs - level) / size).flatten(1).numpy()[known]])
        fitted = design @ np.linalg.pinv(design, rcond=1e-9) @ target[known]
        share = ((target[known] - fitted) ** 2).sum() / ((target[known] - target[known].mean()) ** 2).sum()
        assert bound.loss[place].item() == pytest.approx(share, rel=1e-8)
    assert bound.ranks.tolist() == [12, 12, 12]
    assert bound.informative.all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_says_where_it_says_nothing(dtype):
    inputs = low_rank(20, 40).to(dtype)
    bound = least_squares_bound(Series(inputs, targets_of(inputs.double())))
    assert bound.loss.tolist() == [0, 0, 0]
    assert bound.ranks.tolist() == [19, 19, 19]
    assert not bound.informative.any()
    assert least_squares_bound(Series(low_rank(60, 12).to(dtype), targets_of(low_rank(60, 12)))).informative.all()


def test_it_is_not_defined_where_nothing_varies():
    inputs = low_rank(30, 12)
    targets = targets_of(inputs)
    targets[:, 0], targets[:, 1] = 0.1, torch.nan
    bound = least_squares_bound(Series(inputs, targets))
    assert bound.loss.isnan().tolist() == [True, True, False]
    assert bound.informative.tolist() == [False, False, True]


def test_no_reference_falls_below_it():
    network, inputs = smooth_network(strength=2.0), random_sequences(200)
    series = Series(inputs, network(inputs).detach())
    bound = least_squares_bound(series)
    assert bound.informative.all()
    for references in (best_data_sequences, optimal_references):
        found = references(network, series, SearchSettings(num_candidates=5, max_iterations=20))
        assert (found.loss > bound.loss).all()


def test_ridge_is_that_of_the_normal_equations():
    inputs = low_rank(60, 40)
    targets = targets_of(inputs)
    known = torch.ones(60, dtype=torch.bool)
    known[::7] = False
    targets[~known, 1] = torch.nan
    surrogate = ridge_surrogate(Series(inputs, targets), 5)
    anomalies = inputs - inputs.mean((0, 1, 3, 4), keepdim=True)
    scale = anomalies.square().mean((0, 1, 3, 4)).sqrt()[:, None, None]
    rows = ((inputs - inputs.mean(0)) / scale).flatten(1)[known]
    centred, target = rows - rows.mean(0), targets[known, 1] - targets[known, 1].mean()
    weights = surrogate.weights[1].mul(scale).flatten()
    # Whatever the penalty is, the gradient of the squares is the same multiple of every weight.
    pull = centred.T @ (target - centred @ weights)
    penalty = (pull @ weights) / (weights @ weights)
    assert penalty > 0
    torch.testing.assert_close(pull, penalty * weights, rtol=0, atol=1e-7 * pull.abs().max().item())
    fitted = predict(surrogate, inputs)[known, 1]
    assert fitted.mean().item() == pytest.approx(targets[known, 1].mean().item(), rel=1e-9)
    torch.testing.assert_close(surrogate.predict(inputs.mean(0)[None])[0], surrogate.value, rtol=0, atol=1e-9)


def test_ridge_is_judged_on_other_sequences():
    inputs, others = low_rank(80, 60), low_rank(80, 60, seed=8)
    weights = torch.randn(2, torch.Size(SHAPE).numel(), generator=torch.Generator().manual_seed(5)).double()
    truth = [(one - 280 * torch.tensor([1.0, 0.0])[:, None, None]).flatten(1) @ weights.T for one in (inputs, others)]
    noise = torch.randn(80, 2, generator=torch.Generator().manual_seed(6)).double() * truth[0].std()
    series, held_out = Series(inputs, truth[0] + noise), Series(others, truth[1])
    chosen = ridge_surrogate(series, 5)
    ordinary = torch.linalg.pinv(inputs.flatten(1) - inputs.flatten(1).mean(0)) @ (
        series.targets - series.targets.mean(0)
    )
    plain = (others.flatten(1) - inputs.flatten(1).mean(0)) @ ordinary + series.targets.mean(0)
    assert (unexplained(chosen, held_out) < (plain - truth[1]).square().sum(0)).all()


@pytest.mark.parametrize(("stride", "expected"), [(1, 2), (2, 1), (3, 0)])
def test_sequences_that_share_frames_are_found(stride, expected):
    frames = random_sequences(1, 2, (20, 2, 4, 5))[0]
    assert num_overlapping(frames.unfold(0, 3, stride).movedim(-1, 1)) == expected


def test_a_penalty_is_not_chosen_by_sequences_that_share_frames():
    # What is to be found is noise that lasts as long as a sequence: of neighbours alone it could be guessed.
    frames = random_sequences(1, 2, (122, 2, 4, 5))[0]
    inputs = frames.unfold(0, 3, 1).movedim(-1, 1)
    noise = torch.randn(122, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    targets = noise.unfold(0, 3, 1).sum(1, keepdim=True)
    surrogate = ridge_surrogate(Series(inputs, targets), 60)
    apart = ridge_surrogate(Series(inputs + 1e-9 * random_sequences(120), targets), 60)  # not seen to share any
    assert predict(surrogate, inputs).std() < 0.1 * targets.std()
    assert predict(apart, inputs).std() > predict(surrogate, inputs).std()
