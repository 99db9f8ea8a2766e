"""HKO-7, the radar archive of Hong Kong: rain rates every six minutes on the rain days of its published lists.

Shapes: n frames read, H rows, W columns, each a block of s rows and s columns of the file's pixels.
"""

import datetime
import math
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import Field, field_validator

from fieldcast.data.source import NANOSECONDS, Grid, SourceKind, Variable
from fieldcast.data.splits import SPLITS
from fieldcast.data.times import decode_time
from fieldcast.errors import DataError
from fieldcast.settings import Count, Settings

_FRAME_NAME = re.compile(r"RAD(\d{10})00\.png", re.ASCII)
_MOST_PIXELS = 4096 * 4096  # of a frame; those of the archive have 480 x 480


class HKO7Config(Settings):
    """Where frames, masks and lists of days are, the Z-R relation, and how far frames are brought down.

    ``frames`` is a folder with ``YYYY/MM/DD/RADYYMMDDHHMM00.png``, ``masks`` one with ``.mask`` files of the same
    names; without it every pixel counts. A list names a day on each line, ``20150520`` or ``20150520, 107.7`` with
    the day's rain. ``a`` and ``b`` make rates R in mm/h of reflectivities by Z = a R^b. ``shrink`` makes one pixel of
    each block of shrink x shrink of the file; it divides both sides of the frames.
    """

    frames: str
    masks: str | None = None
    train_days: str
    validation_days: str
    test_days: str
    a: float = Field(default=58.53, gt=0)
    b: float = Field(default=1.56, gt=0)
    shrink: Count = 1

    @field_validator("train_days", "validation_days", "test_days")
    @classmethod
    def _is_text(cls, path: str) -> str:
        if Path(path).suffix.lower() in (".pkl", ".pickle"):
            raise ValueError(f"{path} is a pickle, which can run any code and is never read: name the list as text")
        return path


class HKO7:
    """Frames of rain rate; each run of consecutive days of a list is a sequence of its split.

    A grey level p stands for the reflectivity 70 p / 255 - 10 dBZ, and that for the rate
    10^((dBZ - 10 log10 a) / (10 b)) mm/h; p = 0 is no echo, so no rain. Pixels that a mask leaves out are NaN.
    A block that ``shrink`` makes one pixel of has the mean rate in mm/h (not the rate of the mean dBZ) of those of its
    pixels that are there, and is NaN only where none is.
    Times are those of the file names. A day of one list may follow a day of another, as published: the two share
    no frame, but no gap is kept between them.

    Shi et al. 2017 (arXiv:1706.03458), section 3; layout of the files by github.com/sxjscience/HKO-7.

    Raises:
        DataError: where a list or a frame can't be read, a day is in two lists, a list has no frames, or ``shrink``
            doesn't divide the sides of the frames.
    """

    kind: SourceKind = "divided"
    real_times = True
    variables = (Variable("rainfall_rate", "mm/h", {"standard_name": "rainfall_rate", "long_name": "rain rate"}),)
    grid = Grid()
    cadence = 6 * 60 * NANOSECONDS
    calendar = "standard"

    def __init__(self, config: HKO7Config) -> None:
        lists = {split: Path(getattr(config, f"{split}_days")).expanduser() for split in SPLITS}
        days = {split: _read_days(path) for split, path in lists.items()}
        _refuse_shared(days)
        rates = rain_rates(config.a, config.b)
        self.value_range: tuple[float, float] | None = (float(rates[0]), float(rates[-1]))
        root = Path(config.frames).expanduser()
        if not root.is_dir():
            raise DataError(f"{root}: no such folder of frames (looked from {Path.cwd()})")
        found = {split: [_find_frames(root, run) for run in _runs(days[split])] for split in SPLITS}
        for split, runs in found.items():
            if not any(runs):
                raise DataError(f"{root}: no frames (YYYY/MM/DD/RADYYMMDDHHMM00.png) on any day of {lists[split]}")
        first = next(frames[0].path for frames in found["train"] if frames)
        masks = Path(config.masks).expanduser() if config.masks is not None else None
        archive = _Archive(root, masks, rates, _read_pixels(first).shape, first, config.shrink)
        self.shape = archive.shape
        self._sequences = {split: [HKO7Sequence(run, archive) for run in runs if run] for split, runs in found.items()}

    def sequences(self, split: str, count: int | None) -> list["HKO7Sequence"]:
        """The runs of days of the split's list."""
        return list(self._sequences[split])


