"""Encoder-forecaster: a pyramid of recurrent cells that reads frames, and its mirror that writes them.

Shapes: B batch, T input frames, S forecast steps, C channels, D width of a layer, H rows, W columns.
Inside, frames stand time first and folded, (T B, D, H, W), so that a step is a slice without a copy.
"""

import math
from collections.abc import Callable
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from fieldcast.cells import ConvGRUCell, TrajGRUCell
from fieldcast.cells.gates import Memory
from fieldcast.layers.resample import LEAKY_SLOPE, Downsample, Upsample, pad_to_multiple, with_coordinates
from fieldcast.models.base import Forecaster, ModelSettings, take_steps, widen
from fieldcast.settings import Count, OddSize, TupleOf


class EncoderForecasterSettings(ModelSettings):
    """Settings of the pyramid, bottom layer first."""

    widths: Annotated[TupleOf[Count], Field(min_length=1)] = (64, 96, 128)
    strides: TupleOf[Count] = (1, 2, 2)
    down_widths: TupleOf[Count] | None = None  # of the convolution under each cell; None: the cell's own width
    up_widths: TupleOf[Count] | None = None  # over each cell; None: 32, then the width of the cell below
    head_width: Count = 16
    coordinates: bool = False
    upsample_bias: bool = True
    memory: Memory = "tanh"

    @model_validator(mode="after")
    def _same_depth(self) -> "EncoderForecasterSettings":
        for name in ("strides", "down_widths", "up_widths"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.widths):
                raise ValueError(f"{name} has {len(values)} entries, widths has {len(self.widths)}: one for each layer")
        return self


class ConvGRUSettings(EncoderForecasterSettings):
    """Settings of ``convgru``."""

    state_kernel: OddSize = 3
    state_dilation: Count = 1

    def cell(self, input_width: int, width: int) -> nn.Module:
        """A cell of the pyramid."""
        return ConvGRUCell(
            input_width,
            width,
            state_kernel=self.state_kernel,
            state_dilation=self.state_dilation,
            memory=self.memory,
        )


class TrajGRUSettings(EncoderForecasterSettings):
    """Settings of ``trajgru``."""

    num_links: Count = 9
    flow_kernel: OddSize = 3
    flow_width: Count | None = None
    zero_flow: bool = False

    def cell(self, input_width: int, width: int) -> nn.Module:
        """A cell of the pyramid."""
        return TrajGRUCell(
            input_width,
            width,
            self.num_links,
            flow_kernel=self.flow_kernel,
            flow_width=self.flow_width,
            zero_flow=self.zero_flow,
            memory=self.memory,
        )


