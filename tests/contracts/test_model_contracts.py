"""What every forecaster of maps in ``MODELS`` must do; a new model or preset is tested because it is listed."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional

from fieldcast.data import Batch, Normalizer
from fieldcast.data.normalize import Transform
from fieldcast.errors import DataError
from fieldcast.models import MODELS, build, model_settings

# Those that forecast flow at stations have contracts of their own.
OF_MAPS = {key: row for key, row in MODELS.items() if not row.forecaster.forecasts_stations}
# Settings that make a model small enough to test. Every preset is tested with its widths cut down.
SMALL = {
    "persistence": {},
    "climatology": {},
    "lagrangian-persistence": {},
    "optical-flow": {},
    "linear-interpolation": {},
    "convgru": {"widths": [3, 4, 5], "up_widths": [4, 3, 4], "head_width": 4},
    "trajgru": {"widths": [3, 4, 5], "up_widths": [4, 3, 4], "head_width": 4, "num_links": 3},
    "trajgru-attention": {"widths": [3, 4, 5], "up_widths": [4, 3, 4], "head_width": 4, "num_links": 2},
    "trajgru-ode": {"widths": [3, 4, 5], "up_widths": [4, 3, 4], "num_links": 2, "ode": {"width": 3, "depth": 1}},
    "trajgru-attention-ode": {
        "widths": [3, 4, 5],
        "up_widths": [4, 3, 4],
        "num_links": 2,
        "ode": {"width": 3, "depth": 1},
    },
    "conv1d": {"window": 3, "widths": [4], "kernels": [2], "head": "nonlinear", "head_width": 5, "steps_at_once": 2},
    "convlstm": {"widths": [4, 3], "patch": 2, "input_kernel": 3, "state_kernel": 3},
    "convlstm-stack": {"widths": [4, 5], "patch": 2, "kernel": 3, "bias": True},
    "vid-ode": {
        "widths": [2, 3],
        "encoder_ode": {"width": 4, "depth": 1},
        "decoder_ode": {"width": 4, "depth": 1, "solver": "rk4", "max_step": 1.0},
    },
    "latent-ode": {"widths": [3, 4], "grid": 3, "features": 5, "state_width": 4, "gate_width": 6},
    "ode2vae": {"widths": [3, 4], "grid": 3, "latents": 4},
}
# These take a step to each target, so that a forecast depends on which earlier targets are asked for.
STEP_TO_EACH_TARGET = ("trajgru-attention", "trajgru-ode", "trajgru-attention-ode")
# These make a forecast of the one before it.
CHAINED = (*STEP_TO_EACH_TARGET, "vid-ode")
# Rectifiers behind batch norms with weights of any sign are shut for some channels of some batch.
RECTIFIED = ("vid-ode",)
# The bias before a softmax shifts all its terms alike; the published counts of the thesis have it.
WITHOUT_EFFECT = "attention.combine.bias"
# These need a number of inputs.
LEAST_INPUTS = {"conv1d": SMALL["conv1d"]["window"]}
# These know the map that they were fitted to, and no other.
ONE_MAP = ("climatology",)


def shrink(key, preset):
    """Settings that make a model small; of a preset what its widths and counts are a matter of, not its kind."""
    if preset is None:
        return SMALL[key]
    published = MODELS[key].presets[preset]
    small = {name: [3 + i for i in range(len(value))] for name, value in published.items() if "widths" in name}
    small |= {"num_links": 3} if "num_links" in published else {}
    return small | ({"ode": {"width": 3}} if "ode" in published and key in STEP_TO_EACH_TARGET else {})


def distinct_cases():
    """Every model, and those of its presets that are still different once they are small."""
    cases = {}
    for key, row in OF_MAPS.items():
        for preset in (None, *row.presets):
            _, settings = model_settings({"key": key, **({"preset": preset} if preset else {}), **shrink(key, preset)})
            cases.setdefault((key, repr(settings)), (key, preset))
    return list(cases.values())


def tolerance(model):
    """How near a sample comes to what it gets alone: dopri5 takes its steps for all samples together."""
    return 1e-3 if "dopri5" in str(model.settings) else 1e-5


CASES = distinct_cases()
LEARNED = [case for case in CASES if MODELS[case[0]].forecaster.trained]


def presets_slowly(cases):
    """The cases, those of presets marked slow: of each kind of weights the defaults are tested every time."""
    return [case if case[1] is None else pytest.param(*case, marks=pytest.mark.slow) for case in cases]


every_model = pytest.mark.parametrize("key", OF_MAPS)
every_case = pytest.mark.parametrize(("key", "preset"), presets_slowly(CASES))
every_learned_case = pytest.mark.parametrize(("key", "preset"), LEARNED)


def make(key, preset=None, num_channels=2, *, own_start=False, size=(13, 17), **settings):
    """A small model, with its own first weights or with some of any sign, also where it starts from zeros.

    ``size`` is for a model that is fitted to one map.
    """
    torch.manual_seed(1)
    model = build(key, preset, num_channels=num_channels, **shrink(key, preset), **settings)
    with torch.no_grad():
        for parameter in model.parameters() if not own_start else ():
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 10
            parameter.copy_(torch.randn_like(parameter) / math.sqrt(max(fan_in, 10)))
    if key in ONE_MAP:
        frames = np.random.default_rng(3).random((5, num_channels, *size), dtype=np.float32)
        hours = 3600 * 10**9 * np.arange(5)
        source = SimpleNamespace(cadence=int(hours[1]), calendar="standard", real_times=True)
        model.fit([(frames, hours)], source, Normalizer((Transform("identity"),) * num_channels))
    return model.eval()


def draw(num_inputs=3, target_times=(1, 2, 3), batch=3, num_channels=2, size=(13, 17), dtype=torch.float32):
    """A batch of noise; ``target_times`` of all samples, or a row for each."""
    wanted = torch.tensor(target_times, dtype=torch.float32)
    wanted = wanted if wanted.dim() == 2 else wanted.expand(batch, -1)
    batch, num_targets = wanted.shape
    generator = torch.Generator().manual_seed(2)
    inputs, targets = (
        torch.rand(batch, count, num_channels, *size, generator=generator).to(dtype)
        for count in (num_inputs, num_targets)
    )
    return Batch(
        inputs=inputs,
        input_times=torch.arange(1 - num_inputs, 1.0).expand(batch, -1),
        targets=targets,
        target_times=wanted,
        valid=torch.ones_like(targets, dtype=torch.bool),
        origin=torch.zeros(batch, dtype=torch.int64),
    )


@torch.no_grad()
def predict(model, batch, target_times=None):
    wanted = batch.target_times if target_times is None else torch.as_tensor(target_times, dtype=torch.float32)
    wanted = wanted if wanted.dim() == 2 else wanted.expand(len(batch), -1)
    return model(batch.inputs, batch.input_times, wanted)


def multiple(model):
    """What the model pads the map's sides to."""
    settings = model.settings
    return getattr(settings, "patch", None) or math.prod(getattr(settings, "strides", (1,)))


