"""The one abstract class: a forecaster.

Shapes: B batch, T input frames, S target frames, C channels, H rows, W columns.
"""

import abc
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from fieldcast.data.batch import Batch
from fieldcast.errors import DataError
from fieldcast.settings import Settings


class Forecaster(nn.Module, abc.ABC):
    """Predicts frames at target times from frames at input times.

    Attributes:
        irregular_inputs: takes inputs at any times; a model made of parts decides by its settings.
        irregular_targets: forecasts at any times; otherwise at whole multiples of the cadence.
        interpolates: takes target times between those of the inputs too, not only after them.
        draws: ``draw`` gives another forecast each time; ``forward`` gives the one that stands for all.
        trained: has weights that training changes; the baselines have none.
        forecasts_stations: its output has stations in place of the map, (B, S, C, R); it takes target time 0 too, the
            flow that the weather up to now makes.
        takes_teacher: ``forward_train`` can feed true targets back in (scheduled sampling).
        ignore_times: a model that can't see times takes frames as they come, one cadence apart.
    """

    irregular_inputs: bool = False
    irregular_targets: bool = False
    interpolates: ClassVar[bool] = False
    draws: ClassVar[bool] = False
    trained: ClassVar[bool] = True
    forecasts_stations: ClassVar[bool] = False
    takes_teacher: ClassVar[bool] = False
    ignore_times: bool = False

    @abc.abstractmethod
    def forward(self, inputs: Tensor, input_times: Tensor, target_times: Tensor) -> Tensor:
        """Forecast.

        Args:
            inputs: (B, T, C, H, W), normalised.
            input_times: (B, T) in units of the cadence, ascending, the last is 0.
            target_times: (B, S) in units of the cadence, ascending.

        Returns:
            (B, S, C, H, W), normalised.
        """

    def forward_train(self, batch: Batch, teacher: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Forecast with what only training may see.

        Args:
            batch: inputs and targets.
            teacher: (B, S) bool, where the true target is fed back instead of the model's own; only for a
                model with ``takes_teacher``.

        Returns:
            frames (B, S, C, H, W) and named penalties to add to the loss.
        """
        assert teacher is None, "this model takes no teacher"
        return self(batch.inputs, batch.input_times, batch.target_times), {}

    def forward_batch(self, batch: Batch) -> Tensor:
        """Forecast a batch (B, S, C, H, W), normalised: the door for a model that knows the calendar.

        Times inside a model are relative to the last input; ``batch.origin`` says when that was.
        """
        return self(batch.inputs, batch.input_times, batch.target_times)

    def draw(self, inputs: Tensor, input_times: Tensor, target_times: Tensor) -> Tensor:
        """One forecast at random for each sample, by torch's generator, of a model that ``draws``; see ``forward``."""
        raise AssertionError("this model has one forecast for each input")

    def seen_times(self, input_times: Tensor, target_times: Tensor) -> tuple[Tensor, Tensor]:
        """Both times as the model is to take them, checked: one cadence apart under ``ignore_times``.

        Raises:
            DataError: for times that do not ascend or that the model can't take.
        """
        if self.ignore_times:
            inputs = torch.arange(1 - input_times.shape[1], 1).to(input_times)
            targets = torch.arange(1, target_times.shape[1] + 1).to(target_times)
            # Flow is asked for from lead time 0 or from a later one: which, its own times alone say.
            targets = target_times.round() if self.forecasts_stations else targets.expand_as(target_times)
            return inputs.expand_as(input_times), targets
        self._check_order(input_times, target_times)
        if not self.irregular_inputs:
            regular = torch.arange(1 - input_times.shape[1], 1).to(input_times)
            _refuse_irregular("inputs", input_times, ((input_times - regular).abs() > TIME_TOLERANCE).any(dim=1))
        if not self.irregular_targets:
            steps = target_times.round()
            odd = ((target_times - steps).abs() > TIME_TOLERANCE) | (steps < (0 if self.forecasts_stations else 1))
            _refuse_irregular("targets", target_times, odd.any(dim=1))
        return input_times, target_times

    def inability(self, regular_inputs: bool, regular_targets: bool, any_between: bool) -> str | None:
        """What keeps the model from taking samples of this kind, or None.

        Args:
            regular_inputs: whether the inputs of every sample are one cadence apart.
            regular_targets: whether every target is at a whole number of cadences after the last input.
            any_between: whether some target comes before a sample's last input.
        """
        if self.ignore_times:
            return None
        if any_between and not self.interpolates:
            return "does not interpolate"
        if not (regular_inputs or self.irregular_inputs):
            return "takes inputs one cadence apart only"
        if not (regular_targets or self.irregular_targets):
            return "forecasts at whole cadences only"
        return None

    def target_steps(self, input_times: Tensor, target_times: Tensor) -> Tensor:
        """Target times as counts of steps after the last input (B, S), for a model that sees only steps.

        Raises:
            DataError: where times are not whole multiples of the cadence, unless ``ignore_times``.
        """
        return self.seen_times(input_times, target_times)[1].round().long()

    def _check_order(self, input_times: Tensor, target_times: Tensor) -> None:
        """Refuse times that stand still or go back, and targets that the model's kind does not reach."""
        for name, times in (("input", input_times), ("target", target_times)):
            wrong = ~(times.diff(dim=1) > 0).all(dim=1) | ~times.isfinite().all(dim=1)
            if wrong.any():
                raise DataError(f"{name} times must ascend, but {_listed(times[wrong][0])} came (in cadences)")
        early = (target_times < 0).any(dim=1)
        if self.irregular_targets and not self.interpolates and early.any():
            raise DataError(
                f"this model does not interpolate, but targets are at {_listed(target_times[early][0])} "
                "(in cadences after the last input). Choose a model that interpolates (`fieldcast models`)"
            )


TIME_TOLERANCE = 1e-3  # of the cadence


def _refuse_irregular(where: str, times: Tensor, odd: Tensor) -> None:
    if odd.any():
        raise DataError(
            f"this model takes frames one cadence apart and forecasts at whole multiples of it, but the {where} "
            f"are at {_listed(times[odd][0])} (in cadences after the last input). "
            "Choose a model with irregular times (`fieldcast models`), or set ignore_times = true in [model]"
        )


def _listed(times: Tensor) -> list[float]:
    return [round(value, 4) for value in times.tolist()]


def take_steps(frames: Tensor, steps: Tensor) -> Tensor:
    """Pick for each sample its own steps: frames (S_all, B, C, H, W), steps (B, S) from 1 -> (B, S, C, H, W)."""
    samples = torch.arange(steps.shape[0], device=steps.device)[:, None]
    return frames[steps - 1, samples]


def widen(frames: Tensor) -> Tensor:
    """Forecasts leave a model in float32 at least, whatever it computes in."""
    return frames.to(torch.promote_types(frames.dtype, torch.float32))


class ModelSettings(Settings):
    """Settings that every model has."""

    ignore_times: bool = False

    def name_in_tables(self, name: str) -> str:
        """A model's name with the mark of one that was made to ignore times."""
        return f"{name} (times ignored)" if self.ignore_times else name


class ModelRow(NamedTuple):
    """A row of the table of models: how to build it, its published settings, and where it comes from.

    ``defaults`` go before those of the settings, for models that are made of the same parts.
    """

    forecaster: type[Forecaster]
    settings: type[ModelSettings]
    presets: dict[str, dict]
    paper: str
    defaults: dict[str, Any] = {}  # noqa: RUF012 - nobody changes it


def count_parameters(model: nn.Module) -> int:
    """Number of weights that training can change."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
