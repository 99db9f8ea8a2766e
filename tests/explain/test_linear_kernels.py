"""The ways to compute linear kernels against the note's equations and against each other."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import linear_kernels as oracle
from torch import nn

from fieldcast.data import Normalizer
from fieldcast.data.flow import FlowNormalizer
from fieldcast.data.normalize import Transform
from fieldcast.errors import ConfigError
from fieldcast.explain.adjoint import turned_kernels
from fieldcast.explain.backward import copies_at_once
from fieldcast.explain.forward_mode import directional_kernels
from fieldcast.explain.linear_kernels import describe_run, inner_products, linear_kernels
from fieldcast.explain.linear_steps import expand
from fieldcast.explain.network import Network
from fieldcast.explain.outputs import Outputs, pixel_output, station_outputs
from fieldcast.models import build

RIVERS = ("Fraser", "Stikine", "Bow")
METHODS = ("backward", "adjoint", "forward")
INPUT_SCALE = Normalizer((Transform("scale", -3.0, 5.0), Transform("log-rate", 0.0, 2.0)))
FLOW_SCALE = FlowNormalizer("log", 0.25, (0.1, 0.2, 0.3), (1.0, 2.0, 0.5), (0.5, 1.5, 0.7), (0.0,) * 3, (9.0,) * 3)


def make_network(size=(4, 5), num_inputs=4, *, physical=False, target_times=(0.0, 2.0), num_fields=2, **changes):
    """A small ConvLSTM regressor with weights of any sign, and a reference sequence, in float64."""
    torch.manual_seed(changes.pop("seed", 0))
    values = {"map_size": list(size), "num_stations": 3, "hidden_width": 3, "kernel": 3, "bias": "pixel",
              "leads": [0, 1, 2], "head_widths": [9, 7]} | changes  # fmt: skip
    model = build("runoff-convlstm", num_channels=num_fields, **values).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) / 2)
    if values.get("head") == "catchment":
        model.use_catchments(torch.rand(3, *size))
    outputs = station_outputs(RIVERS, (0, 1, 2), 3, target_times)
    scales = (INPUT_SCALE, FLOW_SCALE) if physical else ()
    times = torch.arange(1.0 - num_inputs, 1)[None], torch.tensor([target_times])
    reference = torch.rand(1, num_inputs, num_fields, *size, dtype=torch.float64) * 2
    return Network(model, *times, outputs, *scales), reference


def plain_weights(model):
    """Weights by the oracle's names."""
    return {name.split(".", 1)[1]: value.detach() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("bias", ["pixel", "channel"])
def test_every_way_is_what_the_notes_equations_say(bias):
    network, reference = make_network((3, 4), 3, target_times=(0.0,), leads=[0], bias=bias, hidden_width=2)
    weights = plain_weights(network.model)
    expected = oracle.jacobian(weights, reference[0])
    assert expected.abs().amax() > 1e-3
    torch.testing.assert_close(oracle.note(weights, reference[0]), expected, rtol=0, atol=1e-12)
    for method in METHODS:
        kernels = linear_kernels(network, reference, method)
        torch.testing.assert_close(kernels.weights, expected, rtol=0, atol=1e-10)
        torch.testing.assert_close(kernels.value, oracle.rivers(weights, reference[0]), rtol=0, atol=1e-10)


@settings(max_examples=12, deadline=None)
@given(
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    num_inputs=st.integers(1, 4),
    kernel=st.sampled_from([1, 3, 5]),
    head=st.sampled_from(["dense", "catchment"]),
    seed=st.integers(0, 99),
)
def test_the_ways_agree_and_the_kernels_are_complete(size, num_inputs, kernel, head, seed):
    network, reference = make_network(size, num_inputs, physical=True, kernel=kernel, head=head, seed=seed)
    expected = linear_kernels(network, reference, "backward")
    for method in ("auto", *METHODS):
        kernels = linear_kernels(network, reference, method)
        torch.testing.assert_close(kernels.weights, expected.weights, rtol=0, atol=1e-10)
        at_reference = kernels.offset + inner_products(kernels.weights, reference)[0]
        torch.testing.assert_close(at_reference, network(reference)[0].detach(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("method", METHODS)
def test_kernels_are_derivatives_in_physical_units(method):
    network, reference = make_network(physical=True)
    kernels = linear_kernels(network, reference, method)
    change = torch.randn(reference.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        difference = (network(reference + 1e-5 * change) - network(reference - 1e-5 * change))[0] / 2e-5
    torch.testing.assert_close(inner_products(kernels.weights, change)[0], difference, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("method", METHODS)
def test_a_missing_pixel_is_what_the_network_takes_it_for(method):
    network, reference = make_network(physical=True)
    reference[0, 1, :, 2, 3] = torch.nan
    kernels = linear_kernels(network, reference, method)
    filled = network.filled(reference)
    torch.testing.assert_close(filled[0, 1, :, 2, 3], torch.tensor([-3.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close(kernels.predict(filled), network(reference).detach(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("method", METHODS)
def test_little_memory_gives_the_same_kernels(method):
    network, reference = make_network(physical=True)
    expected = linear_kernels(network, reference, method)
    few = linear_kernels(network, reference, method, memory_megabytes=1e-9)
    torch.testing.assert_close(few.weights, expected.weights, rtol=0, atol=1e-12)
    torch.testing.assert_close(few.value, expected.value, rtol=0, atol=1e-12)


@pytest.mark.parametrize("megabytes", [512, 1e-9])
def test_fewer_active_units_than_outputs_are_what_goes_through_the_steps(megabytes):
    network, reference = make_network(physical=True, target_times=(0.0, 1.0, 2.0), head_widths=[30, 8])
    with torch.no_grad(), network.at_rest():
        point = expand(network, reference)
    assert 1 < len(point.rows) < 9 == len(network.outputs)
    expected = linear_kernels(network, reference, "backward")
    for method in ("adjoint", "forward"):
        kernels = linear_kernels(network, reference, method, memory_megabytes=megabytes)
        torch.testing.assert_close(kernels.weights, expected.weights, rtol=0, atol=1e-10)


def test_a_head_that_is_shut_has_no_kernels():
    network, reference = make_network()
    with torch.no_grad():
        network.model.head.second.bias.fill_(-100)
    for method in METHODS:
        assert not linear_kernels(network, reference, method).weights.any()


def test_memory_decides_how_many_outputs_go_back_together():
    network, reference = make_network()
    counts = [copies_at_once(network, reference, megabytes) for megabytes in (1e-9, 0.2, 1000)]
    assert counts[0] == 1 < counts[1] < counts[2] == len(network.outputs) == 6


@pytest.mark.parametrize("method", METHODS)
def test_the_model_is_left_as_it_was(method):
    network, reference = make_network()
    model = network.model.train()
    frozen, *rest = model.parameters()
    frozen.requires_grad_(False)
    rest[0].grad = torch.ones_like(rest[0])
    linear_kernels(network, reference, method)
    assert all(module.training for module in model.modules())
    assert not frozen.requires_grad and all(one.requires_grad for one in rest)
    assert torch.equal(rest[0].grad, torch.ones_like(rest[0])) and all(one.grad is None for one in rest[1:])


@pytest.mark.parametrize("method", ["adjoint", "backward"])
def test_bfloat16_is_near(method):
    network, reference = make_network((12, 12), 6, physical=True, kernel=5)
    network.model.float()
    exact = linear_kernels(network, reference.float(), method)
    narrow = linear_kernels(network, reference.float(), method, precision="bf16")
    assert narrow.weights.dtype == torch.float32
    error = (narrow.weights - exact.weights).square().mean() / exact.weights.square().mean()
    assert 0 < error.sqrt() < 0.02
    torch.testing.assert_close(narrow.predict(reference), network(reference.float()).detach().double())


def test_directions_are_sums_over_the_kernels():
    network, reference = make_network(physical=True)
    weights = linear_kernels(network, reference, "backward").weights
    lasting = torch.randn(5, *reference.shape[1:], dtype=torch.float64)
    once = torch.randn(2, 1, *reference.shape[2:], dtype=torch.float64)
    for megabytes in (512, 1e-9):
        together = directional_kernels(network, reference, lasting, memory_megabytes=megabytes)
        torch.testing.assert_close(together, inner_products(weights, lasting).T, rtol=0, atol=1e-10)
        by_step = directional_kernels(network, reference, once, memory_megabytes=megabytes)
        expected = torch.einsum("qtchw,pchw->qpt", weights, once[:, 0])
        torch.testing.assert_close(by_step, expected, rtol=0, atol=1e-10)


def test_the_adjoint_of_both_correlations_is_one():
    cell = make_network(kernel=5)[0].model.cell
    turned = turned_kernels(cell)
    assert turned.shape == (8, 12, 5, 5)
    hidden, frame, gates = (torch.randn(1, count, 6, 7, dtype=torch.float64) for count in (3, 2, 12))
    back = torch.conv2d(gates, turned, padding=2)
    ahead = torch.conv2d(hidden, cell.state_gates.weight, padding=2) + cell.project(frame)
    both = (back[:, :3] * hidden).sum() + (back[:, 3:5] * frame).sum()
    torch.testing.assert_close(both, (ahead * gates).sum(), rtol=1e-12, atol=0)


class Doubling(nn.Module):
    """Any other forecaster: what it asks for is in its times."""

    def forward(self, inputs, input_times, target_times):
        return inputs[:, -1:] * input_times.amin(1)[:, None, None, None, None] * target_times[:, :, None, None, None]


def test_a_forecaster_of_maps_at_its_own_times():
    times = torch.tensor([[-2.5, -1.0, 0.0]]), torch.tensor([[0.5, 3.0]])
    network = Network(Doubling(), *times, pixel_output("here", (2, 1, 4, 4), (1, 0, 2, 3)))
    kernels = linear_kernels(network, torch.rand(1, 3, 1, 4, 4))
    assert kernels.weights.count_nonzero() == 1
    assert kernels.weights[0, 2, 0, 2, 3] == -7.5
    assert "(backward)" in describe_run(network, torch.rand(1, 3, 1, 4, 4))


def test_wrong_wishes_are_refused():
    network, reference = make_network()
    other = Network(Doubling(), network.input_times, network.target_times, Outputs(("a",), torch.ones(1, 2, 2, 4, 5)))
    for method in ("adjoint", "forward"):
        with pytest.raises(ConfigError, match=r"for a runoff-convlstm, not for Doubling: take backward"):
            linear_kernels(other, reference, method)
    with pytest.raises(ConfigError, match="not for Doubling"):
        directional_kernels(other, reference, reference)
    with pytest.raises(ConfigError, match="method = 'fast': one of auto, backward, adjoint, forward"):
        linear_kernels(network, reference, "fast")
    with pytest.raises(ConfigError, match="precision = 'half': one of float32, bf16"):
        linear_kernels(network, reference, precision="half")
    with pytest.raises(ConfigError, match="adjoint and backward"):
        linear_kernels(network, reference, "forward", precision="bf16")
    with pytest.raises(ConfigError, match=r"a reference is one sequence .* not \(2, 4, 2, 4, 5\)"):
        linear_kernels(network, reference.repeat(2, 1, 1, 1, 1))
    with pytest.raises(ConfigError, match=r"directions of shape \(1, 3, 2, 4, 5\)"):
        directional_kernels(network, reference, reference[:, 1:])
