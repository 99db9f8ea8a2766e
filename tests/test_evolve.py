"""Evolutions against exact solutions, each other, and what each sample gets alone.

Shapes: B batch, C channels, S times, D width of a vector state.
"""

import math
import sys
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fieldcast.errors import ConfigError, MissingExtra, SolverFailed
from fieldcast.evolve import ODE, ConvolutionalField, Decay, ODESettings, hold
from fieldcast.settings import read_settings

FIXED = ["euler", "midpoint", "rk4"]
ORDERS = {"euler": 1, "midpoint": 2, "rk4": 4}
SOLVERS = [*FIXED, "dopri5"]
TIGHT = {"rtol": 1e-9, "atol": 1e-11}
MATRIX = torch.tensor([[-0.3, 1.0, 0.0], [-1.0, -0.3, 0.2], [0.1, 0.0, -0.5]], dtype=torch.float64)


class Field(nn.Module):
    """A derivative written as a function, that counts how often it is asked for."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.num_calls = 0

    def forward(self, state):
        self.num_calls += 1
        return self.function(state)


class Rotation(nn.Module):
    """h' = tanh(W h), over D numbers."""

    def __init__(self, width=3):
        super().__init__()
        torch.manual_seed(1)
        self.weight = nn.Parameter(torch.randn(width, width, dtype=torch.float64))

    def forward(self, state):
        return torch.tanh(state @ self.weight.T)


def ode(field, solver="euler", **values):
    field = field if isinstance(field, nn.Module) else Field(field)
    return ODE(field, ODESettings(width=8, depth=1, solver=solver, **values))


def accurate(field, solver, step=0.01, adjoint=False):
    return ode(field, solver, adjoint=adjoint, **(TIGHT if solver == "dopri5" else {"max_step": step}))


def logistic(state):
    return state * (1 - state)


def neighbours(state):
    """Of exact arithmetic: a convolution may round in another order for another batch size."""
    return torch.roll(state, 1, dims=-1) / (1 + state * state) - 0.5 * state


def logistic_solution(start, elapsed):
    return 1 / (1 + (1 / start - 1) * torch.exp(-elapsed))


def maps(batch=3, channels=4, size=8, dtype=torch.float32):
    torch.manual_seed(0)
    return torch.randn(batch, channels, size, size, dtype=dtype).to(memory_format=torch.channels_last)


def field_of(dtype=torch.float32, channels=4):
    torch.manual_seed(0)
    return ConvolutionalField(channels, 8, 1).to(dtype)


def order_of_convergence(solver, adjoint=False):
    start, elapsed = torch.tensor([[0.2]], dtype=torch.float64), torch.tensor([2.0], dtype=torch.float64)
    exact = logistic_solution(start, elapsed)
    steps = [2.0 / number for number in (16, 32, 64)]
    errors = [(ode(logistic, solver, max_step=s, adjoint=adjoint)(start, elapsed) - exact).abs().item() for s in steps]
    logs = torch.tensor([steps, errors], dtype=torch.float64).log()
    steps, errors = logs - logs.mean(dim=1, keepdim=True)
    return float((steps @ errors) / (steps @ steps))


# Exact solutions


