"""Time of semi-Lagrangian advection against pysteps, same motion and lead times: ``optical_flow_speed.py``.

Both run in turn and the fastest call of each counts, so that a busy machine slows both alike. Threads are those of
OMP_NUM_THREADS; pysteps uses one. Fields differ on the edge of what comes from outside, which is left out.
"""

import time

import numpy as np
import torch
from pysteps.extrapolation.semilagrangian import extrapolate
from scipy.ndimage import gaussian_filter

from fieldcast.layers.advection import advect

SIZE, NUM_LEAD_TIMES, NUM_ROUNDS = 256, 12, 30


def rain_and_motion() -> tuple[np.ndarray, np.ndarray]:
    """A smooth field from 0 to 1, and a rotating motion with eddies of a few pixels per lead time."""
    random = np.random.default_rng(0)
    field = gaussian_filter(random.standard_normal((SIZE, SIZE)), 4)
    row, column = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    eddies = np.stack([gaussian_filter(random.standard_normal((SIZE, SIZE)), 12) for _ in range(2)])
    motion = np.stack([1.5 - 0.01 * row, 0.01 * column - 0.7]) + eddies / np.abs(eddies).max()
    return (field - field.min()) / np.ptp(field), motion


def seconds(call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def compare_speed() -> None:
    field, motion = rain_and_motion()
    fields, motions = (torch.from_numpy(values).float()[None] for values in (field[None], motion))
    lead_times = torch.arange(1.0, NUM_LEAD_TIMES + 1)[None]
    outside = torch.full_like(fields, torch.nan)

    def ours():
        return advect(fields, motions, lead_times, outside)[0, :, 0].numpy()

    def theirs():
        return extrapolate(field, motion, NUM_LEAD_TIMES)

    difference = np.nanmax(np.abs(ours() - theirs()))
    own, other = np.min([(seconds(ours), seconds(theirs)) for _ in range(NUM_ROUNDS)], axis=0)
    print(
        f"{SIZE} x {SIZE}, {NUM_LEAD_TIMES} lead times, {torch.get_num_threads()} threads  fieldcast {own:.4f} s  "
        f"pysteps {other:.4f} s  ratio {other / own:.2f}  largest difference {difference:.0e} of the range"
    )


if __name__ == "__main__":
    compare_speed()
