"""Vid-ODE against a plain reading, its published count, and what its training may and may not touch."""

import numpy as np
import pytest
import torch
from oracles.vid_ode import vid_ode
from torch import nn

from fieldcast.data import Batch
from fieldcast.errors import ConfigError, DataError
from fieldcast.models import build, count_parameters

ODES = {
    "encoder_ode": {"width": 2, "depth": 1},
    "decoder_ode": {"width": 3, "depth": 0, "solver": "rk4", "max_step": 1.0},
}
# The times of two samples: forward from the inputs, between them, and both, also at an input and before the first.
TIMES = {
    "extrapolation": ([[-4.5, -1.0, 0.0], [-2.0, -1.75, 0.0]], [[0.25, 1.0, 3.5, 4.0], [1.0, 1.5, 2.0, 6.25]]),
    "interpolation": ([[-4.5, -1.0, 0.0], [-2.0, -1.75, 0.0]], [[-3.0, -2.0, -0.5, -0.25], [-1.9, -1.0, -0.5, -0.1]]),
    "mixed": ([[-4.5, -1.0, 0.0], [-2.0, -1.75, 0.0]], [[-5.5, -4.75, -1.0, 2.0], [-2.0, -0.5, 0.0, 0.5]]),
}


def make(seed=0, num_channels=2, **settings):
    """A small model in float64 with any weights, and with norms that have learned some statistics."""
    torch.manual_seed(seed)
    model = build("vid-ode", num_channels=num_channels, **{"widths": [3, 2, 4], **ODES, **settings}).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.4 * torch.randn_like(parameter))
        for parameter in model.forward_ode.parameters():
            parameter.mul_(0.3)  # an equation that solvers can follow
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.weight.uniform_(0.5, 1.5)
                layer.running_mean.normal_(std=0.3)
                layer.running_var.uniform_(0.2, 2.0)
    return model.eval()


def draw(case="mixed", size=(6, 9), num_channels=2, dtype=torch.float64):
    input_times, target_times = (torch.tensor(times, dtype=dtype) for times in TIMES[case])
    generator = torch.Generator().manual_seed(1)
    inputs, targets = (
        torch.rand(*times.shape, num_channels, *size, dtype=dtype, generator=generator)
        for times in (input_times, target_times)
    )
    origin = torch.zeros(len(inputs), dtype=torch.int64)
    return Batch(inputs, input_times, targets, target_times, torch.ones_like(targets, dtype=torch.bool), origin)


def predict(model, batch):
    with torch.no_grad():
        return model.forward_batch(batch)


@pytest.mark.parametrize("case", TIMES)
@pytest.mark.parametrize("widths", [[3, 2, 4], [3]])
def test_it_is_its_plain_reading(case, widths):
    model, batch = make(widths=widths), draw(case, size=(6, 5))
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    result = predict(model, batch).numpy()
    for sample in range(2):
        inputs, input_times, target_times = (
            values[sample].numpy() for values in (batch.inputs, batch.input_times, batch.target_times)
        )
        settings = {"num_halvings": len(widths) - 1, "max_step": 1.0}
        expected = vid_ode(weights, inputs, input_times.tolist(), target_times.tolist(), **settings)
        np.testing.assert_allclose(result[sample], expected, rtol=0, atol=1e-11)


def test_live_and_dead_weights_add_up_to_the_published_count():
    with torch.device("meta"):
        model = build("vid-ode", "park2021", num_channels=3)
        never_used = nn.Conv2d(128, 128, 1)  # for a standard deviation that nothing reads
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    taken_away = sum(norm.num_features for norm in norms)  # biases in front of a batch norm
    assert (count_parameters(model), count_parameters(never_used), taken_away) == (1_898_790, 16_512, 416)
    assert count_parameters(model) + count_parameters(never_used) + taken_away == 1_915_718


def test_a_bias_in_front_of_a_norm_is_dead():
    convolution, norm = nn.Conv2d(2, 3, 3).double(), nn.BatchNorm2d(3).double()
    norm(convolution(torch.rand(2, 2, 6, 6, dtype=torch.float64))).square().sum().backward()
    assert convolution.bias.grad.abs().amax() < 1e-12 < convolution.weight.grad.abs().amax()


