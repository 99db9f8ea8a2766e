"""Frames from video files, at the times they are really shown; needs the extra ``video``.

Shapes: N frames of a file, n frames read, C colours, H rows, W columns.
"""

import threading
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import Field, field_validator

from fieldcast.data.files import find_files
from fieldcast.data.source import NANOSECONDS, Grid, SourceKind, Variable
from fieldcast.data.times import most_common_difference
from fieldcast.errors import DataError, MissingExtra
from fieldcast.settings import Settings, TupleOf

# By how many frames the order of storing may differ from that of showing (H.264 allows 16).
_REORDERED = 16


class VideoConfig(Settings):
    """Which videos to read, and how.

    ``paths`` is a file, a pattern or a list of them; ``colour`` gives red, green and blue instead of intensity;
    ``size`` (H, W) cuts the largest middle part of that aspect out of each frame and resizes it; frames stay in
    memory, file by file, up to ``cache_megabytes``.
    """

    paths: str | TupleOf[str]
    colour: bool = False
    size: TupleOf[int] | None = None
    cache_megabytes: int = Field(default=512, ge=0)

    @field_validator("size")
    @classmethod
    def _height_and_width(cls, size: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if size is not None and (len(size) != 2 or min(size) < 1):
            raise ValueError("write [height, width] in pixels")
        return size


class Video:
    """Videos, each a sequence of its own; values are 0 to 255 of unit 1.

    Times are the presentation times in the file, from 0 for the first frame, so a variable frame rate stays one.

    Raises:
        DataError: where a file is no video, is cut short, or has another size than the others and none is set.
        MissingExtra: without PyAV.
    """

    kind: SourceKind = "archive"
    value_range: tuple[float, float] | None = (0.0, 255.0)
    calendar = "standard"
    real_times = False

    def __init__(self, config: VideoConfig) -> None:
        names = ("red", "green", "blue") if config.colour else ("intensity",)
        self.variables = tuple(Variable(name, "1") for name in names)
        self.grid = Grid()
        room = config.cache_megabytes * 2**20
        self._sequences = []
        for path in find_files(config.paths):
            index = _scan(path)
            self.shape = (config.size[0], config.size[1]) if config.size else index.shape
            num_bytes = len(index.stamps) * len(names) * self.shape[0] * self.shape[1]
            keep = num_bytes <= room
            room -= num_bytes if keep else 0
            self._sequences.append(VideoSequence(index, self.shape, config.colour, keep))
        if config.size is None:
            _check_sizes([sequence.index for sequence in self._sequences])
        steps = np.concatenate([np.diff(sequence.times) for sequence in self._sequences])
        # Steps end to end make a series whose differences are all of theirs.
        self.cadence = most_common_difference(np.concatenate([[0], np.cumsum(steps)]), str(config.paths))

    def sequences(self, split: str, count: int | None) -> list["VideoSequence"]:
        """One sequence for each file, whatever the split: time tells the splits apart."""
        return list(self._sequences)


@dataclass(frozen=True)
class VideoIndex:
    """What a file holds: ``stamps`` (N,) presentation times, ascending, in units of ``time_base`` seconds."""

    path: Path
    shape: tuple[int, int]
    stamps: np.ndarray
    time_base: Fraction


class VideoSequence:
    """The frames of one video: ``times`` (N,) int64 ns from its first frame, strictly ascending."""

    def __init__(self, index: VideoIndex, shape: tuple[int, int], colour: bool, keep: bool) -> None:
        self.name = index.path.name
        self.index = index
        unit = index.time_base * NANOSECONDS
        self.times = np.array([round(int(stamp - index.stamps[0]) * unit) for stamp in index.stamps], dtype=np.int64)
        self._shape = shape
        self._colour = colour
        self._keep = keep
        self._kept: np.ndarray | None = None
        self._lock = threading.Lock()

    def read(self, positions: np.ndarray, window: tuple[slice, slice] | None = None) -> np.ndarray:
        """Frames at the positions, (n, C, H, W) float32 from 0 to 255.

        Raises:
            DataError: where a frame that the file lists cannot be decoded.
        """
        positions = np.asarray(positions, dtype=np.int64)
        rows, columns = window or (slice(None), slice(None))
        if not self._keep:
            return self._decode(self.index.stamps[positions])[:, :, rows, columns].astype(np.float32)
        with self._lock:
            if self._kept is None:
                self._kept = self._decode(self.index.stamps)
        return self._kept[:, :, rows, columns][positions].astype(np.float32)

    def _decode(self, stamps: np.ndarray) -> np.ndarray:
        """Frames (n, C, H, W) uint8 shown at the stamps (n,)."""
        if not len(stamps):
            return np.empty((0, 3 if self._colour else 1, *self._shape), dtype=np.uint8)
        first = int(np.searchsorted(self.index.stamps, stamps.min()))
        # Files are sought by storing order, in which a keyframe may come before frames that are shown earlier.
        early = first - _REORDERED
        found = self._decode_from(int(self.index.stamps[early]) if early > 0 else None, stamps)
        if early > 0 and found.keys() < set(stamps.tolist()):
            found = self._decode_from(None, stamps)
        lost = sorted(set(stamps.tolist()) - found.keys())
        if lost:
            seconds = float((lost[0] - int(self.index.stamps[0])) * self.index.time_base)
            raise DataError(f"{self.index.path}: {len(lost)} frames cannot be decoded, the first at {seconds:.3f} s")
        return np.stack([found[stamp] for stamp in stamps.tolist()])

    def _decode_from(self, start: int | None, stamps: np.ndarray) -> dict[int, np.ndarray]:
        """Frames (C, H, W) by stamp, decoded from the keyframe before ``start``, or from the file's beginning."""
        av = _import_av()
        wanted, last = set(stamps.tolist()), int(stamps.max())
        found = {}
        try:
            with av.open(str(self.index.path)) as container:
                stream = container.streams.video[0]
                if start is not None:
                    container.seek(start, stream=stream)
                for frame in container.decode(stream):
                    if frame.pts in wanted:
                        found[frame.pts] = self._pixels(frame)
                    if frame.pts is not None and frame.pts >= last:
                        break
        except (av.error.FFmpegError, EOFError) as error:
            raise DataError(f"{self.index.path}: cannot be decoded: {error}") from error
        return found

    def _pixels(self, frame) -> np.ndarray:
        """One decoded frame as (C, H, W) uint8, cut to the middle and resized."""
        image = Image.fromarray(frame.to_ndarray(format="rgb24" if self._colour else "gray"))
        if image.size != self._shape[::-1]:
            middle = image.crop(_middle(image.size, self._shape))
            image = middle.resize(self._shape[::-1], Image.Resampling.BILINEAR)
        pixels = np.asarray(image)
        return pixels.transpose(2, 0, 1) if self._colour else pixels[None]


def _middle(size: tuple[int, int], shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, upper, right and lower edge of the largest middle part of ``size`` (W, H) with the aspect of ``shape``."""
    scale = min(size[0] / shape[1], size[1] / shape[0])
    width, height = max(round(scale * shape[1]), 1), max(round(scale * shape[0]), 1)
    left, upper = (size[0] - width) // 2, (size[1] - height) // 2
    return left, upper, left + width, upper + height


def _scan(path: Path) -> VideoIndex:
    """List the frames of a file without decoding them."""
    av = _import_av()
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DataError(f"{path}: has no video stream")
            stream = container.streams.video[0]
            packets = [packet for packet in container.demux(stream) if packet.size and not packet.is_discard]
            shape = (stream.height, stream.width)
            _check_complete(path, container, stream, packets)
            stamps = np.array(sorted(packet.pts for packet in packets), dtype=np.int64)
            time_base = stream.time_base
    except (av.error.FFmpegError, OSError) as error:
        size = path.stat().st_size if path.exists() else 0
        raise DataError(f"{path}: not a readable video, or cut short ({size} bytes): {error}") from error
    if (np.diff(stamps) <= 0).any():
        raise DataError(f"{path}: several frames are shown at one time; write the video anew")
    return VideoIndex(path, shape, stamps, time_base)


def _check_complete(path: Path, container, stream, packets: list) -> None:
    """Refuse a file without frames, with broken ones, or with fewer than its header promises."""
    if not packets:
        raise DataError(f"{path}: no frames")
    if any(packet.pts is None for packet in packets):
        raise DataError(f"{path}: frames without a time; write the video anew, for instance as mp4")
    broken = sum(packet.is_corrupt for packet in packets)
    end = max(packet.pts + (packet.duration or 0) for packet in packets) - min(packet.pts for packet in packets)
    seconds = float(end * stream.time_base)
    # An AVI counts the slots where nothing was stored as frames, so the length decides there.
    slots = round(seconds * float(stream.average_rate or 0))
    promised = stream.frames
    if not promised and container.duration and len(container.streams) == 1:
        promised = int(container.duration / 1e6 * float(stream.average_rate or 0)) - 1
    if broken or (len(packets) < promised and slots < promised):
        raise DataError(
            f"{path}: cut short or damaged: {len(packets) - broken} whole frames ({seconds:.1f} s), "
            f"the header promises {promised}"
        )


def _check_sizes(indices: list[VideoIndex]) -> None:
    first = indices[0]
    for index in indices[1:]:
        if index.shape != first.shape:
            raise DataError(
                f"{index.path} has {index.shape[0]} x {index.shape[1]} pixels, {first.path} has {first.shape[0]} x "
                f"{first.shape[1]}; set 'size' to bring them to one"
            )


def _import_av():
    try:
        import av
    except ImportError:
        raise MissingExtra("reading video", "video") from None
    return av
