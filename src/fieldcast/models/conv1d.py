"""Convolutions over time, at each pixel alone: a window of the last inputs gives the next frames.

Shapes: B batch, T input frames, S target frames, C channels, H rows, W columns, N series of pixels (B H W), L window,
D width of a layer, P steps that are forecast at once.
"""

import math
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from fieldcast.data.batch import Batch
from fieldcast.errors import DataError
from fieldcast.models.base import Forecaster, ModelSettings, take_steps, widen
from fieldcast.settings import Count, TupleOf

HEAD_WIDTH = 32


class Conv1DSettings(ModelSettings):
    """Settings of ``conv1d``.

    Args:
        window: L, how many of the last inputs it reads.
        widths: maps of each layer, () for none: with a linear head a linear autoregression.
        kernels: extent of each layer's kernels, in frames.
        activation: after each layer, and in a nonlinear head.
        head: "linear", or "nonlinear" with one hidden layer.
        head_width: of the hidden layer of a nonlinear head, 32 unless given.
        steps_at_once: P.
    """

    window: Count = 5
    widths: TupleOf[Count] = (16, 16)
    kernels: TupleOf[Count] = (3, 2)
    activation: Literal["tanh", "relu"] = "tanh"
    head: Literal["linear", "nonlinear"] = "linear"
    head_width: Annotated[int, Field(ge=1)] | None = None
    steps_at_once: Count = 1

    @model_validator(mode="after")
    def _fit_together(self) -> "Conv1DSettings":
        if len(self.kernels) != len(self.widths):
            raise ValueError(
                f"{len(self.widths)} widths and {len(self.kernels)} kernels came: give each layer one of both"
            )
        if self.places < 1:
            raise ValueError(
                f"kernels {list(self.kernels)} reach over {self.window + 1 - self.places} frames, more than window = "
                f"{self.window}: make the window longer or the kernels smaller"
            )
        if self.head == "linear" and self.head_width is not None:
            raise ValueError('head_width is for head = "nonlinear": a linear head has no hidden layer')
        return self

    @property
    def places(self) -> int:
        """How many frames are left of the window after the valid convolutions."""
        return self.window - sum(kernel - 1 for kernel in self.kernels)


class Conv1D(Forecaster):
    """Stacked valid convolutions over the last L values of each pixel, and a head that reads what they leave.

    h_0 = (x_{t-L+1}, ..., x_t), h_l[d, i] = f(b_d + sum_c sum_k a_dc[k] h_{l-1}[c, i + k]),
    (x_{t+1}, ..., x_{t+P}) = head(h), the head linear or with one hidden layer; further steps by recursion, in which
    the forecasts take the place of inputs. The lecture "Neural Organization: Convolution":
    o_t = f(o_{t-L}, ..., o_{t-1}), 14 steps at a time or one at a time.

    Any S; T from the window on, of which only the last L frames are read; any H and W, all pixels by the same weights.
    """

    irregular_inputs = False
    irregular_targets = False

    def __init__(self, settings: Conv1DSettings, num_channels: int) -> None:
        super().__init__()
        self.settings, self.num_channels = settings, num_channels
        self.activation = {"tanh": torch.tanh, "relu": torch.relu}[settings.activation]
        widths = (num_channels, *settings.widths)
        self.layers = nn.ModuleList(
            nn.Conv1d(below, width, kernel)
            for (below, width), kernel in zip(pairwise(widths), settings.kernels, strict=True)
        )
        inputs, outputs = widths[-1] * settings.places, num_channels * settings.steps_at_once
        self.hidden = None
        if settings.head == "nonlinear":
            width = settings.head_width or HEAD_WIDTH
            self.hidden, inputs = nn.Linear(inputs, width), width
        self.output = nn.Linear(inputs, outputs)

    def forward(self, inputs: Tensor, input_times: Tensor, target_times: Tensor) -> Tensor:
        """See ``Forecaster.forward``.

        Raises:
            DataError: for fewer inputs than the window.
        """
        steps = self.target_steps(input_times, target_times)
        window = self.settings.window
        if inputs.shape[1] < window:
            raise DataError(
                f"this model reads the last {window} inputs, but {inputs.shape[1]} came: give more (num_inputs in "
                "[windows]), or build it with a shorter window"
            )
        batch, _, channels, height, width = inputs.shape
        series = inputs[:, -window:].permute(0, 3, 4, 2, 1).reshape(-1, channels, window)
        ahead = self.rollout(series, int(steps.amax()))
        frames = ahead.unflatten(0, (batch, height, width)).permute(4, 0, 3, 1, 2)
        return take_steps(frames, steps)

    def forward_train(self, batch: Batch, teacher: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """See ``Forecaster.forward_train``.

        Raises:
            DataError: for targets that end before ``steps_at_once``: the steps after them would never be learned.
        """
        farthest = int(self.target_steps(batch.input_times, batch.target_times).amax())
        if farthest < self.settings.steps_at_once:
            raise DataError(
                f"steps_at_once = {self.settings.steps_at_once}, but the targets to learn from end at step {farthest}: "
                f"give more targets (num_targets in [windows]), or set steps_at_once = {farthest}"
            )
        return super().forward_train(batch, teacher)

    def rollout(self, series: Tensor, num_steps: int) -> Tensor:
        """What follows series (N, C, L), P steps at a time -> (N, C, num_steps)."""
        window, forecasts = series, []
        for _ in range(math.ceil(num_steps / self.settings.steps_at_once)):
            forecasts.append(self.next_steps(window))
            window = torch.cat([window, forecasts[-1]], dim=2)[:, :, -self.settings.window :]
        return torch.cat(forecasts, dim=2)[:, :, :num_steps]

    def next_steps(self, window: Tensor) -> Tensor:
        """The P steps after a window (N, C, L) -> (N, C, P)."""
        maps = window
        for layer in self.layers:
            maps = self.activation(layer(maps))
        features = maps.flatten(1)
        if self.hidden is not None:
            features = self.activation(self.hidden(features))
        return widen(self.output(features)).unflatten(1, (self.num_channels, self.settings.steps_at_once))
