"""The thesis' models against a plain reading that computes everything anew, and against its published counts."""

import numpy as np
import pytest
import torch
from models.test_whole_models import make
from oracles import thesis as oracle

from fieldcast.errors import ConfigError, DataError
from fieldcast.models import build, num_parameters

# Never live: the input and flow-input convolutions of the top forecaster cell, which gets no input.
DEAD = 590_336


@pytest.mark.parametrize(("key", "mnist", "radar"), [
    ("trajgru", 4_859_181, 6_166_853),
    ("trajgru-attention", 7_258_509, 9_336_677),
    ("trajgru-ode", 8_844_685, 11_181_413),
    ("trajgru-attention-ode", 9_857_837, 12_583_973),
])  # fmt: skip
def test_published_counts_are_live_and_dead_weights(key, mnist, radar):
    assert num_parameters(key, "thesis-mnist") + DEAD == mnist
    assert num_parameters(key, "thesis-radar") + DEAD == radar


SMALL = {"widths": [2, 3, 4], "up_widths": [3, 2, 2], "head_width": 3, "num_links": 2}
ODE = {"width": 3, "depth": 1}
CASES = {
    "attention": ("trajgru-attention", {}),
    "attention of two states": ("trajgru-attention", {"attention_window": 2, "encoder_attention": [1, 3]}),
    "attention everywhere": ("trajgru-attention", {"encoder_attention": [1, 2, 3], "decoder_attention": [1, 2, 3]}),
    "zigzag alone": ("trajgru-attention", {"encoder_attention": [], "decoder_attention": []}),
    "attention without zigzag": ("trajgru-attention", {"zigzag": False, "decoder_attention": [2, 3]}),
    "ode": ("trajgru-ode", {"ode": ODE}),
    "deep ode": ("trajgru-ode", {"ode": {"width": 2, "depth": 2}, "encoder_attention": []}),
    "ode without zigzag": ("trajgru-ode", {"ode": ODE, "zigzag": False}),
    "attention and ode": ("trajgru-attention-ode", {"ode": ODE}),
    "decay between frames": ("trajgru", {"evolution": "decay"}),
    "other strides": ("trajgru-attention-ode", {"ode": ODE, "strides": [2, 1, 2]}),
    "one layer": ("trajgru-attention", {"widths": [3], "up_widths": [2], "strides": [2], "encoder_attention": [1],
                                        "decoder_attention": [1]}),
}  # fmt: skip
INPUT_TIMES, TARGET_TIMES = [-4.5, -2.0, -1.25, 0.0], [0.5, 2.0, 3.75]


@pytest.mark.parametrize("case", CASES)
def test_a_model_is_its_equations(case):
    key, options = CASES[case]
    settings = {"strides": [1, 2, 2], **SMALL, **options}
    model, weights = make(key, num_channels=2, **settings)
    inputs = torch.rand(1, 4, 2, 4, 8, dtype=torch.float64)
    # What sees no times takes regular ones.
    rows = (
        INPUT_TIMES if model.irregular_inputs else [-3.0, -2.0, -1.0, 0.0],
        TARGET_TIMES if model.irregular_targets else [1.0, 2.0, 3.0],
    )
    times = [torch.tensor([row], dtype=torch.float64) for row in rows]
    with torch.no_grad():
        result = model(inputs, *times)
    chosen = model.settings
    expected = oracle.forecast(
        weights,
        inputs[0].numpy(),
        *(row[0].numpy() for row in times),
        widths=chosen.widths,
        strides=chosen.strides,
        encoder_attention=[layer - 1 for layer in getattr(chosen, "encoder_attention", ())],
        decoder_attention=[layer - 1 for layer in getattr(chosen, "decoder_attention", ())],
        window=getattr(chosen, "attention_window", 10),
        zigzag=getattr(chosen, "zigzag", False),
        ode=getattr(chosen, "ode", None) is not None,
    )
    np.testing.assert_allclose(result[0].numpy(), expected, rtol=0, atol=1e-10)


def test_what_sees_no_times_says_so():
    blind = build("trajgru-attention", encoder_attention=[], decoder_attention=[])
    assert (blind.irregular_inputs, blind.irregular_targets) == (False, False)
    half = build("trajgru-ode", encoder_attention=[])
    assert (half.irregular_inputs, half.irregular_targets) == (False, True)
    evolving = build("convgru", evolution="decay")
    assert (evolving.irregular_inputs, evolving.irregular_targets) == (True, True)
    assert not build("trajgru").irregular_inputs


