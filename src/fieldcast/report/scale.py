"""Which colour a value is shown in: steps of rain rate, or viridis between the observed extremes.

H rows, W columns.
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.colors import to_hex

RAIN_UNITS = ("mm/h", "mm h-1", "mm hr-1", "mm/hr", "mm h^-1")
RAIN_BOUNDARIES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
# Blue darkens up to 2 mm/h; the break to yellow marks rain that matters and stays visible to the colour-blind.
RAIN_COLOURS = (
    "#f6f7f4",
    "#d0e5f5",
    "#a0cbea",
    "#68aad8",
    "#3c85c0",
    "#275ba4",
    "#f7d64c",
    "#f29a38",
    "#df4a2e",
    "#a81d5c",
    "#4b1060",
)
MISSING_COLOUR = "#a9a9a9"
NUM_LINEAR_COLOURS = 64


@dataclass(frozen=True)
class ColourScale:
    """Colours of values: ``colours[i]`` from ``boundaries[i - 1]`` up to below ``boundaries[i]``.

    There is one colour more than there are boundaries: below the first, and from the last on.
    """

    boundaries: tuple[float, ...]
    colours: tuple[str, ...]
    label: str
    discrete: bool

    def positions(self, values: np.ndarray) -> np.ndarray:
        """Index of each value's colour, uint8 of the same shape; a missing value has index ``len(colours)``."""
        positions = np.searchsorted(self.boundaries, np.nan_to_num(values), side="right")
        return np.where(np.isnan(values), len(self.colours), positions).astype(np.uint8)

    def palette(self) -> np.ndarray:
        """Colours and after them the missing one, (len(colours) + 1, 3) uint8."""
        names = (*self.colours, MISSING_COLOUR)
        return np.array([[int(name[start : start + 2], 16) for start in (1, 3, 5)] for name in names], dtype=np.uint8)

    def image(self, values: np.ndarray) -> np.ndarray:
        """Values (H, W) as colours, (H, W, 3) uint8."""
        return self.palette()[self.positions(values)]


def colour_scale(cases: list[xr.DataArray], label: str) -> ColourScale:
    """One scale for all panels of the cases of one variable: rain steps for mm/h, else linear viridis."""
    if cases[0].attrs.get("units") in RAIN_UNITS:
        return ColourScale(RAIN_BOUNDARIES, RAIN_COLOURS, label, discrete=True)
    low, high = _observed_range(cases)
    samples = colormaps["viridis"](np.linspace(0, 1, NUM_LINEAR_COLOURS))
    colours = tuple(to_hex(sample) for sample in samples)
    boundaries = np.linspace(low, high, NUM_LINEAR_COLOURS + 1)[1:-1]
    return ColourScale(tuple(boundaries.tolist()), colours, label, discrete=False)


def _observed_range(cases: list[xr.DataArray]) -> tuple[float, float]:
    """Smallest and largest finite observed value; a range of width 1 where there are no two different ones."""
    observed = np.concatenate([case.isel(panel=0).values.ravel() for case in cases])
    finite = observed[np.isfinite(observed)]
    if finite.size == 0:
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    return (low, high) if high > low else (low - 0.5, low + 0.5)
