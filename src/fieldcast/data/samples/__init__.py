"""Small real data that ship inside the package, so that the first command needs no download."""

from importlib.resources import files
from pathlib import Path


def radar_sample_path() -> Path:
    """Path of the radar rain sample: `rainfall_amount` (time, y, x) in mm per 5 minutes, Deutscher Wetterdienst."""
    return Path(str(files(__name__) / "radar_dwd_yw.nc"))
