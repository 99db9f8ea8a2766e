"""Two processes under torchrun: the scores of one, and one end for both."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as distributed
from conftest import radar_dataset

from fieldcast.checkpoint import checkpoints, load_checkpoint
from fieldcast.config import read_config
from fieldcast.run import Run
from fieldcast.training.loop import resume, train

DRIVER = Path(__file__).with_name("driver.py")
pytestmark = pytest.mark.skipif(not distributed.is_available(), reason="this torch has no torch.distributed")


def start(verb: str, folder: Path, values: dict) -> subprocess.Popen:
    path = folder.with_suffix(".json")
    path.write_text(json.dumps(values))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    return subprocess.Popen(
        [*command, str(DRIVER), verb, str(folder), str(path)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def assert_close(folder: Path, other: Path) -> None:
    (saved, state), (other_saved, other_state) = (
        (saved, saved.state["progress"])
        for saved in (load_checkpoint(checkpoints(run / "checkpoints")[0]) for run in (folder, other))
    )
    assert state["step"] == other_state["step"]
    assert state["best_step"] == other_state["best_step"]
    for name, tensor in saved.model.items():
        assert torch.allclose(tensor, other_saved.model[name], rtol=1e-5, atol=1e-5), name
    for row, other_row in zip(state["history"], other_state["history"], strict=True):
        for column in ("train_loss", "validation_loss"):
            assert row[column] == pytest.approx(other_row[column], rel=1e-5)


@pytest.mark.whole
def test_two_are_as_one(tiny_values, tmp_path):
    dataset = radar_dataset()
    dataset["rain"][::3, :12] = np.nan  # the shares of a batch have very different numbers of pixels
    dataset.to_netcdf(tmp_path / "uneven.nc", engine="h5netcdf")
    changes = {"source.paths": str(tmp_path / "uneven.nc"), "training.optimizer": "sgd", "training.clip_norm": 1.0}
    values = tiny_values("radar", "convlstm-stack", **changes, **{"training.teacher_steps": 4, "windows.crop": 14})
    process = start("train", tmp_path / "two", values)
    text, _ = process.communicate(timeout=200)
    assert process.returncode == 0, text
    train(read_config(values), tmp_path / "one")
    assert_close(tmp_path / "two", tmp_path / "one")
    assert Run(tmp_path / "two").status()["state"] == "finished"
    assert text.count("from step 0") == 1


def ranks(process: subprocess.Popen) -> list[int]:
    """The processes that torchrun has started."""
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")
@pytest.mark.parametrize("receiver", [0, 1, "all"])
def test_sigterm_stops_both_at_one_step(receiver, tiny_values, tmp_path):
    values = tiny_values(**{"training.num_steps": 4000, "training.validation.every": 5, "training.optimizer": "sgd"})
    folder = tmp_path / "two"
    process = start("train", folder, values)
    deadline = time.monotonic() + 200
    while not checkpoints(folder / "checkpoints"):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    # Slurm signals torchrun and its workers, and torchrun passes it on to them.
    workers = ranks(process)
    for receiver_id in [*workers, process.pid] if receiver == "all" else [workers[receiver]]:
        os.kill(receiver_id, signal.SIGTERM)
    text, _ = process.communicate(timeout=100)
    assert process.returncode != 0
    status = Run(folder).status()
    assert (status["state"], status["exit_code"]) == ("stopped", 75), text
    step = load_checkpoint(checkpoints(folder / "checkpoints")[0]).state["progress"]["step"]
    assert f"stopped after step {step} and saved" in status["reason"]
    assert text.count(f"error: stopped after step {step} and saved") in (1, 2)
    assert not list(folder.rglob(".tmp*"))
    assert not (folder / "lock.json").exists()
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"num_steps": 4000', f'"num_steps": {step + 3}'))
    resume(folder)
    assert len(checkpoints(folder / "checkpoints")) >= 1
    assert Run(folder).status()["state"] == "finished"
