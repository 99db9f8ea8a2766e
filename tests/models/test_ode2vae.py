"""ODE2VAE against plain readings, autograd and torch.distributions."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from latent_fixtures import (
    TARGET_TIMES,
    batch_at,
    check_that_a_batch_is_its_samples_alone,
    check_that_the_clock_may_start_anywhere,
    make_latent,
    seen,
    train_a_little,
)
from oracles import ode2vae as oracle
from torch import distributions as laws

from fieldcast.errors import ConfigError
from fieldcast.evolve import ODE, ODESettings
from fieldcast.models import build
from fieldcast.models.ode2vae import Motion, MotionDensity, WeightPosterior

SMALL = {
    "widths": [2, 3],
    "grid": 2,
    "latents": 2,
    "velocity_frames": 2,
    "rate": 0.5,
    "encoding_weight": 0.7,
    "observation_std": 0.3,
    "ode": {"width": 4, "depth": 1, "solver": "rk4", "max_step": 0.7},
}
INPUT_TIMES = torch.tensor([[-3.1, -1.2, -0.5, 0.0], [-2.0, -1.7, -0.1, 0.0]], dtype=torch.float64)


def make(seed=0, **options):
    return make_latent("ode2vae", seed, **{**SMALL, **options})


def batch_of(input_times=INPUT_TIMES, **options):
    return batch_at(input_times, **options)


def plain_instant(weights, batch, sample, first=0, velocity_frames=2):
    frames, times = batch.inputs[sample].numpy(), batch.input_times[sample].tolist()
    return oracle.instant(weights, frames, times, first, grid=2, velocity_frames=velocity_frames)


def plain_states(matrices, start, log_density, batch, sample):
    times = batch.input_times[sample].tolist(), batch.target_times[sample].tolist()
    return oracle.states_at(matrices, start, log_density, *times, rate=0.5, max_step=0.7)


def plain_frames(weights, states, batch):
    return oracle.frames_of(weights, states, grid=2, size=batch.inputs.shape[-2:])


def laws_of_weights(model):
    return [(layer[0].detach(), layer[1].detach().exp()) for layer in model.weights.layers]


def drawn_matrices(model, noise, sample):
    return [(mean + std * own[sample]).numpy() for (mean, std), own in zip(laws_of_weights(model), noise, strict=True)]


def record_noise(monkeypatch):
    """The numbers that are drawn from now on."""
    drawn, original = [], torch.randn_like

    def draw(tensor):
        drawn.append(original(tensor))
        return drawn[-1]

    monkeypatch.setattr(torch, "randn_like", draw)
    return drawn


@pytest.mark.parametrize("velocity_frames", [1, 2, 6])
def test_the_forecast_is_the_plain_reading_from_the_means(velocity_frames):
    (model, weights), batch = make(velocity_frames=velocity_frames), batch_of()
    with torch.no_grad():
        result = model(*seen(batch))
    matrices = [mean.numpy() for mean, _ in laws_of_weights(model)]
    for sample in range(2):
        mean, _ = plain_instant(weights, batch, sample, velocity_frames=velocity_frames)
        states = plain_states(matrices, mean, 0.0, batch, sample)[4:, :-1]
        np.testing.assert_allclose(result[sample].numpy(), plain_frames(weights, states, batch), rtol=0, atol=1e-12)


def test_a_draw_is_the_plain_reading_with_drawn_start_and_weights_of_each_sample(monkeypatch):
    (model, weights), batch = make(1), batch_of()
    noise = record_noise(monkeypatch)
    with torch.no_grad():
        result = model.draw(*seen(batch))
    start_noise, *weight_noise = noise
    for sample in range(2):
        mean, std = plain_instant(weights, batch, sample)
        start = mean + std * start_noise[sample, 0].numpy()
        states = plain_states(drawn_matrices(model, weight_noise, sample), start, 0.0, batch, sample)[4:, :-1]
        np.testing.assert_allclose(result[sample].numpy(), plain_frames(weights, states, batch), rtol=0, atol=1e-12)


def test_loss_and_penalties_are_the_penalised_evidence_lower_bound(monkeypatch):
    (model, weights), batch = make(2), batch_of()
    noise = record_noise(monkeypatch)
    frames, penalties = model.train().forward_train(batch)
    loss = (frames - batch.targets).square().mean() + sum(penalties.values())
    start_noise, *weight_noise = noise
    prior, bound, constant = laws.Normal(0, 1), 0.0, 0.0
    for sample in range(2):
        mean, std = plain_instant(weights, batch, sample)
        start = mean + std * start_noise[sample].numpy()
        log_density = laws.Normal(*map(torch.from_numpy, (mean, std))).log_prob(torch.from_numpy(start)).sum().item()
        states = plain_states(drawn_matrices(model, weight_noise, sample), start, log_density, batch, sample)
        law = laws.Normal(torch.from_numpy(plain_frames(weights, states[:, :-1], batch)), 0.3)
        truth = torch.cat([batch.inputs[sample], batch.targets[sample]])
        points, log_densities = torch.from_numpy(states[:, :-1]), torch.from_numpy(states[:, -1])
        bound += law.log_prob(truth).sum() - (log_densities - prior.log_prob(points).sum(1)).sum()
        constant += law.log_prob(law.mean).sum()
        for first in range(3):
            instant = laws.Normal(*map(torch.from_numpy, plain_instant(weights, batch, sample, first)))
            bound -= 0.7 * (log_densities[first] - instant.log_prob(points[first]).sum())
    divergence = sum(laws.kl_divergence(laws.Normal(*law), prior).sum() for law in laws_of_weights(model))
    bound = bound / 2 - 2 / (4 * 5 + 4 * 5 + 2 * 5) * divergence
    scale = 2 * 0.3**2 / batch.targets[0].numel()
    torch.testing.assert_close(loss, -scale * (bound - constant / 2), rtol=1e-11, atol=0)


def test_in_evaluation_mode_the_means_stand_for_the_draws():
    (model, _), batch = make(), batch_of()
    torch.testing.assert_close(model.forward_train(batch)[0], model(*seen(batch)), rtol=0, atol=1e-12)


def test_the_first_frames_own_encoding_costs_nothing():
    # log q(z_0) with its sum of log sigma is what the encoders say of the first window, which is all there is here.
    (model, _), batch = make(velocity_frames=4), batch_of()
    penalties = model.train().forward_train(batch)[1]
    assert abs(penalties["encoding"].item()) < 1e-15
    assert penalties["trajectory"].abs() > 1e-6


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_the_trace_is_autograds(depth):
    torch.manual_seed(0)
    weights = WeightPosterior([6, *[5] * (depth + 1), 3]).double().draw(4)
    motion, states = Motion([10 * weight for weight in weights], 0.5), torch.randn(4, 6, dtype=torch.float64)
    result = motion.trace(motion.accelerate(states)[1])
    for sample in range(4):
        alone = Motion([10 * weight[sample : sample + 1] for weight in weights], 0.5)
        jacobian = torch.autograd.functional.jacobian(lambda state: alone.accelerate(state[None])[0][0], states[sample])  # noqa: B023
        torch.testing.assert_close(result[sample], jacobian[:, 3:].trace(), rtol=1e-12, atol=1e-12)


def test_the_density_is_that_of_the_flow():
    """log q(z_t) = log q(z_0) - log |det d z_t / d z_0|, the determinant by autograd through the solver."""
    torch.manual_seed(0)
    weights = [10 * weight for weight in WeightPosterior([4, 5, 2]).double().mean()]
    motion, settings = Motion(weights, 0.5), ODESettings(width=5, depth=0, solver="rk4", max_step=0.02)
    start, elapsed = torch.randn(1, 4, dtype=torch.float64), torch.tensor([2.5])
    end = ODE(MotionDensity(motion), settings)(torch.cat([start, torch.full((1, 1), 0.7)], dim=1), elapsed)
    flow = torch.autograd.functional.jacobian(lambda state: ODE(motion, settings)(state[None], elapsed)[0], start[0])
    expected = 0.7 - torch.linalg.slogdet(flow).logabsdet
    assert abs(expected - 0.7) > 0.1
    torch.testing.assert_close(end[0, -1], expected, rtol=0, atol=1e-7)


def test_weights_have_their_law():
    torch.manual_seed(0)
    weights = WeightPosterior([3, 4, 2])
    with torch.no_grad():
        for layer in weights.layers:
            layer.copy_(torch.randn_like(layer))
    drawn = torch.cat([matrix.flatten(1) for matrix in weights.draw(4000)], dim=1)
    mean, log_std = torch.cat([layer.detach().flatten(1) for layer in weights.layers], dim=1)
    torch.testing.assert_close(drawn.mean(0) / log_std.exp(), mean / log_std.exp(), rtol=0, atol=0.08)
    torch.testing.assert_close(drawn.std(0), log_std.exp(), rtol=0.06, atol=0)
    expected = laws.kl_divergence(laws.Normal(mean, log_std.exp()), laws.Normal(0, 1)).sum()
    torch.testing.assert_close(weights.divergence(), expected)
    assert weights.num_weights == len(mean) == 4 * 4 + 2 * 5


def test_without_forces_a_position_moves_in_a_straight_line():
    motion = Motion([torch.zeros(1, 2, 5, dtype=torch.float64)], rate=0.25)
    state = torch.randn(2, 4, dtype=torch.float64)
    settings = ODESettings(width=1, depth=0)
    moved = ODE(motion, settings)(state, torch.tensor([3.0, -2.0]))
    distance = 0.25 * torch.tensor([[3.0], [-2.0]]) * state[:, 2:]
    torch.testing.assert_close(moved, torch.cat([state[:, :2] + distance, state[:, 2:]], dim=1))


def test_a_batch_is_its_samples_alone():
    check_that_a_batch_is_its_samples_alone(make()[0], batch_of(size=(9, 11)))


def test_where_the_clock_starts_changes_nothing():
    check_that_the_clock_may_start_anywhere(make()[0], batch_of())


@pytest.mark.parametrize("place", range(4))
def test_the_first_frames_make_the_forecast_and_every_frame_the_bound(place):
    (model, _), batch = make(), batch_of()
    changed = batch.inputs.clone()
    changed[:, place] = 1 - changed[:, place]
    (before, costs), (after, new_costs) = (
        model.forward_train(replace(batch, inputs=inputs)) for inputs in (batch.inputs, changed)
    )
    assert torch.equal(before, after) == (place >= 2)
    assert new_costs["reconstruction"] != costs["reconstruction"]
    assert new_costs["encoding"] != costs["encoding"]


def test_the_times_of_the_first_frames_matter():
    (model, _), batch = make(), batch_of(target_times=TARGET_TIMES[1:].expand(2, -1))
    times = batch.input_times.clone()
    times[:, 1] += 0.1
    assert (model(batch.inputs, times, batch.target_times) - model(*seen(batch))).abs().amax() > 1e-6


def test_draws_repeat_with_the_seed_and_differ_without_it():
    (model, _), batch = make(), batch_of()
    torch.manual_seed(3)
    first, second = model.draw(*seen(batch)), model.draw(*seen(batch))
    torch.manual_seed(3)
    assert torch.equal(first, model.draw(*seen(batch)))
    assert not torch.equal(first, second)


@torch.no_grad()
def test_members_scatter_by_start_and_by_weights():
    (model, _), batch = make(), batch_of()[:1]
    members = [tensor.expand(300, *tensor.shape[1:]) for tensor in seen(batch)]
    encoders, spreads = (model.position_encoder.output, model.velocity_encoder.output), []
    for log_start, log_weight in ((-40, -40), (-40, -6), (-6, -40)):
        for encoder in encoders:
            encoder.weight[2:], encoder.bias[2:] = 0, log_start
        for layer in model.weights.layers:
            layer[1] = log_weight
        torch.manual_seed(0)
        drawn, expected = model.draw(*members), model(*seen(batch))[0]
        spreads.append(drawn.std(dim=0).square().mean())
        assert (drawn.mean(dim=0) - expected).square().mean() <= 4 * spreads[-1] / 300 + 1e-20
    assert spreads[0] < 1e-20 < 1e-9 < min(spreads[1:])


def test_a_few_steps_lower_the_loss():
    losses = train_a_little("ode2vae", batch_of(), **SMALL)
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize(("preset", "sizes", "first_width", "gamma"), [
    ("rotating-mnist", [40, 50, 50, 20], 8, 0.1),
    ("bouncing-balls", [50, 100, 100, 25], 16, 1.0),
])  # fmt: skip
def test_presets_have_the_published_sizes(preset, sizes, first_width, gamma):
    model = build("ode2vae", preset=preset)
    shapes = [tuple(layer.shape) for layer in model.weights.layers]
    assert shapes == [(2, after, before + 1) for before, after in pairwise(sizes)]
    assert model.settings.widths == tuple(first_width * 2**layer for layer in range(4))
    assert model.settings.encoding_weight == gamma
    assert model.settings.velocity_frames == 3
    assert all((layer[1] == math.log(0.01)).all() for layer in model.weights.layers)


@pytest.mark.parametrize(("options", "complaint"), [
    ({"ode": {"width": 5, "depth": 1, "adjoint": True}}, "adjoint finds no gradients of weights that are drawn"),
    ({"rate": 0.0}, "model.rate"),
    ({"velocity_frames": 0}, "model.velocity_frames"),
    ({"encoding_weight": -1.0}, "model.encoding_weight"),
    ({"gamma": 1.0}, "unknown key 'model.gamma'"),
])  # fmt: skip
def test_wrong_settings_are_named(options, complaint):
    with pytest.raises(ConfigError, match=complaint):
        build("ode2vae", **options)
