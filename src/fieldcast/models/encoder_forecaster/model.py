"""Encoder-forecaster: a pyramid of recurrent cells that reads frames, and its mirror that writes them.

Shapes: B batch, T input frames, S targets, n times taken at once, C channels, D width of a layer, H rows, W columns.
Inside, frames stand time first and folded, (T B, D, H, W), so that a step is a slice without a copy.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from fieldcast.cells.ode_update import ODEUpdate
from fieldcast.errors import DataError
from fieldcast.evolve import Decay, convolutional_ode, hold
from fieldcast.layers.motion_attention import DecodingAttention, EncodingAttention
from fieldcast.layers.resample import LEAKY_SLOPE, Downsample, Upsample, pad_to_multiple, with_coordinates
from fieldcast.layers.zigzag import DecoderZigzag, EncoderZigzag
from fieldcast.models.base import Forecaster, take_steps, widen
from fieldcast.models.encoder_forecaster.settings import (
    ConvGRUSettings,
    EncoderForecasterSettings,
    TrajGRUAttentionSettings,
    TrajGRUSettings,
)
from fieldcast.models.encoder_forecaster.unroll import Change, joined, unroll


class Reading(NamedTuple):
    """What the encoder hands over: each layer's last state, bottom first, and by the number of a layer that the decoder
    attends to, all its hidden maps (T B, D, H, W)."""

    states: list[Any]
    hidden: dict[str, Tensor]


class EncoderForecaster(Forecaster):
    """Reads the inputs bottom up, hands every layer's state over, and writes the forecast top down.

    Encoder, layer l at input t: X_l = leaky(down_l * H_{l-1}) [attention over X_l so far], H_l <- cell(X_l, H_l).
    Forecaster, layer l at target s: H_l <- cell(leaky(up_{l+1} * H_{l+1}), H_l) [update by the ODE], which goes down
    [merged with the states that it attends to], the top cell without input;
    the frame is conv1x1(leaky(conv3x3(leaky(up_1 * H_1)))), unbounded.
    [Zigzag: the top state enters the bottom one of the next input, the bottom's output the top one of the next target.]
    What is in brackets is optional. Shi et al. 2017, figure 1; thesis tables A.1, A.2, 5.1, 5.2 and sections 4.2.4 to
    4.2.6. Any T and S; H and W are padded to a multiple of the strides.

    Without attention, ODE or evolution it sees no times: it takes regular inputs and steps to the targets. With them
    it takes one step to each target, so that a forecast depends on which earlier targets are asked for.

    The published totals of the thesis contain weights that never receive a gradient, those of the top forecaster
    cell's input: 442,752 (ConvGRU) and 590,336 (TrajGRU) at top width 128. They do not exist here.
    """

    def __init__(
        self, settings: ConvGRUSettings | TrajGRUSettings | TrajGRUAttentionSettings, num_channels: int
    ) -> None:
        super().__init__()
        self.settings = settings
        extra = settings if isinstance(settings, TrajGRUAttentionSettings) else None
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
        self.encoder_evolutions = make_evolutions(settings)
        self.forecaster_evolutions = make_evolutions(settings)
        self.encoder_zigzag: EncoderZigzag | None = None
        self.decoder_zigzag: DecoderZigzag | None = None
        if extra:
            self._add_parts(extra, down_widths, up_widths)
        else:
            self.encoder_attention, self.decoder_attention = nn.ModuleDict(), nn.ModuleDict()
            self.odes, self.ode_updates = nn.ModuleList(), nn.ModuleList()
        evolves = settings.evolution != "hold"
        self.irregular_inputs = evolves or len(self.encoder_attention) > 0
        self.irregular_targets = evolves or len(self.decoder_attention) > 0 or len(self.odes) > 0
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _add_parts(self, settings: TrajGRUAttentionSettings, down_widths: Any, up_widths: Any) -> None:
        """Attention, zigzag and ODE."""
        widths = settings.widths
        self.encoder_attention = nn.ModuleDict(
            {str(layer - 1): EncodingAttention(down_widths[layer - 1]) for layer in settings.encoder_attention}
        )
        self.decoder_attention = nn.ModuleDict(
            {
                str(layer - 1): DecodingAttention(widths[layer - 1], settings.attention_window)
                for layer in settings.decoder_attention
            }
        )
        ode = settings.ode
        self.odes = nn.ModuleList([convolutional_ode(width, ode) for width in widths] if ode else [])
        self.ode_updates = nn.ModuleList([ODEUpdate(width) for width in widths] if ode else [])
        if settings.zigzag:
            factor = math.prod(settings.strides[1:])
            self.encoder_zigzag = EncoderZigzag(widths[0], widths[-1], factor)
            self.decoder_zigzag = DecoderZigzag(
                widths[-1],
                widths[0],
                up_widths[0],
                factor=factor,
                image_factor=factor * settings.strides[0],
                ode=ode is not None,
            )

    def forward(self, inputs: Tensor, input_times: Tensor, target_times: Tensor) -> Tensor:
        """See ``Forecaster.forward``."""
        input_times, target_times = self.seen_times(input_times, target_times)
        if (target_times <= 0).any():
            earliest = target_times.min()
            raise DataError(f"this model forecasts after the last input, not at {earliest:g} cadences from it")
        height, width = inputs.shape[-2:]
        inputs = pad_to_multiple(inputs, math.prod(self.settings.strides))
        reading = self.encode(inputs, input_times)
        if self.irregular_targets:
            return self.forecast(reading, input_times, target_times)[..., :height, :width].transpose(0, 1)
        steps = target_times.round().long()
        every = torch.arange(1, int(steps.amax()) + 1).to(target_times).expand(len(inputs), -1)
        return take_steps(self.forecast(reading, input_times, every)[..., :height, :width], steps)

    def encode(self, inputs: Tensor, input_times: Tensor) -> Reading:
        """Read inputs (B, T, C, H, W) at times (B, T)."""
        batch, num_inputs = inputs.shape[:2]
        frames = inputs.transpose(0, 1).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        if self.settings.coordinates:
            frames = with_coordinates(frames)
        states: list[Any] = [None] * len(self.encoder)
        memories: list[Any] = [()] * len(self.encoder)
        hidden: dict[str, list[Tensor]] = {layer: [] for layer in self.decoder_attention}
        elapsed = torch.diff(input_times, dim=1, prepend=input_times[:, :1])
        for part in self._parts(num_inputs):
            maps = frames[part.start * batch : part.stop * batch]
            if self.encoder_zigzag is not None and part.start:
                states[0] = states[0]._replace(hidden=self.encoder_zigzag(states[-1].hidden, states[0].hidden))
            for layer, (down, cell) in enumerate(zip(self.down, self.encoder, strict=True)):
                maps = down(maps)
                if str(layer) in self.encoder_attention:
                    attend = self.encoder_attention[str(layer)]
                    maps, memories[layer] = attend(maps, input_times[:, part], memories[layer])
                states[layer] = cell.start(maps[:batch]) if states[layer] is None else states[layer]
                before = self._evolve(self.encoder_evolutions, layer, elapsed[:, part])
                maps, states[layer] = unroll(cell, maps, states[layer], part.stop - part.start, before)
                if str(layer) in hidden:
                    hidden[str(layer)].append(maps)
        return Reading(states, {layer: joined(maps) for layer, maps in hidden.items()})

    def forecast(self, reading: Reading, input_times: Tensor, target_times: Tensor) -> Tensor:
        """Write frames (S, B, C, H, W) at target times (B, S), a step for each, from what was read at input times."""
        num_targets = target_times.shape[1]
        states = list(reading.states)
        foreseen = [
            [state.hidden, *ode.trajectory(state.hidden, target_times)]
            for ode, state in zip(self.odes, states, strict=False)
        ]
        guides = [update.project(ahead) for update, ahead in zip(self.ode_updates, foreseen, strict=True)]
        memories = {
            layer: attend.start(reading.hidden[layer], input_times) for layer, attend in self.decoder_attention.items()
        }
        dropped = self.decoder_zigzag.seed(states[0].hidden) if self.decoder_zigzag is not None else None
        elapsed = torch.diff(target_times, dim=1, prepend=torch.zeros_like(target_times[:, :1]))
        written: list[Any] = []
        for part in self._parts(num_targets):
            if self.decoder_zigzag is not None:
                ahead = foreseen[-1][part.stop] if foreseen else None
                states[-1] = states[-1]._replace(hidden=self.decoder_zigzag(dropped, states[-1].hidden, ahead))
            maps: Any = None
            image: Tensor | None = None
            for layer in reversed(range(len(states))):
                before = self._evolve(self.forecaster_evolutions, layer, elapsed[:, part])
                after = self._update(guides, layer, part, len(target_times))
                steps = part.stop - part.start
                hidden, states[layer] = unroll(self.forecaster[layer], maps, states[layer], steps, before, after)
                if str(layer) in memories:
                    if layer == 0:
                        image = self.up[0](hidden)
                        if part.stop == num_targets:
                            break  # what the bottom attends to shows at the next target only
                    attend = self.decoder_attention[str(layer)]
                    hidden, memories[str(layer)] = attend(hidden, target_times[:, part], memories[str(layer)])
                maps = self.up[layer](hidden)
            written.append(maps if image is None else image)
            if self.decoder_zigzag is not None and part.stop < num_targets:
                dropped = self.decoder_zigzag.drop(maps)
        frames = joined(written)
        frames = self.output(functional.leaky_relu(self.head(frames), LEAKY_SLOPE))
        return widen(frames).unflatten(0, (num_targets, -1))

    def _parts(self, num_times: int) -> list[slice]:
        """Which times go through the layers together: all of them, or one by one where layers wait for each other."""
        if self.encoder_zigzag is None:
            return [slice(0, num_times)]
        return [slice(number, number + 1) for number in range(num_times)]

    def _evolve(self, evolutions: nn.ModuleList, layer: int, elapsed: Tensor) -> Change:
        """What carries a state across the time (B, n) before each step."""
        evolution = evolutions[layer] if evolutions else hold
        return lambda step, state: state._replace(hidden=evolution(state.hidden, elapsed[:, step]))

    def _update(self, guides: list[Tensor], layer: int, part: slice, batch: int) -> Change | None:
        """What gates the equation's foresight into a state after each step."""
        if not guides:
            return None
        guide = guides[layer][part.start * batch : part.stop * batch].chunk(part.stop - part.start)
        update = self.ode_updates[layer]
        return lambda step, state: state._replace(hidden=update(guide[step], state.hidden))


def make_evolutions(settings: EncoderForecasterSettings) -> nn.ModuleList:
    """What happens to the state of each layer between two frames; empty where nothing does."""
    kind = settings.evolution
    if kind == "hold":
        return nn.ModuleList()
    return nn.ModuleList(
        Decay(width) if kind == "decay" else convolutional_ode(width, kind) for width in settings.widths
    )
