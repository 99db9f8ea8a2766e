"""Latent ODE and the parts it shares with ODE2VAE, against plain readings and torch.distributions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from latent_fixtures import (
    TARGET_TIMES,
    batch_at,
    check_that_a_batch_is_its_samples_alone,
    check_that_the_clock_may_start_anywhere,
    make_latent,
    seen,
    train_a_little,
)
from oracles import latent_ode as oracle
from torch import distributions as laws

from fieldcast.errors import ConfigError, DataError
from fieldcast.evolve import ODE, ODESettings
from fieldcast.layers.frame_codec import FrameDecoder, FrameEncoder, Gaussian
from fieldcast.models import build
from fieldcast.models.latent_ode import follow

SMALL = {
    "widths": [2, 3],
    "grid": 2,
    "latents": 3,
    "features": 4,
    "state_width": 3,
    "gate_width": 5,
    "recognition": {"width": 4, "depth": 0, "solver": "euler", "max_step": 0.4},
    "generation": {"width": 5, "depth": 1, "solver": "rk4", "max_step": 0.7},
}
INPUT_TIMES = torch.tensor([[-3.1, -1.2, 0.0], [-2.0, -1.7, 0.0]], dtype=torch.float64)


def make(seed=0, **options):
    return make_latent("latent-ode", seed, **{**SMALL, **options})


def batch_of(input_times=INPUT_TIMES, **options):
    return batch_at(input_times, **options)


def plain_posterior(weights, batch, sample):
    frames, times = batch.inputs[sample].numpy(), batch.input_times[sample].tolist()
    return oracle.posterior(weights, frames, times, grid=2, recognition=0.4)


def plain_frames(weights, batch, sample, start):
    times = batch.input_times[sample].tolist(), batch.target_times[sample].tolist()
    return oracle.frames_at(weights, start, *times, grid=2, generation=0.7, size=batch.inputs.shape[-2:])


def record_noise(monkeypatch):
    """The numbers that are drawn from now on."""
    drawn, original = [], torch.randn_like

    def draw(tensor):
        drawn.append(original(tensor))
        return drawn[-1]

    monkeypatch.setattr(torch, "randn_like", draw)
    return drawn


def test_the_forecast_is_the_plain_reading_from_the_posterior_mean():
    (model, weights), batch = make(), batch_of()
    with torch.no_grad():
        result = model(*seen(batch))
    for sample in range(2):
        mean, _ = plain_posterior(weights, batch, sample)
        _, expected = plain_frames(weights, batch, sample, mean)
        np.testing.assert_allclose(result[sample].numpy(), expected, rtol=0, atol=1e-12)


def test_a_draw_is_the_plain_reading_from_a_drawn_start(monkeypatch):
    (model, weights), batch = make(1), batch_of()
    noise = record_noise(monkeypatch)
    with torch.no_grad():
        result = model.draw(*seen(batch))
    assert len(noise) == 1
    for sample in range(2):
        mean, std = plain_posterior(weights, batch, sample)
        _, expected = plain_frames(weights, batch, sample, mean + std * noise[0][sample].numpy())
        np.testing.assert_allclose(result[sample].numpy(), expected, rtol=0, atol=1e-12)


def test_loss_and_penalties_are_the_evidence_lower_bound(monkeypatch):
    (model, weights), batch = make(2, observation_std=0.3), batch_of()
    noise = record_noise(monkeypatch)
    frames, penalties = model.train().forward_train(batch)
    loss = (frames - batch.targets).square().mean() + sum(penalties.values())
    bound, constant = 0.0, 0.0
    for sample in range(2):
        mean, std = (torch.from_numpy(value) for value in plain_posterior(weights, batch, sample))
        start = (mean + std * noise[0][sample]).numpy()
        for decoded, truth in zip(
            plain_frames(weights, batch, sample, start), (batch.inputs, batch.targets), strict=True
        ):
            law = laws.Normal(torch.from_numpy(decoded), 0.3)
            bound += law.log_prob(truth[sample]).sum() / 2
            constant += law.log_prob(law.mean).sum() / 2
        bound -= laws.kl_divergence(laws.Normal(mean, std), laws.Normal(0, 1)).sum() / 2
    scale = 2 * 0.3**2 / batch.targets[0].numel()
    torch.testing.assert_close(loss, -scale * (bound - constant), rtol=1e-12, atol=0)


def test_in_evaluation_mode_the_mean_stands_for_the_draw():
    (model, _), batch = make(), batch_of()
    frames, penalties = model.forward_train(batch)
    assert torch.equal(frames, model(*seen(batch)))
    again = model(batch.inputs, batch.input_times, batch.input_times)
    expected = (again - batch.inputs).square().mean() * 3 / 5
    torch.testing.assert_close(penalties["reconstruction"], expected, rtol=1e-6, atol=0)


@given(st.integers(0, 10_000), st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_gaussians_are_those_of_torch(seed, length):
    generator = torch.Generator().manual_seed(seed)
    mean, std, place = torch.randn(3, 4, length, dtype=torch.float64, generator=generator)
    own, law = Gaussian(mean, std.abs() + 0.01), laws.Normal(mean, std.abs() + 0.01)
    torch.testing.assert_close(own.log_density(place), law.log_prob(place).sum(-1))
    torch.testing.assert_close(own.divergence(), laws.kl_divergence(law, laws.Normal(0, 1)).sum(-1))


def test_drawn_vectors_have_the_mean_and_spread_of_their_law():
    torch.manual_seed(0)
    law = Gaussian(torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0]))
    drawn = torch.stack([law.draw() for _ in range(4000)])
    torch.testing.assert_close(drawn.mean(0), law.mean, rtol=0, atol=0.2)
    torch.testing.assert_close(drawn.std(0), law.std, rtol=0.05, atol=0)


@given(st.integers(1, 33), st.integers(1, 33), st.integers(1, 3), st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_frames_of_any_size_become_vectors_and_frames_again(height, width, depth, grid):
    widths = tuple(range(2, 2 + depth))
    size = tuple(side + -side % 2**depth for side in (height, width))
    encoder, decoder = FrameEncoder(2, widths, grid, 5), FrameDecoder(5, widths, grid, 2)
    vectors = encoder(torch.rand(3, 2, *size))
    assert vectors.shape == (3, 5)
    assert decoder(vectors, size).shape == (3, 2, *size)


def test_a_map_of_the_size_of_the_grid_is_read_point_by_point():
    torch.manual_seed(0)
    encoder = FrameEncoder(1, (2, 3), 3, 4)
    frames = torch.rand(2, 1, 12, 12)
    expected = encoder.output(encoder.down(frames).flatten(1))
    torch.testing.assert_close(encoder(frames), expected, rtol=0, atol=1e-6)


def test_linear_motion_is_followed_exactly_both_ways_in_time():
    field = torch.nn.Linear(3, 3, bias=False).double()
    ode = ODE(field, ODESettings(width=1, depth=0, solver="rk4", max_step=0.01))
    start = torch.randn(2, 3, dtype=torch.float64)
    with torch.no_grad():
        result = follow(ode, start, INPUT_TIMES, TARGET_TIMES)
    elapsed = torch.cat([INPUT_TIMES, TARGET_TIMES], dim=1) - INPUT_TIMES[:, :1]
    flow = torch.linalg.matrix_exp(elapsed[..., None, None] * field.weight.detach())
    torch.testing.assert_close(result, (flow @ start[:, None, :, None])[..., 0], rtol=1e-8, atol=1e-8)


def test_a_batch_is_its_samples_alone():
    check_that_a_batch_is_its_samples_alone(make()[0], batch_of(size=(9, 11)))


def test_where_the_clock_starts_changes_nothing():
    check_that_the_clock_may_start_anywhere(make()[0], batch_of())


def test_a_frame_is_the_same_whatever_else_is_asked_for():
    (model, _), batch = make(generation={**SMALL["generation"], "max_step": 0.02}), batch_of()
    with torch.no_grad():
        together = model(*seen(batch))
        for place in range(5):
            alone = model(batch.inputs, batch.input_times, batch.target_times[:, place : place + 1])
            torch.testing.assert_close(together[:, place : place + 1], alone, rtol=0, atol=1e-8)


@pytest.mark.parametrize("place", range(3))
def test_every_input_and_its_time_matter(place):
    (model, _), batch = make(), batch_of()
    before = model(*seen(batch))
    inputs, times = batch.inputs.clone(), batch.input_times.clone()
    inputs[:, place] = 1 - inputs[:, place]
    times[:, place] += 0.1
    assert (model(inputs, *seen(batch)[1:]) - before).abs().amax() > 1e-6
    assert (model(batch.inputs, times, batch.target_times) - before).abs().amax() > 1e-6


def test_draws_repeat_with_the_seed_and_differ_without_it():
    (model, _), batch = make(), batch_of()
    torch.manual_seed(3)
    first, second = model.draw(*seen(batch)), model.draw(*seen(batch))
    torch.manual_seed(3)
    assert torch.equal(first, model.draw(*seen(batch)))
    assert not torch.equal(first, second)


@torch.no_grad()
def test_members_scatter_about_the_forecast_as_far_as_the_posterior_does():
    (model, _), batch = make(), batch_of()[:1]
    members = [tensor.expand(300, *tensor.shape[1:]) for tensor in seen(batch)]
    spreads = []
    for factor in (0.002, 0.004):  # small, so that the model is linear over the draws, but for a kink
        model.head[2].weight[3:], model.head[2].bias[3:] = 0, factor
        torch.manual_seed(0)
        drawn = model.draw(*members)
        spreads.append(drawn.std(dim=0))
        error = drawn.mean(dim=0) - model(*seen(batch))[0]
        assert error.square().mean() < 4 * spreads[-1].square().mean() / 300
    torch.testing.assert_close(spreads[1].mean(), 2 * spreads[0].mean(), rtol=0.05, atol=0)
    assert spreads[0].mean() > 1e-5


def test_a_few_steps_lower_the_loss():
    losses = train_a_little("latent-ode", batch_of(), **SMALL)
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize(("preset", "sizes", "state_width", "std"), [
    ("rubanova2019", [6, 100, 100, 6], 20, 0.01),
    ("rubanova2019-hopper", [15, 300, 300, 300, 300, 15], 30, 0.001),
])  # fmt: skip
def test_presets_have_the_published_sizes(preset, sizes, state_width, std):
    model = build("latent-ode", preset=preset)
    linears = [layer for layer in model.generation.field if isinstance(layer, torch.nn.Linear)]
    assert [linears[0].in_features, *(layer.out_features for layer in linears)] == sizes
    recognition = [layer.in_features for layer in model.recognition.field if isinstance(layer, torch.nn.Linear)]
    assert recognition == [state_width, *sizes[1:-1]]
    assert model.cell.update[0].out_features == 100
    assert model.settings.observation_std == std


@pytest.mark.parametrize(("options", "complaint"), [
    ({"observation_std": 0.0}, "model.observation_std"),
    ({"latents": 0}, "model.latents"),
    ({"widths": []}, "model.widths"),
    ({"generation": {"width": 5}}, "model.generation.depth"),
    ({"latent": 5}, "did you mean 'latents'"),
])  # fmt: skip
def test_wrong_settings_are_named(options, complaint):
    with pytest.raises(ConfigError, match=complaint):
        build("latent-ode", **options)


def test_times_that_stand_still_are_refused():
    (model, _), batch = make(), batch_of()
    with pytest.raises(DataError, match="must ascend"):
        model(batch.inputs, batch.input_times * 0, batch.target_times)
