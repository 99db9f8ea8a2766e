"""Frames of any size to vectors and back by convolutions, and Gaussians over such vectors.

Shapes: N frames of any number, C channels, H rows, W columns, G grid, D width of the top layer, F features, L latents.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from fieldcast.layers.resample import LEAKY_SLOPE, Downsample, Upsample

LOG_TWO_PI = math.log(2 * math.pi)


class Gaussian(NamedTuple):
    """Independent normal distributions, N(mean, std^2), over vectors (..., L)."""

    mean: Tensor
    std: Tensor

    def draw(self) -> Tensor:
        """A vector at random, mean + std o e with e from N(0, I), by torch's generator: (..., L)."""
        return self.mean + self.std * torch.randn_like(self.mean)

    def log_density(self, vectors: Tensor) -> Tensor:
        """log p(z) = -1/2 sum_l ((z_l - mean_l)^2 / std_l^2 + log(2 pi)) - sum_l log std_l: (..., L) -> (...)."""
        squares = ((vectors - self.mean) / self.std).square()
        return -(0.5 * (squares + LOG_TWO_PI) + self.std.log()).sum(dim=-1)

    def divergence(self) -> Tensor:
        """KL(N(mean, std^2) || N(0, I)) = sum_l (mean_l^2 + std_l^2 - 1) / 2 - log std_l: (...)."""
        return (0.5 * (self.mean.square() + self.std.square() - 1) - self.std.log()).sum(dim=-1)


class FrameEncoder(nn.Module):
    """Frames as vectors: convolutions that halve the map, averages over a grid, and a linear layer.

    x -> W pool_G(down_n(... down_1(x))) + b, where pool_G averages over G x G boxes that cover the map, so that
    frames of any size are taken; nothing is averaged where H = W = 2^n G.

    Args:
        num_channels: C.
        widths: of the convolutions, bottom first.
        grid: G.
        num_features: F.
    """

    def __init__(self, num_channels: int, widths: tuple[int, ...], grid: int, num_features: int) -> None:
        super().__init__()
        self.grid = grid
        below = (num_channels, *widths[:-1])
        self.down = nn.Sequential(*(Downsample(*layer, 2) for layer in zip(below, widths, strict=True)))
        self.output = nn.Linear(widths[-1] * grid**2, num_features)

    def forward(self, frames: Tensor) -> Tensor:
        """Frames (N, C, H, W) -> (N, F)."""
        maps = self.down(frames.contiguous(memory_format=torch.channels_last))
        if maps.shape[-2:] != (self.grid, self.grid):
            maps = functional.adaptive_avg_pool2d(maps, self.grid)
        return self.output(maps.flatten(1))


class FrameDecoder(nn.Module):
    """Vectors as frames, the mirror of ``FrameEncoder``, unbounded.

    z -> out * up_1(... up_n(resize(leaky(W z + b)))), where resize interpolates between the G x G points of the grid,
    bilinearly, to the size of the map that the convolutions double n times.

    Args:
        num_latents: L.
        widths: of the encoder, bottom first.
        grid: G.
        num_channels: C.
    """

    def __init__(self, num_latents: int, widths: tuple[int, ...], grid: int, num_channels: int) -> None:
        super().__init__()
        self.input = nn.Linear(num_latents, widths[-1] * grid**2)
        self.spread = nn.Unflatten(1, (widths[-1], grid, grid))
        below = (widths[0], *widths[:-1])
        layers = zip(reversed(widths), reversed(below), strict=True)
        self.up = nn.Sequential(*(Upsample(*layer, 2) for layer in layers))
        self.output = nn.Conv2d(widths[0], num_channels, 3, padding=1)

    def forward(self, latents: Tensor, size: tuple[int, int]) -> Tensor:
        """Latents (N, L) and the size (H, W), multiples of 2^n -> (N, C, H, W)."""
        maps = self.spread(functional.leaky_relu(self.input(latents), LEAKY_SLOPE))
        small = tuple(side >> len(self.up) for side in size)
        if maps.shape[-2:] != small:
            maps = functional.interpolate(maps, small, mode="bilinear")
        return self.output(self.up(maps.contiguous(memory_format=torch.channels_last)))
