"""The training loop.

What is drawn at random (weights, order of samples, crops, teaching) is a function of (seed, step), so that a run
that was stopped and resumed ends with the same bits as one that was not.
"""

import math
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fieldcast.checkpoint import (
    Checkpoint,
    load_weights,
    newest_checkpoint,
    pack_optimizer,
    remove_leftovers,
    save_checkpoint,
    unpack_optimizer,
)
from fieldcast.config import RunConfig, load_config, read_config
from fieldcast.data import Batch, Normalizer, Samples, Source, make_samples
from fieldcast.environment import describe_environment
from fieldcast.errors import ConfigError, FieldcastError, TrainingDiverged, TrainingStopped
from fieldcast.interrupts import StopRequest, listen
from fieldcast.losses import LOSSES, counts, weighted_loss
from fieldcast.models import Forecaster
from fieldcast.processes import Processes, choose_device, join_processes
from fieldcast.progress import TrainingDisplay
from fieldcast.run import Run, build_model, lock, write_history, write_json

OPTIMIZERS = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "rmsprop": lambda weights, **options: torch.optim.RMSprop(weights, alpha=0.9, **options),
    "sgd": lambda weights, **options: torch.optim.SGD(weights, momentum=0.9, **options),
}
ORDER, CROP, TEACHER, NOISE = range(4)  # streams of random numbers


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


def train(
    config: RunConfig | Path | str, folder: Path | str | None = None, device: str = "auto", overrides: tuple = ()
) -> Run:
    """Train a new run.

    Args:
        config: settings, or the path of a TOML file.
        folder: where the run goes; None: runs/NAME.
        device: "auto", "cpu", "cuda".
        overrides: ``table.key=value`` texts, for a config that is read from a file.

    Returns:
        the run.

    Raises:
        FieldcastError: one of its kinds, for settings or data that don't fit, divergence, or a stop on request.
    """
    config = config if isinstance(config, RunConfig) else load_config(config, tuple(overrides))
    target = Path(folder) if folder is not None else Path("runs") / config.name
    if (target / "config.json").exists():
        raise ConfigError(f"{target} holds a run already: `fieldcast resume {target}`, or name another folder")
    return _run(config, target, device)


def resume(folder: Path | str, device: str = "auto") -> Run:
    """Go on with a run that was stopped, from its newest whole checkpoint; see ``train``."""
    run = Run(Path(folder))
    return _run(run.config, run.folder, device)


def _run(config: RunConfig, folder: Path, device_name: str) -> Run:
    device = choose_device(device_name)
    with join_processes(device) as processes, listen() as request:
        if not processes.first:
            _train(config, folder, device, processes, request)
            return Run(folder)
        with lock(folder), _status(folder):
            _train(config, folder, device, processes, request)
    return Run(folder)


@contextmanager
def _status(folder: Path) -> Iterator[None]:
    """Leave status.json behind, however it ends: under torchrun the exit code does not get through."""
    try:
        yield
    except BaseException as error:
        stopped = isinstance(error, TrainingStopped)
        code = error.exit_code if isinstance(error, FieldcastError) else 1
        state = "stopped" if stopped else "failed"
        write_json(folder / "status.json", {"state": state, "exit_code": code, "reason": str(error)})
        raise
    write_json(folder / "status.json", {"state": "finished", "exit_code": 0, "reason": ""})


def _train(config: RunConfig, folder: Path, device: torch.device, processes: Processes, request: StopRequest) -> None:
    session = open_session(config, folder, device, processes)
    settings, progress = config.training, session.progress
    started = time.monotonic() - progress.seconds
    with TrainingDisplay(settings.num_steps, processes.first, folder, settings.tensorboard) as display, \
            Prefetcher(session) as batches:  # fmt: skip
        while progress.step < settings.num_steps and not _should_stop(session):
            step = progress.step
            loss = train_step(session, batches.take(step), step)
            progress.step, progress.loss_sum = step + 1, progress.loss_sum + loss
            progress.loss_count += 1
            progress.seconds = time.monotonic() - started
            display.advance(step + 1, loss)
            stop, late = _agree(session, request)
            if late or progress.step == settings.num_steps or progress.step % settings.validation.every == 0:
                _validate_and_save(session, display)
            if stop and progress.step < settings.num_steps:
                _save(session)
                raise TrainingStopped(
                    f"stopped after step {progress.step} and saved; go on with `fieldcast resume {folder}`"
                )
            if late:
                break


