"""What happens to a state between two times: it holds, decays, or follows a differential equation.

Times are in cadences, and every sample has its own; one below 0 is backward in time.

Shapes: B batch, C channels, S times, N samples of a batch that are at fault; a state is (B, ...).
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import pairwise
from types import ModuleType
from typing import Annotated, Literal, NamedTuple, NoReturn

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from fieldcast.errors import MissingExtra, SolverFailed
from fieldcast.settings import Count, Settings

RELATIVE_TOLERANCE = 1e-3
ABSOLUTE_TOLERANCE = 1e-4
START_RATE = 0.1  # of a decay, per cadence
MOST_STEPS = 10_000  # of dopri5 in one interval: far beyond what anybody waits for
STEP_SLACK = 1e-3  # an interval that is k steps long but for rounding takes k steps

Rate = Callable[[Tensor], Tensor]  # state -> its derivative


def hold(state: Tensor, elapsed: Tensor) -> Tensor:
    """Leave the state (B, ...) as it is, whatever has ``elapsed`` (B,)."""
    return state


class Decay(nn.Module):
    """Exponential decay with a learned rate for each channel.

    h(t) = h(0) exp(-rate t), rate = softplus(weight) > 0.

    The hidden decay of GRU-D (Che et al. 2018, section "GRU-D"), with softplus for their max(0, .), whose gradient
    vanishes below 0.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), math.log(math.expm1(START_RATE))))

    def forward(self, state: Tensor, elapsed: Tensor) -> Tensor:
        """State (B, C, ...) and elapsed cadences (B,) -> state."""
        kept = torch.exp(-elapsed[:, None].to(self.weight.dtype) * functional.softplus(self.weight))
        return state * kept.reshape(kept.shape + (1,) * (state.dim() - 2))


class ODESettings(Settings):
    """How a state follows a differential equation, and how it is solved.

    Args:
        width: channels of the field's hidden maps.
        depth: hidden convolutions of the field after the first.
        solver: euler (order 1), midpoint (2), rk4 (4), or dopri5 (5, adaptive).
        max_step: longest step of euler, midpoint and rk4, in cadences; None is one step for each interval.
        rtol: relative tolerance of dopri5, 1e-3 unless given.
        atol: absolute tolerance of dopri5, 1e-4 unless given.
        adjoint: whether gradients come from the adjoint equation, with memory that does not grow with the steps.
    """

    width: Count
    depth: Annotated[int, Field(ge=0)]
    solver: Literal["euler", "midpoint", "rk4", "dopri5"] = "euler"
    max_step: Annotated[float, Field(gt=0)] | None = None
    rtol: Annotated[float, Field(gt=0)] | None = None
    atol: Annotated[float, Field(gt=0)] | None = None
    adjoint: bool = False

    @model_validator(mode="after")
    def _fits_solver(self) -> "ODESettings":
        if self.solver == "dopri5" and self.max_step is not None:
            raise ValueError("max_step is for euler, midpoint and rk4: dopri5 chooses its steps by rtol and atol")
        for name in ("rtol", "atol"):
            if self.solver != "dopri5" and getattr(self, name) is not None:
                raise ValueError(f"{name} is for dopri5: the steps of {self.solver} are set by max_step")
        return self


def euler_step(rate: Rate, state: Tensor, step: Tensor) -> Tensor:
    """One step of order 1: h + s f(h)."""
    return state + step * rate(state)


def midpoint_step(rate: Rate, state: Tensor, step: Tensor) -> Tensor:
    """One step of order 2: h + s f(h + s/2 f(h))."""
    return state + step * rate(state + 0.5 * step * rate(state))


def rk4_step(rate: Rate, state: Tensor, step: Tensor) -> Tensor:
    """One step of the classic Runge-Kutta method of order 4."""
    first = rate(state)
    second = rate(state + 0.5 * step * first)
    third = rate(state + 0.5 * step * second)
    fourth = rate(state + step * third)
    return state + step / 6 * (first + 2 * (second + third) + fourth)


