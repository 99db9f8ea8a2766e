"""A run of rivers small enough to train in seconds, from two NetCDF files."""

import numpy as np
import pytest
import xarray as xr

from fieldcast.config import read_config
from fieldcast.training.loop import train

NUM_DAYS, SIZE, NUM_STATIONS = 160, (5, 6), 4


def write_rivers(folder):
    """Weather and flow (time, station) of made-up rivers: rain of today, and half of yesterday's, at one pixel each."""
    random = np.random.default_rng(3)
    times = np.datetime64("2015-01-01", "ns") + np.arange(NUM_DAYS) * np.timedelta64(1, "D")
    rain = (10 * random.random((NUM_DAYS, *SIZE)) ** 3).astype(np.float32)
    warmth = (280 + 5 * random.random((NUM_DAYS, *SIZE))).astype(np.float32)
    axes = {
        "latitude": ("latitude", 50 - 0.5 * np.arange(SIZE[0]), {"units": "degrees_north"}),
        "longitude": ("longitude", 10 + 0.5 * np.arange(SIZE[1]), {"units": "degrees_east"}),
    }
    places = ("time", "latitude", "longitude")
    weather = xr.Dataset(
        {"rain": (places, rain, {"units": "mm"}), "warmth": (places, warmth, {"units": "K"})}, {"time": times, **axes}
    )
    pixels = rain.reshape(NUM_DAYS, -1)[:, 7 : 7 + NUM_STATIONS]
    flow = 3 + 5 * pixels + 2.5 * np.concatenate([pixels[:1], pixels[:-1]])
    flow[20:24, 0] = np.nan
    names = [f"R{number}" for number in range(NUM_STATIONS)]
    rivers = xr.Dataset(
        {"flow": (("time", "station"), flow.astype(np.float32), {"units": "m3 s-1"})},
        {
            "time": times,
            "station": names,
            "latitude": ("station", np.full(NUM_STATIONS, 49.5), {"units": "degrees_north"}),
            "longitude": ("station", 10.5 + 0.5 * np.arange(NUM_STATIONS), {"units": "degrees_east"}),
            "title": ("station", [f"River {name}" for name in names]),
        },
    )
    paths = folder / "weather.nc", folder / "flow.nc"
    weather.to_netcdf(paths[0], engine="h5netcdf")
    rivers.to_netcdf(paths[1], engine="h5netcdf")
    return paths


def river_values(paths, **model):
    """Plain values of a configuration."""
    return {
        "name": "rivers",
        "source": {
            "key": "runoff",
            "paths": str(paths[0]),
            "variables": ["rain", "warmth"],
            "flow": str(paths[1]),
            "catchment_radius": "60 km",
        },
        "windows": {"num_inputs": 4, "num_targets": 2, "first_lead": 0},
        "splits": {"train": 0.6, "validation": 0.2, "test": 0.2},
        "model": {
            "key": "runoff-convlstm",
            "hidden_width": 3,
            "kernel": 3,
            "head": "catchment",
            "head_widths": [6, 5],
            **model,
        },
        "loss": {"mse": 1.0},
        "training": {"num_steps": 6, "batch_size": 8, "learning_rate": 1e-2, "validation": {"every": 3}},
        "evaluation": {"num_resamples": 50, "block_length": "5 d"},
    }


@pytest.fixture(scope="session")
def river_files(tmp_path_factory):
    """Paths of weather.nc and flow.nc."""
    return write_rivers(tmp_path_factory.mktemp("rivers"))


@pytest.fixture(scope="session")
def river_run(river_files, tmp_path_factory):
    """A run that was trained on them; tests must not change its folder."""
    return train(read_config(river_values(river_files)), tmp_path_factory.mktemp("river-run") / "run", device="cpu")
