"""Checkpoints and run folders that are damaged, strange, full, locked or not there."""

import errno
import json
import os
import pickle
import resource
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fieldcast import checkpoint
from fieldcast.checkpoint import (
    Checkpoint,
    checkpoints,
    load_checkpoint,
    load_weights,
    newest_checkpoint,
    pack_optimizer,
    remove_old,
    save_checkpoint,
    unpack_optimizer,
    verify,
)
from fieldcast.errors import CheckpointError, ConfigError, FieldcastError, OutOfResources
from fieldcast.files import sha256, write_atomic
from fieldcast.models import build
from fieldcast.run import Run, lock
from fieldcast.training.loop import resume, train

PARTS = ("model.safetensors", "optimizer.safetensors", "state.json")


def content(seed: int = 0) -> Checkpoint:
    torch.manual_seed(seed)
    return Checkpoint({"weight": torch.rand(30, 30)}, {"0.step": torch.tensor(3.0)}, {"progress": {"best_step": 0}})


@pytest.fixture
def saved(tmp_path) -> Path:
    return save_checkpoint(tmp_path / "checkpoints", 7, content())


def redo_manifest(path: Path) -> None:
    """What somebody who knows the format could do."""
    entries = {name: {"size": (path / name).stat().st_size, "sha256": sha256(path / name)} for name in PARTS}
    (path / "MANIFEST.json").write_text(json.dumps(entries))


def test_round_trip(saved):
    read = load_checkpoint(saved)
    assert saved.name == "step-00000007"
    assert torch.equal(read.model["weight"], content().model["weight"])
    assert torch.equal(read.optimizer["0.step"], torch.tensor(3.0))
    assert read.state["progress"] == {"best_step": 0}
    assert sorted(path.name for path in saved.parent.iterdir()) == [saved.name]


