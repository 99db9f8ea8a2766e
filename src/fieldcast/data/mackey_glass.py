"""The Mackey-Glass equation, solved as exactly as float64 allows and at any time, and its series as a source of frames.

Shapes: n times, K intervals of one delay, P pieces of such an interval, M nodes of a piece.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.polynomial import chebyshev
from pydantic import Field, field_validator

from fieldcast.data.source import NANOSECONDS, Drawn, FrameSequence, Grid, SourceKind, Variable
from fieldcast.data.splits import SPLITS
from fieldcast.data.uniform import uniform
from fieldcast.errors import ConfigError, DataError
from fieldcast.settings import Count, Settings, TupleOf, look_up

NUM_NODES = 17  # M
UNRESOLVED = 1e-8  # share of a production's highest two Chebyshev coefficients above which pieces are too long
_STREAMS = {split: stream for stream, split in enumerate(SPLITS)}

History = float | Callable[[np.ndarray], np.ndarray]


class Equation(Settings):
    """The Mackey-Glass equation, for a density x of cells that takes the time tau to react to itself.

    dx/dt = a x(t - tau) / (1 + x(t - tau)^c) - b x(t)

    Mackey and Glass 1977, Science 197, 287; chaotic with the values here, those of the lecture "Neural
    Organization: Convolution".

    Args:
        delay: tau.
        growth: a, per unit of time.
        decay: b, per unit of time.
        power: c.
    """

    delay: float = Field(30.0, gt=0)
    growth: float = Field(0.2, gt=0)
    decay: float = Field(0.1, ge=0)
    power: float = Field(10.0, gt=0)

    def production(self, x: np.ndarray) -> np.ndarray:
        """p(x) = a x / (1 + x^c)."""
        with np.errstate(over="ignore"):
            return self.growth * x / (1 + x**self.power)

    def production_slope(self, x: np.ndarray) -> np.ndarray:
        """dp/dx = a r (1 - c (1 - r)) with r = 1 / (1 + x^c)."""
        with np.errstate(over="ignore"):
            share = 1 / (1 + x**self.power)
        return self.growth * share * (1 - self.power * (1 - share))

    @property
    def piece(self) -> float:
        """Longest piece in which a polynomial of degree 16 follows p(x(t)) to about 1e-14."""
        # p has poles where x^c = -1, an angle pi / c off the real numbers, and x = 1 changes by a + b at most.
        # A piece as long as half the time to them: the coefficients fall by (4 + sqrt(17)) from degree to degree.
        return 0.5 * math.sin(math.pi / max(self.power, 2)) / (self.growth + self.decay)


class _Steps(NamedTuple):
    """Variation of constants on one delay interval, cut into pieces of length h with nodes s_0 = 0 .. s_{M-1} = h.

    x(s_i) = exp(-b s_i) x(0) + sum_j Q_ij p_j, Q_ij = int_0^{s_i} exp(-b (s_i - s)) l_j(s) ds, l_j being the Lagrange
    polynomials of the nodes and p_j the productions there, known from one delay before.
    """

    length: float  # h
    nodes: np.ndarray  # (P, M), from the start of the interval
    kept: np.ndarray  # (M,), exp(-b s_i)
    gain: np.ndarray  # (M, M), Q
    to_coefficients: np.ndarray  # (M, M), values at the nodes -> Chebyshev coefficients

    def advance(self, start: float, productions: np.ndarray) -> np.ndarray:
        """x (P, M) at the nodes of an interval that begins with x = ``start``."""
        gained = productions @ self.gain.T
        kept = float(self.kept[-1])
        starts = list(accumulate(gained[:, -1].tolist(), lambda x, more: kept * x + more, initial=start))[:-1]
        return np.array(starts)[:, None] * self.kept + gained


@lru_cache(maxsize=16)
def _steps(delay: float, decay: float, longest: float) -> _Steps:
    num_pieces = max(1, math.ceil(delay / longest))
    length = delay / num_pieces
    unit = -np.cos(np.pi * np.arange(NUM_NODES) / (NUM_NODES - 1))  # Chebyshev points from -1 to 1
    nodes = length * (unit + 1) / 2
    to_coefficients = np.linalg.inv(chebyshev.chebvander(unit, NUM_NODES - 1))
    points, weights = np.polynomial.legendre.leggauss(2 * NUM_NODES)
    gain = np.zeros((NUM_NODES, NUM_NODES))
    for row, node in enumerate(nodes):
        inner = node * (points + 1) / 2
        lagrange = chebyshev.chebvander(2 * inner / length - 1, NUM_NODES - 1) @ to_coefficients
        gain[row] = (node / 2 * weights * np.exp(-decay * (node - inner))) @ lagrange
    starts = length * np.arange(num_pieces)
    return _Steps(length, starts[:, None] + nodes, np.exp(-decay * nodes), gain, to_coefficients)


@dataclass(frozen=True)
class Solution:
    """x(t) up to the time ``end``, to be called with times: a polynomial on each of K P pieces."""

    history: History
    length: float  # of a piece
    coefficients: np.ndarray  # (K P, M), Chebyshev

    @property
    def end(self) -> float:
        """Latest time at which the solution is known."""
        return self.length * len(self.coefficients)

    def __call__(self, times: np.ndarray) -> np.ndarray:
        """x at times (n,) up to ``end``; at times up to 0 the history.

        Raises:
            DataError: for a time after the end, or one that is not finite.
        """
        times = np.asarray(times, dtype=np.float64)
        # What is asked for may lie past the end by the rounding of a multiple of the pieces' length.
        wrong = ~(times <= self.end * (1 + 1e-12)) | np.isinf(times)
        if wrong.any():
            raise DataError(f"the solution is known up to t = {self.end:g}, but t = {times[wrong][0]:g} came")
        place = np.clip(times / self.length, 0, len(self.coefficients))
        piece = np.minimum(place.astype(np.int64), len(self.coefficients) - 1)
        angle = np.arccos(np.clip(2 * (place - piece) - 1, -1, 1))
        terms = np.cos(angle[..., None] * np.arange(NUM_NODES))
        after = (terms * self.coefficients[piece]).sum(-1)
        return np.where(times > 0, after, _past(self.history, np.minimum(times, 0)))


def integrate(equation: Equation, history: History, end: float, longest_piece: float | None = None) -> Solution:
    """Solve the equation from t = 0 to ``end`` by the method of steps.

    During one delay x(t - tau) is known, and what is left is x' = -b x + p(t), solved by ``_Steps`` to the rounding of
    float64. No piece crosses a multiple of tau, where a derivative jumps; the nodes of one interval are those of the
    interval before, so that nothing is interpolated.

    Args:
        equation: with its numbers.
        history: x at times up to 0, a number or a smooth function of times (n,).
        end: last time that is wanted.
        longest_piece: None for the equation's own; a history that changes faster needs a shorter one.

    Raises:
        DataError: where the end is not finite or not after 0, or the history not finite, below 0, or too fast.
    """
    if not (math.isfinite(end) and end > 0):
        raise DataError(f"the equation is solved up to a time after 0, not to {end:g}")
    if longest_piece is not None and not longest_piece > 0:
        raise DataError(f"longest_piece = {longest_piece:g}: above 0")
    steps = _steps(equation.delay, equation.decay, longest_piece or equation.piece)
    x = _past(history, steps.nodes - equation.delay)
    start, found = float(_past(history, np.zeros(1))[0]), []
    for _ in range(math.ceil(end / equation.delay * (1 - 1e-12))):
        productions = equation.production(x)
        _check_resolved(productions @ steps.to_coefficients.T, steps.length)
        x = steps.advance(start, productions)
        found.append(x @ steps.to_coefficients.T)
        start = float(x[-1, -1])
    return Solution(history, steps.length, np.concatenate(found))


def lyapunov_exponent(equation: Equation, history: History = 1.2, end: float = 1e5, settling: float = 1e3) -> float:
    """Rate at which two solutions that are near each other part, per unit of time, on average from ``settling`` to end.

    lambda = lim log(|d(t)| / |d(0)|) / t, where d' = p'(x(t - tau)) d(t - tau) - b d is the linearised equation, solved
    beside the equation itself; |d| is a root mean square over one delay (Farmer 1982, Physica D 4, 366).

    Raises:
        DataError: where the average would be over no time, and as ``integrate``.
    """
    if not 0 <= settling < end < math.inf:
        raise DataError(f"an average from t = {settling:g} to {end:g}: give a later end")
    steps = _steps(equation.delay, equation.decay, equation.piece)
    x = _past(history, steps.nodes - equation.delay)
    start = float(_past(history, np.zeros(1))[0])
    difference, growths = np.ones_like(x), []
    for _ in range(math.ceil(end / equation.delay)):
        difference = steps.advance(float(difference[-1, -1]), equation.production_slope(x) * difference)
        x = steps.advance(start, equation.production(x))
        start = float(x[-1, -1])
        size = math.sqrt(float(np.square(difference).mean()))
        growths.append(math.log(size))
        difference = difference / size
    return float(np.mean(growths[math.ceil(settling / equation.delay) :])) / equation.delay


def _past(history: History, times: np.ndarray) -> np.ndarray:
    values = np.broadcast_to(np.asarray(history(times) if callable(history) else history, np.float64), times.shape)
    wrong = ~(np.isfinite(values) & (values >= 0))
    if wrong.any():
        raise DataError(
            f"the history is {values[wrong][0]:g} at t = {times[wrong][0]:g}: a finite number from 0 on is wanted"
        )
    return values


def _check_resolved(coefficients: np.ndarray, length: float) -> None:
    """Refuse pieces (P, M) whose polynomials still have much to say at their highest degrees."""
    if np.abs(coefficients[:, -2:]).max() > UNRESOLVED * np.abs(coefficients).max():
        raise DataError(
            f"the history changes too fast for pieces of length {length:g}: give a smoother one, or a shorter "
            "longest_piece"
        )


class MackeyGlassConfig(Equation):
    """A series of the equation: one, as an archive, or as many as are asked for, each with its own past.

    Args:
        step: time from one frame to the next; a unit of the equation's time counts as a second.
        history: x before t = 0, a constant: a number for one long series, which splits divide in time, or
            [low, high], between which each sequence draws its own, for splits that are counts.
        length: frames of a sequence.
        start: time of the first frame.
    """

    step: float = Field(1.0, ge=1e-6)
    history: float | TupleOf[float] = 1.2
    length: Count = 1000
    start: float = Field(0.0, ge=0)

    @field_validator("history")
    @classmethod
    def _sensible(cls, history: float | tuple[float, ...]) -> float | tuple[float, ...]:
        if isinstance(history, tuple) and (len(history) != 2 or not 0 <= history[0] < history[1]):
            raise ValueError(f"a range is [low, high] with 0 <= low < high, but {list(history)} came")
        if not isinstance(history, tuple) and history < 0:
            raise ValueError(f"x counts cells, 0 or more, but {history:g} came")
        return history


class MackeyGlass:
    """Source of the Mackey-Glass equation's series: frames of one pixel, x(start + step i), at any time between too.

    A number as history makes one sequence, an archive; a range makes a generator, whose sequences are each a function
    of (seed, split, number): the constant history is drawn from the range.
    """

    value_range: tuple[float, float] | None = None
    variables = (Variable("x", "1"),)
    grid = Grid()
    shape = (1, 1)
    calendar = "standard"
    real_times = False

    def __init__(self, config: MackeyGlassConfig, seed: int) -> None:
        self.config, self.seed = config, seed
        self.kind: SourceKind = "generator" if isinstance(config.history, tuple) else "archive"
        self.cadence = round(config.step * NANOSECONDS)
        self._times = np.arange(config.length, dtype=np.int64) * self.cadence

    def sequences(self, split: str, count: int | None) -> Sequence[FrameSequence]:
        """The one series, or ``count`` of the split's.

        Raises:
            ConfigError: where the split is unknown, or series are to be drawn and no count is given.
        """
        look_up(_STREAMS, split, "split")
        if not isinstance(self.config.history, tuple):
            return [MackeyGlassSeries("mackey-glass", self._times, self.config, self.config.history)]
        if count is None:
            raise ConfigError(f"any number of series can be drawn: say how many the {split} split has")
        return Drawn(partial(self.sequence, split), range(count))

    def sequence(self, split: str, number: int) -> "MackeyGlassSeries":
        """Series number ``number`` of the split, of a range of histories."""
        assert isinstance(self.config.history, tuple)
        low, high = self.config.history
        share = float(uniform(self.seed, _STREAMS[split], number, 1)[0])
        return MackeyGlassSeries(f"{split}-{number}", self._times, self.config, low + (high - low) * share)


@dataclass(eq=False)
class MackeyGlassSeries:
    """One solution as frames of one pixel; it is solved when it is first read, and further where that is asked for."""

    name: str
    times: np.ndarray  # (length,) int64 ns
    config: MackeyGlassConfig
    history: float

    def read(self, positions: np.ndarray, window: tuple[slice, slice] | None = None) -> np.ndarray:
        """Frames at the positions, (n, 1, 1, 1) float32; ``window`` cuts rows and columns out."""
        frames = self.read_at(np.arange(len(self.times), dtype=np.float64)[positions])
        return frames if window is None else frames[:, :, window[0], window[1]]

    def read_at(self, times: np.ndarray) -> np.ndarray:
        """Frames at times (n,) in steps, 0 or later, past the last frame too -> (n, 1, 1, 1) float32.

        Raises:
            DataError: where a time is negative or not finite.
        """
        times = np.asarray(times, dtype=np.float64)
        wrong = ~(np.isfinite(times) & (times >= 0))
        if wrong.any():
            raise DataError(f"times are 0 or later, but {times[wrong][0]:g} came")
        moments = self.config.start + self.config.step * times
        last = float(moments.max(initial=0.0))
        solution = self._solution if last <= self._solution.end else self._solve(last)
        return solution(moments).astype(np.float32)[:, None, None, None]

    @cached_property
    def _solution(self) -> Solution:
        return self._solve(self.config.start + self.config.step * self.config.length)

    def _solve(self, end: float) -> Solution:
        return integrate(self.config, self.history, end)
