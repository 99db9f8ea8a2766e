"""The two ConvLSTM forecasters of the literature: encoder-forecaster (Shi 2015) and one stack that feeds itself.

Shapes: B batch, T input frames, S forecast steps, C channels, P patch, D width of a layer, H rows, W columns.
"""

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from fieldcast.cells import ConvLSTMCell, ConvLSTMState
from fieldcast.data.batch import Batch
from fieldcast.errors import DataError
from fieldcast.layers.resample import from_patches, pad_to_multiple, to_patches
from fieldcast.models.base import Forecaster, ModelSettings, take_steps, widen
from fieldcast.models.encoder_forecaster.unroll import unroll
from fieldcast.settings import Count, OddSize, TupleOf


class ConvLSTMSettings(ModelSettings):
    """Settings of ``convlstm``."""

    widths: Annotated[TupleOf[Count], Field(min_length=1)] = (128, 64, 64)
    patch: Count = 4
    input_kernel: OddSize = 5
    state_kernel: OddSize = 5
    peephole: Literal["none", "channel"] = "channel"


class ConvLSTM(Forecaster):
    """ConvLSTM encoder-forecaster of Shi et al. 2015, figure 3.

    Frames are cut into P x P patches. Each layer of the encoder runs on the one below; each layer of the
    forecaster starts from the (H, C) of the encoder's same layer, the bottom one without input; all hidden states
    of a step, concatenated, give the frame by a 1x1 convolution and a sigmoid, so targets belong in [0, 1].
    """

    irregular_inputs = False
    irregular_targets = False

    def __init__(self, settings: ConvLSTMSettings, num_channels: int) -> None:
        super().__init__()
        self.settings = settings
        widths = settings.widths
        channels = num_channels * settings.patch**2
        kernels = (settings.input_kernel, settings.state_kernel)

        def layers(bottom: int) -> nn.ModuleList:
            return nn.ModuleList(
                ConvLSTMCell(below, width, *kernels, peephole=settings.peephole)
                for below, width in zip((bottom, *widths[:-1]), widths, strict=True)
            )

        self.encoder = layers(channels)
        self.forecaster = layers(0)
        self.output = nn.Conv2d(sum(widths), channels, 1)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, inputs: Tensor, input_times: Tensor, target_times: Tensor) -> Tensor:
        """See ``Forecaster.forward``."""
        steps = self.target_steps(input_times, target_times)
        num_steps = int(steps.amax())
        (batch, num_inputs), (height, width) = inputs.shape[:2], inputs.shape[-2:]
        inputs = pad_to_multiple(inputs, self.settings.patch).transpose(0, 1).flatten(0, 1)
        frames = to_patches(inputs, self.settings.patch).contiguous(memory_format=torch.channels_last)
        states = []
        for cell in self.encoder:
            frames, state = unroll(cell, frames, cell.start(frames[:batch]), num_inputs)
            states.append(state)
        hidden: list[Tensor] = []
        for cell, state in zip(self.forecaster, states, strict=True):
            hidden.append(unroll(cell, hidden[-1] if hidden else None, state, num_steps)[0])
        frames = torch.sigmoid(widen(self.output(torch.cat(hidden, dim=1))))
        frames = from_patches(frames, self.settings.patch).unflatten(0, (num_steps, batch))
        return take_steps(frames[..., :height, :width], steps)


class ConvLSTMStackSettings(ModelSettings):
    """Settings of ``convlstm-stack``."""

    widths: Annotated[TupleOf[Count], Field(min_length=1)] = (128, 128, 128, 128)
    patch: Count = 4
    kernel: OddSize = 5
    bias: bool = False
    forget_bias: float = 1.0


