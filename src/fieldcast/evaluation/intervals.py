"""How sure scores and their differences are: a paired bootstrap over independent blocks of time.

Shapes: U stretches, N blocks, R resamples; K sums of a metric.
"""

from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor

from fieldcast.data.source import NANOSECONDS
from fieldcast.data.times import parse_duration
from fieldcast.evaluation.tally import Tally
from fieldcast.evaluation_settings import EvaluationSettings

# With fewer, no resampling can tell how far apart independent blocks lie.
MIN_BLOCKS = 5
MIN_SHARE_DEFINED = 0.9  # of the resamples
E_FOLDING = float(np.exp(-1))


@dataclass(frozen=True)
class Resampling:
    """Which blocks each resample is made of: how often each stretch counts (R, U), the same for every model.

    ``length`` words how long a block is.
    """

    weights: Tensor
    num_blocks: int
    length: str
    confidence: float

    @property
    def possible(self) -> bool:
        """Whether there are blocks enough for an interval."""
        return self.num_blocks >= MIN_BLOCKS

    def sums(self, sums: Tensor) -> Tensor:
        """Sums (U, K, ...) of each resample: (K, R, ...)."""
        resampled = self.weights @ sums.flatten(1)
        return resampled.view(len(self.weights), *sums.shape[1:]).transpose(0, 1)

    def interval(self, scores: Tensor) -> Tensor:
        """Ends (2, ...) of the interval of resampled scores (R, ...), NaN where it is not defined.

        The percentiles of the bootstrap, widened for few blocks as Hesterberg (2015, doi
        10.1080/00031305.2015.1089789) says: at Phi(-+ sqrt(N / (N - 1)) t), with the quantile t of Student's
        distribution of N - 1 degrees of freedom.
        """
        if not self.possible:
            return scores.new_full((2, *scores.shape[1:]), torch.nan)
        quantile = student_quantile(0.5 + self.confidence / 2, self.num_blocks - 1)
        lower = NormalDist().cdf(-((self.num_blocks / (self.num_blocks - 1)) ** 0.5) * quantile)
        # Half way between two scores that may be infinite there is nothing to interpolate.
        shares = scores.new_tensor([lower, 1 - lower])
        ends = torch.nanquantile(scores, shares, dim=0, interpolation="nearest")
        defined = (~scores.isnan()).double().mean(0) >= MIN_SHARE_DEFINED
        return torch.where(defined, ends, torch.nan)


def make_resampling(tally: Tally, settings: EvaluationSettings, seed: int = 0) -> Resampling:
    """Draw the blocks that the resamples are made of.

    Blocks do not overlap, none crosses two sequences, and N of them are drawn with replacement from the N there are.
    Draws of a generator are independent: each stretch is a block. In an archive a block is ``settings.block_length``
    long, or three times the time in which the autocorrelation of what was observed falls to 1/e, and then never
    shorter than a sample, since samples that share frames are not independent.
    """
    blocks, length = _number_blocks(tally, settings)
    num_blocks = int(blocks.max()) + 1
    draws = np.random.default_rng(seed).multinomial(
        num_blocks, np.full(num_blocks, 1 / num_blocks), settings.num_resamples
    )
    weights = torch.from_numpy(draws[:, blocks]).double()
    return Resampling(weights, num_blocks, length, settings.confidence)


def _number_blocks(tally: Tally, settings: EvaluationSettings) -> tuple[np.ndarray, str]:
    """The block (U,) of each stretch, and how long blocks are in words."""
    if not tally.in_time:
        size = max(len(stretch.numbers) for stretch in tally.stretches)
        return np.arange(len(tally.stretches)), f"{size} sequence{'s' if size > 1 else ''}"
    times = np.array([stretch.time for stretch in tally.stretches])
    sequences = np.array([stretch.sequence for stretch in tally.stretches])
    if settings.block_length is not None:
        length = parse_duration(settings.block_length)
    else:
        total, number = tally.observed.numpy().T
        with np.errstate(invalid="ignore"):
            length = max(3 * decorrelation_time(times, sequences, total / number), tally.span)
    numbers, block, start = np.zeros(len(times), int), -1, None
    for position, (sequence, time) in enumerate(zip(sequences, times, strict=True)):
        if start is None or sequence != sequences[position - 1] or time - start >= length:
            block, start = block + 1, time
        numbers[position] = block
    return numbers, _word_duration(length)


def decorrelation_time(times: np.ndarray, sequences: np.ndarray, values: np.ndarray) -> int:
    """Time in which the autocorrelation of a series falls below 1/e, in ns.

        r(l) = sum_i a_i a_(i+l) / sqrt(sum_i a_i^2 sum_i a_(i+l)^2), a = value - mean

    over the pairs of one sequence that are l places apart; the time is the mean distance of such a pair at the first
    l with r(l) < 1/e. Where it never falls that low, the longest distance there is; 0 where nothing varies.

    Args:
        times: (U,) int64 ns, ascending within a sequence.
        sequences: (U,) which sequence each belongs to.
        values: (U,), NaN where nothing was observed.
    """
    anomalies = values - np.nanmean(values) if np.isfinite(values).any() else values
    if not np.nansum(anomalies**2) > 0:
        return 0
    farthest = 0
    for lag in range(1, len(values)):
        same = (sequences[lag:] == sequences[:-lag]) & np.isfinite(anomalies[lag:]) & np.isfinite(anomalies[:-lag])
        if same.sum() < 2:
            break
        early, late = anomalies[:-lag][same], anomalies[lag:][same]
        farthest = int((times[lag:][same] - times[:-lag][same]).mean())
        scale = np.sqrt((early**2).sum() * (late**2).sum())
        if not scale > 0 or (early * late).sum() / scale < E_FOLDING:
            return farthest
    return farthest


@cache
def student_quantile(share: float, degrees: int) -> float:
    """Quantile of Student's distribution, by its density over the angle of t = sqrt(n) tan(a): cos(a)^(n - 1)."""
    angles = np.linspace(-np.pi / 2, np.pi / 2, 200_001)
    density = np.cos(angles) ** (degrees - 1)
    cumulative = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return float(np.sqrt(degrees) * np.tan(np.interp(share * cumulative[-1], cumulative, angles)))


def _word_duration(nanoseconds: int) -> str:
    minutes = nanoseconds / NANOSECONDS / 60
    for unit, size in (("d", 1440), ("h", 60), ("min", 1)):
        if minutes >= 2 * size:
            return f"{minutes / size:.3g} {unit}"
    return f"{60 * minutes:.3g} s"