@pytest.mark.parametrize(("solver", "adjoint"), list(product(["rk4", "dopri5"], [False, True])))
def test_a_linear_system_follows_the_matrix_exponential(solver, adjoint):
    torch.manual_seed(0)
    start = torch.randn(4, 3, dtype=torch.float64)
    times = torch.tensor([[0.5, 2.0], [0.1, 4.0], [-1.0, 0.3], [0.0, 1.0]], dtype=torch.float64)
    solved = accurate(lambda state: state @ MATRIX.T, solver, 0.05, adjoint).trajectory(start, times)
    for index, state in enumerate(solved):
        exact = torch.stack([torch.matrix_exp(MATRIX * t) @ h for h, t in zip(start, times[:, index], strict=True)])
        torch.testing.assert_close(state, exact, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("solver", ["rk4", "dopri5"])
def test_growth_to_a_limit_follows_its_exact_solution(solver):
    start = torch.linspace(0.05, 1.5, 12, dtype=torch.float64).reshape(3, 2, 2)
    elapsed = torch.tensor([0.3, 5.0, -0.4], dtype=torch.float64)
    exact = logistic_solution(start, elapsed[:, None, None])
    torch.testing.assert_close(accurate(logistic, solver)(start, elapsed), exact, rtol=1e-8, atol=1e-8)


def test_euler_is_one_step_for_each_interval_unless_told():
    start, field = torch.tensor([[0.2]]), Field(logistic)
    first, second = ode(field).trajectory(start, torch.tensor([[1.0, 3.0]]))
    assert first.item() == pytest.approx(0.2 + 0.16)
    assert second.item() == pytest.approx(0.36 + 2 * 0.36 * 0.64)
    assert field.num_calls == 2


@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("solver", FIXED)
def test_the_error_falls_with_the_order_of_the_solver(solver, adjoint):
    assert order_of_convergence(solver, adjoint) == pytest.approx(ORDERS[solver], abs=0.1)


def test_the_error_of_dopri5_falls_with_its_tolerance():
    start, elapsed = torch.tensor([[0.2]], dtype=torch.float64), torch.tensor([4.0], dtype=torch.float64)
    exact = logistic_solution(start, elapsed)
    tolerances = [1e-3, 1e-5, 1e-7, 1e-9]
    errors = [(ode(logistic, "dopri5", rtol=t, atol=t)(start, elapsed) - exact).abs().item() for t in tolerances]
    assert errors == sorted(errors, reverse=True)
    assert all(error < 10 * tolerance for error, tolerance in zip(errors, tolerances, strict=True))


@pytest.mark.parametrize("adjoint", [False, True])
def test_no_step_is_longer_than_asked(adjoint):
    field = Field(logistic)
    elapsed = torch.tensor([1.0, 0.25, 2.3, -0.6])
    ode(field, max_step=0.5, adjoint=adjoint)(torch.full((4, 1), 0.2), elapsed)
    assert field.num_calls == 5


def test_rounding_of_the_times_adds_no_step():
    field = Field(logistic)
    times = torch.arange(1, 41)[None] * 0.1
    ode(field, max_step=0.1).trajectory(torch.tensor([[0.2]]), times)
    assert field.num_calls == 40


def test_decay_follows_the_exponential_of_its_rates():
    decay = Decay(3).double()
    weight = torch.tensor([-2.0, 0.0, 3.0], dtype=torch.float64)
    decay.weight.data = weight
    state = maps(2, 3, 4, torch.float64)
    elapsed = torch.tensor([0.7, 5.0], dtype=torch.float64)
    rate = torch.log1p(torch.exp(weight))
    expected = torch.stack(
        [torch.stack([state[b, c] * math.exp(-rate[c] * elapsed[b]) for c in range(3)]) for b in range(2)]
    )
    torch.testing.assert_close(decay(state, elapsed), expected)
    torch.testing.assert_close(decay(state[:, :, 0, 0], elapsed), expected[:, :, 0, 0])


def test_decay_starts_with_a_tenth_for_each_cadence():
    assert Decay(2)(torch.ones(1, 2), torch.tensor([1.0])).tolist()[0] == pytest.approx([math.exp(-0.1)] * 2)


# Splitting, turning back, standing still


@settings(max_examples=12, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 5)), min_size=1, max_size=4))
def test_an_evolution_in_two_parts_is_the_evolution_at_once(parts):
    first, second = torch.tensor(parts, dtype=torch.float64).unbind(1)
    state = torch.rand(len(parts), 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(hold(hold(state, first), second), hold(state, first + second))
    evolutions = [
        (Decay(3).double(), 1e-12),
        (ode(logistic, "dopri5", rtol=1e-6, atol=1e-7), 1e-5),
        (accurate(logistic, "rk4", 0.25), 1e-4),
    ]
    for evolution, tolerance in evolutions:
        with torch.no_grad():
            split, whole = evolution(evolution(state, first), second), evolution(state, first + second)
        torch.testing.assert_close(split, whole, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("solver", ["midpoint", "rk4", "dopri5"])
def test_forward_and_back_in_time_returns(solver):
    state, elapsed = maps(dtype=torch.float64), torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    evolution = accurate(field_of(torch.float64), solver, 0.02)
    with torch.no_grad():
        there = evolution(state, elapsed)
        back = evolution(there, -elapsed)
    assert (there - state).abs().max() > 0.1
    torch.testing.assert_close(back, state, rtol=1e-4, atol=1e-4)
    turned = Decay(4).double()
    torch.testing.assert_close(turned(turned(state, elapsed), -elapsed), state)


@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("solver", SOLVERS)
def test_no_time_changes_nothing(solver, adjoint):
    evolution = ode(field_of(), solver, adjoint=adjoint)
    state = maps()
    with torch.no_grad():
        assert torch.equal(evolution(state, torch.zeros(3)), state)
        mixed = evolution(state, torch.tensor([0.0, 1.0, 0.0]))
    assert torch.equal(mixed[[0, 2]], state[[0, 2]])
    assert not torch.allclose(mixed[1], state[1], atol=1e-3)
    assert torch.equal(Decay(4)(state, torch.zeros(3)), state)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_later_time_changes_no_earlier_state(solver):
    evolution, state = ode(field_of(), solver), maps()
    times = torch.tensor([[0.5, 1.0, 4.0], [1.0, 2.5, 3.0], [-1.0, 0.0, 1.0]])
    with torch.no_grad():
        whole = evolution.trajectory(state, times)
        short = evolution.trajectory(state, times[:, :2])
        first = evolution(state, times[:, 0])
    assert [torch.equal(a, b) for a, b in zip(short, whole, strict=False)] == [True, True]
    assert torch.equal(first, whole[0])


def test_no_times_give_no_states():
    assert ode(logistic, max_step=0.5).trajectory(torch.ones(2, 1), torch.empty(2, 0)) == []


# A batch against each sample alone


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.lists(st.floats(-3, 4, width=32), min_size=2, max_size=2), min_size=2, max_size=4),
    st.sampled_from([None, 0.3, 1.0]),
    st.sampled_from(list(product(FIXED, [False, True]))),
)
def test_fixed_steps_give_each_sample_what_it_gets_alone(times, max_step, solver):
    times, state = torch.tensor(times), maps(len(times))
    evolution = ode(neighbours, solver[0], max_step=max_step, adjoint=solver[1])
    with torch.no_grad():
        together = evolution.trajectory(state, times)
        for sample in range(len(times)):
            alone = evolution.trajectory(state[sample : sample + 1], times[sample : sample + 1])
            assert all(torch.equal(a[0], t[sample]) for a, t in zip(alone, together, strict=True))