def open_session(config: RunConfig, folder: Path, device: torch.device, processes: Processes) -> Session:
    """Open data, model and optimiser, at the start or where the newest checkpoint left them."""
    settings = config.training
    share = processes.count * settings.accumulate
    if settings.batch_size % share:
        raise ConfigError(
            f"training.batch_size = {settings.batch_size} can't be shared by {processes.count} processes x "
            f"{settings.accumulate} micro-batches: take a multiple of {share}"
        )
    saved = None
    if (folder / "config.json").exists() and any((folder / "checkpoints").glob("step-*")):
        path, saved, faults = newest_checkpoint(folder / "checkpoints")
        for fault in faults if processes.first else ():
            TrainingDisplay.say(f"skipped a damaged checkpoint: {fault}; going on from {path.name}")
    source = config.source.open(config.seed)
    normalizer = Normalizer.from_plain(saved.state["normalizer"]) if saved else config.source.normalizer
    samples = make_samples(source, config.windows, config.splits, normalizer)
    torch.manual_seed(config.seed)
    model = build_model(config, len(source.variables))
    if settings.teacher_steps and not model.takes_teacher:
        raise ConfigError(f"training.teacher_steps: the model '{config.model_key}' feeds nothing back to be taught")
    if not any(True for _ in model.parameters()):
        raise ConfigError(f"the model '{config.model_key}' has nothing to train")
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
        write_json(folder / "config.json", config.resolved())
        write_json(folder / "environment.json", describe_environment(device))
        write_history(folder, progress.history)
        sizes = ", ".join(f"{len(part)} {split}" for split, part in samples.items())
        TrainingDisplay.say(f"{config.name}: {sizes} samples; {device}; from step {progress.step}")
    processes.wait()
    return session


def train_step(session: Session, batch: Batch, step: int) -> float:
    """One step of the optimiser on this process's share of the batch; the loss of the whole batch.

    Gradients are sums over the share divided by counts over the whole, so that adding them over micro-batches and
    processes gives the gradient of the whole batch, however unevenly pixels are missing.

    Raises:
        TrainingDiverged: for a loss or gradient that is not finite, before the weights are touched.
    """
    settings, processes, model = session.config.training, session.processes, session.model
    _seed(session.config.seed, NOISE, step, processes.rank)
    for group in session.optimizer.param_groups:
        group["lr"] = settings.learning_rate * settings.schedule.scale(step, settings.num_steps)
    session.optimizer.zero_grad(set_to_none=True)
    model.train()
    totals = total_counts(session, batch)
    teacher = teaching(session, batch, step)
    total = torch.zeros((), device=session.device)
    size = len(batch) // settings.accumulate
    for first in range(0, len(batch), size):
        part = slice(first, first + size)
        loss = batch_loss(session, batch[part], totals, None if teacher is None else teacher[part])
        loss.backward()
        total += loss.detach()
    loss_value, norm = _add_gradients(session, total)
    if not (math.isfinite(loss_value) and math.isfinite(norm)):
        numbers = sample_numbers(session, step)
        raise TrainingDiverged(
            f"loss {loss_value:g} with gradient norm {norm:g} at step {step + 1}, samples {numbers}: stopped before the "
            f"weights were changed, the last checkpoint is good. Try a lower learning_rate or clip_norm = 1.0"
        )
    session.optimizer.step()
    return loss_value


def batch_loss(session: Session, batch: Batch, totals: dict[str, Tensor], teacher: Tensor | None = None) -> Tensor:
    """This batch's part of a loss whose means run over ``totals``."""
    with _precision(session):
        frames, penalties = session.model.forward_train(batch, teacher)
    loss, _ = weighted_loss(frames, batch.targets, batch.valid, session.config.loss, totals)
    share = len(batch) / session.config.training.batch_size
    return loss + share * sum(penalties.values(), torch.zeros((), device=session.device))