FIXED_STEPS = {"euler": euler_step, "midpoint": midpoint_step, "rk4": rk4_step}


class Interval(NamedTuple):
    """One interval of a trajectory: where each sample starts and ends (B,), and in how many steps (B,), at most."""

    start: Tensor
    end: Tensor
    num_steps: Tensor
    most_steps: int

    def elapsed(self, state: Tensor) -> Tensor:
        """Cadences for each sample, shaped and typed to multiply a state: (B, 1, ...)."""
        return _per_sample(self.end - self.start, state)

    def describe(self, at_fault: Tensor) -> str:
        """``between 3 and 4 cadences``: of the first sample at fault (B,), or of the longest way where none is."""
        sample = int((at_fault if at_fault.any() else (self.end - self.start).abs()).float().argmax())
        return f"between {float(self.start[sample]):g} and {float(self.end[sample]):g} cadences"


class ODE(nn.Module):
    """A state that follows a differential equation between two times.

    dh/dt = f(h), solved for sample b as dh/du = elapsed_b f(h) with u from 0 to 1, so that samples with different
    times are solved together (Chen, Amos, Nickel 2021).

    euler, midpoint and rk4 give sample b its own number of steps n_b = max(1, ceil(|elapsed_b| / max_step)), each of
    elapsed_b / n_b (up to a thousandth longer than max_step): it gets the very numbers that it gets alone, as far as
    the field does. dopri5 (torchdiffeq) chooses steps for the sample that needs the smallest.

    With ``adjoint`` (Chen et al. 2018, equation 4; torchdiffeq) the equation is solved backward for the gradients,
    which are as exact as the solver: it wants small steps or tight tolerances. There rk4 is torchdiffeq's, the 3/8
    rule, of the same order, and no gradient reaches the times.

    The state is float32 at least; under autocast the field alone computes in low precision.

    Args:
        field: f, a module from state (B, ...) to its derivative, of the same shape.
        settings: the solver.

    Raises:
        MissingExtra: for dopri5 or the adjoint without torchdiffeq.
    """

    def __init__(self, field: nn.Module, settings: ODESettings) -> None:
        super().__init__()
        self.field = field
        self.settings = settings
        if settings.adjoint or settings.solver == "dopri5":
            _import_solvers(settings)

    def forward(self, state: Tensor, elapsed: Tensor) -> Tensor:
        """State (B, ...) and elapsed cadences (B,) -> state.

        Raises:
            SolverFailed: where the equation can't be solved.
        """
        return self.trajectory(state, elapsed[:, None])[0]

    def trajectory(self, state: Tensor, times: Tensor) -> list[Tensor]:
        """The states at times (B, S), solved from time 0 through each of them: S states (B, ...).

        Raises:
            SolverFailed: where the equation can't be solved.
        """
        states = [state.to(torch.promote_types(state.dtype, torch.float32))]
        intervals = self._intervals(times)
        for interval in intervals:
            states.append(self._solve(states[-1], interval))
        # What is not finite stays so: one look at the end is enough, and the device need not wait at every step.
        if _broken(states[-1]).any():
            self._refuse(states, intervals)
        return states[1:]

    def _intervals(self, times: Tensor) -> list[Interval]:
        starts = torch.cat([torch.zeros_like(times[:, :1]), times[:, :-1]], dim=1)
        num_steps, most_steps = torch.ones_like(times), [1] * times.shape[1]
        if self.settings.max_step is not None and times.numel():
            num_steps = ((times - starts).abs() / self.settings.max_step - STEP_SLACK).ceil().clamp(min=1)
            most_steps = [int(most) for most in num_steps.amax(dim=0).tolist()]
        return [Interval(*row) for row in zip(starts.unbind(1), times.unbind(1), num_steps.unbind(1), most_steps)]

    def _solve(self, state: Tensor, interval: Interval) -> Tensor:
        if self.settings.solver == "dopri5" or self.settings.adjoint:
            return self._solve_by_torchdiffeq(state, interval)
        advance = FIXED_STEPS[self.settings.solver]
        num_steps = _per_sample(interval.num_steps, state)
        step = interval.elapsed(state) / num_steps
        for index in range(interval.most_steps):
            state = advance(self.field, state, step * (index < num_steps))
        return state

    def _solve_by_torchdiffeq(self, state: Tensor, interval: Interval) -> Tensor:
        solvers = _import_solvers(self.settings)
        settings, adaptive = self.settings, self.settings.solver == "dopri5"
        elapsed = interval.elapsed(state)
        if adaptive and not elapsed.any():
            return state
        options: dict[str, object] = {"step_size": 1.0, "perturb": True}
        if adaptive:
            # A step ends where the interval ends, either way: beyond it there may be no solution.
            options = {"norm": _worst_sample, "step_t": state.new_tensor([0.0, 1.0])}
        channels_last = state.dim() == 4 and state.is_contiguous(memory_format=torch.channels_last)
        rate = _UnitRate(self, interval, elapsed, channels_last)
        ends = state.new_tensor([0.0, interval.most_steps])
        # torchdiffeq makes every tensor of its own contiguous: channels last is an order of dimensions to it.
        start = state.movedim(1, -1) if channels_last else state
        solve = solvers.odeint
        if settings.adjoint:
            solve = partial(solvers.odeint_adjoint, adjoint_params=tuple(self.field.parameters()))
        rtol, atol = settings.rtol or RELATIVE_TOLERANCE, settings.atol or ABSOLUTE_TOLERANCE
        end = solve(rate, start, ends, method=settings.solver, rtol=rtol, atol=atol, options=options)[1]
        end = end.movedim(-1, 1) if channels_last else end
        return torch.where(elapsed == 0, state, end) if adaptive else end

    def _refuse(self, states: list[Tensor], intervals: list[Interval]) -> NoReturn:
        """Say in which interval a trajectory left the finite numbers."""
        broken = [_broken(state) for state in states]
        if broken[0].any():
            raise SolverFailed(
                f"the state that the ODE starts from is not finite{_samples(broken[0])}: look at what comes before "
                "the ODE; in training a lower learning rate may help"
            )
        first = next(index for index, found in enumerate(broken) if found.any())
        advice = "solver 'rk4' or 'dopri5'" if self.settings.solver == "euler" else "solver 'dopri5'"
        raise SolverFailed(
            f"the ODE (solver '{self.settings.solver}') left the finite numbers{_samples(broken[first])} "
            f"{intervals[first - 1].describe(broken[first])}; try a smaller max_step, {advice}, or a lower learning "
            "rate"
        )


