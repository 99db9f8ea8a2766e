"""A recurrent cell over time.

Shapes: B batch, T steps, C input width, D hidden width, H rows, W columns.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Change = Callable[[int, Any], Any]  # (step, state) -> state


def unroll(
    cell: Any,
    frames: Tensor | None,
    state: Any,
    num_steps: int,
    before: Change | None = None,
    after: Change | None = None,
) -> tuple[Tensor, Any]:
    """Run a cell over time, its input projected for all steps at once.

    Args:
        cell: a cell with ``project`` and ``update``.
        frames: (T B, C, H, W), time first, or None for a cell without input.
        state: the state before the first step.
        num_steps: T.
        before: what happens to the state before each step.
        after: what happens to it after each step.

    Returns:
        the hidden maps of every step (T B, D, H, W), and the last state.
    """
    slices: Callable[[Tensor], tuple[Tensor, ...]] = lambda tensor: tensor.chunk(num_steps)  # noqa: E731
    projections: Any = [None] * num_steps
    if frames is not None:
        projected = cell.project(frames)
        projections = slices(projected) if isinstance(projected, Tensor) else zip(*map(slices, projected), strict=True)
    hidden = []
    for step, projection in enumerate(projections):
        state = before(step, state) if before else state
        state = cell.update(projection, state)
        state = after(step, state) if after else state
        hidden.append(state.hidden)
    return joined(hidden), state


def joined(maps: list[Tensor]) -> Tensor:
    """Maps of some steps, time first; of one step without a copy."""
    return maps[0] if len(maps) == 1 else torch.cat(maps)
