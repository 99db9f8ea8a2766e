"""Rivers of south-western Canada (Anderson and Radic, HESS 26, 795, 2022): from their archive to two NetCDF files.

The archive holds 729 days of ERA5 on a grid and 365 days of flow at 226 gauges, all normalised, without dates. Flow t
goes with the weather of day t + 365, whose rain it follows most closely; the last one has no weather and is left out.
The seasons fit a start on 1 January, so that days are counted from 2014-01-01, which is assumed, not known.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
import xarray as xr

FIELDS = {"tmax": "highest temperature", "tmin": "lowest temperature", "precipitation": "precipitation"}
REFERENCE = "Anderson and Radic, Hydrol. Earth Syst. Sci. 26, 795 (2022); normalised per field or gauge"
DATES = "dates are assumed: the archive has none; its seasons fit a first day of 1 January, here of 2014"


def convert(archive: Path, station_table: Path, folder: Path) -> tuple[Path, Path]:
    """Write weather.nc (time, latitude, longitude) and flow.nc (time, station) into the folder."""
    with np.load(archive) as stored, station_table.open(newline="", encoding="utf-8") as table:
        values, rows = dict(stored), list(csv.DictReader(table))
    # The table counts longitudes west of Greenwich.
    for column, key, sign in (("Latitude", "station_lat", 1), ("Longitude", "station_lon", -1)):
        if not np.allclose([sign * float(row[column]) for row in rows], values[key], atol=0.01):
            raise ValueError(f"{station_table}: column {column} and the archive's {key} name different gauges")
    days = np.datetime64("2014-01-01", "ns") + np.arange(len(values["x"])) * np.timedelta64(1, "D")
    first, attributes = len(values["y"]), {"references": REFERENCE, "comment": DATES}
    with_weather = len(days) - first
    north, east = {"units": "degrees_north"}, {"units": "degrees_east"}

    weather = xr.Dataset(attrs=attributes, coords={"time": days})
    weather = weather.assign_coords(latitude=("latitude", values["grid_lat"], north))
    weather = weather.assign_coords(longitude=("longitude", values["grid_lon"], east))
    for number, (name, text) in enumerate(FIELDS.items()):
        field = values["x"][..., number].astype(np.float32)
        weather[name] = ("time", "latitude", "longitude"), field, {"units": "1", "long_name": f"{text} of the day"}

    flow = xr.Dataset(attrs=attributes, coords={"time": days[first:]})
    flow = flow.assign_coords(station=[row["Station Number"] for row in rows])
    flow = flow.assign_coords(title=("station", [row["Station Name"].strip() for row in rows]))
    flow = flow.assign_coords(latitude=("station", values["station_lat"], north))
    flow = flow.assign_coords(longitude=("station", values["station_lon"], east))
    for name, key in (("flow", "y"), ("usual_flow", "flowseason_norm")):
        flow[name] = ("time", "station"), values[key][:with_weather].astype(np.float32), {"units": "1"}

    paths = folder / "weather.nc", folder / "flow.nc"
    for dataset, path in zip((weather, flow), paths, strict=True):
        dataset.to_netcdf(path, engine="h5netcdf")
    return paths


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="the .npz, station_table.csv, a folder")
    given = parser.parse_args().paths
    if len(given) not in (0, 3):
        parser.error(f"{len(given)} paths; three are wanted")
    print(*convert(*given) if len(given) == 3 else [parser.format_help()], sep="\n")
