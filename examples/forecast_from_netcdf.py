"""From radar frames in NetCDF to a forecast in NetCDF, in Python: the demonstration's data, a few steps of training."""

import tempfile
from pathlib import Path

import xarray as xr

import fieldcast as fc
from fieldcast.data.samples import radar_sample_path
from fieldcast.demo import demo_settings

settings = demo_settings()
settings["model"] |= {"widths": [4, 8, 8]}
settings["training"] |= {"num_steps": 4, "validation": {"every": 4, "num_samples": 2}}

with tempfile.TemporaryDirectory() as folder:
    run = fc.train(fc.read_config(settings), Path(folder) / "run")
    scores = fc.evaluate(run, split="test", num_samples=4)
    print(scores.mse.sel(space="physical").to_pandas().round(3).T)

    with xr.open_dataset(radar_sample_path(), engine="h5netcdf") as radar:
        past = radar.sel(time=slice("2018-05-19T23:00", "2018-05-20T01:00"))
        forecast = fc.forecast(run, past, minutes=[5, 30, 60])
    fc.save_forecast(forecast, Path(folder) / "forecast.nc")
    print(forecast)
