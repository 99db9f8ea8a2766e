"""Vid-ODE: frames at any times from an ODE-ConvGRU, an ODE, and composition by flow, difference and mask.

Shapes: B batch, T input frames, S target frames, C channels, D width of the state, H rows, W columns.
Inside, frames stand time first, (T, B, ...).
"""

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from fieldcast.cells.gates import same_convolution
from fieldcast.data.batch import Batch
from fieldcast.evolve import ODESettings, convolutional_ode
from fieldcast.layers.composition import Composed, FramesBefore, compose, frames_before
from fieldcast.layers.discriminators import Discriminators, sequence_places
from fieldcast.layers.resample import pad_to_multiple
from fieldcast.models.base import Forecaster, ModelSettings, widen
from fieldcast.settings import Count, TupleOf


class VidODESettings(ModelSettings):
    """Settings of ``vid-ode``.

    ``widths`` are the encoder's, at full size and after each halving; the last is the width of the state. Of the
    penalties of training, ``difference`` and ``adversarial`` are the weights; 0 leaves one out, and without the
    latter there are no discriminators. ``sequence_frames`` is how many frames their sequences have.
    """

    widths: Annotated[TupleOf[Count], Field(min_length=1)] = (32, 64, 128)
    encoder_ode: ODESettings = ODESettings(width=64, depth=2)
    decoder_ode: ODESettings = ODESettings(width=64, depth=2, solver="rk4", max_step=1.0)
    difference: float = Field(default=1.0, ge=0)
    adversarial: float = Field(default=0.0, ge=0)
    sequence_frames: Count = 6


class ResetInsideGRU(nn.Module):
    """ConvGRU whose reset acts on the state before its convolution, and whose update gate lets the new in.

    r, z = s(Wx * X + Wh * H), m = tanh(Vx * X + Vh * (r o H)), H' = (1 - z) o H + z o m, 3x3 with one bias each.
    Park et al. 2021, released code; Ballas et al. 2016.
    """

    def __init__(self, input_width: int, hidden_width: int) -> None:
        super().__init__()
        self.input_gates = same_convolution(input_width, 3 * hidden_width, 3)
        self.state_gates = same_convolution(hidden_width, 2 * hidden_width, 3, bias=False)
        self.candidate = same_convolution(hidden_width, hidden_width, 3, bias=False)

    def update(self, projection: Tensor, hidden: Tensor) -> Tensor:
        """One step: ``input_gates`` of the input (B, 3 D, H, W), state (B, D, H, W) -> state."""
        width = hidden.shape[1]
        gates = torch.sigmoid(projection[:, : 2 * width] + self.state_gates(hidden))
        reset, new = gates.chunk(2, dim=1)
        candidate = torch.tanh(projection[:, 2 * width :] + self.candidate(reset * hidden))
        return torch.lerp(hidden, candidate.to(hidden.dtype), new.to(hidden.dtype))