class ConvLSTMStack(Forecaster):
    """One stack of ConvLSTMs that predicts the next frame and then reads its own prediction.

    X^_{t+1} = conv1x1(H_top(t)); beyond the inputs X_t is X^_t, or the truth where training teaches it. Frames are
    cut into P x P patches. OpenSTL's ConvLSTM: four layers of 128, 5x5, no biases, forget bias 1.
    """

    irregular_inputs = False
    irregular_targets = False
    takes_teacher: ClassVar[bool] = True

    def __init__(self, settings: ConvLSTMStackSettings, num_channels: int) -> None:
        super().__init__()
        self.settings = settings
        channels = num_channels * settings.patch**2
        self.cells = nn.ModuleList(
            ConvLSTMCell(below, width, settings.kernel, settings.kernel, bias=settings.bias,
                         forget_bias=settings.forget_bias)
            for below, width in zip((channels, *settings.widths[:-1]), settings.widths, strict=True)
        )  # fmt: skip
        self.output = nn.Conv2d(settings.widths[-1], channels, 1, bias=settings.bias)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, inputs: Tensor, input_times: Tensor, target_times: Tensor) -> Tensor:
        """See ``Forecaster.forward``."""
        steps = self.target_steps(input_times, target_times)
        return take_steps(self.rollout(inputs, int(steps.amax())), steps)

    def forward_train(self, batch: Batch, teacher: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """See ``Forecaster.forward_train``; a missing pixel can't be taught.

        Raises:
            DataError: for a teacher where the targets are not the steps 1 to S.
        """
        steps = self.target_steps(batch.input_times, batch.target_times)
        lessons = None
        if teacher is not None:
            if (steps != torch.arange(1, steps.shape[1] + 1, device=steps.device)).any():
                raise DataError(f"scheduled sampling needs a target at every step, not at {steps[0].tolist()}")
            known = batch.valid & teacher[:, :, None, None, None]
            lessons = list(zip(self._patches(known), self._patches(batch.targets), strict=True))
        return take_steps(self.rollout(batch.inputs, int(steps.amax()), lessons), steps), {}

    def rollout(self, inputs: Tensor, num_steps: int, lessons: list[tuple[Tensor, Tensor]] | None = None) -> Tensor:
        """Frames of steps 1 to S, (S, B, C, H, W).

        ``lessons`` says for each step where the truth is read instead of the prediction, and what it is, in patches.
        """
        height, width = inputs.shape[-2:]
        frames = self._patches(inputs)
        states: list[ConvLSTMState] = [cell.start(frames[0]) for cell in self.cells]
        for frame in frames:
            prediction, states = self._step(frame, states)
        predictions = [prediction]
        for step in range(num_steps - 1):
            frame = predictions[-1]
            if lessons is not None:
                known, truth = lessons[step]
                frame = torch.where(known, truth, frame)
            prediction, states = self._step(frame, states)
            predictions.append(prediction)
        stacked = from_patches(widen(torch.cat(predictions)), self.settings.patch)
        return stacked.unflatten(0, (num_steps, -1))[..., :height, :width]

    def _patches(self, frames: Tensor) -> tuple[Tensor, ...]:
        padded = pad_to_multiple(frames, self.settings.patch)
        folded = to_patches(padded.transpose(0, 1).flatten(0, 1), self.settings.patch)
        return folded.contiguous(memory_format=torch.channels_last).chunk(frames.shape[1])

    def _step(self, frame: Tensor, states: list[ConvLSTMState]) -> tuple[Tensor, list[ConvLSTMState]]:
        updated = []
        for cell, state in zip(self.cells, states, strict=True):
            updated.append(cell(frame, state))
            frame = updated[-1].hidden
        return self.output(frame), updated


SHI = {"input_kernel": 5, "state_kernel": 5, "peephole": "channel"}
SHI_LOCAL = {"input_kernel": 9, "state_kernel": 1, "peephole": "channel"}
CONVLSTM_PRESETS: dict[str, dict] = {
    "shi2015": {**SHI, "widths": [128, 64, 64]},
    "shi2015-2-layers": {**SHI, "widths": [128, 128]},
    "shi2015-1-layer": {**SHI, "widths": [256]},
    "shi2015-local": {**SHI_LOCAL, "widths": [128, 64, 64]},
    "shi2015-local-2-layers": {**SHI_LOCAL, "widths": [128, 128]},
}
CONVLSTM_STACK_PRESETS: dict[str, dict] = {
    "openstl-mnist": {"widths": [128, 128, 128, 128], "patch": 4, "kernel": 5, "bias": False}
}