def total_counts(session: Session, batch: Batch) -> dict[str, Tensor]:
    """Over how many elements each part of the loss is a mean, in all processes together."""
    own = counts(batch.valid, session.config.loss)
    packed = session.processes.add(torch.stack([own[name].double() for name in own]))
    return dict(zip(own, packed, strict=True))


def _add_gradients(session: Session, loss: Tensor) -> tuple[float, float]:
    """Add loss and gradients over processes; the loss, and the gradient's norm after which it is clipped."""
    weights = [weight for weight in session.model.parameters() if weight.grad is not None]
    if session.processes.count > 1:
        flat = torch.cat([loss[None], *(weight.grad.reshape(-1) for weight in weights)])
        session.processes.add(flat)
        loss, position = flat[0], 1
        for weight in weights:
            piece = flat[position : position + weight.numel()]
            weight.grad.copy_(piece.view_as(weight.grad))
            position += weight.numel()
    limit = session.config.training.clip_norm
    norm = torch.nn.utils.clip_grad_norm_(weights, limit if limit is not None else math.inf)
    return float(loss), float(norm)


def teaching(session: Session, batch: Batch, step: int) -> Tensor | None:
    """Where the truth is fed back (scheduled sampling, Bengio et al. 2015): its share falls from 1 to 0 linearly."""
    steps = session.config.training.teacher_steps
    if not steps or step >= steps:
        return None
    generator = random_numbers(session.config.seed, TEACHER, step)
    drawn = generator.random((session.config.training.batch_size, batch.target_times.shape[1]))
    own = np.array_split(drawn, session.processes.count)[session.processes.rank]
    return torch.from_numpy(own < 1 - step / steps).to(session.device)