@pytest.mark.parametrize(("tolerance", "adjoint"), list(product([1e-3, 1e-6], [False, True])))
def test_dopri5_gives_each_sample_what_it_gets_alone_to_its_tolerance(tolerance, adjoint):
    state = maps(8, dtype=torch.float64) * torch.logspace(-2, 1, 8, dtype=torch.float64)[:, None, None, None]
    elapsed = torch.tensor([0.01, 4.0, 1.0, -1.0, 0.3, 2.0, 0.0, 1.0], dtype=torch.float64)
    evolution = ode(field_of(torch.float64), "dopri5", rtol=tolerance, atol=tolerance, adjoint=adjoint)
    with torch.no_grad():
        together = evolution(state, elapsed)
        alone = torch.cat([evolution(state[b : b + 1], elapsed[b : b + 1]) for b in range(8)])
    assert ((together - alone).abs() <= 5 * tolerance * (1 + alone.abs())).all()


def test_easy_samples_do_not_thin_out_the_error_of_a_hard_one():
    calls = []
    for easy in (0, 63):
        field = Field(torch.sin)
        state, elapsed = torch.full((1 + easy, 3), 0.1, dtype=torch.float64), torch.zeros(1 + easy)
        elapsed[0] = 8.0
        ode(field, "dopri5", rtol=1e-6, atol=1e-6)(state, elapsed)
        calls.append(field.num_calls)
    assert calls[0] == calls[1] > 50


