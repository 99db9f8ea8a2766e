"""Kills a training with SIGKILL at random moments, resumes it each time, and compares the final weights bit by bit.

    python benchmarks/kill_and_resume.py [--kills 10] [--steps 120] [--seed 0]

Every step validates and saves, and every other kill aims at a checkpoint while it is written. Prints a line for each
kill and the verdict; the exit code is 0 where weights, optimiser state and history are those of a run that was never
killed.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from fieldcast.checkpoint import checkpoints, load_checkpoint
from fieldcast.config import read_config
from fieldcast.training.loop import resume, train


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.child:
        folder, values = options.child
        resume(folder) if (Path(folder) / "config.json").exists() else train(read_values(values), folder)
        return 0
    with tempfile.TemporaryDirectory() as work:
        return kill_and_resume(Path(work), options)


def kill_and_resume(work: Path, options: argparse.Namespace) -> int:
    values = work / "values.json"
    values.write_text(json.dumps(settings(work, options.steps)))
    train(read_values(values), work / "whole")
    moments, folder = random.Random(options.seed), work / "killed"
    for kill in range(1, options.kills + 1):
        before = newest_step(folder)
        child = subprocess.Popen(
            [sys.executable, __file__, "--child", str(folder), str(values)], stderr=subprocess.DEVNULL
        )
        while newest_step(folder) == before and child.poll() is None:
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.2))
        # Without a pause: a checkpoint is half-written for a few milliseconds only.
        while kill % 2 == 0 and not half_written(folder) and child.poll() is None:
            pass
        child.kill()
        if child.wait() == 0:
            print(f"kill {kill}: too late, the run had finished; take more --steps")
            return 1
        half = half_written(folder)
        where = f"in the checkpoint {half[0]}" if half else "between checkpoints"
        print(f"kill {kill}: {where}, newest whole step {newest_step(folder)} (was {before})", flush=True)
    resume(folder)
    different = differences(work / "whole", folder)
    print(f"after {options.kills} kills: {', '.join(different) + ' differ' if different else 'the same, bit by bit'}")
    return 1 if different else 0


def settings(work: Path, num_steps: int) -> dict:
    """Moving MNIST with made-up digits."""
    random_numbers = np.random.default_rng(0)
    images = np.zeros((40, 28, 28), np.uint8)
    images[:, 8:20, 8:20] = random_numbers.integers(50, 256, (40, 12, 12))
    np.savez(work / "digits.npz", images=images)
    return {
        "name": "kill-and-resume",
        "source": {"key": "moving-mnist", "digits": str(work / "digits.npz"), "size": 32, "num_frames": 8},
        "windows": {"num_inputs": 4, "num_targets": 4, "crop": 28},
        "splits": {"train": 50, "validation": 2, "test": 2},
        "model": {"key": "convlstm-stack", "widths": [8, 8], "kernel": 3},
        "loss": {"mse": 1.0, "mae": 1.0},
        "training": {
            "num_steps": num_steps,
            "batch_size": 4,
            "accumulate": 2,
            "learning_rate": 1e-3,
            "teacher_steps": num_steps // 2,
            "schedule": {"shape": "cosine"},
            "validation": {"every": 1},
        },
    }


def read_values(path: Path | str):
    return read_config(json.loads(Path(path).read_text()))


def half_written(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("checkpoints/.tmp-*")]


def newest_step(folder: Path) -> int:
    return max((int(path.name[-8:]) for path in folder.glob("checkpoints/step-*")), default=0)


def differences(one: Path, other: Path) -> list[str]:
    """What of two runs is not the same."""
    saved, killed = (load_checkpoint(checkpoints(folder / "checkpoints")[0]) for folder in (one, other))
    found = []
    for kind in ("model", "optimizer"):
        own, theirs = getattr(saved, kind), getattr(killed, kind)
        if own.keys() != theirs.keys() or not all(torch.equal(own[name], theirs[name]) for name in own):
            found.append(kind)
    histories = [
        [{**row, "seconds": None} for row in checkpoint.state["progress"]["history"]] for checkpoint in (saved, killed)
    ]
    return [*found, *(["history"] if histories[0] != histories[1] else [])]


if __name__ == "__main__":
    sys.exit(main())
