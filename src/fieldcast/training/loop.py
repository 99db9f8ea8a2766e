"""The training loop.

What is drawn at random (weights, order of samples, crops, teaching) is a function of (seed, step), so that a run
that was stopped and resumed ends with the same bits as one that was not.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fieldcast.checkpoint import checkpoints
from fieldcast.config import RunConfig, load_config
from fieldcast.data import Batch
from fieldcast.data.dataset import spread
from fieldcast.errors import ConfigError, FieldcastError, TrainingDiverged, TrainingStopped
from fieldcast.losses import LOSSES, counts, weighted_loss
from fieldcast.processes import Processes, autocast, choose_device, join_processes
from fieldcast.run import Run, lock, write_json
from fieldcast.training.display import TrainingDisplay
from fieldcast.training.draws import crop_corners, sample_numbers, seed_torch, teaching_mask
from fieldcast.training.interrupts import StopRequest, listen
from fieldcast.training.prefetch import Prefetcher
from fieldcast.training.session import Session, open_session, save_session


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
        try:
            if processes.first:
                with lock(folder), _status(folder):
                    _train(config, folder, device, processes, request)
            else:
                _train(config, folder, device, processes, request)
        except TrainingStopped:
            # The first process to leave makes torchrun end the others, which may still be writing.
            processes.wait()
            raise
    return Run(folder)


@contextmanager
def _status(folder: Path) -> Iterator[None]:
    """Leave status.json behind, however it ends: under torchrun the exit code does not get through."""
    try:
        yield
    except BaseException as error:
        state = "stopped" if isinstance(error, TrainingStopped) else "failed"
        code = error.exit_code if isinstance(error, FieldcastError) else 1
        # A disk or folder that can't be written is the very error that is on its way to the user.
        with suppress(OSError, FieldcastError):
            _write_status(folder, state, code, str(error))
        raise
    _write_status(folder, "finished", 0, "")


def _write_status(folder: Path, state: str, code: int, reason: str) -> None:
    newest = next((path.name for path in checkpoints(folder / "checkpoints")), None)
    status = {"state": state, "exit_code": code, "reason": reason, "checkpoint": newest}
    write_json(folder / "status.json", status)


def _train(config: RunConfig, folder: Path, device: torch.device, processes: Processes, request: StopRequest) -> None:
    session = open_session(config, folder, device, processes)
    settings, progress = config.training, session.progress
    started = time.monotonic() - progress.seconds
    late = _is_late(session)
    with TrainingDisplay(settings.num_steps, processes.first, folder, settings.tensorboard) as display, \
            Prefetcher(lambda step: load_batch(session, step), settings.num_steps) as batches:  # fmt: skip
        while progress.step < settings.num_steps and not _should_stop(session) and not late:
            step = progress.step
            loss = train_step(session, batches.take(step), step)
            progress.step, progress.loss_sum = step + 1, progress.loss_sum + loss
            progress.loss_count += 1
            progress.seconds = time.monotonic() - started
            display.advance(step + 1, loss)
            stop, late = _agree(session, request)
            validated = late or progress.step == settings.num_steps or progress.step % settings.validation.every == 0
            if validated:
                _validate_and_save(session, display)
            if stop and not late and progress.step < settings.num_steps:
                if not validated:
                    save_session(session)
                raise TrainingStopped(
                    f"stopped after step {progress.step} and saved; go on with `fieldcast resume {folder}`"
                )


def train_step(session: Session, batch: Batch, step: int) -> float:
    """One step of the optimiser on this process's share of the batch; the loss of the whole batch.

    Gradients are sums over the share divided by counts over the whole, so that adding them over micro-batches and
    processes gives the gradient of the whole batch, however unevenly pixels are missing.

    Raises:
        TrainingDiverged: for a loss or gradient that is not finite, before the weights are touched.
    """
    settings, processes, model = session.config.training, session.processes, session.model
    seed_torch(session.config.seed, step, processes.rank)
    for group in session.optimizer.param_groups:
        group["lr"] = settings.learning_rate * settings.schedule.scale(step, settings.num_steps)
    session.optimizer.zero_grad(set_to_none=True)
    model.train()
    totals = total_counts(session, batch)
    teacher = _own_teaching(session, batch, step)
    total = torch.zeros((), device=session.device)
    size = len(batch) // settings.accumulate
    for first in range(0, len(batch), size):
        part = slice(first, first + size)
        loss = batch_loss(session, batch[part], totals, None if teacher is None else teacher[part])
        loss.backward()
        total += loss.detach()
    loss_value, norm = _add_gradients(session, total)
    if not (math.isfinite(loss_value) and math.isfinite(norm)):
        raise TrainingDiverged(
            f"loss {loss_value:g} with gradient norm {norm:g} at step {step + 1}, samples "
            f"{_sample_numbers(session, step)}: stopped before the weights were changed, earlier checkpoints are kept. "
            "Try a lower learning_rate or clip_norm = 1.0"
        )
    session.optimizer.step()
    return loss_value


def batch_loss(session: Session, batch: Batch, totals: dict[str, Tensor], teacher: Tensor | None = None) -> Tensor:
    """This batch's part of a loss whose means run over ``totals``."""
    with autocast(session.device, session.config.training.precision):
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
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        flat = torch.cat([loss[None], *(gradient.reshape(-1) for gradient in gradients)])
        session.processes.add(flat)
        loss, *sums = flat.split([1, *(gradient.numel() for gradient in gradients)])
        for gradient, total in zip(gradients, sums, strict=True):
            gradient.copy_(total.view_as(gradient))
    limit = session.config.training.clip_norm
    norm = torch.nn.utils.clip_grad_norm_(weights, limit if limit is not None else math.inf)
    return float(loss), float(norm)


