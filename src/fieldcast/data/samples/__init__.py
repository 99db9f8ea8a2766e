"""Small real data that ship inside the package, so that the first command needs no download."""

from importlib.resources import files
from pathlib import Path

from fieldcast.errors import DataError
from fieldcast.settings import nearest

PACKAGED = "packaged:"


def radar_sample_path() -> Path:
    """Path of the radar rain sample: `rainfall_amount` (time, y, x) in mm per 5 minutes, Deutscher Wetterdienst."""
    return Path(str(files(__name__) / "radar_dwd_yw.nc"))


def packaged_path(text: str) -> Path:
    """Path of a sample that a configuration names, such as "packaged:radar_dwd_yw.nc".

    Raises:
        DataError: where no sample has this name.
    """
    samples = {
        f"{PACKAGED}{path.name}": Path(str(path)) for path in files(__name__).iterdir() if path.name[-3:] == ".nc"
    }
    if text not in samples:
        raise DataError(f"{text}: no such file in the package: {nearest(text, samples)}")
    return samples[text]
