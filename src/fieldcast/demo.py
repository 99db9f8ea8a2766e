"""The demonstration: real radar rain that ships with the package, a network trained here, a verified forecast."""

from pathlib import Path
from typing import Any

import xarray as xr

from fieldcast.config import read_config
from fieldcast.data.samples import radar_sample_path
from fieldcast.evaluation import evaluate
from fieldcast.forecast import forecast, save_forecast
from fieldcast.report.run_report import report
from fieldcast.run import Run
from fieldcast.training.loop import train

MINUTES = (5, 10, 15, 20, 30, 40, 50, 60)
TEST_SAMPLES = 52  # every second one: neighbours share eleven of their twelve frames


def demo_settings() -> dict[str, Any]:
    """The demonstration's configuration: three early rain events to train on, one to validate, the last to test."""
    return {
        "name": "demo",
        "seed": 0,
        "source": {
            "key": "netcdf",
            "paths": str(radar_sample_path()),
            "variables": ["rainfall_amount"],
            "units": "mm/h",
            "transform": "log-rate",
        },
        "windows": {"num_inputs": 6, "num_targets": 12, "crop": 64},
        "splits": {
            "train": ["2018-05-10", "2018-05-16T12:00"],
            "validation": ["2018-05-16T12:00", "2018-05-19"],
            "test": ["2018-05-19", "2018-05-21"],
        },
        "model": {"key": "convgru", "widths": [16, 32, 48], "strides": [2, 2, 2]},
        "loss": {"mse": 1.0, "mae": 0.5, "ssim": 0.05},
        "training": {
            "num_steps": 400,
            "batch_size": 4,
            "learning_rate": 2e-3,
            "clip_norm": 1.0,
            "max_minutes": 3.8,
            "schedule": {"shape": "cosine", "warmup_steps": 40, "floor": 0.02},
            "validation": {"every": 100, "num_samples": 12},
        },
        # The test event lasts ten hours: blocks of a sample's length are the longest that leave enough of them.
        "evaluation": {"scales": [1, 9, 33], "block_length": "90 min"},
    }


def demo(folder: Path | str = "runs/demo", device: str = "auto") -> Run:
    """Train on the early rain events of the sample, score on the last one, forecast it, and write the report.

    Returns:
        the run, with scores.nc, forecast.nc, report.html and figures in its folder.
    """
    run = train(read_config(demo_settings(), "demo"), folder, device)
    evaluate(run, "test", TEST_SAMPLES, device)
    with xr.open_dataset(radar_sample_path(), engine="h5netcdf") as sample:
        past = sample.sel(time=slice("2018-05-19T22:00", "2018-05-20T01:00"))
        save_forecast(forecast(run, past, MINUTES, device), run.folder / "forecast.nc")
    report(run)
    return run
