"""Frames made from the frame before them: which frame that is, and how flow, difference and mask make the next.

Shapes: B batch, T input frames, S target frames, C channels, H rows, W columns.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fieldcast.layers.warp import warp


class FramesBefore(NamedTuple):
    """For every target the frame before it: the newest input at or before its time, or the target before it.

    The later of the two, and the input where they are of the same time. So a chain of forecasts starts afresh at
    every input, and in extrapolation it is the last input and then target by target. A target before every input
    is made from the first. Every sample has its own.
    """

    newest_inputs: Tensor  # (S, B), place among the inputs
    from_inputs: Tensor  # (S, B), whether the frame before is that input
    any_from_inputs: list[bool]  # for each target, whether it is in any sample

    def pick(self, step: int, inputs: Tensor, previous: Tensor | None) -> Tensor:
        """What belongs to the frame before target ``step``.

        Args:
            step: from 0; what is before the first target is always an input.
            inputs: (T, B, ...), of the inputs.
            previous: (B, ...), of the target before.

        Returns:
            (B, ...).
        """
        if previous is not None and not self.any_from_inputs[step]:
            return previous
        newest = inputs[self.newest_inputs[step], torch.arange(inputs.shape[1], device=inputs.device)]
        if previous is None:
            return newest
        from_input = self.from_inputs[step].view(-1, *(1,) * (newest.dim() - 1))
        return torch.where(from_input, newest, previous)

    def each(self, inputs: Tensor, targets: Sequence[Tensor]) -> list[Tensor]:
        """What belongs to the frame before each target, S of (B, ...): inputs (T, B, ...), targets S of (B, ...)."""
        return [self.pick(step, inputs, targets[step - 1] if step else None) for step in range(len(targets))]


def frames_before(input_times: Tensor, target_times: Tensor) -> FramesBefore:
    """Find the frame before every target: input_times (B, T), target_times (B, S), both ascending."""
    newest = ((input_times[:, None] <= target_times[:, :, None]).sum(dim=2) - 1).clamp(min=0)
    from_inputs = torch.ones_like(newest, dtype=torch.bool)
    from_inputs[:, 1:] = input_times.gather(1, newest)[:, 1:] >= target_times[:, :-1]
    return FramesBefore(newest.T, from_inputs.T, from_inputs.any(dim=0).tolist())


class Composed(NamedTuple):
    """Frames, and the pictures of change that they were composed with, (S, B, C, H, W) each."""

    frames: Tensor
    differences: Tensor


def compose(inputs: Tensor, parts: Tensor, before: FramesBefore) -> Composed:
    """Move what was there along the flow, and blend it with what is new.

        Y_i = warp(Y_{i-1}, F_i),  X_i = s(M_i) o Y_i + (1 - s(M_i)) o D_i

    where Y_{i-1} is an input or the warped frame of the target before, not the composed one; beyond the map stands
    its border, and a flow of zero is the identity. Park et al. 2021 (Vid-ODE) and its release.

    Args:
        inputs: (T, B, C, H, W).
        parts: (S, B, 2 + C + 1, H, W): flow F, columns first, difference D, and logit of the mask M.
        before: from ``frames_before``.
    """
    flows, differences, masks = parts.split([2, parts.shape[2] - 3, 1], dim=2)
    warped: list[Tensor] = []
    for step, flow in enumerate(flows):
        frame = before.pick(step, inputs, warped[-1] if warped else None)
        warped.append(warp(frame, flow[:, None], outside="border")[:, :, 0])
    return Composed(torch.lerp(differences, torch.stack(warped), torch.sigmoid(masks)), differences)