# Gradients


def gradients(evolution, state, times):
    state = state.clone().requires_grad_()
    loss = sum(result.square().sum() for result in evolution.trajectory(state, times))
    return torch.autograd.grad(loss, [state, *evolution.parameters()])


@pytest.mark.parametrize("solver", ["rk4", "dopri5"])
def test_the_adjoint_has_the_gradients_of_backpropagation(solver):
    state = maps(dtype=torch.float64)
    times = torch.tensor([[0.3, 1.0], [0.5, 2.0], [-0.2, 0.7]], dtype=torch.float64)
    pairs = [
        gradients(accurate(field_of(torch.float64), solver, 0.05, adjoint), state, times) for adjoint in (False, True)
    ]
    for backpropagated, adjoint in zip(*pairs, strict=True):
        assert (adjoint - backpropagated).norm() < 1e-6 * backpropagated.norm()


@pytest.mark.parametrize("solver", FIXED)
def test_the_gradient_of_the_adjoint_is_each_samples_own(solver):
    state, times = maps(dtype=torch.float64), torch.tensor([[0.3], [2.0], [-0.7]], dtype=torch.float64)
    evolution = ode(field_of(torch.float64), solver, max_step=0.25, adjoint=True)
    together = gradients(evolution, state, times)[0]
    alone = [gradients(evolution, state[b : b + 1], times[b : b + 1])[0] for b in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-10, atol=1e-12)


def test_gradients_of_rk4_pass_gradcheck():
    field, elapsed = Rotation(), torch.tensor([0.5, 1.2], dtype=torch.float64)
    evolution = ode(field, "rk4", max_step=0.4)
    start = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)

    def solve(state, weight, times):
        return torch.func.functional_call(evolution, {"field.weight": weight}, (state, times))

    assert torch.autograd.gradcheck(solve, (start, field.weight, elapsed.requires_grad_()))


def test_gradients_of_decay_pass_gradcheck():
    decay, elapsed = Decay(3).double(), torch.tensor([0.5, 1.2], dtype=torch.float64, requires_grad=True)
    state = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True)

    def solve(state, weight, times):
        return torch.func.functional_call(decay, {"weight": weight}, (state, times))

    assert torch.autograd.gradcheck(solve, (state, decay.weight, elapsed))


def saved_bytes(evolution, state, elapsed):
    """Bytes of the tensors kept for the backward pass, each storage once."""
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        evolution(state, elapsed)
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("solver", FIXED)
def test_memory_of_the_adjoint_does_not_grow_with_the_steps(solver):
    state, elapsed = maps().requires_grad_(), torch.ones(3)
    few, many = (saved_bytes(ode(field_of(), solver, max_step=s, adjoint=True), state, elapsed) for s in (0.1, 0.01))
    assert few >= state.nbytes
    assert many <= 1.05 * few
    few, many = (saved_bytes(ode(field_of(), solver, max_step=s), state, elapsed) for s in (0.1, 0.01))
    assert 9 < many / few < 11


# Precision and memory