@pytest.mark.parametrize("case", TIMES)
def test_without_flow_and_with_a_whole_mask_the_newest_input_persists(case):
    model, batch = make(), draw(case)
    with torch.no_grad():
        model.decoder[-1].weight.zero_()
        model.decoder[-1].bias.zero_()[-1] = 50
    result = predict(model, batch)
    for sample in range(2):
        for place, time in enumerate(batch.target_times[sample]):
            newest = max(int((batch.input_times[sample] <= time).sum()) - 1, 0)
            torch.testing.assert_close(result[sample, place], batch.inputs[sample, newest], rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", TIMES)
def test_a_sample_is_forecast_as_it_is_alone(case):
    model, batch = make(), draw(case)
    together = predict(model, batch)
    for sample in range(2):
        alone = predict(model, batch[sample : sample + 1])
        torch.testing.assert_close(together[sample : sample + 1], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", TIMES)
def test_a_later_target_changes_no_earlier_forecast(case):
    model, batch = make(), draw(case)
    few = model(batch.inputs, batch.input_times, batch.target_times[:, :2])
    torch.testing.assert_close(few, predict(model, batch)[:, :2], rtol=0, atol=1e-12)


def test_an_input_in_between_starts_the_chain_afresh():
    model = make(decoder_ode={**ODES["decoder_ode"], "max_step": 0.05})
    batch = draw("interpolation")
    first = predict(model, batch)[0]
    wanted = batch.target_times.clone()
    wanted[0, :2] = torch.tensor([-3.5, -1.5])  # in the gap before, and so no part of what is made after the input
    changed = model(batch.inputs, batch.input_times, wanted)[0]
    torch.testing.assert_close(changed[2:], first[2:], rtol=0, atol=1e-6)  # but for where the solver steps
    assert (changed[:2] - first[:2]).abs().amax() > 0.01


@pytest.mark.parametrize("case", TIMES)
def test_a_shift_of_all_times_changes_nothing(case):
    model, batch = make(), draw(case)
    shifted = model(batch.inputs, batch.input_times + 7.5, batch.target_times + 7.5)
    torch.testing.assert_close(shifted, predict(model, batch), rtol=0, atol=1e-12)


def test_the_time_between_inputs_matters():
    model, batch = make(), draw("extrapolation")
    longer = model(batch.inputs, 1.5 * batch.input_times, batch.target_times)
    assert (longer - predict(model, batch)).abs().amax() > 1e-3


@pytest.mark.parametrize(("size", "num_inputs", "num_targets"), [((1, 1), 1, 1), ((5, 12), 1, 3), ((8, 8), 3, 1)])
def test_any_size_and_number_of_frames(size, num_inputs, num_targets):
    batch = draw(size=size)
    wanted = batch.target_times[:, -num_targets:]
    result = make()(batch.inputs[:, -num_inputs:], batch.input_times[:, -num_inputs:], wanted)
    assert result.shape == (2, num_targets, 2, *size)
    assert result.isfinite().all()


def test_the_published_solver_agrees_with_the_default_one():
    pytest.importorskip("torchdiffeq")
    fine = {**ODES["decoder_ode"], "max_step": 0.1}
    adaptive = {"width": 3, "depth": 0, "solver": "dopri5", "rtol": 1e-8, "atol": 1e-9}
    batch, exact = draw(), predict(make(decoder_ode=fine), draw())
    torch.testing.assert_close(predict(make(decoder_ode=adaptive), batch), exact, rtol=0, atol=1e-6)
    torch.testing.assert_close(predict(make(), batch), exact, rtol=0, atol=1e-2)


def draw_pictures(size=(16, 16)):
    """A batch that is large enough to judge."""
    return draw(size=size, dtype=torch.float32)


def judged(**settings):
    """A model with discriminators, at its own start, ready to train."""
    torch.manual_seed(3)
    model = build("vid-ode", num_channels=2, **{"widths": [4, 6], **ODES, "adversarial": 0.003, **settings})
    return model.train()


def gradients(model, loss):
    weights = dict(model.named_parameters())
    found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True, retain_graph=True)
    return {name: gradient for name, gradient in zip(weights, found, strict=True) if gradient is not None}


def test_each_penalty_reaches_only_whom_it_is_for():
    model, batch = judged(), draw_pictures(size=(16, 19))
    frames, penalties = model.forward_train(batch)
    assert set(penalties) == {"difference", "adversarial", "discriminators"}
    judges = {f"discriminators.{name}" for name, _ in model.discriminators.named_parameters()}
    forecasting = {name for name, _ in model.named_parameters()} - judges
    for loss in (frames.sum(), penalties["adversarial"]):
        assert set(gradients(model, loss)) == forecasting
    assert set(gradients(model, penalties["difference"])) == forecasting
    assert set(gradients(model, penalties["discriminators"])) == judges


def test_every_weight_learns_with_discriminators():
    model, batch = judged(), draw_pictures(size=(20, 20))
    frames, penalties = model.forward_train(batch)
    found = gradients(model, (frames - batch.targets).abs().mean() + sum(penalties.values()))
    for name, parameter in model.named_parameters():
        # A channel that ReLU holds shut for a whole batch learns nothing from it, which is no dead weight.
        alive = (found[name] != 0).double().mean()
        assert alive > 0.5, f"{name} of {tuple(parameter.shape)}"
        assert alive == 1 or not name.startswith("discriminators"), name


def test_the_difference_is_from_the_true_frame_before():
    model, batch = make(num_channels=1), draw(num_channels=1)
    valid = torch.rand(batch.valid.shape, generator=torch.Generator().manual_seed(5)) > 0.2
    targets = torch.where(valid, batch.targets, torch.nan)
    missing = Batch(batch.inputs, batch.input_times, targets, batch.target_times, valid, batch.origin)
    with torch.no_grad():
        model.decoder[-1].weight.zero_()
        model.decoder[-1].bias.copy_(
            torch.tensor([0, 0, 0.3, 0.0], dtype=torch.float64)
        )  # a difference of 0.3 everywhere
        penalty = model.forward_train(missing)[1]["difference"]
    # In "mixed" times: (before the first input), (the same), (an input's own time), the last input.
    before = {(0, 0): 0, (0, 1): 0, (0, 2): 1, (0, 3): 2, (1, 0): 0, (1, 1): 1, (1, 2): 2, (1, 3): 2}
    errors = []
    for (sample, step), place in before.items():
        change = targets[sample, step] - batch.inputs[sample, place]
        errors.append((0.3 - change)[valid[sample, step]].abs())
    torch.testing.assert_close(penalty, torch.cat(errors).mean(), rtol=0, atol=1e-12)


def test_the_difference_between_targets_needs_both():
    model, batch = make(num_channels=1), draw("extrapolation", num_channels=1)
    batch.valid[:, 1] = False
    batch.targets[:, 1] = torch.nan
    penalties = model.forward_train(batch)[1]
    found = gradients(model, penalties["difference"])
    assert all(gradient.isfinite().all() for gradient in found.values())
    with torch.no_grad():
        model.decoder[-1].weight.zero_()
        model.decoder[-1].bias.copy_(torch.tensor([0, 0, 0.3, 0.0], dtype=torch.float64))
        penalty = model.forward_train(batch)[1]["difference"]
    # Of the four targets the first follows the last input, the fourth the third; the second and third miss a frame.
    changes = torch.stack([batch.targets[:, 0] - batch.inputs[:, -1], batch.targets[:, 3] - batch.targets[:, 2]])
    torch.testing.assert_close(penalty, (0.3 - changes).abs().mean(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("adversarial", [0.0, 0.003])
def test_missing_targets_leave_everything_finite(adversarial):
    model, batch = judged(adversarial=adversarial), draw_pictures()
    batch.valid[0] = False
    batch.targets[0] = torch.nan
    _, penalties = model.forward_train(batch)
    assert all(penalty.isfinite() for penalty in penalties.values())
    found = gradients(model, sum(penalties.values()))
    assert all(gradient.isfinite().all() for gradient in found.values())
    batch.valid[:] = False
    assert float(model.forward_train(batch)[1]["difference"].detach()) == 0


def test_penalties_of_weight_0_are_not_computed():
    model, batch = make(difference=0.0), draw()
    assert model.forward_train(batch)[1] == {}
    assert model.discriminators is None


def test_weights_scale_their_penalties():
    batch = draw_pictures()
    once, thrice = (
        judged(difference=factor, adversarial=0.003 * factor).forward_train(batch)[1] for factor in (1.0, 3.0)
    )
    for name, penalty in once.items():
        torch.testing.assert_close(thrice[name], 3 * penalty)


def test_a_forecast_never_asks_the_discriminators():
    model, batch = judged().eval(), draw_pictures((6, 9))  # smaller than what they can judge
    result = predict(model, batch)
    with torch.no_grad():
        for weight in model.discriminators.parameters():
            weight.fill_(torch.nan)
    assert torch.equal(predict(model, batch), result)
    assert any(name.startswith("discriminators.") for name in model.state_dict())


@pytest.mark.parametrize("size", [(15, 40), (40, 15)])
def test_frames_too_small_to_judge_are_refused(size):
    with pytest.raises(DataError, match=f"at least 16 x 16 pixels, but {size[0]} x {size[1]} came"):
        judged().forward_train(draw_pictures(size=size))


@pytest.mark.parametrize(("settings", "message"), [
    ({"widths": []}, "widths"),
    ({"difference": -1.0}, "difference"),
    ({"adversarial": -0.1}, "adversarial"),
    ({"sequence_frames": 0}, "sequence_frames"),
    ({"decoder_ode": {"width": 3}}, "decoder_ode.depth"),
])  # fmt: skip
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        build("vid-ode", **settings)


def train(num_steps):
    model, batch = judged(), draw_pictures()[:1]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(num_steps):
        optimizer.zero_grad()
        frames, penalties = model.forward_train(batch)
        ((frames - batch.targets).abs().mean() + sum(penalties.values())).backward()
        optimizer.step()
    return model.state_dict()


def test_training_is_repeatable_to_the_bit():
    first, second = train(2), train(2)
    assert all(torch.equal(first[name], second[name]) for name in first)