class EncoderForecaster(Forecaster):
    """Reads the inputs bottom up, hands every layer's state over, and writes the forecast top down.

    Encoder, layer l at input t: X_l = leaky(down_l * H_{l-1}), H_l <- cell(X_l, H_l).
    Forecaster, layer l at step s: H_l <- cell(leaky(up_{l+1} * H_{l+1}), H_l), the top cell without input;
    the frame is conv1x1(leaky(conv3x3(leaky(up_1 * H_1)))), unbounded.
    Shi et al. 2017, figure 1; thesis tables A.1, A.2. Any T and S; H and W are padded to a multiple of the strides.

    The published totals of the thesis contain weights that never receive a gradient, those of the top forecaster
    cell's input: 442,752 (ConvGRU) and 590,336 (TrajGRU) at top width 128. They do not exist here.
    """

    irregular_inputs: ClassVar[bool] = False
    irregular_targets: ClassVar[bool] = False

    def __init__(self, settings: ConvGRUSettings | TrajGRUSettings, num_channels: int) -> None:
        super().__init__()
        self.settings = settings
        widths, strides = settings.widths, settings.strides
        down_widths = settings.down_widths or widths
        up_widths = settings.up_widths or (32, *widths[:-1])
        below = (num_channels + 3 * settings.coordinates, *widths[:-1])
        above = (*up_widths[1:], 0)
        self.down = nn.ModuleList(Downsample(*layer) for layer in zip(below, down_widths, strides, strict=True))
        self.encoder = nn.ModuleList(settings.cell(*layer) for layer in zip(down_widths, widths, strict=True))
        self.forecaster = nn.ModuleList(settings.cell(*layer) for layer in zip(above, widths, strict=True))
        self.up = nn.ModuleList(
            Upsample(*layer, bias=settings.upsample_bias) for layer in zip(widths, up_widths, strides, strict=True)
        )
        self.head = nn.Conv2d(up_widths[0], settings.head_width, 3, padding=1)
        self.output = nn.Conv2d(settings.head_width, num_channels, 1)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, inputs: Tensor, input_times: Tensor, target_times: Tensor) -> Tensor:
        """See ``Forecaster.forward``."""
        steps = self.target_steps(input_times, target_times)
        height, width = inputs.shape[-2:]
        inputs = pad_to_multiple(inputs, math.prod(self.settings.strides))
        frames = self.forecast(self.encode(inputs), int(steps.amax()))
        return take_steps(frames[..., :height, :width], steps)

    def encode(self, inputs: Tensor) -> list[Any]:
        """Read (B, T, C, H, W); the last state of each layer, bottom first."""
        batch, num_inputs = inputs.shape[:2]
        frames = inputs.transpose(0, 1).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        if self.settings.coordinates:
            frames = with_coordinates(frames)
        states = []
        for down, cell in zip(self.down, self.encoder, strict=True):
            frames = down(frames)
            frames, state = unroll(cell, frames, cell.start(frames[:batch]), num_inputs)
            states.append(state)
        return states

    def forecast(self, states: list[Any], num_steps: int) -> Tensor:
        """Write ``num_steps`` frames (S, B, C, H, W) from the encoder's states."""
        frames = None
        for cell, up, state in zip(reversed(self.forecaster), reversed(self.up), reversed(states), strict=True):
            frames, _ = unroll(cell, frames, state, num_steps)
            frames = up(frames)
        frames = self.output(functional.leaky_relu(self.head(frames), LEAKY_SLOPE))
        return widen(frames).unflatten(0, (num_steps, -1))


def unroll(cell: Any, frames: Tensor | None, state: Any, num_steps: int) -> tuple[Tensor, Any]:
    """Run a cell over time, its input projected for all steps at once.

    Args:
        cell: a cell with ``project`` and ``update``.
        frames: (T B, C, H, W), time first, or None for a cell without input.
        state: the state before the first step.
        num_steps: T.

    Returns:
        the hidden maps of every step (T B, D, H, W), and the last state.
    """
    slices: Callable[[Tensor], tuple[Tensor, ...]] = lambda tensor: tensor.chunk(num_steps)  # noqa: E731
    projections: Any = [None] * num_steps
    if frames is not None:
        projected = cell.project(frames)
        projections = slices(projected) if isinstance(projected, Tensor) else zip(*map(slices, projected), strict=True)
    hidden = []
    for projection in projections:
        state = cell.update(projection, state)
        hidden.append(state.hidden)
    return torch.cat(hidden), state


PRESETS = {
    "thesis-mnist": {"widths": [64, 96, 128], "up_widths": [32, 64, 96]},
    "thesis-radar": {"widths": [96, 96, 128], "up_widths": [64, 96, 96]},
}
HKO = {
    "widths": [64, 96, 96],
    "down_widths": [16, 96, 96],
    "up_widths": [16, 96, 96],
    "coordinates": True,
    "upsample_bias": False,
    "memory": "leaky",
}
HKO_FLOW = {**HKO, "flow_kernel": 5, "flow_width": 32, "zero_flow": True}
CONVGRU_PRESETS: dict[str, dict] = {
    **PRESETS,
    "hko7-mnist-k5": {**HKO, "state_kernel": 5},
    "hko7-mnist-k7": {**HKO, "state_kernel": 7},
    "hko7-mnist-k3-d2": {**HKO, "state_dilation": 2},
}
TRAJGRU_PRESETS: dict[str, dict] = {
    "thesis-mnist": {**PRESETS["thesis-mnist"], "num_links": 9},
    "thesis-radar": {**PRESETS["thesis-radar"], "num_links": 11},
    **{f"hko7-mnist-l{links}": {**HKO_FLOW, "num_links": links} for links in (5, 9, 13, 17)},
}