@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("solver", SOLVERS)
def test_channels_last_stays(solver, adjoint):
    seen = []
    field = field_of()
    field.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].stride()))
    state = maps()
    assert ode(field, solver, adjoint=adjoint)(state, torch.ones(3)).stride() == state.stride()
    assert set(seen) == {state.stride()}
    plain = state.contiguous()
    assert ode(field_of(), solver, adjoint=adjoint)(plain, torch.ones(3)).stride() == plain.stride()


@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("solver", SOLVERS)
def test_under_autocast_the_field_is_bfloat16_and_the_state_float32(solver, adjoint):
    computed = []
    field = field_of()
    field.register_forward_hook(lambda module, inputs, output: computed.append((inputs[0].dtype, output.dtype)))
    evolution = ode(field, solver, adjoint=adjoint, **({} if solver == "dopri5" else {"max_step": 0.25}))
    state, times = maps(), torch.tensor([[1.0], [2.0], [0.5]])
    expected = gradients(evolution, state, times)
    computed.clear()
    with torch.autocast("cpu", torch.bfloat16):
        assert evolution(state.bfloat16(), times[:, 0]).dtype == torch.float32
        inside = gradients(evolution, state, times)
    with torch.autocast("cpu", torch.bfloat16):
        start = state.clone().requires_grad_()
        loss = evolution(start, times[:, 0]).square().sum()
    outside = torch.autograd.grad(loss, [start, *evolution.parameters()])
    assert set(computed) == {(torch.float32, torch.bfloat16)}
    for right, near, near_too in zip(expected, inside, outside, strict=True):
        assert (near - right).norm() < 0.03 * right.norm()
        assert (near_too - right).norm() < 0.03 * right.norm()


def test_decay_is_float32_under_autocast_and_the_state_keeps_its_precision():
    with torch.autocast("cpu", torch.bfloat16):
        assert Decay(4)(maps(), torch.ones(3)).dtype == torch.float32
    assert ode(logistic)(torch.ones(1, 1, dtype=torch.float64), torch.ones(1)).dtype == torch.float64


# The field


@pytest.mark.parametrize(
    ("channels", "width", "depth", "expected"), [((64, 96, 128), 48, 1, 311_616), ((96, 96, 128), 64, 2, 590_720)]
)
def test_the_fields_of_the_thesis_have_its_number_of_parameters(channels, width, depth, expected):
    fields = [ConvolutionalField(c, width, depth) for c in channels]
    assert sum(weight.numel() for field in fields for weight in field.parameters()) == expected


def test_the_field_is_convolutions_with_tanh_between():
    field, state = field_of(torch.float64), maps(dtype=torch.float64)
    expected = state
    weights = list(field.parameters())
    for index in range(0, len(weights), 2):
        expected = torch.tanh(expected) if index else expected
        expected = nn.functional.conv2d(expected, weights[index], weights[index + 1], padding=1)
    torch.testing.assert_close(field(state), expected)
    assert len(weights) == 6


# What can go wrong


def blow_up(state):
    return state.square()


@pytest.mark.parametrize("adjoint", [False, True])
def test_a_fixed_solver_that_blows_up_names_interval_and_samples(adjoint):
    times = torch.tensor([[1.0, 5.0, 9.0], [1.0, 3.0, 7.0], [1.0, 2.0, 3.0]])
    state = torch.tensor([[0.0], [1e30], [1e12]])
    with pytest.raises(
        SolverFailed, match=r"'euler'\) left the finite numbers in sample 1 of the batch between 0 and 1"
    ):
        ode(blow_up, adjoint=adjoint).trajectory(state, times)
    state[1] = 0.0
    with pytest.raises(
        SolverFailed, match=r"in sample 2 of the batch between 1 and 2 cadences; try a smaller max_step"
    ):
        ode(blow_up, adjoint=adjoint).trajectory(state, times)


def test_a_state_that_came_broken_is_not_the_solvers_fault():
    with pytest.raises(SolverFailed, match=r"starts from is not finite in sample 0, 2 of the batch"):
        ode(logistic)(torch.tensor([[math.nan], [1.0], [math.inf]]), torch.ones(3))