class VidODE(Forecaster):
    """Reads the inputs backward in time, follows an equation from there, and moves frames along the flow it finds.

    Encoder: E = embedding(X); from h = 0, for the inputs from the last to the first,
    h <- ODE(h, t_i - t_{i+1}), h <- GRU(E_i, h); z = conv1x1(relu(conv1x1(h))) is the state at the first input.
    Decoder: h(s_i) from z along a second ODE; F_i, D_i, M_i = decoder([h(s_i), h before]);
    Y_i = warp(Y before, F_i), X_i = s(M_i) o Y_i + (1 - s(M_i)) o D_i.
    Park et al. 2021 (arXiv:2010.08188) and its release; times here are in cadences.

    What is *before* a target is the later of the newest input at or before its time (its embedding, its frame) and
    the target before it (h(s_{i-1}), the warped Y_{i-1}). In extrapolation that is the paper: from the last input,
    then from target to target. In interpolation the paper warps from the first frame through all that follow; here
    every input starts afresh, so that errors do not add up over the gaps. So a forecast depends on the targets
    asked for before it, as in the paper, and on none after it.

    The paper's slips that are not here: the warp that moves by half a pixel without flow; an evolution by -0.01
    before the last input, of a state that is still zero; when extrapolating, z as the state at the first target in
    place of the first input. Weights that do nothing do not exist: half of conv1x1, meant for a standard deviation,
    and biases that a batch norm takes away again.

    Batch norm follows the paper. In training its statistics are those of this process's part of the batch, so that
    they differ between numbers of processes; the running ones, which forecasts use, are saved.
    """

    irregular_inputs = True
    irregular_targets = True
    interpolates: ClassVar[bool] = True

    def __init__(self, settings: VidODESettings, num_channels: int) -> None:
        super().__init__()
        self.settings = settings
        first, state = settings.widths[0], settings.widths[-1]
        self.embedding = nn.Sequential(normalised(nn.Conv2d(num_channels, first, 3, padding=1, bias=False)))
        for below, width in zip(settings.widths, settings.widths[1:], strict=False):
            self.embedding.append(normalised(nn.Conv2d(below, width, 4, stride=2, padding=1, bias=False)))
        self.backward_ode = convolutional_ode(state, settings.encoder_ode)
        self.cell = ResetInsideGRU(state, state)
        self.start = nn.Sequential(nn.Conv2d(state, state, 1), nn.ReLU(), nn.Conv2d(state, state, 1))
        self.forward_ode = convolutional_ode(state, settings.decoder_ode)
        self.decoder = nn.Sequential()
        above = 2 * state
        for width in reversed(settings.widths[:-1]):
            self.decoder.append(nn.Upsample(scale_factor=2, mode="bilinear"))
            self.decoder.append(normalised(nn.Conv2d(above, 2 * width, 3, padding=1, bias=False)))
            above = 2 * width
        self.decoder.append(nn.Conv2d(above, 2 + num_channels + 1, 3, padding=1))
        judged = settings.adversarial > 0
        self.discriminators = Discriminators(num_channels, settings.sequence_frames) if judged else None
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, inputs: Tensor, input_times: Tensor, target_times: Tensor) -> Tensor:
        """See ``Forecaster.forward``."""
        input_times, target_times = self.seen_times(input_times, target_times)
        before = frames_before(input_times, target_times)
        return self._compose(inputs, input_times, target_times, before).frames.transpose(0, 1)

    def forward_train(self, batch: Batch, teacher: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """See ``Forecaster.forward_train``; missing pixels count in no penalty.

        Penalties: ``difference``, the mean of |D_i - (X_i - X before)| over true frames; with ``adversarial``, also
        that loss and the ``discriminators``' own (``layers/discriminators.py``), a missing pixel being 0 in both
        what is true and what is forecast.

        Raises:
            DataError: for frames that are too small for the discriminators.
        """
        assert teacher is None, "this model takes no teacher"
        settings = self.settings
        times = self.seen_times(batch.input_times, batch.target_times)
        before = frames_before(*times)
        composed = self._compose(batch.inputs, *times, before)
        frames, penalties = composed.frames.transpose(0, 1), {}
        if settings.difference > 0:
            penalties["difference"] = settings.difference * difference_error(composed.differences, batch, before)
        if self.discriminators is not None:
            places = sequence_places(*times, settings.sequence_frames)
            forecasts, truths = (torch.where(batch.valid, shown, 0) for shown in (frames, batch.targets))
            adversarial, own = self.discriminators(forecasts, truths, batch.inputs, places)
            penalties["adversarial"] = settings.adversarial * adversarial
            penalties["discriminators"] = settings.adversarial * own
        return frames, penalties

    def _compose(self, inputs: Tensor, input_times: Tensor, target_times: Tensor, before: FramesBefore) -> Composed:
        """Frames and differences (S, B, C, H, W)."""
        height, width = inputs.shape[-2:]
        inputs = widen(inputs).transpose(0, 1)
        embedded = self.embed(inputs)
        state = self.encode(embedded, input_times)
        states = self.forward_ode.trajectory(state, target_times - input_times[:, :1])
        pairs = zip(states, before.each(embedded, states), strict=True)
        parts = widen(self.decoder(torch.cat([torch.cat(pair, dim=1) for pair in pairs])))
        # Cropped before the warp, so that what enters is the border of the frames and not that of their padding.
        return compose(inputs, parts[..., :height, :width].unflatten(0, (len(states), -1)), before)

    def embed(self, frames: Tensor) -> Tensor:
        """Embed (T, B, C, H, W), padded to what the halvings need, into (T, B, D, H', W')."""
        padded = pad_to_multiple(frames, 2 ** (len(self.settings.widths) - 1)).flatten(0, 1)
        return self.embedding(padded.contiguous(memory_format=torch.channels_last)).unflatten(0, frames.shape[:2])

    def encode(self, embedded: Tensor, input_times: Tensor) -> Tensor:
        """The state at the first input (B, D, H', W'), from embedded frames (T, B, D, H', W') and times (B, T)."""
        projections = self.cell.input_gates(embedded.flatten(0, 1)).unflatten(0, embedded.shape[:2])
        back = -input_times.diff(dim=1)
        hidden = self.cell.update(projections[-1], torch.zeros_like(widen(embedded[-1])))
        for place in reversed(range(len(embedded) - 1)):
            hidden = self.cell.update(projections[place], self.backward_ode(hidden, back[:, place]))
        return self.start(hidden)


def normalised(convolution: nn.Conv2d) -> nn.Sequential:
    """A convolution with batch norm and ReLU."""
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU())


def difference_error(differences: Tensor, batch: Batch, before: FramesBefore) -> Tensor:
    """Mean of |D_i - (X_i - X before)| over pixels that are valid in both true frames; 0 where there are none.

    Args:
        differences: D, (S, B, C, H, W).
        batch: holds the true frames.
        before: which of them are before which.
    """
    inputs, targets, valid = (frames.transpose(0, 1) for frames in (batch.inputs, batch.targets, batch.valid))
    known = valid & torch.stack(before.each(torch.ones_like(inputs, dtype=torch.bool), valid.unbind()))
    change = targets - torch.stack(before.each(inputs, targets.unbind()))
    # A missing pixel is NaN, which must go before any arithmetic that has a gradient.
    errors = torch.where(known, differences, 0) - torch.where(known, change, 0)
    return errors.abs().sum() / known.sum().clamp(min=1)


VID_ODE_PRESETS: dict[str, dict] = {
    "park2021": {
        "widths": [32, 64, 128],
        "encoder_ode": {"width": 64, "depth": 2},
        "decoder_ode": {"width": 64, "depth": 2, "solver": "dopri5"},
    }
}