def test_every_model_is_described_here():
    assert set(SMALL) == set(OF_MAPS), "add the new model's small settings to SMALL"


@every_case
def test_a_model_is_trained_where_it_has_weights(key, preset):
    model = make(key, preset)
    assert model.trained == any(True for _ in model.parameters())


@every_learned_case
def test_every_weight_receives_a_gradient(key, preset):
    model = make(key, preset).double().train()
    frames, penalties = model.forward_train(draw(size=(24, 24), batch=1, dtype=torch.float64))
    (frames.square().sum() + sum(penalties.values())).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{name} is dead"
        if name.endswith(WITHOUT_EFFECT):
            assert parameter.grad.abs().amax() < 1e-12
            continue
        if key in RECTIFIED:
            assert parameter.grad.count_nonzero() > 0.3 * parameter.numel(), f"{name} holds dead weights"
            continue
        assert (parameter.grad != 0).all(), f"{name} holds dead weights"


@every_learned_case
def test_every_weight_learns_from_its_own_start(key, preset):
    model = make(key, preset, own_start=True)
    batch = draw(size=(8, 8), batch=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):  # a flow generator that starts at zero passes no gradient down until its first step
        optimizer.zero_grad()
        model.forward_train(batch)[0].sub(batch.targets).square().sum().backward()
        optimizer.step()
    assert all(parameter.grad.count_nonzero() > 0 for parameter in model.parameters())


@every_case
@pytest.mark.parametrize(("size", "num_inputs", "num_targets"), [((13, 17), 3, 2), ((1, 1), 1, 1), ((8, 5), 2, 4)])
def test_any_size_and_any_number_of_frames(key, preset, size, num_inputs, num_targets):
    model = make(key, preset, size=size)
    batch = draw(max(num_inputs, LEAST_INPUTS.get(key, 1)), range(1, num_targets + 1), batch=2, size=size)
    result = predict(model, batch)
    assert result.shape == (2, num_targets, 2, *size)
    assert result.dtype == torch.float32
    assert result.isfinite().all()