class ConvolutionalField(nn.Sequential):
    """The derivative of a map of states as a small convolutional network.

    conv3x3 tanh [conv3x3 tanh]^depth conv3x3, from C channels over ``width`` to C.

    Thesis section 4.2.3.1, figure 4.5; widths and depths of its published models: 48 and 1, 64 and 2.

    Args:
        channels: C.
        width: channels of the hidden maps.
        depth: hidden convolutions after the first.
    """

    def __init__(self, channels: int, width: int, depth: int) -> None:
        widths = [channels, *[width] * (depth + 1), channels]
        convolutions = [nn.Conv2d(into, out, 3, padding=1) for into, out in pairwise(widths)]
        hidden = [layer for convolution in convolutions[:-1] for layer in (convolution, nn.Tanh())]
        super().__init__(*hidden, convolutions[-1])


def convolutional_ode(channels: int, settings: ODESettings) -> ODE:
    """The equation of a map of states (B, C, H, W) with a ``ConvolutionalField`` of the settings' width and depth."""
    return ODE(ConvolutionalField(channels, settings.width, settings.depth), settings)


class _UnitRate:
    """dh/du for torchdiffeq: u runs from 0 to 1 (dopri5), or over the numbers of the steps (fixed steps)."""

    def __init__(self, ode: ODE, interval: Interval, elapsed: Tensor, channels_last: bool) -> None:
        self.ode, self.interval, self.channels_last = ode, interval, channels_last
        self.num_steps = _per_sample(interval.num_steps, elapsed)
        self.speed = elapsed / self.num_steps
        self.precision: AbstractContextManager = nullcontext()
        if ode.settings.adjoint:
            # The backward pass asks for f again, often outside the autocast of the forward pass. No cache: a weight
            # that was cast in the forward pass, where the adjoint needs no gradients, must not serve the backward one.
            device = elapsed.device.type
            enabled, precision = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
            self.precision = torch.autocast(device, precision, enabled, cache_enabled=False)
        self.adaptive = ode.settings.solver == "dopri5"
        self.num_taken = 0

    def __call__(self, moment: Tensor, state: Tensor) -> Tensor:
        with self.precision:
            rate = self.ode.field(state.movedim(-1, 1) if self.channels_last else state)
        rate = rate.movedim(1, -1) if self.channels_last else rate
        if self.adaptive:
            return self.speed * rate
        # The solver asks a little inside each step (its option "perturb"): no sample is ever between two.
        return self.speed * (moment < self.num_steps) * rate

    def callback_step(self, moment: Tensor, state: Tensor, step: Tensor) -> None:
        """Before a step: stop where it is too small to get on, or where there have been too many."""
        self._check(moment, (state,), step)

    def callback_step_adjoint(self, moment: Tensor, augmented: tuple[Tensor, ...], step: Tensor) -> None:
        """Before a step of the backward pass: time, state, and the gradients of state and weights."""
        self._check(moment, augmented[1:], step)

    def _check(self, moment: Tensor, parts: tuple[Tensor, ...], step: Tensor) -> None:
        if not self.adaptive:
            return
        self.num_taken += 1
        finite = all(bool(torch.isfinite(part).all()) for part in parts)
        if finite and self.num_taken <= MOST_STEPS and moment + step != moment and moment - step != moment:
            return
        with torch.no_grad():
            broken = _broken(parts[0]) | _broken(self(moment, parts[0]))
        fault = "its step fell to nothing" if self.num_taken <= MOST_STEPS else f"it had taken {MOST_STEPS} steps"
        if broken.any() or not finite:
            fault = "the state, its derivative or a gradient is not finite"
        raise SolverFailed(
            f"the ODE (solver 'dopri5') can't go on{_samples(broken)} {self.interval.describe(broken)}, "
            f"at {float(moment):.3g} of the interval: {fault}; try looser tolerances (rtol, atol), solver 'rk4' with a "
            "max_step, or a lower learning rate"
        )


