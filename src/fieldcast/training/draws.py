"""What training draws at random, each a function of (seed, step) alone, so that a resumed run draws the same.

Shapes: B samples of the whole batch, S target frames.
"""

import numpy as np
import torch
from torch import Tensor

ORDER, CROP, TEACHER, NOISE = range(4)  # streams of random numbers


def random_numbers(seed: int, stream: int, step: int) -> np.random.Generator:
    """The generator of one stream at one step."""
    return np.random.default_rng([seed, stream, step])


def seed_torch(seed: int, step: int, rank: int) -> None:
    """Start torch's own random numbers anew for a step of one process."""
    torch.manual_seed(int(np.random.SeedSequence([seed, NOISE, step, rank]).generate_state(1)[0]))


def sample_numbers(seed: int, step: int, batch_size: int, total: int) -> list[int]:
    """Which of ``total`` samples the whole batch of a step is made of: every one once before any comes again."""
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    orders = {
        epoch: random_numbers(seed, ORDER, int(epoch)).permutation(total) for epoch in np.unique(positions // total)
    }
    return [int(orders[position // total][position % total]) for position in positions]


def crop_corners(seed: int, step: int, batch_size: int, shape: tuple[int, int], crop: int) -> list[tuple[int, int]]:
    """Row and column where the part of ``crop`` x ``crop`` pixels begins that each sample is cut down to."""
    highest = [extent - crop + 1 for extent in shape]
    drawn = random_numbers(seed, CROP, step).integers(0, highest, (batch_size, 2))
    return [(int(row), int(column)) for row, column in drawn]


def teaching_mask(seed: int, step: int, shape: tuple[int, int], teacher_steps: int) -> Tensor | None:
    """Where the truth is fed back, bool (B, S): its share falls from 1 to 0 linearly over ``teacher_steps``.

    Scheduled sampling, Bengio et al. 2015, linear decay. None where nothing is taught any more.
    """
    if step >= teacher_steps:
        return None
    return torch.from_numpy(random_numbers(seed, TEACHER, step).random(shape) < 1 - step / teacher_steps)
