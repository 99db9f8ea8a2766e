"""Change of resolution: strided convolutions, patches, and padding to a size that divides.

Shapes: N frames of any number, C channels, H rows, W columns.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

LEAKY_SLOPE = 0.2


class Downsample(nn.Module):
    """Strided convolution and LeakyReLU(0.2): (N, C, H, W) -> (N, D, H / stride, W / stride).

    Kernel 3 for strides 1 and 2, stride + 2 above; padding 1 (thesis table A.1; HKO-7 for strides 3 and 5).
    """

    def __init__(self, input_width: int, output_width: int, stride: int) -> None:
        super().__init__()
        kernel = 3 if stride == 2 else stride + 2
        self.convolution = nn.Conv2d(input_width, output_width, kernel, stride, padding=1)

    def forward(self, frames: Tensor) -> Tensor:
        """Reduce the resolution by the stride."""
        return functional.leaky_relu(self.convolution(frames), LEAKY_SLOPE)


class Upsample(nn.Module):
    """Transposed convolution and LeakyReLU(0.2): (N, C, H, W) -> (N, D, H * stride, W * stride).

    Kernel stride + 2, padding 1 (thesis table A.1: 4x4 for stride 2, 3x3 for stride 1).
    """

    def __init__(self, input_width: int, output_width: int, stride: int, bias: bool = True) -> None:
        super().__init__()
        self.convolution = nn.ConvTranspose2d(input_width, output_width, stride + 2, stride, padding=1, bias=bias)

    def forward(self, frames: Tensor) -> Tensor:
        """Raise the resolution by the stride."""
        return functional.leaky_relu(self.convolution(frames), LEAKY_SLOPE)


def pad_to_multiple(frames: Tensor, multiple: int) -> Tensor:
    """Pad (..., H, W) with zeros below and to the right until both are multiples."""
    height, width = frames.shape[-2:]
    below, right = -height % multiple, -width % multiple
    return functional.pad(frames, (0, right, 0, below)) if below or right else frames


def to_patches(frames: Tensor, patch: int) -> Tensor:
    """Lay patches out as channels: (N, C, H, W) -> (N, C * patch^2, H / patch, W / patch)."""
    return functional.pixel_unshuffle(frames, patch)


def from_patches(frames: Tensor, patch: int) -> Tensor:
    """Undo ``to_patches``."""
    return functional.pixel_shuffle(frames, patch)


def with_coordinates(frames: Tensor) -> Tensor:
    """Append the row and column coordinate, each from -1 to 1, and a map of ones: (N, C, H, W) -> (N, C + 3, H, W).

    HKO-7's input (Shi et al. 2017, released code).
    """
    number, _, height, width = frames.shape
    options: dict[str, Any] = {"dtype": frames.dtype, "device": frames.device}
    rows = torch.linspace(-1, 1, height, **options).view(1, 1, height, 1).expand(number, 1, height, width)
    columns = torch.linspace(-1, 1, width, **options).view(1, 1, 1, width).expand(number, 1, height, width)
    ones = torch.ones(number, 1, height, width, **options)
    return torch.cat([frames, rows, columns, ones], dim=1)
