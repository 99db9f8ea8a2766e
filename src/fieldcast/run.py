"""A run: a folder with configuration, checkpoints, history, scores and report."""

import csv
import json
import os
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fieldcast.checkpoint import Checkpoint, checkpoints, load_checkpoint, load_weights, newest_checkpoint
from fieldcast.config import RunConfig, read_config
from fieldcast.data import Normalizer, Samples, Source, make_samples
from fieldcast.data.flow import FlowNormalizer
from fieldcast.data.source import Stations, Variable
from fieldcast.errors import CheckpointError, ConfigError, FieldcastError
from fieldcast.files import write_atomic
from fieldcast.models import MODELS, Forecaster, build

HISTORY = ("step", "train_loss", "validation_loss", "learning_rate", "seconds")


@dataclass(frozen=True)
class Run:
    """A folder that training wrote."""

    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))
        if not (self.folder / "config.json").is_file():
            raise CheckpointError(f"{self.folder} is no run: it has no config.json")

    @cached_property
    def config(self) -> RunConfig:
        """The settings, every default filled in."""
        path = self.folder / "config.json"
        try:
            return read_config(json.loads(path.read_text()), str(path))
        except ValueError as error:
            if isinstance(error, FieldcastError):
                raise
            raise CheckpointError(f"{path} is not readable: {error}") from None

    @property
    def model_name(self) -> str:
        """What tables call the model: its key, and whether it was made to ignore times."""
        return self.config.model.name_in_tables(self.config.model_key)

    @property
    def checkpoint_folder(self) -> Path:
        """Where the checkpoints are."""
        return self.folder / "checkpoints"

    @cached_property
    def best(self) -> Checkpoint:
        """The checkpoint with the lowest validation loss."""
        newest_path, newest, _ = newest_checkpoint(self.checkpoint_folder)
        step = newest.state["progress"]["best_step"]
        wanted = self.checkpoint_folder / f"step-{step:08d}"
        return (
            newest
            if wanted == newest_path or wanted not in checkpoints(self.checkpoint_folder)
            else (load_checkpoint(wanted))
        )

    def model(self, device: torch.device | str = "cpu") -> Forecaster:
        """The trained forecaster of the best checkpoint, ready to forecast."""
        known = saved_stations(self.best)
        layout = (known["map_size"], len(known["names"])) if known else None
        model = build_model(self.config, len(self.best.state["variables"]), layout)
        load_weights(model, self.best.model, str(self.folder))
        return model.to(device).eval()

    @property
    def normalizer(self) -> Normalizer:
        """The normaliser of the inputs that training fitted."""
        return Normalizer.from_plain(self.best.state["normalizer"])

    @property
    def stations(self) -> Stations | None:
        """The stations that the run forecasts flow at, without their catchments; None where it forecasts fields."""
        known = saved_stations(self.best)
        if known is None:
            return None
        places = {name: None if known[name] is None else np.array(known[name]) for name in ("latitudes", "longitudes")}
        return Stations(tuple(known["names"]), known["titles"] and tuple(known["titles"]), **places)

    @property
    def flow(self) -> Variable | None:
        """What the run forecasts at stations; None where it forecasts fields."""
        known = saved_stations(self.best)
        return Variable(**known["flow"]) if known else None

    @property
    def flow_normalizer(self) -> FlowNormalizer | None:
        """The normaliser of flow at stations that training fitted; None of a run that forecasts fields."""
        return saved_flow_normalizer(self.best)

    @property
    def target_normalizer(self) -> Normalizer | FlowNormalizer:
        """The normaliser of what the run forecasts."""
        return self.flow_normalizer or self.normalizer

    def samples(self) -> tuple[Source, dict[str, Samples]]:
        """Open the source again and cut it into the same samples."""
        source = self.config.source.open(self.config.seed)
        config = self.config
        return source, make_samples(
            source, config.windows, config.splits, self.normalizer, config.sampling, config.seed, self.flow_normalizer
        )

    def history(self) -> list[dict[str, float | None]]:
        """Rows of history.csv."""
        path = self.folder / "history.csv"
        if not path.is_file():
            return []
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        return [{key: float(value) if value else None for key, value in row.items()} for row in rows]

    def status(self) -> dict[str, Any]:
        """What status.json says: state ("finished", "stopped", "failed"), exit_code, reason."""
        path = self.folder / "status.json"
        return json.loads(path.read_text()) if path.is_file() else {}


