"""Sampling of maps along flow fields.

Shapes: B batch, C channels, L links, H rows, W columns.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional


def warp(frames: Tensor, flows: Tensor, outside: Literal["zeros", "border"] = "zeros") -> Tensor:
    """Sample every map of ``frames`` at (x, y) - flow, bilinearly.

    out[b, c, l, y, x] = frames[b, c, y - flows[b, l, 1, y, x], x - flows[b, l, 0, y, x]].
    Shi et al. 2017 (TrajGRU), equation 3; a flow of zero is the identity, which needs the corners aligned.

    Args:
        frames: (B, C, H, W).
        flows: (B, L, 2, H, W), columns first, in pixels of the map.
        outside: what is beyond the map: zeros, or the nearest pixel of its border.

    Returns:
        (B, C, L, H, W).
    """
    batch, num_links, _, height, width = flows.shape
    # Places need more digits than values: bfloat16 would move a pixel of a map 64 wide by up to an eighth.
    flows = flows.to(torch.promote_types(flows.dtype, torch.float32))
    dtype = torch.promote_types(frames.dtype, flows.dtype)
    columns = torch.arange(width, dtype=flows.dtype, device=flows.device)
    rows = torch.arange(height, dtype=flows.dtype, device=flows.device)[:, None]
    # grid_sample reads -1 as the first pixel and 1 as the last, so a map one pixel wide needs a second one.
    if 1 in (height, width):
        second = (0, int(width == 1), 0, int(height == 1))
        frames = functional.pad(frames, second, "constant" if outside == "zeros" else "replicate")
    x = (columns - flows[:, :, 0]) * (2 / max(width - 1, 1)) - 1
    y = (rows - flows[:, :, 1]) * (2 / max(height - 1, 1)) - 1
    # The links stand under one another in the grid, so that the frames are not copied once per link.
    grid = torch.stack([x, y], dim=-1).reshape(batch, num_links * height, width, 2)
    sampled = functional.grid_sample(frames.to(dtype), grid.to(dtype), padding_mode=outside, align_corners=True)
    return sampled.to(frames.dtype).reshape(batch, frames.shape[1], num_links, height, width)
