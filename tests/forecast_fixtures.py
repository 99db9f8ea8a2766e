"""One tiny run, trained once on moving blobs of rain, that the tests of whatever follows training share."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from fieldcast.config import read_config
from fieldcast.run import Run
from fieldcast.training.loop import train

NUM_FRAMES, NUM_ROWS, NUM_COLUMNS, NUM_INPUTS, NUM_TARGETS = 72, 16, 24, 3, 3
START = np.datetime64("2018-05-10T00:00", "ns")
ATTRIBUTES = {"units": "mm/h", "standard_name": "rainfall_rate", "long_name": "rain rate"}
_made: dict[str, Path] = {}


def make_rain(num_frames=NUM_FRAMES, num_rows=NUM_ROWS, num_columns=NUM_COLUMNS, times=None, spacing=1000.0):
    """Three blobs of rain in mm/h that move over the map, 5 minutes apart; the last column is never seen."""
    frame, row, column = np.mgrid[:num_frames, :num_rows, :num_columns]
    rain = np.zeros(frame.shape, np.float32)
    for number, (speed_down, speed_right) in enumerate([(0.3, 1.0), (-0.5, 0.7), (0.2, -0.9)]):
        down = (row - 5 * number - speed_down * frame) % num_rows - num_rows / 2
        right = (column - 7 * number - speed_right * frame) % num_columns - num_columns / 2
        rain += (6 + 2 * number) * np.exp(-(down**2 + right**2) / (6 + 4 * number))
    rain[:, :, -1] = np.nan
    times = START + np.arange(num_frames) * np.timedelta64(5, "m") if times is None else times
    axes = {
        name: (name, np.arange(size) * spacing, {"units": "m", "standard_name": f"projection_{name}_coordinate"})
        for name, size in (("y", num_rows), ("x", num_columns))
    }
    return xr.Dataset({"rain": (("time", "y", "x"), rain, ATTRIBUTES)}, {"time": times, **axes})


def run_values(path, variables=("rain",), **changes) -> dict:
    """Plain values of a configuration on a file of rain; keys are ``table.key``, or ``table``."""
    values = {
        "name": "tiny",
        "seed": 3,
        "source": {"key": "netcdf", "paths": str(path), "variables": list(variables), "transform": "log-rate"},
        "windows": {"num_inputs": NUM_INPUTS, "num_targets": NUM_TARGETS},
        "splits": {"train": 0.5, "validation": 0.25, "test": 0.25},
        "model": {"key": "convgru", "widths": [4, 4], "strides": [1, 2], "head_width": 4},
        "loss": {"mse": 1.0, "mae": 1.0},
        "training": {"num_steps": 4, "batch_size": 4, "learning_rate": 1e-2, "validation": {"every": 2}},
    }
    for place, value in changes.items():
        *table, key = place.split(".")
        (values.setdefault(table[0], {}) if table else values)[key] = value
    return values


def train_on(dataset: xr.Dataset, folder: Path, variables=("rain",), **changes) -> Run:
    """Write the data set into the folder and train on it."""
    folder.mkdir(parents=True, exist_ok=True)
    dataset.to_netcdf(folder / "data.nc", engine="h5netcdf")
    return train(read_config(run_values(folder / "data.nc", variables, **changes)), folder / "run", "cpu")


@pytest.fixture(scope="session")
def shared_run(tmp_path_factory) -> Run:
    """The run; tests that write into a run take ``tiny_run``."""
    # Each module that imports this fixture has one of its own.
    if "run" not in _made:
        _made["run"] = train_on(make_rain(), tmp_path_factory.mktemp("tiny")).folder
    return Run(_made["run"])


@pytest.fixture
def tiny_run(shared_run, tmp_path) -> Run:
    """A copy of the run to write into."""
    return Run(Path(shutil.copytree(shared_run.folder, tmp_path / "runs" / "tiny")))


@pytest.fixture(scope="session")
def rain_file(shared_run) -> Path:
    """The file that the run was trained on."""
    return shared_run.folder.parent / "data.nc"
