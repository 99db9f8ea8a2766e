"""What attention, zigzag and ODE cost: training step and memory of the thesis' models against TrajGRU.

Preset thesis-mnist, 10 -> 10 frames of 64x64, float32. Every step runs in a process of its own, so that its peak memory
is its own, and the models take turns; times are processor seconds of one thread, the least of the rounds. "excess" is
the ratio of times over the ratio of multiply-adds: 1 where whatever is no arithmetic costs nothing.

    python benchmarks/thesis_step_cost.py [--rounds N] [--batch B]
"""

import argparse
import json
import subprocess
import sys
import time

import torch

from fieldcast.benchmark.measure import multiply_adds, peak_memory
from fieldcast.data.batch import Batch
from fieldcast.models import build

MODELS = ("trajgru", "trajgru-attention", "trajgru-ode", "trajgru-attention-ode")
NUM_FRAMES = 10


def random_batch(size: int) -> Batch:
    frames = torch.rand(size, 2 * NUM_FRAMES, 1, 64, 64)
    times = torch.arange(1.0 - NUM_FRAMES, 1.0 + NUM_FRAMES).expand(size, -1)
    inputs, targets = frames.split(NUM_FRAMES, dim=1)
    valid = torch.ones_like(targets, dtype=torch.bool)
    return Batch(inputs, times[:, :NUM_FRAMES], targets, times[:, NUM_FRAMES:], valid, torch.zeros(size))


def measure(key: str, size: int) -> dict[str, float]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = build(key, "thesis-mnist").train()
    batch = random_batch(size)
    seconds = []
    for _ in range(2):
        started = time.process_time()
        frames, _ = model.forward_train(batch)
        (frames - batch.targets).square().mean().backward()
        seconds.append(time.process_time() - started)
        model.zero_grad(set_to_none=True)
    counted = multiply_adds(model, random_batch(1)) * size
    return {"seconds": min(seconds), "gibibytes": peak_memory() / 2**30, "multiply_adds": counted}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--model")
    options = parser.parse_args()
    if options.model:
        print(json.dumps(measure(options.model, options.batch)))
        return
    found: dict[str, list[dict[str, float]]] = {key: [] for key in MODELS}
    for _ in range(options.rounds):
        for key in MODELS:
            command = [sys.executable, __file__, "--model", key, "--batch", str(options.batch)]
            found[key].append(json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout))
    best = {
        key: {name: min(row[name] for row in rows) for name in ("seconds", "gibibytes", "multiply_adds")}
        for key, rows in found.items()
    }
    plain = best[MODELS[0]]
    print(f"{'':24}{'step s':>9}{'ratio':>8}{'forward G':>11}{'ratio':>8}{'excess':>8}{'GiB':>7}{'ratio':>8}")
    for key, row in best.items():
        ratio = {name: row[name] / plain[name] for name in row}
        print(
            f"{key:24}{row['seconds']:9.2f}{ratio['seconds']:8.2f}{row['multiply_adds'] / 1e9:11.1f}"
            f"{ratio['multiply_adds']:8.2f}{ratio['seconds'] / ratio['multiply_adds']:8.2f}"
            f"{row['gibibytes']:7.2f}{ratio['gibibytes']:8.2f}"
        )


if __name__ == "__main__":
    main()
