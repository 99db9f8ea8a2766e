"""The frames of all cases as small palette PNG files inside the page, thinned where they would make it too large.

P panels, L lead times, H rows, W columns.
"""

import base64
import io
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from PIL import Image

from fieldcast.report.contents import row_zero_is_bottom
from fieldcast.report.scale import ColourScale

MAX_CHARACTERS = 6_500_000  # of all frames in the page, so that the page with everything else stays below 8 MB
NUM_TRIED = 24  # frames of each case that tell how small frames become


class Shown(NamedTuple):
    """The frames of a case and the colours they are shown in."""

    frames: xr.DataArray
    scale: ColourScale

    def is_absent(self, panel: int, lead: int) -> bool:
        """Whether a panel has no frame because it is the time of an input."""
        return bool(self.frames.is_input.values[lead] and np.isnan(self.frames.values[panel, lead]).all())

    def address(self, panel: int, lead: int, step: int) -> str | None:
        """Every ``step``-th row and column of a frame as the address of a PNG file; None where it is absent."""
        if self.is_absent(panel, lead):
            return None
        values = self.frames.values[panel, lead, ::step, ::step]
        return data_address(frame_png(values[::-1] if row_zero_is_bottom(self.frames) else values, self.scale))

    def addresses(self, step: int) -> list[list[str | None]]:
        """Addresses (P, L) of all frames."""
        num_panels, num_leads = self.frames.shape[:2]
        return [[self.address(panel, lead, step) for lead in range(num_leads)] for panel in range(num_panels)]


def encode(cases: Sequence[Shown]) -> tuple[int, list[list[list[str | None]]]]:
    """All frames of all cases, every n-th row and column of them so that they fit into the page.

    Returns:
        n, and for each case its addresses (P, L).
    """
    step = _smallest_step(cases)
    while True:
        encoded = [case.addresses(step) for case in cases]
        size = sum(len(address) for case in encoded for panel in case for address in panel if address)
        if size <= MAX_CHARACTERS or step >= max(max(case.frames.shape[2:]) for case in cases):
            return step, encoded
        step += 1


def _smallest_step(cases: Sequence[Shown]) -> int:
    """The step that some frames, tried out, let hope for: it errs on the side of too small a step."""
    step = 1
    while (size := sum(_estimate(case, step) for case in cases)) > 1.1 * MAX_CHARACTERS:
        step = max(step + 1, math.floor(step * math.sqrt(size / MAX_CHARACTERS)))
    return step


def _estimate(case: Shown, step: int) -> float:
    """Characters that all frames of a case will take."""
    num_panels, num_leads = case.frames.shape[:2]
    places = [divmod(at, num_leads) for at in range(0, num_panels * num_leads, -(-num_panels * num_leads // NUM_TRIED))]
    sizes = [len(case.address(panel, lead, step) or "") for panel, lead in places]
    return num_panels * num_leads * float(np.mean(sizes)) if sizes else 0.0


def data_address(content: bytes) -> str:
    """A PNG file as an address that holds the whole file."""
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")


def frame_png(values: np.ndarray, scale: ColourScale) -> bytes:
    """Values (H, W) as a palette PNG, the first row at the top."""
    height, width = values.shape
    image = Image.frombytes("P", (width, height), scale.positions(values).tobytes())
    image.putpalette(scale.palette().tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=9)
    return buffer.getvalue()
