"""What training says while it runs, on standard error: a bar on a terminal, else a line now and then."""

import math
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fieldcast.errors import MissingExtra

SECONDS_BETWEEN_LINES = 30.0


class TrainingDisplay:
    """A progress bar or lines with loss, speed and remaining time, and TensorBoard where it was asked for."""

    def __init__(self, num_steps: int, shown: bool, folder: Path, tensorboard: bool) -> None:
        self.num_steps = num_steps
        self.shown = shown
        self.bar = None
        self.validation = ""
        self.first_step: int | None = None
        self.started = self.last_line = time.monotonic()
        self.writer = _tensorboard(folder) if tensorboard and shown else None
        console = Console(stderr=True)
        if shown and console.is_terminal:
            columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
            self.bar = Progress(*columns, console=console, transient=True)
            self.task = self.bar.add_task("", total=num_steps)

    @staticmethod
    def say(text: str) -> None:
        """One line."""
        print(text, file=sys.stderr, flush=True)

    def advance(self, step: int, loss: float) -> None:
        """Show a finished step."""
        if not self.shown:
            return
        if self.first_step is None:
            self.first_step, self.started = step, time.monotonic()
        elapsed = max(time.monotonic() - self.started, 1e-9)
        speed = (step - self.first_step) / elapsed
        text = f"loss {loss:.5f}{self.validation}  {speed:.2f} steps/s"
        if self.writer:
            self.writer.add_scalar("train_loss", loss, step)
        if self.bar:
            self.bar.update(self.task, completed=step, description=text)
        elif time.monotonic() - self.last_line > SECONDS_BETWEEN_LINES:
            self.last_line = time.monotonic()
            rest = f"{(self.num_steps - step) / speed / 60:.1f} min left" if speed else ""
            self.say(f"step {step}/{self.num_steps}  {text}  {rest}")

    def validated(self, row: dict[str, Any], better: bool) -> None:
        """Show a validation."""
        if not self.shown:
            return
        self.validation = f"  validation {row['validation_loss']:.5f}"
        if self.writer:
            self.writer.add_scalar("validation_loss", row["validation_loss"], row["step"])
            self.writer.add_scalar("learning_rate", row["learning_rate"], row["step"])
        mark = " (best)" if better else "" if math.isfinite(row["validation_loss"]) else " (not finite: never the best)"
        text = f"step {row['step']}: train {row['train_loss']:.5f}{self.validation}{mark}  {row['seconds']:.0f} s"
        if self.bar:
            self.bar.console.print(text)
        else:
            self.say(text)

    def __enter__(self) -> "TrainingDisplay":
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.bar:
            self.bar.stop()
        if self.writer:
            self.writer.close()


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MissingExtra("training.tensorboard", "tensorboard") from None
    return SummaryWriter(str(folder / "tensorboard"))