def _own_teaching(session: Session, batch: Batch, step: int) -> Tensor | None:
    """This process's share of the teaching mask."""
    settings, processes = session.config.training, session.processes
    shape = (settings.batch_size, batch.target_times.shape[1])
    mask = teaching_mask(session.config.seed, step, shape, settings.teacher_steps)
    return None if mask is None else mask.chunk(processes.count)[processes.rank].to(session.device)


@torch.no_grad()
def validate(session: Session) -> float:
    """The loss over the validation split; NaN where every pixel of it is missing."""
    samples, settings = session.samples["validation"], session.config.training
    numbers = spread(len(samples), settings.validation.num_samples)
    own = np.array_split(numbers, session.processes.count)[session.processes.rank]
    session.model.eval()
    weights = session.config.loss.weights()
    sums = torch.zeros(2, len(weights), dtype=torch.float64)
    size = samples.whole_maps(max(1, settings.batch_size // session.processes.count // settings.accumulate))
    for first in range(0, len(own), size):
        batch = samples.batch(own[first : first + size].tolist()).to(session.device)
        with autocast(session.device, session.config.training.precision):
            frames = session.model(batch.inputs, batch.input_times, batch.target_times)
        for column, name in enumerate(weights):
            errors = LOSSES[name].errors(frames, batch.targets, batch.valid)
            sums[0, column] += float(errors)
            sums[1, column] += float(LOSSES[name].count(batch.valid))
    errors, elements = session.processes.add(sums.to(session.device)).cpu()
    if not elements.any():
        return math.nan
    return float((torch.tensor(list(weights.values()), dtype=torch.float64) * errors / elements.clamp(min=1)).sum())


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
    save_session(session)


def _should_stop(session: Session) -> bool:
    """Whether early stopping has ended the run."""
    settings, progress = session.config.training.validation, session.progress
    if settings.stop == "rises":
        return progress.rises >= 2
    if settings.stop == "patience":
        return progress.waited >= settings.patience
    return False


def _agree(session: Session, request: StopRequest) -> tuple[bool, bool]:
    """Whether any process was asked to stop, and whether any has run out of its minutes."""
    votes = torch.tensor([float(request.made), float(_is_late(session))], device=session.device)
    stop, late_votes = session.processes.add(votes).tolist()
    return stop > 0, late_votes > 0


def _is_late(session: Session) -> bool:
    limit = session.config.training.max_minutes
    return limit is not None and session.progress.seconds >= 60 * limit


def _sample_numbers(session: Session, step: int) -> list[int]:
    return sample_numbers(session.config.seed, step, session.config.training.batch_size, len(session.samples["train"]))


def load_batch(session: Session, step: int) -> Batch:
    """This process's share of the samples of a step, on its device."""
    numbers = _sample_numbers(session, step)
    crop, corners = session.config.windows.crop, None
    share = len(numbers) // session.processes.count
    own = slice(session.processes.rank * share, (session.processes.rank + 1) * share)
    if crop is not None:
        corners = crop_corners(session.config.seed, step, len(numbers), session.source.shape, crop)[own]
    return session.samples["train"].batch(numbers[own], corners).to(session.device)