@torch.no_grad()
def validate(session: Session) -> float:
    """The loss over the validation split."""
    samples, settings = session.samples["validation"], session.config.training
    limit = min(settings.validation.num_samples or len(samples), len(samples))
    numbers = np.unique(np.linspace(0, len(samples) - 1, limit).round().astype(int))
    own = np.array_split(numbers, session.processes.count)[session.processes.rank]
    session.model.eval()
    weights = session.config.loss.weights()
    sums = torch.zeros(2, len(weights), dtype=torch.float64)
    size = max(1, settings.batch_size // session.processes.count // settings.accumulate)
    for first in range(0, len(own), size):
        batch = samples.batch(own[first : first + size].tolist()).to(session.device)
        with _precision(session):
            frames = session.model(batch.inputs, batch.input_times, batch.target_times)
        for column, name in enumerate(weights):
            errors = LOSSES[name].errors(frames, batch.targets, batch.valid)
            sums[0, column] += float(errors)
            sums[1, column] += float(LOSSES[name].count(batch.valid))
    errors, elements = session.processes.add(sums.to(session.device)).cpu()
    return float((torch.tensor(list(weights.values())) * errors / elements.clamp(min=1)).sum())


def _precision(session: Session) -> torch.autocast:
    mixed = session.config.training.precision == "bf16-mixed"
    return torch.autocast(session.device.type, torch.bfloat16, enabled=mixed)


def _validate_and_save(session: Session, display: TrainingDisplay) -> None:
    progress, settings = session.progress, session.config.training
    loss = validate(session)
    previous = progress.history[-1]["validation_loss"] if progress.history else math.inf
    progress.rises = progress.rises + 1 if loss > previous else 0
    better = loss < progress.best_loss  # never true of NaN
    progress.waited = 0 if better else progress.waited + 1
    if better:
        progress.best_loss, progress.best_step = loss, progress.step
    progress.history.append(
        {
            "step": progress.step,
            "train_loss": progress.loss_sum / max(progress.loss_count, 1),
            "validation_loss": loss,
            "learning_rate": settings.learning_rate * settings.schedule.scale(progress.step - 1, settings.num_steps),
            "seconds": round(progress.seconds, 3),
        }
    )
    progress.loss_sum, progress.loss_count = 0.0, 0
    display.validated(progress.history[-1], better)
    _save(session)


def _should_stop(session: Session) -> bool:
    """Whether early stopping, or the time that was granted, has ended the run."""
    settings, progress = session.config.training.validation, session.progress
    if settings.stop == "rises":
        return progress.rises >= 2
    if settings.stop == "patience":
        return progress.waited >= settings.patience
    return False


def _agree(session: Session, request: StopRequest) -> tuple[bool, bool]:
    """Whether any process was asked to stop, and whether any has run out of its minutes."""
    limit = session.config.training.max_minutes
    late = limit is not None and session.progress.seconds >= 60 * limit
    votes = torch.tensor([float(request.made), float(late)], device=session.device)
    stop, late_votes = session.processes.add(votes).tolist()
    return stop > 0, late_votes > 0


def _save(session: Session) -> None:
    session.processes.wait()
    if not session.processes.first:
        return
    progress, folder = session.progress, session.folder / "checkpoints"
    state = {
        "config": session.config.resolved(),
        "normalizer": session.samples["train"].normalizer.to_plain(),
        **describe_data(session.source),
        "progress": asdict(progress),
    }
    path = save_checkpoint(
        folder, progress.step, Checkpoint(session.model.state_dict(), pack_optimizer(session.optimizer), state)
    )
    remove_leftovers(folder, {path, folder / f"step-{progress.best_step:08d}"})
    write_history(session.folder, progress.history)


def describe_data(source: Source) -> dict[str, Any]:
    """What a forecast needs to know of the data a model was trained on, as plain types."""
    return {
        "variables": [asdict(variable) for variable in source.variables],
        "grid": {"names": [source.grid.row_name, source.grid.column_name], "spacing": list(source.grid.spacing())},
        "cadence": source.cadence,
        "calendar": source.calendar,
    }


def random_numbers(seed: int, stream: int, step: int) -> np.random.Generator:
    """The generator of one stream at one step."""
    return np.random.default_rng([seed, stream, step])


def _seed(seed: int, stream: int, step: int, rank: int) -> None:
    torch.manual_seed(int(np.random.SeedSequence([seed, stream, step, rank]).generate_state(1)[0]))


def sample_numbers(session: Session, step: int) -> list[int]:
    """Which samples the whole batch of a step is made of: every one once before any comes again."""
    size, total = session.config.training.batch_size, len(session.samples["train"])
    positions = np.arange(step * size, (step + 1) * size)
    orders = {
        epoch: random_numbers(session.config.seed, ORDER, int(epoch)).permutation(total)
        for epoch in np.unique(positions // total)
    }
    return [int(orders[position // total][position % total]) for position in positions]


def load_batch(session: Session, step: int) -> Batch:
    """This process's share of the samples of a step, on its device."""
    numbers = sample_numbers(session, step)
    crop, corners = session.config.windows.crop, None
    if crop is not None:
        height, width = session.source.shape
        generator = random_numbers(session.config.seed, CROP, step)
        corners = generator.integers(0, [height - crop + 1, width - crop + 1], (len(numbers), 2)).tolist()
    share = len(numbers) // session.processes.count
    own = slice(session.processes.rank * share, (session.processes.rank + 1) * share)
    samples = session.samples["train"]
    return samples.batch(numbers[own], corners[own] if corners else None).to(session.device)


class Prefetcher:
    """Reads the next step's batch in a thread while this one is computed."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches")
        self._next: tuple[int, Future[Batch]] | None = None

    def take(self, step: int) -> Batch:
        """The batch of a step; begins to read that of the next."""
        ready = self._next if self._next and self._next[0] == step else (step, self._ask(step))
        batch = ready[1].result()
        if step + 1 < self._session.config.training.num_steps:
            self._next = (step + 1, self._ask(step + 1))
        return batch

    def _ask(self, step: int) -> Future[Batch]:
        return self._thread.submit(load_batch, self._session, step)

    def __enter__(self) -> "Prefetcher":
        return self

    def __exit__(self, *exception: object) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