@every_case
def test_samples_do_not_mix(key, preset):
    model = make(key, preset)
    batch = draw(target_times=[(1, 2, 4), (2, 3, 5), (1, 5, 6)])
    together = predict(model, batch)
    for sample in range(3):
        alone = predict(model, batch[sample : sample + 1])
        torch.testing.assert_close(together[sample : sample + 1], alone, rtol=0, atol=tolerance(model))


@every_case
def test_each_sample_gets_the_steps_it_asks_for(key, preset):
    model = make(key, preset)
    wanted = [(1, 2, 4), (2, 3, 6), (1, 5, 6)]
    batch = draw(target_times=wanted)
    every_step = predict(model, batch, range(1, 7))
    result = predict(model, batch)
    for sample, times in enumerate(wanted):
        if key in CHAINED:
            alone = predict(model, batch[sample : sample + 1])[0]
            torch.testing.assert_close(result[sample], alone, rtol=0, atol=tolerance(model))
            continue
        for place, time in enumerate(times):
            torch.testing.assert_close(result[sample, place], every_step[sample, time - 1], rtol=0, atol=1e-5)


@every_case
def test_a_later_target_changes_no_earlier_forecast(key, preset):
    model = make(key, preset)
    batch = draw()
    few, many = predict(model, batch, (1, 2)), predict(model, batch, (1, 2, 5))
    torch.testing.assert_close(few, many[:, :2], rtol=0, atol=1e-6)


@every_learned_case
def test_lead_time_matters(key, preset):
    result = predict(make(key, preset), draw(), (1, 5))
    assert (result[:, 0] - result[:, 1]).abs().amax() > 1e-4


@every_learned_case
def test_every_input_frame_matters(key, preset):
    model = make(key, preset)
    batch = draw()
    result = predict(model, batch)
    for time in range(3):
        changed = batch.inputs.clone()
        changed[:, time] = 1 - changed[:, time]
        assert not torch.equal(model(changed, batch.input_times, batch.target_times), result)


@every_case
def test_padding_inside_is_zeros_below_and_to_the_right(key, preset):
    model = make(key, preset)
    batch = draw()
    by_hand = functional.pad(batch.inputs, (0, -17 % multiple(model), 0, -13 % multiple(model)))
    expected = model(by_hand, batch.input_times, batch.target_times)[..., :13, :17]
    torch.testing.assert_close(predict(model, batch), expected, rtol=0, atol=1e-6)


@every_case
def test_a_forecast_is_repeatable_and_leaves_no_trace(key, preset):
    model = make(key, preset)
    batch, other = draw(), draw(num_inputs=LEAST_INPUTS.get(key, 2), size=(13, 17) if key in ONE_MAP else (6, 9))
    inputs, buffers = batch.inputs.clone(), dict(model.state_dict())
    first = predict(model, batch)
    predict(model, other)
    assert torch.equal(first, predict(model, batch))
    assert torch.equal(inputs, batch.inputs)
    assert set(model.state_dict()) == set(buffers)


@every_case
def test_float64_goes_through_to_the_output(key, preset):
    narrow = predict(make(key, preset), draw())
    model = make(key, preset).double()
    wide = predict(model, draw(dtype=torch.float64))
    assert wide.dtype == torch.float64
    torch.testing.assert_close(narrow.double(), wide, rtol=0, atol=1e-4)


@every_case
def test_bfloat16_autocast_gives_float32_frames_near_the_exact_ones(key, preset):
    model, batch = make(key, preset), draw()
    expected = predict(model, batch)
    with torch.autocast("cpu", torch.bfloat16):
        result = predict(model, batch)
    assert result.dtype == torch.float32
    scale = max(expected.abs().amax().item(), 1.0)
    assert (result - expected).square().mean().sqrt() < 0.03 * scale


@every_case
def test_weights_round_trip(key, preset):
    model, batch = make(key, preset), draw()
    other = make(key, preset)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict(model.state_dict())
    assert torch.equal(predict(model, batch), predict(other, batch))


@every_model
def test_a_batch_is_forecast_as_its_parts_are(key):
    model, batch = make(key), draw(target_times=[(1, 2, 4), (2, 3, 5), (1, 5, 6)])
    result = model.forward_batch(batch)
    assert result.shape == batch.targets.shape
    if key in ONE_MAP:
        assert not torch.equal(result, predict(model, batch)), "it reads the calendar"
    else:
        assert torch.equal(result, predict(model, batch))


