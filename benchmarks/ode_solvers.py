"""Solvers of the ODE evolution: order, adjoint against backpropagation, a batch against each sample alone.

    python benchmarks/ode_solvers.py [--size 32] [--channels 64] [--width 48] [--repeats 3]

Orders are the slope of log error against log step on logistic growth, in float64. Adjoint and batch use a field of
convolutions with one hidden layer. Ratios of the adjoint are adjoint / backpropagation, over one cadence.
"""

import argparse
import time

import torch

from fieldcast.evolve import FIXED_STEPS, ODE, ConvolutionalField, ODESettings

STEP_COUNTS = (10, 30, 100)
BATCH_TIMES = (0.1, 1.0, 2.5, 4.0, -1.0, 0.0, 0.5, 3.0)


class Logistic(torch.nn.Module):
    def forward(self, state: torch.Tensor) -> torch.Tensor:
        return state * (1 - state)


def settings(solver: str, **values) -> ODESettings:
    return ODESettings(width=1, depth=0, solver=solver, **values)


def logistic_error(**values) -> float:
    start, elapsed = torch.tensor([[0.2]], dtype=torch.float64), torch.tensor([2.0], dtype=torch.float64)
    exact = 1 / (1 + (1 / start - 1) * torch.exp(-elapsed))
    return float((ODE(Logistic(), settings(**values))(start, elapsed) - exact).abs())


def print_orders() -> None:
    print(f"{'solver':12}{'order':>8}{'adjoint':>9}")
    for solver in FIXED_STEPS:
        slopes = []
        for adjoint in (False, True):
            steps = [2.0 / number for number in (16, 32, 64, 128)]
            errors = [logistic_error(solver=solver, max_step=step, adjoint=adjoint) for step in steps]
            logs = torch.tensor([steps, errors], dtype=torch.float64).log()
            centred = logs - logs.mean(dim=1, keepdim=True)
            slopes.append(float(centred[0] @ centred[1] / (centred[0] @ centred[0])))
        print(f"{solver:12}{slopes[0]:8.3f}{slopes[1]:9.3f}")
    for tolerance in (1e-3, 1e-5, 1e-7, 1e-9):
        error = logistic_error(solver="dopri5", rtol=tolerance, atol=tolerance)
        print(f"dopri5 at tolerance {tolerance:.0e}: error {error:.1e}, {error / tolerance:.2f} of it")


def problem(options: argparse.Namespace, dtype: torch.dtype) -> tuple[ConvolutionalField, torch.Tensor]:
    torch.manual_seed(0)
    field = ConvolutionalField(options.channels, options.width, 1).to(dtype)
    state = torch.randn(4, options.channels, options.size, options.size, dtype=dtype)
    return field, state.to(memory_format=torch.channels_last).requires_grad_()


def gradients_and_cost(evolution: ODE, state: torch.Tensor, repeats: int) -> tuple[torch.Tensor, int, float]:
    """Gradients of state and weights in one row, bytes kept for the backward pass, seconds of the fastest round."""
    elapsed, kept, seconds = torch.ones(len(state), dtype=state.dtype), {}, []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    for _ in range(repeats):
        kept.clear()
        started = time.perf_counter()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = evolution(state, elapsed).square().sum()
        found = torch.autograd.grad(loss, [state, *evolution.parameters()])
        seconds.append(time.perf_counter() - started)
    return torch.cat([gradient.flatten() for gradient in found]), sum(kept.values()), min(seconds)


def print_adjoint(options: argparse.Namespace) -> None:
    print(f"\n{'solver':12}{'steps':>6}{'gradient':>11}{'backprop MB':>13}{'adjoint MB':>12}{'ratio':>7}{'time':>7}")
    field, state = problem(options, torch.float32)
    for solver in FIXED_STEPS:
        for count in STEP_COUNTS:
            rows = []
            for adjoint in (False, True):
                evolution = ODE(field, settings(solver, max_step=1 / count, adjoint=adjoint))
                rows.append(gradients_and_cost(evolution, state, options.repeats))
            (plain, plain_bytes, plain_time), (other, other_bytes, other_time) = rows
            difference = float((other - plain).norm() / plain.norm())
            print(f"{solver:12}{count:6}{difference:11.1e}{plain_bytes / 1e6:13.1f}{other_bytes / 1e6:12.1f}"
                  f"{other_bytes / plain_bytes:7.3f}{other_time / plain_time:7.2f}", flush=True)  # fmt: skip
    print("\ngradients in float64, relative difference of adjoint and backpropagation:")
    small = argparse.Namespace(channels=8, width=8, size=8)
    field, state = problem(small, torch.float64)
    for name, values in {
        "rk4, 100 steps": {"solver": "rk4", "max_step": 0.01},
        "dopri5 at 1e-9": {"solver": "dopri5", "rtol": 1e-9, "atol": 1e-11},
        "dopri5 at 1e-3": {"solver": "dopri5"},
    }.items():
        evolutions = [ODE(field, settings(**values, adjoint=adjoint)) for adjoint in (False, True)]
        plain, other = (gradients_and_cost(evolution, state, 1)[0] for evolution in evolutions)
        print(f"  {name}: {float((other - plain).norm() / plain.norm()):.1e}")


def print_batch(options: argparse.Namespace) -> None:
    print(f"\n{len(BATCH_TIMES)} samples with times {BATCH_TIMES}: largest difference together / alone, time ratio")
    field, _ = problem(options, torch.float32)
    state = torch.randn(len(BATCH_TIMES), options.channels, options.size, options.size)
    elapsed = torch.tensor(BATCH_TIMES)
    cases = {
        "logistic, euler": (Logistic(), {"solver": "euler", "max_step": 0.25}),
        "logistic, rk4": (Logistic(), {"solver": "rk4", "max_step": 0.25}),
        "convolutions, euler": (field, {"solver": "euler", "max_step": 0.25}),
        "convolutions, rk4": (field, {"solver": "rk4", "max_step": 0.25}),
        "convolutions, dopri5 at 1e-3": (field, {"solver": "dopri5"}),
        "convolutions, dopri5 at 1e-5": (field, {"solver": "dopri5", "rtol": 1e-5, "atol": 1e-5}),
    }
    for name, (of_state, values) in cases.items():
        evolution = ODE(of_state, settings(**values))
        start = state.sigmoid() if isinstance(of_state, Logistic) else state
        with torch.no_grad():
            begun = time.perf_counter()
            together = evolution(start, elapsed)
            middle = time.perf_counter()
            alone = torch.cat([evolution(start[b : b + 1], elapsed[b : b + 1]) for b in range(len(start))])
            ratio = (middle - begun) / (time.perf_counter() - middle)
        print(f"  {name:30}{float((together - alone).abs().max()):10.1e}{ratio:8.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=32, help="rows and columns")
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--width", type=int, default=48, help="of the field's hidden layers")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}")
    print_orders()
    print_adjoint(options)
    print_batch(options)


if __name__ == "__main__":
    main()
