import numpy as np
import pytest
import torch
from surrogate_fixtures import as_network, autograd_kernels, linear_network, random_sequences, smooth_network
from torch import nn
from torch.autograd.function import once_differentiable

from fieldcast.errors import ConfigError, DataError
from fieldcast.explain.optimal_reference import (
    ReferenceLoss,
    SearchSettings,
    Series,
    best_data_sequences,
    optimal_references,
)


def make_series(network, number=40, seed=1, gaps=False):
    inputs = random_sequences(number, seed)
    noise = torch.randn(
        number, len(network.outputs), generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    targets = network(inputs).detach() + 0.1 * noise
    if gaps:
        targets[::5, 0] = torch.nan
    return Series(inputs, targets)


def plain_loss(network, series, reference):
    """Equation 82 as it stands, with a graph: the share of each output's variance."""
    values = network(reference)[0]
    total = 0
    for place, value in enumerate(values):
        (weights,) = torch.autograd.grad(value, reference, create_graph=True)
        known = ~series.targets[:, place].isnan()
        errors = value + ((series.inputs[known] - reference) * weights).flatten(1).sum(1) - series.targets[known, place]
        target = series.targets[known, place]
        total = total + errors.square().sum() / (target - target.mean()).square().sum()
    return total


@pytest.mark.parametrize("gaps", [False, True])
def test_one_hessian_product_gives_the_gradient_of_the_loss(gaps):
    network = smooth_network(strength=2.0)
    series, reference = make_series(network, gaps=gaps), random_sequences(1, 9).requires_grad_()
    expected = plain_loss(network, series, reference)
    (gradient,) = torch.autograd.grad(expected, reference)
    loss, own = ReferenceLoss(network, series)(reference)
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    torch.testing.assert_close(own, gradient, rtol=1e-9, atol=1e-12)


def test_the_gradient_is_that_of_finite_differences():
    network = smooth_network(strength=2.0)
    loss, reference = ReferenceLoss(network, make_series(network)), random_sequences(1, 9)
    direction = random_sequences(1, 10) / 10
    step = 1e-3
    sides = [loss(reference + n * step * direction)[0] for n in (-2, -1, 1, 2)]
    difference = np.dot(sides, [1, -8, 8, -1]) / (12 * step)
    assert (loss(reference)[1] * direction).sum().item() == pytest.approx(difference, rel=1e-9)


class Half(nn.Module):
    """Half the square: its surrogate at s is s x - s^2 / 2."""

    def forward(self, inputs):
        return inputs.square().flatten(1) / 2


def test_it_finds_the_optimum_that_is_known():
    # J(s) = sum_t (s x_t - s^2 / 2 - r_t)^2 is a polynomial of degree four.
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(50, 1, 1, 1, 1, generator=generator, dtype=torch.float64) + 0.5
    x = inputs.flatten()
    targets = (1.3 * x - 0.4 + 0.3 * torch.randn(50, generator=generator, dtype=torch.float64))[:, None]
    surrogates = [np.polynomial.Polynomial([-r, v, -0.5]) for v, r in zip(x.tolist(), targets[:, 0].tolist())]
    loss = sum(one**2 for one in surrogates)
    roots = [root.real for root in loss.deriv().roots() if abs(root.imag) < 1e-9]
    optimum = min(roots, key=loss)
    found = optimal_references(as_network(Half(), 1, (1, 1, 1, 1)), Series(inputs, targets), SearchSettings())
    assert found.sequences.item() == pytest.approx(optimum, abs=1e-4)
    assert found.loss.item() == pytest.approx(
        loss(optimum) / (targets - targets.mean()).square().sum().item(), rel=1e-6
    )


def test_it_comes_back_to_a_reference_that_made_the_targets():
    network, inputs = smooth_network(1, strength=1.0), random_sequences(200)
    offset, weights = autograd_kernels(network, inputs[17:18] + 0.3 * random_sequences(1, 5))
    targets = offset + inputs.flatten(1) @ weights.flatten(1).T
    series = Series(inputs, targets)
    start = best_data_sequences(network, series, SearchSettings())
    found = optimal_references(network, series, SearchSettings(max_iterations=300, tolerance=1e-12))
    assert start.loss > 1e-3
    assert found.loss < 1e-6
    torch.testing.assert_close(found.kernels.weights, weights, rtol=0, atol=0.02 * weights.abs().max().item())


@pytest.mark.parametrize("shared", [False, True])
def test_it_is_never_worse_than_its_start(shared):
    network = smooth_network(strength=3.0)
    series, settings = make_series(network), SearchSettings(shared=shared, max_iterations=10)
    start = best_data_sequences(network, series, settings)
    found = optimal_references(network, series, settings)
    assert len(found.sequences) == (1 if shared else 3)
    assert all(number in (-1, own) for number, own in zip(found.numbers.tolist(), start.numbers.tolist(), strict=True))
    assert found.loss.sum() < start.loss.sum()
    if not shared:
        assert (found.loss <= start.loss).all()
    assert (found.num_gradients > 1).all()


@pytest.mark.parametrize("shared", [False, True])
def test_the_best_data_sequence_is_that_of_a_loop(shared):
    network = smooth_network(strength=3.0)
    series = make_series(network)
    losses = []
    for sequence in series.inputs:
        offset, weights = autograd_kernels(network, sequence[None])
        losses.append((offset + series.inputs.flatten(1) @ weights.flatten(1).T - series.targets).square().sum(0))
    table = torch.stack(losses) / ((series.targets - series.targets.mean(0)) ** 2).sum(0)
    best = best_data_sequences(network, series, SearchSettings(shared=shared))
    if shared:
        assert best.numbers.tolist() == [table.sum(1).argmin().item()]
        torch.testing.assert_close(best.loss, table[best.numbers[0]])
    else:
        assert best.numbers.tolist() == table.argmin(0).tolist()
        torch.testing.assert_close(best.loss, table.min(0).values)
        torch.testing.assert_close(best.sequences, series.inputs[best.numbers])


def test_fewer_candidates_are_spread_over_the_data():
    network = smooth_network()
    best = best_data_sequences(network, make_series(network), SearchSettings(num_candidates=4))
    assert set(best.numbers.tolist()) <= {0, 13, 26, 39}


def test_more_starts_find_no_worse():
    network = smooth_network(1, strength=3.0)
    series = make_series(network)
    losses = [
        optimal_references(network, series, SearchSettings(num_starts=number, max_iterations=15)).loss.item()
        for number in (1, 2, 4)
    ]
    assert losses == sorted(losses, reverse=True)
    assert losses[2] < losses[0]


def test_a_linear_network_has_no_curvature():
    network = linear_network()
    found = optimal_references(network, make_series(network), SearchSettings())
    start = best_data_sequences(network, make_series(network), SearchSettings())
    torch.testing.assert_close(found.kernels.weights, start.kernels.weights)
    assert (found.num_gradients == 41).all()  # at the mean and everywhere the first gradient is zero


class Steep(nn.Module):
    """A network whose gradient is infinite where the first input is 0."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))

    def forward(self, inputs):
        return self.weight * inputs.flatten(1)[:, :1].abs().sqrt()


def test_a_sequence_with_kernels_that_are_not_finite_is_not_the_best():
    network = as_network(Steep(), 1)
    inputs = random_sequences(12)
    inputs[4, 0, 0, 0, 0] = 0
    series = Series(inputs, inputs.flatten(1)[:, :1])
    best = best_data_sequences(network, series, SearchSettings())
    assert best.numbers.tolist() != [4]
    assert best.loss.isfinite().all()


@pytest.mark.parametrize("value", [0.1, torch.nan])
def test_an_output_that_does_not_vary_leaves_the_others_alone(value):
    network = smooth_network()
    series, settings = make_series(network), SearchSettings(max_iterations=5)
    targets = torch.cat([series.targets[:, :2], torch.full((40, 1), value)], 1)
    for shared in (False, True):
        found = optimal_references(
            network, Series(series.inputs, targets), SearchSettings(max_iterations=5, shared=shared)
        )
        assert found.loss.isnan().tolist() == [False, False, True]
        assert found.kernels.weights.isfinite().all()
    alone = optimal_references(network, series, settings)
    apart = optimal_references(network, Series(series.inputs, targets), settings)
    torch.testing.assert_close(apart.loss[:2], alone.loss[:2])


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values):
        ctx.save_for_backward(values)
        return values.square()

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        return 2 * gradient * ctx.saved_tensors[0]


class Handwritten(nn.Module):
    def forward(self, inputs):
        return Once.apply(inputs.flatten(1))[:, :1]


def test_wrong_inputs_are_named():
    network = smooth_network()
    series = make_series(network)
    settings = SearchSettings(max_iterations=2)
    handwritten = as_network(Handwritten(), 1)
    with pytest.raises(ConfigError, match=r"can't be differentiated again .* best data sequence"):
        optimal_references(handwritten, Series(series.inputs, series.targets[:, :1]), settings)
    with pytest.raises(DataError, match=r"targets of shape \(40, 2\).*need \(40, 3\)"):
        optimal_references(network, Series(series.inputs, series.targets[:, :2]), settings)
    with pytest.raises(DataError, match="inputs are missing"):
        best_data_sequences(network, Series(series.inputs * torch.nan, series.targets), settings)