@pytest.mark.parametrize("adjoint", [False, True])
def test_dopri5_that_cannot_go_on_names_interval_and_moment(adjoint):
    evolution = ode(blow_up, "dopri5", adjoint=adjoint)
    state = torch.tensor([[1.0], [0.1]], dtype=torch.float64)
    # 1 / (1 - t) has no value from t = 1 on.
    with pytest.raises(SolverFailed, match=r"between 0.5 and 2.5 cadences, at 0.25 of the interval.*try looser toler"):
        evolution.trajectory(state, torch.tensor([[0.5, 2.5], [0.5, 0.6]], dtype=torch.float64))


@pytest.mark.parametrize("adjoint", [False, True])
def test_dopri5_names_the_sample_whose_derivative_is_not_finite(adjoint):
    evolution = ode(torch.log, "dopri5", adjoint=adjoint)
    with pytest.raises(SolverFailed, match=r"in sample 1 of the batch between 0 and 3 cadences, at 0 of .*not finite"):
        evolution(torch.tensor([[2.0], [-1.0]]), torch.tensor([1.0, 3.0]))


def test_the_backward_pass_of_the_adjoint_says_the_same():
    weight = nn.Parameter(torch.ones(1))
    field = Field(lambda state: weight * state * (torch.nan if torch.is_grad_enabled() else 1.0))
    field.weight = weight
    result = ode(field, "dopri5", adjoint=True)(torch.ones(2, 1), torch.tensor([1.0, 2.0]))
    with pytest.raises(
        SolverFailed, match=r"can't go on in sample 0, 1 of the batch between 0 and 1 cadences, at 1 of"
    ):
        result.sum().backward()


def test_too_many_steps_are_refused(monkeypatch):
    monkeypatch.setattr("fieldcast.evolve.MOST_STEPS", 20)
    with pytest.raises(SolverFailed, match=r"between 0 and 50 cadences, at 0\.\d+ of the interval: .* taken 20 steps"):
        ode(lambda state: -1000 * state, "dopri5")(torch.ones(1, 1), torch.tensor([50.0]))


def test_solver_failed_has_the_exit_code_of_what_diverged():
    assert SolverFailed.exit_code == 5


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"max_step": 0.0}, "'evolution.max_step' = 0.0: input should be greater than 0"),
        ({"max_step": -1.0}, "greater than 0"),
        ({"solver": "dopri5", "rtol": 0.0}, "'evolution.rtol' = 0.0: input should be greater than 0"),
        ({"solver": "dopri5", "atol": -1.0}, "greater than 0"),
        ({"depth": -1}, "greater than or equal to 0"),
        ({"width": 0}, "greater than or equal to 1"),
        ({"solver": "heun"}, "'euler', 'midpoint', 'rk4' or 'dopri5'"),
        ({"solver": "dopri5", "max_step": 1.0}, "dopri5 chooses its steps by rtol and atol"),
        ({"solver": "rk4", "rtol": 1e-3}, "rtol is for dopri5: the steps of rk4 are set by max_step"),
        ({"atol": 1e-3}, "atol is for dopri5: the steps of euler are set by max_step"),
    ],
)
def test_wrong_settings_are_refused(values, complaint):
    with pytest.raises(ConfigError, match=complaint):
        read_settings(ODESettings, {"width": 8, "depth": 1, **values}, "evolution")


def test_without_torchdiffeq_only_dopri5_and_the_adjoint_are_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    for solver in FIXED:
        ode(logistic, solver)(torch.ones(1, 1), torch.ones(1))
    with pytest.raises(MissingExtra, match=r"solver 'dopri5' needs the 'ode' extra"):
        ode(logistic, "dopri5")
    with pytest.raises(MissingExtra, match=r"the adjoint method needs the 'ode' extra"):
        ode(logistic, "rk4", adjoint=True)
