"""A run that was stopped or killed, and resumed, ends with the same bits as one that never was."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from fieldcast.checkpoint import checkpoints, load_checkpoint
from fieldcast.config import read_config
from fieldcast.errors import ConfigError, TrainingStopped
from fieldcast.training import loop
from fieldcast.training.interrupts import SIGNALS, StopRequest, listen
from fieldcast.training.loop import resume, train

DRIVER = Path(__file__).with_name("driver.py")
SHORT = {"windows.max_gap": "10 min", "windows.num_inputs": 2, "windows.num_targets": 2, "training.num_steps": 2}
CASES = {
    "convgru": ("digits", {"training.accumulate": 2, "training.clip_norm": 0.5, "training.schedule.shape": "cosine"}),
    "trajgru": ("radar", {"windows.crop": 12, "training.optimizer": "sgd", "training.schedule.warmup_steps": 4}),
    "convlstm": ("radar", {"training.optimizer": "adamw", "training.precision": "bf16-mixed"}),
    "convlstm-stack": ("digits", {"training.teacher_steps": 5, "training.optimizer": "nadam", "loss.ssim": 0.1}),
    "trajgru-attention-ode": ("radar", {"sampling.gaps": {"rate": 0.2}, **SHORT}),
    "vid-ode": ("digits", {"sampling.task": "interpolate", "training.optimizer": "adamax", "training.num_steps": 3}),
    "latent-ode": ("digits", {"sampling.jitter": 0.4, "training.num_steps": 3}),
}


@pytest.fixture
def stop_after(monkeypatch):
    """Makes a function that asks the next run to stop after a step."""

    def at(step: int | None) -> None:
        request = StopRequest()

        @contextmanager
        def listen():
            yield request

        def train_step(session, batch, number):
            request.made = number + 1 == step
            return own_step(session, batch, number)

        monkeypatch.setattr(loop, "listen", listen)
        monkeypatch.setattr(loop, "train_step", train_step)

    own_step = loop.train_step
    return at


def last_state(folder: Path):
    """Everything the newest checkpoint holds, but for seconds."""
    saved = load_checkpoint(checkpoints(folder / "checkpoints")[0])
    progress = dict(saved.state["progress"], seconds=None)
    progress["history"] = [dict(row, seconds=None) for row in progress["history"]]
    return saved, dict(saved.state, progress=progress)


def assert_same(folder: Path, other: Path) -> None:
    (saved, state), (other_saved, other_state) = last_state(folder), last_state(other)
    assert state == other_state
    for kind in ("model", "optimizer"):
        own, theirs = getattr(saved, kind), getattr(other_saved, kind)
        assert own.keys() == theirs.keys()
        assert all(torch.equal(own[name], theirs[name]) for name in own), kind
    history = [(run / "history.csv").read_text().splitlines() for run in (folder, other)]
    assert [row.rsplit(",", 1)[0] for row in history[0]] == [row.rsplit(",", 1)[0] for row in history[1]]


@pytest.mark.parametrize("model", CASES)
def test_stopped_after_any_step(model, tiny_config, tmp_path, stop_after):
    source, changes = CASES[model]
    config = tiny_config(source, model, **changes)
    train(config, tmp_path / "whole")
    for step in range(1, config.training.num_steps):
        folder = tmp_path / f"stopped-{step}"
        stop_after(step)
        with pytest.raises(TrainingStopped, match=f"after step {step} and saved; go on with `fieldcast resume"):
            train(config, folder)
        assert json.loads((folder / "status.json").read_text())["exit_code"] == 75
        stop_after(None)
        resume(folder)
        assert_same(folder, tmp_path / "whole")


def test_stopped_after_every_step(tiny_config, tmp_path, stop_after):
    config = tiny_config("radar", "trajgru", **{"windows.crop": 12, "training.accumulate": 2})
    train(config, tmp_path / "whole")
    folder = tmp_path / "stopped"
    for step in range(1, config.training.num_steps):
        stop_after(step)
        with pytest.raises(TrainingStopped):
            resume(folder) if step > 1 else train(config, folder)
    stop_after(None)
    assert resume(folder).status()["state"] == "finished"
    assert_same(folder, tmp_path / "whole")


def test_a_stop_saves_once(tiny_config, tmp_path, stop_after, monkeypatch):
    # A second save of the same step would have to take the first one away.
    saves = []
    save = loop.save_session
    monkeypatch.setattr(loop, "save_session", lambda session: (saves.append(session.progress.step), save(session)))
    stop_after(2)
    with pytest.raises(TrainingStopped):
        train(tiny_config(), tmp_path / "run")
    assert saves == [2]


def test_finished_run_is_left_alone(tiny_config, tmp_path, stop_after):
    train(tiny_config(), tmp_path / "run")
    before = last_state(tmp_path / "run")[1]
    resume(tmp_path / "run")
    assert last_state(tmp_path / "run")[1] == before


def test_more_steps(tiny_config, tmp_path):
    train(tiny_config(**{"training.num_steps": 4}), tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    path.write_text(path.read_text().replace('"num_steps": 4', '"num_steps": 6'))
    resume(tmp_path / "run")
    train(tiny_config(**{"training.num_steps": 6}), tmp_path / "whole")
    (saved, state), (other, other_state) = last_state(tmp_path / "run"), last_state(tmp_path / "whole")
    assert state["progress"] == other_state["progress"]
    assert all(torch.equal(saved.model[name], other.model[name]) for name in saved.model)


def test_changed_settings_are_refused(tiny_config, tmp_path):
    train(tiny_config(**{"training.num_steps": 2}), tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    values = json.loads(path.read_text())
    values["training"] |= {"learning_rate": 0.5, "num_steps": 8}
    values["loss"]["ssim"] = 0.1
    path.write_text(json.dumps(values))
    with pytest.raises(
        ConfigError, match=r"not what its checkpoints were trained with: loss\.ssim, training\.learning"
    ):
        resume(tmp_path / "run")


def start(verb: str, folder: Path, values: Path, **options) -> subprocess.Popen:
    command = [sys.executable, str(DRIVER), verb, str(folder), str(values)]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, **options)


def wait_for(condition, process: subprocess.Popen, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and process.poll() is None:
        assert time.monotonic() < deadline, "too slow"
        time.sleep(0.01)


def newest_step(folder: Path) -> int:
    return max((int(path.name[-8:]) for path in folder.glob("checkpoints/step-*")), default=0)


def test_sigterm_in_the_middle_of_an_epoch(tiny_values, tmp_path):
    values = tiny_values(**{"training.num_steps": 30, "training.validation.every": 7})
    train(read_config(values), tmp_path / "whole")
    (tmp_path / "values.json").write_text(json.dumps(values))
    folder = tmp_path / "run"
    process = start("train", folder, tmp_path / "values.json", stderr=subprocess.PIPE, text=True)
    wait_for(lambda: newest_step(folder) >= 7, process)
    process.send_signal(signal.SIGTERM)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 75, text
    assert f"go on with `fieldcast resume {folder}`" in text
    assert newest_step(folder) in range(7, 30)
    assert not (folder / "lock.json").exists()
    resume(folder)
    assert_same(folder, tmp_path / "whole")


def kill_and_resume(values: dict, tmp_path: Path, num_kills: int) -> None:
    train(read_config(values), tmp_path / "whole")
    (tmp_path / "values.json").write_text(json.dumps(values))
    folder, moments = tmp_path / "run", random.Random(0)
    for kill in range(num_kills):
        verb = "resume" if (folder / "config.json").exists() else "train"
        before = newest_step(folder)
        process = start(verb, folder, tmp_path / "values.json", stderr=subprocess.DEVNULL)
        wait_for(lambda before=before: newest_step(folder) > before, process)
        time.sleep(moments.uniform(0, 0.1))
        process.kill()
        assert process.wait() == -signal.SIGKILL, f"kill {kill} came too late"
        assert newest_step(folder) > before
    resume(folder)
    assert not list(folder.glob("checkpoints/.tmp-*"))
    assert_same(folder, tmp_path / "whole")


def test_kill_at_a_moment(tiny_values, tmp_path):
    kill_and_resume(tiny_values(**{"training.num_steps": 20, "training.validation.every": 1}), tmp_path, 1)


@pytest.mark.slow
def test_kill_at_ten_moments(tiny_values, tmp_path):
    changes = {"training.num_steps": 100, "training.validation.every": 1, "training.teacher_steps": 50}
    kill_and_resume(tiny_values("digits", "convlstm-stack", **changes), tmp_path, 10)


def test_new_run_into_an_old_folder_is_refused(tiny_config, tmp_path):
    train(tiny_config(**{"training.num_steps": 1}), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"holds a run already: `fieldcast resume .*`, or name another folder"):
        train(tiny_config(), tmp_path / "run")


@pytest.mark.parametrize("number", SIGNALS)
def test_one_signal_asks_two_leave(number, monkeypatch):
    left = []
    monkeypatch.setattr(os, "_exit", left.append)
    before = signal.getsignal(number)
    with listen() as request:
        assert not request.made
        os.kill(os.getpid(), number)
        assert request.made
        assert left == []
        os.kill(os.getpid(), number)
        assert left == [128 + number]
    assert signal.getsignal(number) is before


def test_torchrun_passes_on_what_its_workers_had(monkeypatch):
    left = []
    monkeypatch.setattr(os, "_exit", left.append)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with listen() as request:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.made
        assert left == []
        request.when -= 6
        os.kill(os.getpid(), signal.SIGTERM)
        assert left == [143]
