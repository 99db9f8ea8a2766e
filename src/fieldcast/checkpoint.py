"""Checkpoints: a folder of plain types that rebuilds model, normaliser and units, and lets a run go on.

``step-00001200/`` holds ``model.safetensors``, ``optimizer.safetensors``, ``state.json`` and, written last,
``MANIFEST.json`` with size and SHA-256 of each. Nothing in it is ever unpickled.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from fieldcast.errors import CheckpointError, FieldcastError
from fieldcast.files import raise_if_full, raise_if_short, sha256, sync

FORMAT = 1
MANIFEST = "MANIFEST.json"


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds. ``state`` is plain types: config, normaliser, labels of the data, progress."""

    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: dict[str, Any]


def save_checkpoint(folder: Path, step: int, checkpoint: Checkpoint) -> Path:
    """Write ``folder/step-XXXXXXXX`` so that it is whole or not there at all.

    Raises:
        OutOfResources: for a full disk; earlier checkpoints stay.
        FieldcastError: where the folder has vanished or can't be written.
    """
    target = folder / f"step-{step:08d}"
    beside = folder / f".tmp-{target.name}-{os.getpid()}"
    parts = {
        "model.safetensors": save(_contiguous(checkpoint.model), {"format": "pt"}),
        "optimizer.safetensors": save(_contiguous(checkpoint.optimizer), {"format": "pt"}),
        "state.json": json.dumps({"format": FORMAT, **checkpoint.state}, indent=1).encode(),
    }
    entries = {name: {"size": len(part), "sha256": hashlib.sha256(part).hexdigest()} for name, part in parts.items()}
    parts[MANIFEST] = json.dumps(entries, indent=1).encode()
    try:
        # Not its parents: a run folder that has vanished is to be noticed.
        folder.mkdir(exist_ok=True)
        raise_if_short(folder, sum(len(part) for part in parts.values()))
        beside.mkdir()
        for name, part in parts.items():
            (beside / name).write_bytes(part)
            sync(beside / name)
        sync(beside)
        if target.exists():  # a damaged one that a resumed run has passed again
            target.replace(folder / f".tmp-damaged-{target.name}-{os.getpid()}")
        beside.replace(target)
        sync(folder)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise_if_full(error, target)
        raise FieldcastError(f"{target} can't be written: {error.strerror or error}") from error
    return target


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def load_checkpoint(path: Path, device: str | torch.device = "cpu") -> Checkpoint:
    """Read a checkpoint after its manifest has been verified.

    Raises:
        CheckpointError: where something is missing, cut short, changed, unsafe, or from a newer fieldcast.
    """
    verify(path)
    try:
        state = json.loads((path / "state.json").read_text())
        if state["format"] != FORMAT:
            raise CheckpointError(
                f"{path} has format {state['format']}, this version reads {FORMAT}: install a newer fieldcast"
            )
        model = load_file(path / "model.safetensors", device=str(device))
        optimizer = load_file(path / "optimizer.safetensors", device=str(device))
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} is not a fieldcast checkpoint: {error}") from None
    return Checkpoint(model, optimizer, state)


def verify(path: Path) -> None:
    """Compare every file with the manifest.

    Raises:
        CheckpointError: naming the first file that is missing, cut short or changed.
    """
    try:
        entries = json.loads((path / MANIFEST).read_text())
        expected = {name: (entry["size"], entry["sha256"]) for name, entry in entries.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(f"{path} has no readable {MANIFEST}: not a whole checkpoint") from None
    for name in ("model.safetensors", "optimizer.safetensors", "state.json"):
        part = path / name
        if name not in expected or not part.is_file():
            raise CheckpointError(f"{path}: {name} is missing")
        size, digest = expected[name]
        if part.stat().st_size != size:
            raise CheckpointError(f"{part} has {part.stat().st_size} bytes instead of {size}: cut short")
        if sha256(part) != digest:
            raise CheckpointError(f"{part} was changed: its SHA-256 is not the manifest's")


def checkpoints(folder: Path) -> list[Path]:
    """Whole or damaged checkpoints in a folder, newest step first."""
    return sorted(folder.glob("step-*"), reverse=True)


def newest_checkpoint(folder: Path) -> tuple[Path, Checkpoint, list[str]]:
    """The newest checkpoint that verifies, and what was wrong with newer ones.

    Raises:
        CheckpointError: where there is none.
    """
    faults: list[str] = []
    for path in checkpoints(folder):
        try:
            return path, load_checkpoint(path), faults
        except CheckpointError as error:
            faults.append(str(error))
    raise CheckpointError("; ".join([f"no usable checkpoint in {folder}", *faults]))


def remove_half_written(folder: Path) -> None:
    """Delete what a killed process has left half-written in a run folder."""
    for name in ("config", "environment", "history", "lock", "status"):
        for path in folder.glob(f".{name}.*.tmp.*"):
            path.unlink(missing_ok=True)
    for path in (folder / "checkpoints").glob(".tmp-*"):
        shutil.rmtree(path, ignore_errors=True)


def remove_old(folder: Path, step: int, best_step: int) -> None:
    """Delete all checkpoints but that of ``step``, the one before, which is there if that is damaged, and the best."""
    earlier = [path for path in checkpoints(folder) if path.name < f"step-{step:08d}"]
    keep = {folder / f"step-{step:08d}", folder / f"step-{best_step:08d}", *earlier[:1]}
    for path in [*folder.glob(".tmp-*"), *folder.glob("step-*")]:
        if path not in keep:
            shutil.rmtree(path, ignore_errors=True)


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Put weights into a model.

    Raises:
        CheckpointError: with the names and shapes that differ.
    """
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if own != given:
        names = sorted(name for name in {*own, *given} if own.get(name) != given.get(name))
        rows = [f"{name}: {given.get(name, 'missing')} in the file, {own.get(name, 'none')} here" for name in names[:5]]
        raise CheckpointError(f"{where} is of another model: " + "; ".join(rows))
    model.load_state_dict(dict(weights))


def pack_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's running values as named tensors."""
    state = optimizer.state_dict()["state"]
    return {f"{number}.{name}": torch.as_tensor(v) for number, values in state.items() for name, v in values.items()}


def unpack_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Undo ``pack_optimizer``, in place."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, name = key.split(".", 1)
        weight = weights[int(number)]
        # In the order in memory that an optimiser gives them, channels last where the weight is.
        state.setdefault(int(number), {})[name] = (
            torch.empty_like(weight, dtype=tensor.dtype).copy_(tensor) if tensor.shape == weight.shape else tensor
        )
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
