"""A small archive in the layout of HKO-7, made of moving blobs."""

import datetime
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

DAYS = {"train": ("20140601", "20140602", "20140605"), "validation": ("20140603",), "test": ("20150520",)}


def frame_path(folder: Path, day: str, minute: int, ending: str = "png") -> Path:
    when = datetime.datetime.strptime(day, "%Y%m%d") + datetime.timedelta(minutes=minute)
    return folder / when.strftime("%Y/%m/%d") / f"RAD{when:%y%m%d%H%M}00.{ending}"


def write_mask(path: Path, counts: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(zlib.compress(counts.astype(np.uint8).tobytes()))


def write_hko7(folder: Path, num_frames: int = 12, extent: int = 24, missing: tuple[int, ...] = ()) -> dict:
    """Write ``num_frames`` frames of each day from midnight, but those in ``missing``; plain values of a source."""
    random = np.random.default_rng(3)
    for day in [day for days in DAYS.values() for day in days]:
        still = (255 * random.random((extent, extent)) ** 2).astype(np.uint8)
        still[:4] = 0
        for number in range(num_frames):
            if number in missing:
                continue
            pixels = np.roll(still, number, 1)
            path = frame_path(folder / "radarPNG", day, 6 * number)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
            write_mask(frame_path(folder / "radarPNG_mask", day, 6 * number, "mask"), (pixels == 0) | (pixels > 20))
    for split, days in DAYS.items():
        (folder / f"{split}.txt").write_text("".join(f"{day}, {number}.5\n" for number, day in enumerate(days)))
    lists = {f"{split}_days": str(folder / f"{split}.txt") for split in DAYS}
    return {"key": "hko7", "frames": str(folder / "radarPNG"), "masks": str(folder / "radarPNG_mask"), **lists}
