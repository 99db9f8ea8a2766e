"""Which rain, where, moves a river: weather.nc flow.nc kernels.png as arguments; without any, on a made-up river."""

import sys
import tempfile

import numpy as np
import xarray as xr

import fieldcast as fc
from fieldcast.report.kernels import kernel_figure

with tempfile.TemporaryDirectory() as folder:
    weather, flow, picture = sys.argv[1:] or [f"{folder}/{name}" for name in ("weather.nc", "flow.nc", "kernels.png")]
    if not sys.argv[1:]:
        days = np.datetime64("2020-01-01", "ns") + np.arange(120) * np.timedelta64(1, "D")
        values = np.random.default_rng(0).gamma(0.3, 9.0, (120, 8, 8)).astype("float32")
        rain = xr.DataArray(values, {"time": days}, ("time", "y", "x"), "rain", {"units": "mm"})
        river = 1 + sum(0.6**lag * rain[:, 2:5, 3:6].mean(("y", "x")).shift(time=lag, fill_value=0) for lag in range(3))
        rain.to_netcdf(weather, engine="h5netcdf")
        river = river.expand_dims(station=["Ilm"]).T.rename("flow").assign_attrs(units="m3/s")
        river.to_netcdf(flow, engine="h5netcdf")
    source = {"key": "runoff", "paths": weather, "variables": ["rain"], "flow": flow, "flow_transform": "identity"}
    config = {"name": "river", "source": source, "windows": {"num_inputs": 5, "num_targets": 1, "first_lead": 0}}
    config |= {"splits": {"train": 0.6, "validation": 0.15, "test": 0.25}, "loss": {"mse": 1.0}}
    config |= {"model": {"key": "runoff-convlstm", "hidden_width": 4, "kernel": 3, "head_widths": [16, 8]}}
    config |= {"training": {"num_steps": 150, "batch_size": 16, "learning_rate": 1e-2}}
    kernels = fc.explain(fc.train(fc.read_config(config), f"{folder}/run"))
    kernel_figure(kernels, str(kernels.output.values[0])).savefig(picture)
    print(kernels.r2.to_series().unstack("against"))