def _import_solvers(settings: ODESettings) -> ModuleType:
    try:
        # It makes tensors as it is imported; they belong on no device that happens to be the default just then.
        with torch.device("cpu"):
            import torchdiffeq
    except ImportError:
        what = "the adjoint method" if settings.adjoint else f"solver '{settings.solver}'"
        raise MissingExtra(what, "ode") from None
    return torchdiffeq


def _per_sample(values: Tensor, state: Tensor) -> Tensor:
    """A number for each sample (B,), shaped and typed to multiply a state: (B, 1, ...)."""
    return values.to(state.dtype).reshape(-1, *(1,) * (state.dim() - 1))


@torch.no_grad()  # how long a step is has no gradient
def _worst_sample(error: Tensor) -> Tensor:
    """Root mean square (B, ...) of the sample where it is largest, so that a batch does not thin out an error."""
    return error.square().reshape(len(error), -1).mean(dim=1).max().sqrt()


def _broken(state: Tensor) -> Tensor:
    """Which samples (B, ...) are not finite: (B,)."""
    return ~torch.isfinite(state).reshape(len(state), -1).all(dim=1)


def _samples(broken: Tensor) -> str:
    """`` in sample 0, 2 of the batch``, or nothing where none is known."""
    numbers = ", ".join(str(number) for number in broken.nonzero().flatten().tolist())
    return f" in sample {numbers} of the batch" if numbers else ""
