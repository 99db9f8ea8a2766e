"""Time of structural similarity per frame against scikit-image, on one thread: ``structural_similarity_speed.py``.

Both run in turn and the fastest call of each counts, so that a busy machine slows both alike; a round is
several calls, since the first after the other's turn pays for memory that the other has pushed out.
"""

import time

import numpy as np
import torch
from skimage.metrics import structural_similarity as reference

from fieldcast.metrics.structural_similarity import structural_similarity

OPTIONS = {
    "gaussian": {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False},
    "uniform": {},
}
NUM_ROUNDS = 8
NUM_CALLS = 3


def microseconds(compare, num_frames: int) -> float:
    durations = []
    for _ in range(NUM_CALLS):
        start = time.perf_counter()
        compare()
        durations.append(time.perf_counter() - start)
    return min(durations) / num_frames * 1e6


def compare_speed(window: str, size: int, num_frames: int) -> None:
    frames = np.random.default_rng(0).random((2, num_frames, size, size), dtype=np.float32)
    predicted, observed = torch.from_numpy(frames)

    def ours():
        return structural_similarity(predicted, observed, 1.0, window).mean((-2, -1))

    def theirs():
        pairs = zip(frames[0], frames[1], strict=True)
        return [reference(*pair, data_range=1.0, **OPTIONS[window]) for pair in pairs]

    difference = np.abs(ours().numpy() - theirs()).max()
    rounds = [(microseconds(ours, num_frames), microseconds(theirs, num_frames)) for _ in range(NUM_ROUNDS)]
    own, other = np.min(rounds, axis=0)
    print(
        f"{window:8} {size:4} x {size:<4} fieldcast {own:8.0f} us  scikit-image {other:8.0f} us  "
        f"ratio {other / own:5.2f}  largest difference {difference:.0e}"
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    for window in OPTIONS:
        compare_speed(window, size=64, num_frames=80)
        compare_speed(window, size=256, num_frames=4)
