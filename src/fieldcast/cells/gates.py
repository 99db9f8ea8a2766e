"""Parts that the cells share."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from fieldcast.layers.resample import LEAKY_SLOPE

Memory = Literal["tanh", "leaky"]


def same_convolution(
    input_width: int, output_width: int, kernel: int, *, bias: bool = True, dilation: int = 1
) -> nn.Conv2d:
    """A convolution that keeps the size of the map, with zeros outside.

    Raises:
        ValueError: for an even kernel, which has no centre.
    """
    if kernel % 2 == 0:
        raise ValueError(f"a recurrent convolution needs an odd kernel, not {kernel}")
    padding = dilation * (kernel - 1) // 2
    return nn.Conv2d(input_width, output_width, kernel, padding=padding, dilation=dilation, bias=bias)


def gated_update(projection: Tensor | None, recurrent: Tensor, hidden: Tensor, memory: Memory) -> Tensor:
    """The gated recurrent update of ConvGRU and TrajGRU.

    r = s(x0 + h0), z = s(x1 + h1), m = memory(x2 + r o h2), H' = z o H + (1 - z) o m.
    Shi et al. 2017, equations 2 and 3; thesis section 4.1 with memory = tanh, HKO-7 with LeakyReLU(0.2).

    Args:
        projection: x0, x1, x2 as (B, 3 D, H, W), or None for a cell without input.
        recurrent: h0, h1, h2 as (B, 3 D, H, W).
        hidden: H, (B, D, H, W).
        memory: activation of the candidate.
    """
    width = hidden.shape[1]
    gates, candidate = recurrent[:, : 2 * width], recurrent[:, 2 * width :]
    if projection is not None:
        gates = gates + projection[:, : 2 * width]
    reset, keep = torch.sigmoid(gates).chunk(2, dim=1)
    candidate = reset * candidate
    if projection is not None:
        candidate = candidate + projection[:, 2 * width :]
    candidate = torch.tanh(candidate) if memory == "tanh" else functional.leaky_relu(candidate, LEAKY_SLOPE)
    return torch.lerp(candidate.to(hidden.dtype), hidden, keep.to(hidden.dtype))
