"""What is open while a run trains: opened at the start or from a checkpoint, and saved to one."""

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fieldcast.checkpoint import (
    Checkpoint,
    checkpoints,
    load_weights,
    newest_checkpoint,
    pack_optimizer,
    remove_half_written,
    remove_old,
    save_checkpoint,
    unpack_optimizer,
)
from fieldcast.config import RunConfig, differences, read_config
from fieldcast.data import Normalizer, Samples, Source, make_samples
from fieldcast.data.source import StationSource
from fieldcast.environment import bf16_in_hardware, describe_environment
from fieldcast.errors import ConfigError, TrainingDiverged
from fieldcast.models import MODELS, Forecaster
from fieldcast.models.runoff_convlstm import RunoffConvLSTM
from fieldcast.processes import Processes
from fieldcast.run import build_model, saved_flow_normalizer, write_history, write_json
from fieldcast.training.display import TrainingDisplay

# What a run that goes on may have otherwise than when it was stopped; with the same values it ends with the same bits.
MAY_CHANGE = (
    "name",
    "source.cache_megabytes",
    "source.paths",
    "training.num_steps",
    "training.max_minutes",
    "training.tensorboard",
    "training.validation.every",
    "training.validation.num_samples",
    "training.validation.patience",
    "training.validation.stop",
)
OPTIMIZERS: dict[str, Any] = {
    "adam": torch.optim.Adam,
    "adamax": torch.optim.Adamax,
    "adamw": torch.optim.AdamW,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "rmsprop": lambda weights, **options: torch.optim.RMSprop(weights, alpha=0.9, **options),
    "sgd": lambda weights, **options: torch.optim.SGD(weights, momentum=0.9, **options),
}


@dataclass
class Progress:
    """How far a run has come; plain types that a checkpoint keeps."""

    step: int = 0
    best_loss: float = math.inf
    best_step: int = 0
    rises: int = 0
    waited: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0
    loss_count: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Session:
    """Everything that is open while a run trains."""

    config: RunConfig
    folder: Path
    source: Source
    samples: dict[str, Samples]
    model: Forecaster
    optimizer: torch.optim.Optimizer
    processes: Processes
    device: torch.device
    progress: Progress


