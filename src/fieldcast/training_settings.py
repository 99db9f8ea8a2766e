"""Settings of the training loop, and the learning rate that follows from them."""

import math
from typing import Literal

from pydantic import Field

from fieldcast.settings import Settings


class ScheduleSettings(Settings):
    """How the learning rate changes: rate(step) = learning_rate * warm-up * shape.

    constant: shape 1. cosine: from 1 to ``floor`` over the run. steps: factor^(step // every), at least ``floor``
    (thesis: factor 0.99, every 8000, floor 0.1).
    """

    shape: Literal["constant", "cosine", "steps"] = "constant"
    warmup_steps: int = Field(0, ge=0)
    factor: float = Field(0.99, gt=0, le=1)
    every: int = Field(8000, ge=1)
    floor: float = Field(0.1, ge=0, le=1)

    def scale(self, step: int, num_steps: int) -> float:
        """The factor on the learning rate at a step, counted from 0."""
        warmup = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        if self.shape == "cosine":
            return warmup * (self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * step / num_steps)))
        if self.shape == "steps":
            return warmup * max(self.floor, self.factor ** (step // self.every))
        return warmup


class ValidationSettings(Settings):
    """When the run looks at the validation split, saves, and decides to stop.

    stop "rises": the loss has risen twice in a row (thesis, appendix B). stop "patience": no new best for
    ``patience`` validations.
    """

    every: int = Field(200, ge=1)
    num_samples: int | None = Field(None, ge=1)  # spread evenly over the split; None: all
    stop: Literal["never", "rises", "patience"] = "never"
    patience: int = Field(10, ge=1)


class TrainingSettings(Settings):
    """Settings of the training loop."""

    num_steps: int = Field(ge=1)
    batch_size: int = Field(4, ge=1)  # of all processes and micro-batches together
    accumulate: int = Field(1, ge=1)  # micro-batches that one step is made of
    optimizer: Literal["adam", "adamax", "adamw", "nadam", "radam", "rmsprop", "sgd"] = "adam"
    learning_rate: float = Field(1e-4, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    schedule: ScheduleSettings = ScheduleSettings()
    clip_norm: float | None = Field(None, gt=0)
    precision: Literal["float32", "bf16-mixed"] = "float32"
    teacher_steps: int = Field(0, ge=0)  # scheduled sampling: the share of true frames falls to 0 over these
    max_minutes: float | None = Field(None, gt=0)
    tensorboard: bool = False
    validation: ValidationSettings = ValidationSettings()
