"""Linear kernels of 97 rivers: agreement, speed and memory of ways to compute them, and the cost model against time.

97 outputs, 30 steps, 7 fields of 60x60, ConvLSTM with 16 hidden channels, 3x3 kernels and the dense head, float32. The
references are 97 backward calls through one retained graph of the same model, and torch.func.jacrev. Every case runs in
a process of its own, so that its peak memory is its own, and the cases take turns; all have the same number of threads.
"above" is the peak above what the process held before, the result left out. Ratios are of medians, of wall time and of
processor time, which says more on a busy machine.

    python benchmarks/linear_kernels.py [--rounds N] [--threads N] [--only PART]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

import torch
from torch import Tensor

from fieldcast.benchmark.measure import peak_memory
from fieldcast.explain.cost import (
    adjoint_multiply_adds,
    cheapest_method,
    forward_multiply_adds,
    note_multiply_adds,
    recursion_sizes,
)
from fieldcast.explain.forward_mode import directional_kernels
from fieldcast.explain.linear_kernels import linear_kernels, predicted_seconds
from fieldcast.explain.network import Network
from fieldcast.explain.outputs import station_outputs
from fieldcast.models import build

# outputs, steps, fields, rows, columns, hidden channels, kernel
MAIN = (97, 30, 7, 60, 60, 16, 3)
SIZES = [(97, 10, 4, 24, 27, 9, 7), (97, 30, 4, 37, 40, 9, 7), MAIN, (97, 30, 4, 74, 81, 9, 7)]
TINY = [
    ((1000, 5, 1, 3, 3, 9, 3), "catchment"), ((1000, 10, 1, 4, 4, 9, 3), "catchment"),
    ((250, 10, 1, 4, 4, 9, 3), "catchment"), ((250, 5, 1, 3, 3, 9, 3), "dense"), ((97, 30, 4, 1, 1, 16, 3), "dense"),
    ((97, 10, 2, 6, 6, 9, 3), "dense"),
]  # fmt: skip
CASES = ("97 backward calls", "jacrev", "adjoint", "adjoint, bf16", "backward")
MEBIBYTE = 2**20


def make(size: tuple[int, ...], dtype: torch.dtype = torch.float32, head: str = "dense") -> tuple[Network, Tensor]:
    num_outputs, num_steps, num_fields, height, width, hidden, kernel = size
    torch.manual_seed(0)
    model = build(
        "runoff-convlstm", num_channels=num_fields, map_size=[height, width], num_stations=num_outputs,
        hidden_width=hidden, kernel=kernel, head=head,
    ).to(dtype).eval()  # fmt: skip
    if head == "catchment":
        model.use_catchments(torch.rand(num_outputs, height, width))
    outputs = station_outputs([str(number) for number in range(num_outputs)], range(num_outputs), num_outputs)
    network = Network(model, torch.arange(1.0 - num_steps, 1)[None], torch.zeros(1, 1), outputs)
    return network, torch.randn(1, num_steps, num_fields, height, width, dtype=dtype)


def backward_calls(network: Network, reference: Tensor) -> Tensor:
    source = reference.clone().requires_grad_()
    values = network.model(source, network.input_times, network.target_times).flatten()
    weights = torch.empty(len(values), *reference.shape[1:], dtype=reference.dtype)
    for number, value in enumerate(values):
        weights[number] = torch.autograd.grad(value, source, retain_graph=True)[0][0]
    return weights


def jacrev(network: Network, reference: Tensor) -> Tensor:
    times = network.input_times, network.target_times
    return torch.func.jacrev(lambda source: network.model(source, *times).flatten())(reference)[:, 0]


def compute(case: str, network: Network, reference: Tensor) -> Tensor:
    if case == "97 backward calls":
        return backward_calls(network, reference)
    if case == "jacrev":
        return jacrev(network, reference)
    method, _, precision = case.partition(", ")
    return linear_kernels(network, reference, method, precision=precision or "float32").weights


def held() -> int:
    with open("/proc/self/statm", encoding="ascii") as status:  # noqa: PTH123 - no file on a disk
        return int(status.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(case: str, size: tuple[int, ...]) -> dict[str, float]:
    network, reference = make(size)
    before = held()
    started, worked = time.perf_counter(), time.process_time()
    weights = compute(case, network, reference)
    row = {"wall": time.perf_counter() - started, "processor": time.process_time() - worked}
    row["above"] = (peak_memory() - before - weights.nbytes) / MEBIBYTE
    if case == "adjoint, bf16":
        exact = linear_kernels(network, reference, "adjoint").weights
        row["error"] = ((weights - exact).norm() / exact.norm()).item()
        row["largest"] = ((weights - exact).abs().amax() / exact.abs().amax()).item()
    return row


def in_a_process(case: str, size: tuple[int, ...], threads: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--case", case, "--size", *map(str, size), "--threads", str(threads)]
    return json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def print_agreement() -> None:
    network, reference = make((9, 5, 3, 8, 7, 4, 5), torch.float64)
    exact = torch.autograd.functional.jacobian(lambda source: network(source)[0], reference)[:, 0]
    print("\nagreement with torch.autograd.functional.jacobian in float64 (9 outputs, 5 steps, 3 fields of 8x7)")
    for method in ("backward", "adjoint", "forward"):
        kernels = linear_kernels(network, reference, method)
        error = (kernels.weights - exact).abs().amax() / exact.abs().amax()
        complete = (kernels.predict(reference) - network(reference)).abs().amax()
        print(f"  {method:10} relative {error.item():.1e}   completeness {complete.item():.1e}")


def print_speed(rounds: int, threads: int) -> None:
    found: dict[str, list[dict[str, float]]] = {case: [] for case in CASES}
    for _ in range(rounds):
        for case in CASES:
            found[case].append(in_a_process(case, MAIN, threads))
    middle = {
        case: {name: statistics.median(row[name] for row in rows) for name in rows[0]} for case, rows in found.items()
    }
    print(f"\n97 kernels of 30 x 7 x 60 x 60, float32, {threads} threads, medians of {rounds}; result 280 MiB")
    print(f"{'':20}{'wall s':>9}{'cpu s':>9}{'above MiB':>11}   calls / this   jacrev / this  (wall, cpu)")
    for case, row in middle.items():
        ratios = [middle[other][name] / row[name] for other in CASES[:2] for name in ("wall", "processor")]
        print(
            f"{case:20}{row['wall']:9.2f}{row['processor']:9.2f}{row['above']:11.0f}   "
            f"{ratios[0]:5.2f} {ratios[1]:5.2f}    {ratios[2]:5.2f} {ratios[3]:5.2f}"
        )
    row = middle["adjoint, bf16"]
    print(f"bf16: relative error {row['error']:.1e} (root mean square), {row['largest']:.1e} of the largest kernel")


def print_model() -> None:
    print("\ncost model: multiply-adds of the adjoint, the forward recursion's and the note's own count over them")
    print(f"{'outputs, steps, fields, map, hidden, kernel':44}{'adjoint':>9}{'forward':>9}{'note':>9}", end="")
    print(f"{'foretold s':>12}{'measured s':>12}{'ratio':>7}")
    for size in SIZES:
        network, reference = make(size)
        sizes = recursion_sizes(network, reference)
        own = adjoint_multiply_adds(sizes)
        foretold = predicted_seconds(network, reference, "adjoint")
        started = time.perf_counter()
        linear_kernels(network, reference, "adjoint")
        measured = time.perf_counter() - started
        print(
            f"{size!s:44}{own:9.1e}{forward_multiply_adds(sizes) / own:9.1e}{note_multiply_adds(sizes) / own:9.1e}"
            f"{foretold:12.2f}{measured:12.2f}{foretold / measured:7.2f}"
        )


def print_rule() -> None:
    print("\nthe rule of auto: multiply-adds (without Omega's) and least processor time over those of the adjoint")
    print(f"{'outputs, steps, fields, map, hidden, kernel':50}{'forward':>16}{'backward':>10}   taken")
    for size, head in TINY:
        network, reference = make(size, head=head)
        sizes = recursion_sizes(network, reference)._replace(omega=0)
        ratio = forward_multiply_adds(sizes) / adjoint_multiply_adds(sizes)
        seconds = dict.fromkeys(("forward", "adjoint", "backward"), 1e9)
        for _ in range(7):
            for method in seconds:
                started = time.process_time()
                linear_kernels(network, reference, method)
                seconds[method] = min(seconds[method], time.process_time() - started)
        own = seconds["adjoint"]
        print(
            f"{f'{size} {head}':50}{ratio:8.2f}{seconds['forward'] / own:8.2f}{seconds['backward'] / own:10.2f}   "
            f"{cheapest_method(network, reference)}"
        )


def print_directions() -> None:
    network, reference = make(MAIN)
    num_steps, num_fields, *size = MAIN[1:5]
    directions = torch.eye(num_fields)[:, None, :, None, None].expand(-1, num_steps, -1, *size)
    few = network.with_outputs(slice(num_fields))
    seconds = []
    for work in (lambda: directional_kernels(network, reference, directions), lambda: linear_kernels(few, reference)):
        work()
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    print(f"\n7 directions, one for each field, for 97 outputs: {seconds[0]:.2f} processor seconds; ", end="")
    print(f"adjoint kernels of 7 outputs: {seconds[1]:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", choices=("agreement", "speed", "model", "rule", "directions"))
    parser.add_argument("--case", choices=CASES)
    parser.add_argument("--size", type=int, nargs=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.case:
        print(json.dumps(measure(options.case, tuple(options.size))))
        return
    print(f"{options.threads} threads, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}")
    parts = {
        "agreement": print_agreement,
        "speed": lambda: print_speed(options.rounds, options.threads),
        "model": print_model,
        "rule": print_rule,
        "directions": print_directions,
    }
    for name, part in parts.items():
        if options.only in (None, name):
            part()


if __name__ == "__main__":
    main()