def open_session(config: RunConfig, folder: Path, device: torch.device, processes: Processes) -> Session:
    """Open data, model and optimiser, at the start or where the newest checkpoint left them.

    Raises:
        FieldcastError: one of its kinds, for settings, data or checkpoints that don't fit.
    """
    if not MODELS[config.model_key].forecaster.trained:
        raise ConfigError(
            f"model.key: {config.model_key} is not trained; it is a baseline, which evaluation.baselines puts into "
            "the table of scores of every run"
        )
    settings = config.training
    share = processes.count * settings.accumulate
    if settings.batch_size % share:
        raise ConfigError(
            f"training.batch_size = {settings.batch_size} can't be shared by {processes.count} processes x "
            f"{settings.accumulate} micro-batches: take a multiple of {share}"
        )
    saved = _open_checkpoint(config, folder, processes)
    source = config.source.open(config.seed)
    normalizer = Normalizer.from_plain(saved.state["normalizer"]) if saved else config.source.normalizer
    flow_normalizer = saved_flow_normalizer(saved) if saved else None
    samples = make_samples(
        source, config.windows, config.splits, normalizer, config.sampling, config.seed, flow_normalizer
    )
    torch.manual_seed(config.seed)
    model = _build(config, source)
    if settings.teacher_steps and not model.takes_teacher:
        raise ConfigError(f"training.teacher_steps: the model '{config.model_key}' feeds nothing back to be taught")
    model.to(device)
    optimizer = OPTIMIZERS[settings.optimizer](
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    progress = Progress()
    if saved:
        load_weights(model, saved.model, str(folder))
        unpack_optimizer(optimizer, saved.optimizer)
        progress = Progress(**saved.state["progress"])
    session = Session(config, folder, source, samples, model, optimizer, processes, device, progress)
    if processes.first:
        remove_half_written(folder)
        write_json(folder / "config.json", config.resolved())
        write_json(folder / "environment.json", describe_environment(device))
        write_history(folder, progress.history)
        sizes = ", ".join(f"{len(part)} {split}" for split, part in samples.items())
        if settings.precision == "bf16-mixed" and not bf16_in_hardware(device):
            TrainingDisplay.say("warning: bf16-mixed is many times slower than float32 without bf16 instructions")
        TrainingDisplay.say(f"{config.name}: {sizes} samples; {device}; from step {progress.step}")
    processes.wait()
    return session


def _build(config: RunConfig, source: Source) -> Forecaster:
    """The untrained model, which knows the stations and the catchments of a source that has some."""
    if not isinstance(source, StationSource):
        return build_model(config, len(source.variables))
    model = build_model(config, len(source.variables), (source.shape, len(source.stations)))
    if isinstance(model, RunoffConvLSTM) and model.settings.head == "catchment":
        if source.stations.catchments is None:
            raise ConfigError('model.head = "catchment" needs source.catchments, or source.catchment_radius')
        model.use_catchments(torch.from_numpy(source.stations.catchments))
    return model


def _open_checkpoint(config: RunConfig, folder: Path, processes: Processes) -> Checkpoint | None:
    """The newest checkpoint that is whole, of a run that has any."""
    if not checkpoints(folder / "checkpoints"):
        return None
    path, saved, faults = newest_checkpoint(folder / "checkpoints")
    for fault in faults if processes.first else ():
        TrainingDisplay.say(f"skipped a damaged checkpoint: {fault}; going on from {path.name}")
    before = read_config(saved.state["config"], f"{path}/state.json").resolved()
    changed = sorted(differences(before, config.resolved()) - set(MAY_CHANGE))
    if changed:
        raise ConfigError(
            f"{folder}: config.json is not what its checkpoints were trained with: {', '.join(changed)}; "
            f"change them back, or train a new run (may change: {', '.join(MAY_CHANGE)})"
        )
    return saved


def save_session(session: Session) -> None:
    """Write a checkpoint and the history; all processes come back when it is there.

    Raises:
        TrainingDiverged: for weights that are not finite; earlier checkpoints stay.
        FieldcastError: where it can't be written.
    """
    progress, folder = session.progress, session.folder / "checkpoints"
    if not all(bool(torch.isfinite(weight).all()) for weight in session.model.parameters()):
        raise TrainingDiverged(
            f"weights are no longer finite after step {progress.step}: not saved, earlier checkpoints are kept. "
            "Try a lower learning_rate or clip_norm = 1.0"
        )
    if not session.processes.first:
        session.processes.wait()
        return
    state = {
        "config": session.config.resolved(),
        "normalizer": session.samples["train"].normalizer.to_plain(),
        **describe_data(session.samples["train"]),
        "progress": asdict(progress),
    }
    saved = Checkpoint(session.model.state_dict(), pack_optimizer(session.optimizer), state)
    save_checkpoint(folder, progress.step, saved)
    remove_old(folder, progress.step, progress.best_step)
    write_history(session.folder, progress.history)
    session.processes.wait()


def describe_data(samples: Samples) -> dict[str, Any]:
    """What a forecast needs to know of the data a model was trained on, as plain types."""
    source = samples.source
    described = {
        "variables": [asdict(variable) for variable in source.variables],
        "grid": {"names": [source.grid.row_name, source.grid.column_name], "spacing": list(source.grid.spacing())},
        "cadence": source.cadence,
        "calendar": source.calendar,
    }
    if not isinstance(source, StationSource):
        return described
    stations = source.stations
    places = {name: getattr(stations, name) for name in ("latitudes", "longitudes")}
    described["stations"] = {
        "names": list(stations.names),
        "titles": None if stations.titles is None else list(stations.titles),
        **{name: None if values is None else np.asarray(values).tolist() for name, values in places.items()},
        "map_size": list(source.shape),
        "flow": asdict(source.flow),
        "normalizer": samples.target_normalizer.to_plain(),
    }
    return described
