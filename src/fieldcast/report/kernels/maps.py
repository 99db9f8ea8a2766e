"""Maps of influence: a scale centred on 0, numbers packed for the pointer, and what is drawn over them.

Shapes: N maps of one scale, H rows, W columns.
"""

import base64
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex

from fieldcast.report.frames import data_address, frame_png
from fieldcast.report.scale import MISSING_COLOUR, ColourScale
from fieldcast.report.wording import number_label

INSIDE = 0.95  # of the sum of squares lies in values that the colours hold
HALF = 32  # colours on each side of zero
LEVELS = 500  # codes from zero to where the colours end
NO_VALUE = -32768
# Red raises, blue lowers: the colour-blind can tell these apart.
COLOURS = tuple(to_hex(colour) for colour in colormaps["RdBu_r"](np.linspace(0, 1, 2 * HALF + 1)))


def limit_of(maps: np.ndarray) -> float:
    """Where colours end: the smallest L with sum_{|k| <= L} k^2 >= 0.95 sum k^2; 1 where there is nothing but zeros.

    A percentile of the values would depend on how much of the map lies outside a kernel's reach.
    """
    sizes = np.sort(np.abs(maps[np.isfinite(maps)]))
    if sizes.size == 0 or sizes[-1] == 0:
        return 1.0
    shares = np.cumsum((sizes / sizes[-1]) ** 2)
    return float(sizes[np.searchsorted(shares, INSIDE * shares[-1])])


def diverging_scale(limit: float, label: str) -> ColourScale:
    """Colours from -limit to limit, the middle one around 0."""
    boundaries = limit * (np.arange(-HALF, HALF) + 0.5) / HALF
    return ColourScale(tuple(boundaries.tolist()), COLOURS, label, discrete=False)


def thinned(maps: np.ndarray, step: int) -> np.ndarray:
    """Means of step x step pixels, those that are missing left out: (..., H, W) to (..., H', W')."""
    if step == 1:
        return maps
    height, width = (-(-size // step) for size in maps.shape[-2:])
    room = [(0, 0)] * (maps.ndim - 2)
    room += [(0, -maps.shape[-2] % step), (0, -maps.shape[-1] % step)]
    blocks = np.pad(maps, room, constant_values=np.nan).reshape(*maps.shape[:-2], height, step, width, step)
    known = np.isfinite(blocks).sum(axis=(-3, -1))
    return np.where(known > 0, np.nansum(blocks, axis=(-3, -1)) / np.maximum(known, 1), np.nan)


def packed(maps: np.ndarray, limit: float) -> str:
    """Maps as 16-bit codes of limit / 500, all their low bytes before the high ones, deflated, in base64."""
    codes = np.clip(np.round(maps / (limit / LEVELS)), NO_VALUE + 1, -NO_VALUE - 1)
    whole = np.where(np.isnan(maps), NO_VALUE, codes).astype("<i2").ravel()
    planes = whole.view(np.uint8).reshape(-1, 2).T
    return base64.b64encode(zlib.compress(planes.tobytes(), 9)).decode("ascii")


@dataclass(frozen=True)
class Overlay:
    """What stands on a map of (H, W) pixels: a path and a place, as grid positions of row and column, and a stamp."""

    size: tuple[int, int]
    path: np.ndarray | None = None
    place: tuple[float, float] | None = None
    stamp: str = ""

    def html(self) -> str:
        """The drawing over the map, and the stamp across it."""
        pieces = ""
        if self.path is not None and np.isfinite(self.path).any():
            known = self.path[np.isfinite(self.path).all(axis=1)] + 0.5
            line = "L".join(f"{column:.2f} {row:.2f}" for row, column in known)
            start = "M{1:.2f} {0:.2f}h0".format(*known[0])
            pieces = "".join(f'<path class="{kind}" d="M{line}"/>' for kind in ("casing", "travel"))
            pieces += f'<path class="newest" d="{start}"/>'
        if self.place is not None:
            row, column = (position + 0.5 for position in self.place)
            point = f"M{column:.2f} {row:.2f}h0"
            pieces += "".join(f'<path class="{kind}" d="{point}"/>' for kind in ("ring", "hole", "station"))
        height, width = self.size
        box = f'viewBox="0 0 {width} {height}" preserveAspectRatio="none"'
        drawing = f'<svg class="overlay" aria-hidden="true" {box}>{pieces}</svg>' if pieces else ""
        return drawing + stamp_html(self.stamp)


def stamp_html(text: str) -> str:
    """What a picture of a kernel that fails says across itself."""
    return f'<span class="stamp">{escape(text)}</span>' if text else ""


@dataclass(frozen=True)
class InfluenceMap:
    """Maps (N, H, W), what they are called, their units, and where their colours end (None: as `limit_of` says)."""

    name: str
    units: str
    maps: np.ndarray
    overlay: Overlay
    end: float | None = None

    def html(self) -> str:
        """The first of the maps under its name, with its colours below; the script paints it."""
        limit = limit_of(self.maps) if self.end is None else self.end
        height, width = self.maps.shape[-2:]
        units = f" ({self.units})" if self.units else ""
        return (
            f"<figure><figcaption>{escape(self.name)}<small>{escape(units)}</small></figcaption>"
            f'<div class="frame map" data-codes="{packed(self.maps, limit)}" data-step="{limit / LEVELS:.8g}" '
            f'data-name="{escape(self.name)}" data-units="{escape(self.units)}">'
            f'<canvas width="{width}" height="{height}" role="img" aria-label="{escape(self._alternative())}"></canvas>'
            f"{self.overlay.html()}</div>{ramp_html(limit, self.units)}</figure>"
        )

    def _alternative(self) -> str:
        known = self.maps[np.isfinite(self.maps)]
        ends = "no value"
        if known.size:
            ends = f"values from {number_label(float(known.min()), 3)} to {number_label(float(known.max()), 3)}"
        return f"Map of {self.name}: {ends} {self.units}; {self.overlay.stamp}".rstrip("; ")


def ramp_html(limit: float, units: str) -> str:
    """The colours with their ends."""
    ends = [number_label(-limit, 2), "0", number_label(limit, 2)]
    said = f"Colours from {ends[0]} to {ends[2]} {units}".strip()
    labels = "".join(f"<span>{end}</span>" for end in ends)
    return f'<img class="ramp" src="{RAMP}" alt="{escape(said)}"><div class="ends" aria-hidden="true">{labels}</div>'


RAMP = data_address(frame_png(np.linspace(-1, 1, 2 * HALF + 1)[None], diverging_scale(1.0, "")))


def maps_html(body_html: str, rows: Sequence[str], columns: Sequence[str]) -> str:
    """A group of maps of one grid, and the line that says what lies under the pointer."""
    known = {"rows": list(rows), "columns": list(columns), "colours": [*COLOURS, MISSING_COLOUR], "levels": LEVELS}
    attributes = "".join(
        f' data-{name}="{escape(json.dumps(value, ensure_ascii=False, separators=(",", ":")))}"'
        for name, value in known.items()
    )
    quiet = "Point at a map to read its values."
    return f'<div class="maps"{attributes}><p class="readout screen">{quiet}</p>{body_html}</div>'