def rain_rates(a: float, b: float) -> np.ndarray:
    """Rate in mm/h of each grey level (256,), float32; see `HKO7`."""
    reflectivity = np.arange(256) / 255 * 70 - 10
    rates = 10 ** ((reflectivity - 10 * np.log10(a)) / (10 * b))
    rates[0] = 0
    return rates.astype(np.float32)


@dataclass(frozen=True)
class _Frame:
    time: int  # ns since 1970-01-01
    path: Path


class HKO7Sequence:
    """The frames of consecutive days: ``times`` (N,) int64 ns, strictly ascending."""

    def __init__(self, frames: list[_Frame], archive: "_Archive") -> None:
        self.name = f"{frames[0].path.stem} to {frames[-1].path.stem}"
        self.times = np.array([frame.time for frame in frames], dtype=np.int64)
        self._frames = frames
        self._archive = archive

    def read(self, positions: np.ndarray, window: tuple[slice, slice] | None = None) -> np.ndarray:
        """Frames at the positions, (n, 1, H, W) float32 in mm/h, NaN where masks leave nothing of a pixel.

        Raises:
            DataError: where a frame or mask can't be read or is of another size.
        """
        window = window or (slice(None), slice(None))
        none = np.empty((0, *self._archive.shape), np.float32)[:, window[0], window[1]]
        frames = [self._archive.read(self._frames[position].path, window)[None] for position in positions]
        return np.concatenate([none, *frames])[:, None]


