"""Discriminators of images and sequences, trained in the same backward pass as the forecaster they judge.

Shapes: B batch, T input frames, S target frames, K frames of a sequence, C channels, N pictures, H rows, W columns.
"""

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fieldcast.errors import DataError
from fieldcast.layers.resample import LEAKY_SLOPE

WIDTHS = (64, 128, 256, 512)
VERDICTS = 64  # for each patch
LEAST_SIZE = 16  # three halvings must leave more than one pixel to normalise over


class PatchDiscriminator(nn.Module):
    """Judges every patch of a picture: (N, C, H, W) -> (N, 64, H', W'), to be 1 where it is true and 0 where not.

    4x4 convolutions: 64, 128, 256 with stride 2, 512 and 64 with stride 1; LeakyReLU(0.2) between them, and before
    it an instance norm except after the first. Park et al. 2021 (Vid-ODE), released code; the biases that the norm
    takes away again do not exist here.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        layers = [nn.Conv2d(num_channels, WIDTHS[0], 4, 2, 1, bias=False), nn.LeakyReLU(LEAKY_SLOPE)]
        for below, width, stride in zip(WIDTHS, WIDTHS[1:], (2, 2, 1), strict=False):
            convolution = nn.Conv2d(below, width, 4, stride, padding=3 - stride, bias=False)
            layers += [convolution, nn.InstanceNorm2d(width), nn.LeakyReLU(LEAKY_SLOPE)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(WIDTHS[-1], VERDICTS, 4, 1, 2, bias=False))

    def forward(self, pictures: Tensor) -> Tensor:
        """Judge each patch."""
        verdicts = self.layers(pictures)
        return verdicts.to(torch.promote_types(verdicts.dtype, torch.float32))


class Discriminators(nn.Module):
    """One judge of single frames and one of sequences of K frames, each of which ends with a forecast.

    Least squares (Mao et al. 2017), as Park et al. 2021 use them: for true pictures R and forecasts X of each judge J

        adversarial    = sum_J mean (J(X) - 1)^2,                        of which J's weights get no gradient
        discriminators = sum_J (mean (J(R) - 1)^2 + mean J(X)^2) / 2,    of which X gets none

    so that one optimiser can take both from one backward pass.

    Args:
        num_channels: C.
        num_frames: K.
    """

    def __init__(self, num_channels: int, num_frames: int) -> None:
        super().__init__()
        self.num_frames = num_frames
        self.image = PatchDiscriminator(num_channels)
        self.sequence = PatchDiscriminator(num_frames * num_channels)

    def forward(self, forecasts: Tensor, truths: Tensor, inputs: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """The two losses, of the forecaster and of its judges.

        Args:
            forecasts: (B, S, C, H, W).
            truths: (B, S, C, H, W).
            inputs: (B, T, C, H, W).
            places: (B, S, K), from ``sequence_places``.

        Raises:
            DataError: for frames that are too small to judge.
        """
        height, width = inputs.shape[-2:]
        if min(height, width) < LEAST_SIZE:
            raise DataError(
                f"the discriminators judge frames of at least {LEAST_SIZE} x {LEAST_SIZE} pixels, but {height} x "
                f"{width} came. Train on larger frames, or set adversarial = 0 in [model]"
            )
        adversarial, own = [], []
        for judge, show in (
            (self.image, lambda frames: frames.flatten(0, 1)),
            (self.sequence, lambda frames: sequences(inputs, frames, places)),
        ):
            fakes, reals = show(forecasts), show(truths)
            weights = {name: weight.detach() for name, weight in judge.named_parameters()}
            adversarial.append((functional_call(judge, weights, (fakes,)) - 1).square().mean())
            own.append(((judge(reals) - 1).square().mean() + judge(fakes.detach()).square().mean()) / 2)
        return torch.stack(adversarial).sum(), torch.stack(own).sum()


def sequence_places(input_times: Tensor, target_times: Tensor, num_frames: int) -> Tensor:
    """Which frames, in order of time, end with each target: places among inputs and then targets, (B, S, K).

    Frames are the inputs and the targets themselves, an input before a target of the same time; where fewer than K
    are known, the oldest is repeated. With T = S = K - 1 that is what Park et al. 2021 show when they extrapolate.

    Args:
        input_times: (B, T).
        target_times: (B, S).
        num_frames: K.
    """
    order = torch.cat([input_times, target_times], dim=1).argsort(dim=1, stable=True)
    ends = order.argsort(dim=1)[:, input_times.shape[1] :]
    back = torch.arange(1 - num_frames, 1, device=ends.device)
    ranks = (ends[:, :, None] + back).clamp(min=0)
    return order.gather(1, ranks.flatten(1)).view_as(ranks)


def sequences(inputs: Tensor, targets: Tensor, places: Tensor) -> Tensor:
    """Pictures (B S, K C, H, W) from inputs (B, T, C, H, W), targets (B, S, C, H, W) and places (B, S, K)."""
    frames = torch.cat([inputs.to(targets.dtype), targets], dim=1)
    samples = torch.arange(len(frames), device=frames.device)[:, None, None]
    return frames[samples, places].flatten(2, 3).flatten(0, 1)