@pytest.mark.parametrize("name", [*PARTS, "MANIFEST.json"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing", "empty"])
def test_damage_is_found(saved, name, damage):
    path = saved / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"truncated": data[: len(data) // 2], "flipped": data, "empty": b""}[damage])
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(saved)
    said = {"truncated": "cut short", "empty": "cut short", "flipped": "was changed", "missing": "is missing"}[damage]
    if name != "MANIFEST.json":
        assert said in str(caught.value)
    assert name in str(caught.value) or "manifest" in str(caught.value)


def test_truncated_names_both_sizes(saved):
    size = (saved / "model.safetensors").stat().st_size
    os.truncate(saved / "model.safetensors", 100)
    with pytest.raises(CheckpointError, match=f"has 100 bytes instead of {size}: cut short"):
        verify(saved)


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("exploded",))


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps(Bomb()),
        b"\xff\xff\xff\xff\xff\xff\xff\x3f{}",
        b"\x80\x00\x00\x00\x00\x00\x00\x00"
        + b'{"a":{"dtype":"F32","shape":[4611686018427387904,8],"data_offsets":[0,4]}}',
        b"",
    ],
    ids=["pickle", "endless header", "overflow", "empty"],
)
def test_nothing_is_unpickled(saved, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (saved / "model.safetensors").write_bytes(data)
    redo_manifest(saved)
    with pytest.raises(CheckpointError, match="is not a fieldcast checkpoint"):
        load_checkpoint(saved)
    assert not Path("exploded").exists()


def test_newer_format_is_refused(saved):
    state = json.loads((saved / "state.json").read_text())
    (saved / "state.json").write_text(json.dumps(state | {"format": 3}))
    redo_manifest(saved)
    with pytest.raises(CheckpointError, match="has format 3, this version reads 1: install a newer fieldcast"):
        load_checkpoint(saved)


@pytest.mark.parametrize("text", ["[]", "{}", "3", "not json"])
def test_strange_state_is_refused(saved, text):
    (saved / "state.json").write_text(text)
    redo_manifest(saved)
    with pytest.raises(CheckpointError, match="is not a fieldcast checkpoint"):
        load_checkpoint(saved)


def test_other_architecture_names_what_differs():
    small, large = (build("convgru", widths=[width], strides=[1]) for width in (4, 6))
    with pytest.raises(CheckpointError) as caught:
        load_weights(large, small.state_dict(), "runs/small")
    assert "runs/small is of another model: " in str(caught.value)
    assert "down.0" in str(caught.value)
    assert "(4, 1, 3, 3) in the file, (6, 1, 3, 3) here" in str(caught.value)


def test_newest_is_by_step_and_whole(tmp_path):
    folder = tmp_path / "checkpoints"
    for step in (4, 100, 30):
        save_checkpoint(folder, step, content(step))
    os.utime(folder / "step-00000004")
    (folder / ".tmp-step-00000200-1").mkdir()
    assert [path.name for path in checkpoints(folder)] == ["step-00000100", "step-00000030", "step-00000004"]
    (folder / "step-00000100" / "state.json").unlink()
    path, read, faults = newest_checkpoint(folder)
    assert path.name == "step-00000030"
    assert torch.equal(read.model["weight"], content(30).model["weight"])
    assert len(faults) == 1
    assert "step-00000100: state.json is missing" in faults[0]


def test_nothing_whole(saved):
    (saved / "MANIFEST.json").unlink()
    with pytest.raises(CheckpointError, match=r"no usable checkpoint in .*not a whole checkpoint"):
        newest_checkpoint(saved.parent)


def test_old_ones_go_but_newest_previous_and_best(tmp_path):
    for step in (1, 2, 3, 4, 9):
        save_checkpoint(tmp_path / "checkpoints", step, content())
    remove_old(tmp_path / "checkpoints", 4, 1)
    assert [int(path.name[5:]) for path in checkpoints(tmp_path / "checkpoints")] == [4, 3, 1]


def test_saving_over_a_damaged_one(saved):
    (saved / "state.json").unlink()
    save_checkpoint(saved.parent, 7, content(1))
    assert torch.equal(load_checkpoint(saved).model["weight"], content(1).model["weight"])


@pytest.mark.parametrize("name", ["adam", "adamax", "adamw", "nadam", "radam", "rmsprop", "sgd"])
def test_optimizer_round_trip(name):
    from fieldcast.training.session import OPTIMIZERS

    def make():
        torch.manual_seed(0)
        model = torch.nn.Conv2d(4, 8, 3).to(memory_format=torch.channels_last)
        return model, OPTIMIZERS[name](model.parameters(), lr=0.01)

    def step(model, optimizer):
        optimizer.zero_grad()
        model(torch.ones(1, 4, 5, 5)).square().sum().backward()
        optimizer.step()

    (model, optimizer), (other, fresh) = make(), make()
    step(model, optimizer)
    other.load_state_dict(model.state_dict())
    unpack_optimizer(
        fresh,
        {key: value.clone(memory_format=torch.contiguous_format) for key, value in pack_optimizer(optimizer).items()},
    )
    for own, restored in zip(optimizer.state.values(), fresh.state.values(), strict=True):
        assert own.keys() == restored.keys()
        assert all(own[key].stride() == restored[key].stride() for key in own if own[key].ndim == 4)
    for _ in range(3):
        step(model, optimizer)
        step(other, fresh)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_resume_falls_back_and_says_so(tiny_config, tmp_path, capfd):
    config = tiny_config(**{"training.num_steps": 6, "training.validation.every": 2})
    train(config, tmp_path / "whole")
    train(config, tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints"
    newest, previous = checkpoints(folder)[:2]
    assert (newest.name, previous.name) == ("step-00000006", "step-00000004")
    data = bytearray((newest / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (newest / "model.safetensors").write_bytes(data)
    (folder / ".tmp-step-00000008-99").mkdir()
    (tmp_path / "run" / ".history.csv.99.tmp.csv").write_text("step")
    capfd.readouterr()
    resume(tmp_path / "run")
    said = capfd.readouterr().err
    assert "skipped a damaged checkpoint: " in said
    assert "was changed" in said
    assert "going on from step-00000004" in said
    assert "from step 4" in said
    assert not list((tmp_path / "run").rglob(".*"))
    whole = load_checkpoint(tmp_path / "whole" / "checkpoints" / "step-00000006").model
    assert all(torch.equal(tensor, whole[name]) for name, tensor in load_checkpoint(newest).model.items())


def test_leftovers_of_the_first_save_are_removed(tiny_config, tmp_path):
    leftover = tmp_path / "run" / "checkpoints" / ".tmp-step-00000002-99"
    leftover.mkdir(parents=True)
    (leftover / "model.safetensors").write_bytes(b"half")
    train(tiny_config(**{"training.num_steps": 1}), tmp_path / "run")
    assert not leftover.exists()


FULL = """
import resource, sys
from pathlib import Path
from types import SimpleNamespace
import torch
from fieldcast.checkpoint import Checkpoint, save_checkpoint
from fieldcast.errors import OutOfResources
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
try:
    save_checkpoint(Path(sys.argv[1]), 8, Checkpoint({"w": torch.zeros(10_000)}, {}, {}))
except OutOfResources as error:
    print(error)
    sys.exit(error.exit_code)
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no limits on file size here")
def test_full_disk_leaves_the_earlier_one_whole(saved):
    done = subprocess.run([sys.executable, "-c", FULL, str(saved.parent)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 6, done.stderr
    assert "disk full while writing" in done.stdout
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]
    load_checkpoint(saved)


def test_disk_full_in_the_middle(saved, monkeypatch):
    def sync(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "sync", sync)
    with pytest.raises(OutOfResources, match=r"disk full while writing .*step-00000008: No space left on device, \d"):
        save_checkpoint(saved.parent, 8, content())
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]
    load_checkpoint(saved)


def test_disk_that_is_too_small_is_noticed_before(saved, monkeypatch):
    from fieldcast import files

    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: SimpleNamespace(free=99))
    with pytest.raises(OutOfResources, match=r"needs 0\.0 MB, 0\.0 MB free. Make room"):
        save_checkpoint(saved.parent, 8, content())
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_full_disk_in_training(tiny_config, tmp_path, monkeypatch):
    config = tiny_config()
    own = checkpoint.sync

    def sync(path):
        if "00000004" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        own(path)

    monkeypatch.setattr(checkpoint, "sync", sync)
    with pytest.raises(OutOfResources, match="disk full"):
        train(config, tmp_path / "run")
    run = Run(tmp_path / "run")
    assert run.status()["state"] == "failed"
    assert run.status()["exit_code"] == 6
    assert newest_checkpoint(run.checkpoint_folder)[0].name == "step-00000002"


def test_vanished_run_folder(tiny_config, tmp_path, monkeypatch):
    import shutil

    from fieldcast.training import loop

    own = loop.validate
    monkeypatch.setattr(loop, "validate", lambda session: (shutil.rmtree(session.folder), own(session))[1])
    with pytest.raises(FieldcastError, match="can't be written: No such file or directory") as caught:
        train(tiny_config(), tmp_path / "run")
    assert caught.value.exit_code == 1
    assert not (tmp_path / "run").exists()


def test_atomic_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "scores.json"
    path.write_text("old")

    def write(beside: Path) -> None:
        beside.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OutOfResources):
        write_atomic(path, write)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_second_process_is_refused(tiny_config, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    holder = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        own = json.dumps({"pid": holder.pid, "host": socket.gethostname()})
        (folder / "lock.json").write_text(own)
        with pytest.raises(ConfigError, match=f"is in use by another process .*{holder.pid}"):
            train(tiny_config(), folder)
        assert (folder / "lock.json").read_text() == own
    finally:
        holder.communicate(b"\n")
    # Its holder is dead now.
    train(tiny_config(**{"training.num_steps": 1}), folder)
    assert not (folder / "lock.json").exists()


@pytest.mark.parametrize("text", ["", "{", "null", "{}", '{"pid": "x", "host": "HOST"}'])
def test_unreadable_lock_is_taken_over(tmp_path, text):
    (tmp_path / "lock.json").write_text(text.replace("HOST", socket.gethostname()))
    with lock(tmp_path):
        assert json.loads((tmp_path / "lock.json").read_text())["pid"] == os.getpid()


def test_lock_of_another_host_holds(tmp_path):
    (tmp_path / "lock.json").write_text('{"pid": 1, "host": "elsewhere"}')
    with pytest.raises(ConfigError, match="in use"), lock(tmp_path):
        pass


def test_folder_that_cannot_be_written(tiny_config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FieldcastError, match=r"run can't be written: Not a directory") as caught:
        train(tiny_config(), tmp_path / "file" / "run")
    assert caught.value.exit_code == 1


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder(tiny_config, tmp_path):
    (tmp_path / "run").mkdir(mode=0o555)
    with pytest.raises(FieldcastError, match=r"run can't be written: Permission denied"):
        train(tiny_config(), tmp_path / "run")


def test_no_run(tmp_path):
    with pytest.raises(CheckpointError, match=r"is no run: it has no config\.json"):
        resume(tmp_path)
