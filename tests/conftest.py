"""Small data and configurations that whole runs are made of in seconds."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from fieldcast.config import RunConfig, read_config


@pytest.fixture(scope="session")
def digits_file(tmp_path_factory) -> Path:
    """Forty made-up digits: grey rectangles on black."""
    random = np.random.default_rng(0)
    images = np.zeros((40, 28, 28), np.uint8)
    for image in images:
        top, left = random.integers(6, 12, 2)
        image[top : top + random.integers(6, 12), left : left + random.integers(6, 12)] = random.integers(100, 256)
    path = tmp_path_factory.mktemp("digits") / "digits.npz"
    np.savez(path, images=images)
    return path


def radar_dataset(num_frames=60, extent=16, missing=0.0, seed=0) -> xr.Dataset:
    """Rain in mm/h, 5 minutes apart, that moves one pixel a frame; a share of the pixels is missing."""
    random = np.random.default_rng(seed)
    still = 8 * random.random((extent, extent)) ** 4
    rain = np.stack([np.roll(still, (frame, frame), (0, 1)) for frame in range(num_frames)]).astype(np.float32)
    rain[random.random(rain.shape) < missing] = np.nan
    times = np.datetime64("2018-05-10", "ns") + np.arange(num_frames) * np.timedelta64(5, "m")
    axes = {name: (name, np.arange(extent) * 1000.0, {"units": "m"}) for name in ("y", "x")}
    return xr.Dataset({"rain": (("time", "y", "x"), rain, {"units": "mm/h"})}, {"time": times, **axes})


@pytest.fixture(scope="session")
def radar_file(tmp_path_factory) -> Path:
    """Sixty frames of rain, a tenth of the pixels missing."""
    path = tmp_path_factory.mktemp("radar") / "radar.nc"
    radar_dataset(missing=0.1).to_netcdf(path, engine="h5netcdf")
    return path


@pytest.fixture
def tiny_values(digits_file, radar_file):
    """Makes plain values of a configuration that trains in a second; keys are ``table.key``."""

    def make(source: str = "digits", model: str = "convgru", **changes) -> dict:
        sources = {
            "digits": {"key": "moving-mnist", "digits": str(digits_file), "size": 32, "num_frames": 6},
            "radar": {"key": "netcdf", "paths": str(radar_file), "variables": ["rain"], "transform": "log-rate"},
        }
        splits = {
            "digits": {"train": 10, "validation": 3, "test": 2},
            "radar": {"train": 0.5, "validation": 0.25, "test": 0.25},
        }
        models = {
            "convgru": {"widths": [4, 4], "strides": [1, 2], "head_width": 4},
            "trajgru": {"widths": [4, 4], "strides": [1, 2], "head_width": 4, "num_links": 2, "flow_width": 4},
            "convlstm": {"widths": [4, 4], "input_kernel": 3, "state_kernel": 3},
            "convlstm-stack": {"widths": [4, 4], "kernel": 3},
            "trajgru-attention-ode": {
                "widths": [4, 4],
                "strides": [1, 2],
                "head_width": 4,
                "num_links": 2,
                "flow_width": 4,
                "encoder_attention": [2],
                "decoder_attention": [1, 2],
                "ode": {"width": 3, "depth": 1},
            },
            "vid-ode": {
                "widths": [4, 4],
                "encoder_ode": {"width": 4, "depth": 1},
                "decoder_ode": {"width": 4, "depth": 1},
                "sequence_frames": 2,
            },
            "latent-ode": {"widths": [4, 4], "features": 8, "state_width": 4, "gate_width": 6},
        }
        values = {
            "name": "tiny",
            "source": sources[source],
            "windows": {"num_inputs": 3, "num_targets": 3},
            "splits": splits[source],
            "model": {"key": model, **models[model]},
            "loss": {"mse": 1.0, "mae": 1.0},
            "training": {"num_steps": 6, "batch_size": 4, "learning_rate": 1e-3, "validation": {"every": 2}},
        }
        for place, value in changes.items():
            *tables, key = place.split(".")
            table = values
            for name in tables:
                table = table.setdefault(name, {})
            table[key] = value
        return values

    return make


@pytest.fixture
def tiny_config(tiny_values):
    """As ``tiny_values``, read."""

    def make(source: str = "digits", model: str = "convgru", **changes) -> RunConfig:
        return read_config(tiny_values(source, model, **changes))

    return make