def saved_stations(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """What ``describe_data`` said of stations, of a run that forecasts flow at some."""
    return checkpoint.state.get("stations")


def saved_flow_normalizer(checkpoint: Checkpoint) -> FlowNormalizer | None:
    """The normaliser of flow that a checkpoint keeps; None of a run that forecasts fields."""
    known = saved_stations(checkpoint)
    return FlowNormalizer.from_plain(known["normalizer"]) if known else None


def build_model(config: RunConfig, num_channels: int, stations: tuple[Sequence[int], int] | None = None) -> Forecaster:
    """The untrained forecaster that a configuration names.

    Args:
        config: which model, with which settings.
        num_channels: of the source.
        stations: the size (H, W) of the maps and the number of stations, where the source has stations.

    Raises:
        ConfigError: where one of model and source has stations and the other maps, or they disagree on sizes.
    """
    values = config.model.model_dump()
    key, source = config.model_key, config.source.key
    if MODELS[key].forecaster.forecasts_stations != (stations is not None):
        able = ", ".join(
            name
            for name, row in MODELS.items()
            if row.forecaster.trained and row.forecaster.forecasts_stations == (stations is not None)
        )
        what = ("maps", "flow at stations") if stations else ("flow at stations", "maps")
        raise ConfigError(f"model.key = '{key}' forecasts {what[0]}, the source '{source}' has {what[1]}: take {able}")
    if stations is not None:
        for name, own in (("map_size", tuple(stations[0])), ("num_stations", stations[1])):
            if values[name] not in (None, own):
                came = f"model.{name} = {values[name]}, of the config or its preset"
                raise ConfigError(f"{came}; the source has {own}: set it so")
            values[name] = own
        if values.get("leads", ()) is None:
            plan = config.sampling.plan(config.windows)
            values["leads"] = [target - plan.inputs[1] for target in range(plan.targets[0], plan.targets[1] + 1)]
    return build(key, num_channels=num_channels, **values)


def write_json(path: Path, content: object) -> None:
    """Write plain types, whole or not at all."""
    write_atomic(path, json.dumps(content, indent=1, default=str) + "\n")


def write_history(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Write history.csv."""
    lines = [",".join(HISTORY)]
    lines += [",".join("" if row[name] is None else repr(row[name]) for name in HISTORY) for row in rows]
    write_atomic(folder / "history.csv", "\n".join(lines) + "\n")


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Keep a second process out of a run folder while one trains in it.

    Raises:
        ConfigError: where a living process holds it, or the folder can't be written.
    """
    path = folder / "lock.json"
    own = {"pid": os.getpid(), "host": socket.gethostname()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.is_file() and _alive(path, own):
            raise ConfigError(f"{folder} is in use by another process ({path.read_text().strip()})")
        write_atomic(path, json.dumps(own))
    except OSError as error:
        raise FieldcastError(f"{folder} can't be written: {error.strerror or error}") from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _alive(path: Path, own: dict[str, Any]) -> bool:
    try:
        holder = json.loads(path.read_text())
        if holder["host"] != own["host"]:
            return True
        os.kill(int(holder["pid"]), 0)
    except (ValueError, KeyError, TypeError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return holder["pid"] != own["pid"]


def remove_run(folder: Path) -> None:
    """Delete a run folder, and nothing that is not one.

    Raises:
        ConfigError: for a folder with something else in it.
    """
    if not folder.exists():
        return
    if not (folder / "config.json").is_file():
        raise ConfigError(f"{folder} is no run (no config.json): it was not deleted")
    shutil.rmtree(folder)
