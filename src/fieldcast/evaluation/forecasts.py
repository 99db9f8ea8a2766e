"""Forecasts of a batch: the one that a model stands by, or draws of one that has many.

Shapes: M members, B batch, S lead times, C channels, H rows, W columns.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fieldcast.data import Batch
from fieldcast.models import Forecaster
from fieldcast.processes import autocast

MEMBERS_AT_ONCE = 8


@torch.inference_mode()
def predict(model: Forecaster, batch: Batch, device: torch.device, precision: str = "float32") -> Tensor:
    """Forecast of a batch (B, S, C, H, W), normalised, float32 on the CPU."""
    with autocast(device, precision):
        frames = model.forward_batch(batch.without_targets().to(device))
    return frames.float().cpu()


@torch.inference_mode()
def draw_members(
    model: Forecaster,
    batch: Batch,
    seeds: Sequence[tuple[int, int]],
    num_members: int,
    device: torch.device,
    precision: str = "float32",
) -> Tensor:
    """Forecasts of a model that draws, (M, B, S, C, H, W), normalised, float32 on the CPU.

    The members of a sample are drawn beside each other, a few at a time, and start from a seed of the sample alone:
    they are the same whatever other samples are in the batch.

    Args:
        model: one with ``draws``.
        batch: of which targets are not looked at.
        seeds: (B) pairs of the run's seed and the sample's number.
        num_members: M.
        device: where the model is.
        precision: "float32" or "bf16-mixed".
    """
    samples = []
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        for row, seed in enumerate(seeds):
            torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
            one, members = batch[row : row + 1].to(device), []
            for first in range(0, num_members, MEMBERS_AT_ONCE):
                number = min(MEMBERS_AT_ONCE, num_members - first)
                repeated = (
                    field.expand(number, *field.shape[1:]) for field in (one.inputs, one.input_times, one.target_times)
                )
                with autocast(device, precision):
                    members.append(model.draw(*repeated).float().cpu())
            samples.append(torch.cat(members))
    return torch.stack(samples, dim=1)
