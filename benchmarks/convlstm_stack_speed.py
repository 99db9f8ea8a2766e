"""Speed and memory of `convlstm-stack` (preset openstl-mnist, 10 -> 10 frames of 64x64, batch 4) against a plain loop.

Every case runs in a process of its own, so that its peak memory is its own. The plain loop is what one writes first:
two convolutions a cell and step, NCHW; "plain, same options" gets channels-last and autocast too.

    python benchmarks/convlstm_stack_speed.py [--repeats N] [--batch B]
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import torch
from torch import nn

from fieldcast.data.batch import Batch
from fieldcast.models import build

CASES = [
    ("plain", "float32"),
    ("plain, same options", "float32"),
    ("fieldcast", "float32"),
    ("plain, same options", "bf16-mixed"),
    ("fieldcast", "bf16-mixed"),
]


class PlainStack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        widths = [16, 128, 128, 128, 128]
        self.inputs = nn.ModuleList(nn.Conv2d(a, 512, 5, padding=2, bias=False) for a in widths[:-1])
        self.states = nn.ModuleList(nn.Conv2d(128, 512, 5, padding=2, bias=False) for _ in widths[1:])
        self.head = nn.Conv2d(128, 16, 1, bias=False)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        frames = nn.functional.pixel_unshuffle(frames, 4)
        batch, steps, _, height, width = frames.shape
        hidden = [frames.new_zeros(batch, 128, height, width) for _ in self.inputs]
        cell = [frames.new_zeros(batch, 128, height, width) for _ in self.inputs]
        outputs: list[torch.Tensor] = []
        for step in range(2 * steps - 1):
            frame = frames[:, step] if step < steps else outputs[-1]
            for layer, (of_input, of_state) in enumerate(zip(self.inputs, self.states, strict=True)):
                i, f, g, o = (of_input(frame) + of_state(hidden[layer])).chunk(4, dim=1)
                cell[layer] = torch.sigmoid(f + 1) * cell[layer] + torch.sigmoid(i) * torch.tanh(g)
                frame = hidden[layer] = torch.sigmoid(o) * torch.tanh(cell[layer])
            outputs.append(self.head(frame))
        return nn.functional.pixel_shuffle(torch.stack(outputs[steps - 1 :], dim=1), 4)


def random_batch(size: int, num_frames: int) -> Batch:
    frames = torch.rand(size, 2 * num_frames, 1, 64, 64)
    times = torch.arange(1.0 - num_frames, 1.0 + num_frames).expand(size, -1)
    inputs, targets = frames.split(num_frames, dim=1)
    valid = torch.ones_like(targets, dtype=torch.bool)
    return Batch(inputs, times[:, :num_frames], targets, times[:, num_frames:], valid, torch.zeros(size))


def measure(who: str, precision: str, batch_size: int, repeats: int) -> dict:
    torch.manual_seed(0)
    model = build("convlstm-stack", "openstl-mnist") if who == "fieldcast" else PlainStack()
    if who == "plain, same options":
        model.to(memory_format=torch.channels_last)

    def forecast(batch: Batch) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
            return model.forward_train(batch)[0] if who == "fieldcast" else model(batch.inputs)

    def train(batch: Batch) -> None:
        model.zero_grad()
        (forecast(batch).float() - batch.targets).square().mean().backward()

    def infer(batch: Batch) -> None:
        with torch.inference_mode():
            forecast(batch)

    row, warm_up, batch = {}, random_batch(1, 2), random_batch(batch_size, 10)
    for name, work in (("inference_s", infer), ("training_s", train)):
        work(warm_up)
        started = time.perf_counter()
        for _ in range(repeats):
            work(batch)
        row[name] = (time.perf_counter() - started) / repeats
    return {**row, "peak_MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--case", type=int)
    options = parser.parse_args()
    if options.case is not None:
        print(json.dumps(measure(*CASES[options.case], options.batch, options.repeats)))
        return
    rows = []
    print(f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}")
    print(f"{'':22}{'precision':12}{'train s':>9}{'ratio':>7}{'infer s':>9}{'ratio':>7}{'peak MiB':>10}")
    for number, (who, precision) in enumerate(CASES):
        command = [sys.executable, __file__, "--case", str(number), "--repeats", str(options.repeats)]
        done = subprocess.run([*command, "--batch", str(options.batch)], capture_output=True, text=True, check=True)
        rows.append(json.loads(done.stdout))
        row, plain = rows[-1], rows[0]
        ratios = [plain[key] / row[key] for key in ("training_s", "inference_s")]
        print(f"{who:22}{precision:12}{row['training_s']:9.2f}{ratios[0]:7.2f}{row['inference_s']:9.2f}{ratios[1]:7.2f}"
              f"{row['peak_MiB']:10.0f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
