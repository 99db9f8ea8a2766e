"""Checkpoints: a folder of plain types that rebuilds model, normaliser and units, and lets a run go on.

``step-00001200/`` holds ``model.safetensors``, ``optimizer.safetensors``, ``state.json`` and, written last,
``MANIFEST.json`` with size and SHA-256 of each. Nothing in it is ever unpickled.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fieldcast.errors import CheckpointError
from fieldcast.files import raise_if_full, sha256, sync

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
    """
    target = folder / f"step-{step:08d}"
    beside = folder / f".tmp-{target.name}-{os.getpid()}"
    try:
        beside.mkdir(parents=True)
        save_file(_contiguous(checkpoint.model), beside / "model.safetensors", {"format": "pt"})
        save_file(_contiguous(checkpoint.optimizer), beside / "optimizer.safetensors", {"format": "pt"})
        (beside / "state.json").write_text(json.dumps({"format": FORMAT, **checkpoint.state}, indent=1))
        parts = sorted(beside.iterdir())
        entries = {part.name: {"size": part.stat().st_size, "sha256": sha256(part)} for part in parts}
        (beside / MANIFEST).write_text(json.dumps(entries, indent=1))
        for part in (*parts, beside / MANIFEST, beside):
            sync(part)
        if target.exists():
            shutil.rmtree(target)
        os.replace(beside, target)
        sync(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(beside, ignore_errors=True)
        if isinstance(error, OSError):
            raise_if_full(error, target)
        raise
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
        model = load_file(path / "model.safetensors", device=str(device))
        optimizer = load_file(path / "optimizer.safetensors", device=str(device))
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path} is not a fieldcast checkpoint: {error}") from None
    found = state.get("format")
    if found != FORMAT:
        raise CheckpointError(f"{path} has format {found}, this version reads {FORMAT}: install a newer fieldcast")
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


def remove_leftovers(folder: Path, keep: set[Path]) -> None:
    """Delete half-written checkpoints and those that are neither newest nor best."""
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
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
