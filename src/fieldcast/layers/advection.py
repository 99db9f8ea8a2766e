"""Semi-Lagrangian advection: fields carried along a steady motion.

Shapes: B batch, S lead times, C channels, H rows, W columns.
Places are those of ``grid_sample``: (columns, rows) from -1 at the first pixel to 1 at the last.
"""

import torch
from torch import Tensor
from torch.nn import functional

EDGE_TOLERANCE = 1e-3  # pixels; rounding must not put a place on the edge outside


def advect(fields: Tensor, motion: Tensor, lead_times: Tensor, fallback: Tensor) -> Tensor:
    """Carry fields along a steady motion.

    X^(t, x) = X(0, x - D(t, x)) with D(t + h, x) = D(t, x) + h V(x - D(t, x) - h/2 V(x - D(t, x))): the backward
    scheme of Germann and Zawadzki 2002, doi 10.1175/1520-0493(2002)130<2859:SDOTPO>2.0.CO;2, by the midpoint rule
    with one iteration, bilinear, with the edge's motion beyond the edge, as
    ``pysteps.extrapolation.semilagrangian`` has it. Each lead time is reached in whole units of time and a rest, so
    that it does not depend on which others are asked for. Where D begins outside of the map, ``fallback`` stands.

    Args:
        fields: (B, C, H, W).
        motion: (B, 2, H, W), columns first, in pixels per unit of time.
        lead_times: (B, S), each sample its own; below 0 is back in time.
        fallback: (B, C, H, W).

    Returns:
        (B, S, C, H, W), in the type of ``fields``, float32 at least.
    """
    dtype = torch.promote_types(torch.promote_types(fields.dtype, motion.dtype), torch.float32)
    size = torch.tensor([*reversed(fields.shape[-2:])], dtype=dtype, device=fields.device)
    scale = 2 / (size - 1).clamp(min=1)  # of a pixel
    starts = _starts(motion.to(dtype) * scale[:, None, None], lead_times.to(dtype), scale)
    slack = EDGE_TOLERANCE * scale
    inside = ((starts >= -1 - slack) & (starts <= (size - 1) * scale - 1 + slack)).all(dim=-1)
    # The lead times stand under one another, so that the fields are not copied once for each.
    carried = _sample(fields.to(dtype), starts.flatten(1, 2)).unflatten(2, lead_times.shape[1:] + fields.shape[-2:-1])
    result = torch.where(inside[:, :, None], carried.transpose(1, 2), fallback[:, None].to(dtype))
    return result.to(torch.promote_types(fields.dtype, torch.float32))


def _starts(motion: Tensor, lead_times: Tensor, scale: Tensor) -> Tensor:
    """Where what arrives in each pixel comes from, (B, S, H, W, 2)."""
    forward = _starts_forward(motion, lead_times.clamp(min=0), scale)
    if (lead_times >= 0).all():
        return forward
    backward = _starts_forward(-motion, (-lead_times).clamp(min=0), scale)
    return torch.where(lead_times[..., None, None, None] < 0, backward, forward)


def _starts_forward(motion: Tensor, lead_times: Tensor, scale: Tensor) -> Tensor:
    batch, _, height, width = motion.shape
    rows, columns = torch.meshgrid(*(torch.arange(n).to(scale) for n in (height, width)), indexing="ij")
    place = (torch.stack([columns, rows], dim=-1) * scale - 1).expand(batch, -1, -1, -1)
    steps = lead_times.floor()
    rests = lead_times - steps
    starts = motion.new_empty(*lead_times.shape, height, width, 2)
    for step in range(int(steps.max()) + 1):
        place = _step_back(place, motion) if step else place
        samples, numbers = torch.nonzero(steps == step, as_tuple=True)
        rest = rests[samples, numbers]
        starts[samples, numbers] = (
            _step_back(place[samples], motion[samples] * rest[:, None, None, None]) if rest.any() else place[samples]
        )
    return starts


def _step_back(place: Tensor, motion: Tensor) -> Tensor:
    """Places (B, H, W, 2) one step earlier, by a motion (B, 2, H, W) per step."""
    halfway = place.sub(_sample(motion, place).permute(0, 2, 3, 1), alpha=0.5)
    return place - _sample(motion, halfway).permute(0, 2, 3, 1)


def _sample(fields: Tensor, places: Tensor) -> Tensor:
    return functional.grid_sample(fields, places, mode="bilinear", padding_mode="border", align_corners=True)
