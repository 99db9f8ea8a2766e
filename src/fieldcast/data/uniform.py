"""Random numbers for data: each a function of a seed and of what it is drawn for, on every machine the same."""

import numpy as np


def uniform(seed: int, stream: int, index: int, count: int, part: int = 0) -> np.ndarray:
    """Random numbers (count,) in [0, 1) that depend on nothing else: Philox (Salmon et al. 2011), its raw bits.

    A longer row of the same place begins with the shorter one. Streams 0 to 15 are the sources', 16 and above those
    of sampling.
    """
    # Raw bits, because numpy may change its distributions from version to version, the bit generators never.
    counter = np.array([0, part, stream, index], np.uint64)
    raw = np.random.Philox(key=np.array([seed, 0], np.uint64), counter=counter).random_raw(count)
    return (raw >> np.uint64(11)) * 2.0**-53
