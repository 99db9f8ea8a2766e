"""Made-up kernels and hydrographs that have everything a page can show, with markup in their names.

Shapes: Q outputs, T lags, H rows, W columns.
"""

import numpy as np
import xarray as xr
from report.synthetic import HOSTILE

FIELDS = {"precipitation": "mm/day", "air_temperature": "K"}
SURROGATES = ("reference", "average", "least squares")
RIVERS = ("08MF005", "08NA002", f"05BB001 {HOSTILE}")
SCORES = (0.91, 0.21, np.nan)  # R2 of the average against the network, river by river


def days(values) -> np.ndarray:
    return np.asarray(values, dtype="timedelta64[D]").astype("timedelta64[ns]")


def make_kernels(outputs=RIVERS, num_lags=12, size=(12, 32), fields=FIELDS, attributions=True) -> xr.Dataset:
    """Kernels whose weight walks away from each station while lag grows; latitude ascends from row to row."""
    random = np.random.default_rng(7)
    height, width = size
    lags, rows, columns = np.arange(num_lags), np.arange(height), np.arange(width)
    latitudes, longitudes = 48 + rows * 1.0, -135 + columns * 0.75
    place = random.uniform(0.3, 0.7, (len(outputs), 2)) * size
    dimensions = ("output", "lag", "latitude", "longitude")
    data: dict = {}
    for number, (field, units) in enumerate(fields.items()):
        middle = place[:, None] + lags[:, None] * np.array([0.15, -0.5 + number])
        distance = (rows[:, None] - middle[..., 0, None, None]) ** 2 + (columns - middle[..., 1, None, None]) ** 2
        decay = (lags + 1) * np.exp(-lags / (2 + number))
        kernel = (1 - 2 * number) * 3.0 * np.exp(-distance / 8) * decay[:, None, None]
        kernel = kernel + 0.02 * random.normal(size=kernel.shape) * (distance < 40)[..., :, :]
        kernel[:, :, :2, :2] = np.nan
        described = {"units": f"m3/s per {units}", "field": field, "field_units": units}
        data[f"kernel_{field}"] = (dimensions, kernel.astype(np.float32), described)
        data[f"kernel_error_{field}"] = (dimensions, np.full_like(kernel, 0.02, dtype=np.float32))
        data[f"lag_curve_error_{field}"] = (dimensions[:2], 0.1 * np.abs(np.nansum(kernel, axis=(2, 3))))
        if attributions:
            for name, share in (("contribution", 1.0), ("integrated_gradients", 0.8), ("occlusion", 0.6)):
                values = share * kernel + 0.1 * random.normal(size=kernel.shape)
                data[f"{name}_{field}"] = (dimensions, values.astype(np.float32), {"units": "m3/s"})
    coordinates = {
        "output": list(outputs),
        "lag": days(lags),
        "latitude": ("latitude", latitudes, {"units": "degrees_north", "standard_name": "latitude"}),
        "longitude": ("longitude", longitudes, {"units": "degrees_east", "standard_name": "longitude"}),
        "title": ("output", [f"River {name[-9:]}" for name in outputs]),
        "lead_time": ("output", days(np.zeros(len(outputs), dtype=int))),
        "output_latitude": ("output", np.interp(place[:, 0], rows, latitudes)),
        "output_longitude": ("output", np.interp(place[:, 1], columns, longitudes)),
    }
    scores = np.resize(SCORES, len(outputs))
    r2 = np.stack([np.stack([scores - 0.3, scores - 0.4]), np.stack([scores, scores - 0.1])])
    r2 = np.concatenate([r2, r2[1:] + 0.02])
    against, table = ["network", "observed"], ("surrogate", "against", "output")
    coordinates |= {"surrogate": list(SURROGATES), "against": against}
    coordinates |= {"flow": ["low", "middle", "high"], "season": ["DJF", "MAM", "JJA", "SON"]}
    data["r2"], data["nse"] = (table, r2), (table, r2 - 0.05)
    for name in ("flow", "season"):
        shares = np.linspace(-0.2, 0.1, len(coordinates[name]))[:, None]
        data[f"r2_by_{name}"] = (("surrogate", "against", name, "output"), r2[:, :, None] + shares)
    data["value"] = (("output",), np.ones(len(outputs)), {"units": "m3/s"})
    attributes = {"surrogate": "average", "method": "adjoint", "num_sequences": 400, "threshold": 0.5}
    return xr.Dataset(data, coordinates, attributes)


def make_pixel_kernels(size=(180, 220), num_lags=5) -> xr.Dataset:
    """The kernel of one pixel of a radar model, on projected axes, never tested."""
    made = make_kernels(("pixel (y 60000, x 90000)",), num_lags, size, {"rain_rate": "mm/h"}, attributions=False)
    made = made.drop_vars(["r2", "nse", "r2_by_flow", "r2_by_season", "title", "output_latitude", "output_longitude"])
    made = made.rename({"latitude": "y", "longitude": "x"})
    made["y"] = ("y", np.arange(size[0]) * 1000.0, {"units": "m", "standard_name": "projection_y_coordinate"})
    made["x"] = ("x", np.arange(size[1]) * 1000.0, {"units": "m", "standard_name": "projection_x_coordinate"})
    made["lag"] = np.arange(num_lags) * np.timedelta64(5, "m").astype("timedelta64[ns]")
    return made.assign_coords(output_y=("output", [60_000.0]), output_x=("output", [90_000.0]))


def make_hydrographs(num_stations=9, num_days=700, leads=(0, 1, 3)) -> xr.Dataset:
    """Snow rivers with a gap; the model is worse from station to station, persistence lags behind."""
    random = np.random.default_rng(3)
    time = np.datetime64("2009-10-01", "ns") + days(np.arange(num_days))
    season = np.exp(-(((np.arange(num_days) % 365) - 250) ** 2) / 2500)
    size = random.uniform(20, 400, num_stations)
    rain = np.maximum(random.normal(size=(num_days, num_stations)), 0) * 0.1
    observed = size * (0.1 + season[:, None] + rain)
    flow = np.empty((4, len(leads), num_days, num_stations), dtype=np.float32)
    for number, lead in enumerate(leads):
        error = np.linspace(0.05, 0.7, num_stations) * size * (1 + 0.1 * lead)
        noise = random.normal(size=rain.shape)
        smooth = np.stack([np.convolve(column, np.ones(20) / 5, "same") for column in noise.T], axis=1)
        flow[0, number] = observed
        flow[1, number] = observed + error * smooth * 0.4
        flow[2, number] = np.roll(observed, lead + 2, axis=0)
        flow[3, number] = observed.mean(axis=0)
    flow[0, :, 100:130, 0] = np.nan
    flow[0, :, :, -1] = np.nan  # this river was never gauged here
    names = [f"08{chr(65 + number % 26)}A{number:03d}" for number in range(num_stations)]
    coordinates = {
        "model": ["observed", f"runoff-convlstm {HOSTILE}", "persistence", "climatology"],
        "lead_time": days(leads),
        "time": time,
        "station": names,
        "title": ("station", [f"River {number} {HOSTILE if number == 0 else ''}" for number in range(num_stations)]),
        "latitude": ("station", random.uniform(48, 60, num_stations)),
        "longitude": ("station", random.uniform(-135, -112, num_stations)),
    }
    made = xr.Dataset({"flow": (("model", "lead_time", "time", "station"), flow)}, coordinates)
    made["flow"].attrs = {"units": "m3/s", "long_name": "discharge"}
    return made