@dataclass(frozen=True)
class _Archive:
    """Two folders, the rate of each grey level, the size that the first frame sets for all, and the side of a block."""

    frames: Path
    masks: Path | None
    rates: np.ndarray  # (256,)
    file_shape: tuple[int, ...]
    first: Path
    shrink: int  # s

    def __post_init__(self) -> None:
        height, width = self.file_shape
        common = math.gcd(height, width)
        if common % self.shrink:
            fitting = [str(side) for side in range(1, common + 1) if common % side == 0]
            raise DataError(
                f"source.shrink = {self.shrink} doesn't divide the {height} x {width} pixels of {self.first}: "
                f"take one of {', '.join(fitting)}"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Blocks of a frame: H, W."""
        height, width = self.file_shape
        return height // self.shrink, width // self.shrink

    def read(self, path: Path, window: tuple[slice, slice]) -> np.ndarray:
        """The window's part of a frame (H, W), in mm/h, masked and brought down."""
        pixels = _read_pixels(path)
        if pixels.shape != self.file_shape:
            sizes = [" x ".join(str(extent) for extent in shape) for shape in (pixels.shape, self.file_shape)]
            raise DataError(f"{path} has {sizes[0]} pixels, {self.first} has {sizes[1]}; one size is wanted")
        rain = self.rates[self._blocks(pixels, window)]
        if self.masks is not None:
            mask = _read_mask(self.masks / path.relative_to(self.frames).with_suffix(".mask"), self.file_shape)
            rain[~self._blocks(mask, window)] = np.nan
        return _block_means(rain)

    def _blocks(self, pixels: np.ndarray, window: tuple[slice, slice]) -> np.ndarray:
        """The window's blocks (H, s, W, s), a view."""
        height, width = self.shape
        return pixels.reshape(height, self.shrink, width, self.shrink)[window[0], :, window[1]]


def _block_means(blocks: np.ndarray) -> np.ndarray:
    """Means (H, W) of what isn't NaN in blocks (H, s, W, s), NaN where all is."""
    if blocks.shape[1] == 1:
        return blocks[:, 0, :, 0]
    there = ~np.isnan(blocks)
    # Rows first: one sum over both axes takes numpy two to three times as long.
    counts = there.sum(1, dtype=np.float32).sum(-1)
    totals = np.where(there, blocks, np.float32(0)).sum(1).sum(-1)
    return np.divide(totals, counts, out=np.full_like(totals, np.nan), where=counts > 0)


def _read_days(path: Path) -> list[datetime.date]:
    """The days of a list, ascending."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the list of days can't be read: {error}") from None
    days = []
    for number, line in enumerate(lines, 1):
        word = line.split(",")[0].strip()
        if word:
            days.append(_day(word, f"{path}, line {number}"))
    if not days:
        raise DataError(f"{path}: no days: write one on each line, such as 20150520")
    if len(set(days)) < len(days):
        twice = next(day for day in days if days.count(day) > 1)
        raise DataError(f"{path}: {twice} comes twice")
    return sorted(days)


def _day(word: str, where: str) -> datetime.date:
    try:
        if not re.fullmatch(r"\d{8}", word, re.ASCII):
            raise ValueError
        return datetime.datetime.strptime(word, "%Y%m%d").date()
    except ValueError:
        raise DataError(f"{where}: '{word}' is no day: write one on each line, such as 20150520") from None


def _refuse_shared(days: dict[str, list[datetime.date]]) -> None:
    seen: dict[datetime.date, str] = {}
    for split, listed in days.items():
        shared = [day for day in listed if day in seen]
        if shared:
            others = f" (and {len(shared) - 1} more)" if len(shared) > 1 else ""
            raise DataError(
                f"{shared[0]}{others} is in {seen[shared[0]]}_days and in {split}_days: a day belongs to one split"
            )
        seen |= dict.fromkeys(listed, split)


def _runs(days: list[datetime.date]) -> list[list[datetime.date]]:
    """Ascending days, cut where one is left out."""
    runs: list[list[datetime.date]] = []
    for day in days:
        if runs and day - runs[-1][-1] == datetime.timedelta(days=1):
            runs[-1].append(day)
        else:
            runs.append([day])
    return runs


def _find_frames(root: Path, days: Iterable[datetime.date]) -> list[_Frame]:
    """The frames of ascending days, in order of time."""
    frames = []
    for day in days:
        for path in sorted((root / f"{day:%Y}" / f"{day:%m}" / f"{day:%d}").glob("*.png")):
            match = _FRAME_NAME.fullmatch(path.name)
            if not match or not match[1].startswith(f"{day:%y%m%d}") or match[1][6:] >= "2400" or match[1][8:] >= "60":
                raise DataError(f"{path}: a frame of {day} is called RAD{day:%y%m%d}HHMM00.png")
            frames.append(_Frame(decode_time(f"{day}T{match[1][6:8]}:{match[1][8:]}"), path))
    return frames


def _read_pixels(path: Path) -> np.ndarray:
    """Grey levels (H, W) uint8 of an 8-bit PNG."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            if image.mode != "L":
                raise DataError(f"{path}: pixels of mode '{image.mode}'; frames have 8-bit grey levels (mode 'L')")
            if image.width * image.height > _MOST_PIXELS:
                raise DataError(f"{path}: {image.height} x {image.width} pixels; at most {_MOST_PIXELS} are read")
            image.load()
            return np.asarray(image)
    except DataError:
        raise
    # What a damaged PNG makes Pillow raise has no common base.
    except (OSError, SyntaxError, ValueError, EOFError, zlib.error, Image.DecompressionBombError) as error:
        size = f", {path.stat().st_size} bytes" if path.exists() else ""
        raise DataError(f"{path}: no PNG, damaged or cut short{size}: {error}") from error


def _read_mask(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Which pixels count (H, W): a zlib stream with one byte a pixel, row by row, 1 where it does and 0 where not."""
    num_pixels = shape[0] * shape[1]
    stream = zlib.decompressobj()
    try:
        # One byte more than wanted shows a mask that is too large, and no more than that is unpacked.
        flags = np.frombuffer(stream.decompress(path.read_bytes(), num_pixels + 1), np.uint8)
    except FileNotFoundError:
        raise DataError(f"{path}: no such mask; leave 'masks' out to count every pixel") from None
    except (OSError, zlib.error) as error:
        raise DataError(f"{path}: the mask can't be read: {error}") from error
    if len(flags) != num_pixels or not stream.eof:
        raise DataError(f"{path}: cut short, or of another size than the frame's {shape[0]} x {shape[1]} pixels")
    if flags.max(initial=0) > 1:
        raise DataError(f"{path}: a mask holds 0 and 1 only, but {flags.max()} came")
    return flags.reshape(shape).astype(bool)