@pytest.mark.parametrize(("settings", "said"), [
    ({"encoder_attention": [4]}, "encoder_attention = \\[4\\]: layers from 1 to 3"),
    ({"decoder_attention": [2, 2]}, "each once"),
    ({"decoder_attention": [1], "zigzag": False}, "zigzag = true or leave layer 1 out"),
    ({"ode": {"width": 4}}, "missing key 'model.ode.depth'$"),
    ({"evolution": {"width": 4}}, "missing key 'model.evolution.depth'$"),
    ({"evolution": {"width": 4, "depht": 1}}, "unknown key 'model.evolution.depht': did you mean 'depth'"),
    ({"evolution": "drift"}, "'hold' or 'decay' or a table is wanted"),
])  # fmt: skip
def test_what_cannot_be_put_together_is_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        build("trajgru-attention", **settings)


def test_a_preset_keeps_the_rest_of_a_table_that_is_changed_in_part():
    model = build("trajgru-ode", "thesis-radar", ode={"solver": "rk4"})
    assert (model.settings.ode.width, model.settings.ode.depth, model.settings.ode.solver) == (64, 2, "rk4")


@pytest.mark.parametrize("wanted", [[0.0, 1.0], [-1.0, 1.0]])
def test_a_target_at_or_before_the_last_input_is_refused(wanted):
    model = build("trajgru-attention", **SMALL)
    with pytest.raises(DataError, match=r"after the last input|does not interpolate"):
        model(torch.rand(1, 2, 1, 8, 8), torch.tensor([[-1.0, 0.0]]), torch.tensor([wanted]))


@pytest.mark.parametrize("times", [[[-1.0, -1.0, 0.0], [1.0]], [[-2.0, -1.0, 0.0], [2.0, 1.0]],
                                   [[float("nan"), -1.0, 0.0], [1.0]]])  # fmt: skip
def test_times_that_do_not_ascend_are_refused(times):
    model = build("trajgru-attention", **SMALL)
    with pytest.raises(DataError, match="must ascend"):
        model(torch.rand(1, 3, 1, 8, 8), *(torch.tensor([row]) for row in times))


def test_the_bias_before_a_softmax_changes_nothing():
    model, _ = make("trajgru-attention", **SMALL)
    inputs = torch.rand(1, 3, 1, 8, 8, dtype=torch.float64)
    times = torch.tensor([[-2.5, -1.0, 0.0]]), torch.tensor([[1.0, 2.5]])
    with torch.no_grad():
        before = model(inputs, *times)
        for name, weight in model.named_parameters():
            if name.endswith("combine.bias") and "attention" in name:
                weight += torch.randn_like(weight)
        torch.testing.assert_close(model(inputs, *times), before, rtol=0, atol=1e-12)


def test_the_ode_starts_at_the_last_input_time():
    """Its first interval is as long as the first lead time, whatever that is: the release has 1 there."""
    model, _ = make("trajgru-ode", **SMALL, zigzag=False, encoder_attention=[], ode=ODE)
    inputs = torch.rand(1, 2, 1, 8, 8, dtype=torch.float64)
    steps = []
    field = model.odes[0].field
    model.odes[0].field = type(
        "Recorded", (torch.nn.Module,), {"forward": lambda self, state: steps.append(state) or field(state)}
    )()
    model(inputs, torch.tensor([[-1.0, 0.0]]), torch.tensor([[6.0]]))
    start = model.encode(inputs, torch.tensor([[-1.0, 0.0]])).states[0].hidden
    torch.testing.assert_close(steps[0], start)
    state = model.odes[0](start, torch.tensor([6.0]))
    torch.testing.assert_close(state, start + 6 * field(start))


@pytest.mark.parametrize("key", ["convgru", "trajgru"])
@pytest.mark.parametrize("evolution", ["decay", {"width": 3, "depth": 1}])
def test_an_evolution_makes_a_model_see_times(key, evolution):
    settings = {name: value for name, value in SMALL.items() if key == "trajgru" or name != "num_links"}
    model, _ = make(key, **settings, evolution=evolution)
    inputs = torch.rand(1, 3, 1, 8, 8, dtype=torch.float64)
    times = torch.tensor([[-2.0, -1.0, 0.0]]), torch.tensor([[1.0, 2.5]])
    result = model(inputs, *times)
    result.square().sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().amax() > 0 for weight in model.parameters())
    with torch.no_grad():
        earlier = model(inputs, torch.tensor([[-2.75, -1.0, 0.0]]), times[1])
        later = model(inputs, times[0], torch.tensor([[1.5, 2.5]]))
    assert not torch.equal(earlier, result)
    assert not torch.equal(later[:, 0], result[:, 0])


def test_an_evolution_of_hold_is_no_evolution():
    model, _ = make("trajgru", **SMALL, evolution="hold")
    assert not list(model.encoder_evolutions) and not model.irregular_inputs