@every_model
def test_training_without_a_teacher_forecasts_the_same(key):
    model, batch = make(key), draw()
    frames, penalties = model.forward_train(batch)
    assert torch.equal(frames, predict(model, batch))
    assert all(isinstance(name, str) and penalty.dim() == 0 for name, penalty in penalties.items())


IRREGULAR = {
    "inputs": ((-2.5, -1, 0), (1, 2, 3)),
    "inputs too far apart": ((-4, -2, 0), (1, 2, 3)),
    "targets": ((-2, -1, 0), (1, 2.5, 3)),
    "targets at 0": ((-2, -1, 0), (0, 1, 2)),
}


@every_model
@pytest.mark.parametrize("case", IRREGULAR)
def test_irregular_times_are_taken_or_refused(key, case):
    model, batch = make(key), draw(batch=2)
    input_times, target_times = (torch.tensor(times, dtype=torch.float32) for times in IRREGULAR[case])
    # One sample is regular, and the fault is in the other.
    input_times = torch.stack([batch.input_times[0], input_times])
    target_times = torch.stack([batch.target_times[0], target_times])
    takes = model.irregular_inputs if case.startswith("inputs") else model.irregular_targets
    if key in STEP_TO_EACH_TARGET and case == "targets at 0":
        with pytest.raises(DataError, match="after the last input, not at 0"):
            model(batch.inputs, input_times, target_times)
        return
    if takes:
        assert model(batch.inputs, input_times, target_times).isfinite().all()
        return
    with pytest.raises(DataError, match="ignore_times") as caught:
        model(batch.inputs, input_times, target_times)
    odd = IRREGULAR[case][not case.startswith("inputs")]
    assert f"but the {case.split()[0]} are at {[float(time) for time in odd]}" in str(caught.value)


@every_model
def test_ignored_times_are_frames_one_cadence_apart(key):
    model, batch = make(key, ignore_times=True), draw(batch=2)
    input_times = torch.tensor([[-2.5, -1, 0], [-7, -1, 0]])
    target_times = torch.tensor([[0.5, 2.5, 7], [1, 2, 9]])
    result = model(batch.inputs, input_times, target_times)
    torch.testing.assert_close(result, predict(make(key), batch), rtol=0, atol=1e-6)


TAUGHT = [key for key, row in OF_MAPS.items() if row.forecaster.takes_teacher]
every_taught_model = pytest.mark.parametrize("key", TAUGHT)


@pytest.mark.parametrize("key", [key for key in OF_MAPS if key not in TAUGHT])
def test_a_model_without_a_teacher_takes_none(key):
    batch = draw()
    with pytest.raises(AssertionError, match="no teacher"):
        make(key).forward_train(batch, torch.ones(3, 3, dtype=torch.bool))


@every_taught_model
def test_a_teacher_who_says_nothing_changes_nothing(key):
    model, batch = make(key), draw()
    silent = torch.zeros(batch.target_times.shape, dtype=torch.bool)
    torch.testing.assert_close(model.forward_train(batch, silent)[0], predict(model, batch), rtol=0, atol=1e-6)


@every_taught_model
@pytest.mark.parametrize("step", [0, 1, 2, 3])
def test_a_taught_target_changes_only_what_comes_after_it(key, step):
    model, batch = make(key), draw(target_times=(1, 2, 3, 4))
    always = torch.ones(batch.target_times.shape, dtype=torch.bool)
    with torch.no_grad():
        before = model.forward_train(batch, always)[0]
        batch.targets[:, step] = 1 - batch.targets[:, step]
        after = model.forward_train(batch, always)[0]
    assert torch.equal(before[:, : step + 1], after[:, : step + 1])
    for later in range(step + 1, 4):
        assert not torch.equal(before[:, later], after[:, later])


@every_taught_model
def test_each_sample_has_its_own_teacher(key):
    model, batch = make(key), draw()
    teacher = torch.tensor([[True] * 3, [False] * 3, [True, False, True]])
    with torch.no_grad():
        together = model.forward_train(batch, teacher)[0]
        for sample in range(3):
            only = slice(sample, sample + 1)
            alone = model.forward_train(batch[only], teacher[only])[0]
            torch.testing.assert_close(together[only], alone, rtol=0, atol=1e-5)
