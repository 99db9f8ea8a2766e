"""Cut the radar sample that ships in the package out of the DWD YW file of pycomlink 0.6.0.

The input is `pycomlink/io/example_data/example_areal_reference_data.nc` of the PyPI package pycomlink 0.6.0:

    python scripts/cut_radar_sample.py example_areal_reference_data.nc
"""

import argparse
import hashlib
import os
from pathlib import Path

import h5py
import numpy as np
import xarray as xr

SOURCE_SHA256 = "c72fb031bc46bcc2fa061ca2b14ae9d3a809d834c4df7b4612ea413175dc575e"
DEFAULT_OUTPUT = Path(__file__).parents[1] / "src/fieldcast/data/samples/radar_dwd_yw.nc"
LARGEST_SIZE = 3_000_000  # bytes

# The centre, clear of the strip at the left and right edge that is always missing.
ROWS = slice(31, 159)
COLUMNS = slice(50, 178)
SPACING = 1000.0  # m

# Half-open: the end is the time of the first frame left out.
EVENTS = {
    "train 1": ("2018-05-10T09:00", "2018-05-10T18:00"),
    "train 2": ("2018-05-13T16:00", "2018-05-14T01:00"),
    "train 3": ("2018-05-15T22:00", "2018-05-16T06:00"),
    "validation": ("2018-05-16T17:00", "2018-05-17T08:00"),
    "test": ("2018-05-19T22:00", "2018-05-20T08:00"),
}

RAIN_ATTRIBUTES = {
    "long_name": "5-minute rainfall sum",
    "standard_name": "thickness_of_rainfall_amount",
    "units": "mm",
    "cell_methods": "time: sum (comment: over 5 minutes)",
    "accumulation_minutes": np.int32(5),
    "scale_factor": 0.01,
    "_FillValue": np.int16(-9999),
}
GLOBAL_ATTRIBUTES = {
    "Conventions": "CF-1.11",
    "title": "Radar rainfall of DWD (product YW): five rain events of May 2018 every 5 minutes on a 1 km grid",
    "institution": "Deutscher Wetterdienst (DWD)",
    "source": "Source: Deutscher Wetterdienst",
    "license": "Creative Commons Attribution 4.0 International (CC BY 4.0), "
    "https://creativecommons.org/licenses/by/4.0/",
    "attribution": "Source: Deutscher Wetterdienst (DWD), RADOLAN YW; changed: cut in time and space, repacked. "
    "Taken from the example data of pycomlink 0.6.0 (BSD-3-Clause).",
    "comment": "Position is relative: y and x count from the lower left corner of the cut. The latitudes and "
    "longitudes of the source are displaced and are left out. The source does not say whether a time marks the "
    "start or the end of its 5 minutes. It gives the units as kg; 1 kg of rain on 1 m2 is 1 mm.",
    "history": "RADOLAN YW by DWD; 2020-02-27: created for the example data of pycomlink; "
    f"fieldcast scripts/cut_radar_sample.py: rows {ROWS.start} to {ROWS.stop - 1}, "
    f"columns {COLUMNS.start} to {COLUMNS.stop - 1}, times "
    + ", ".join(f"[{start}, {end})" for start, end in EVENTS.values())
    + f"; from the file with SHA-256 {SOURCE_SHA256}.",
}


def check_source(path: Path) -> None:
    """Refuse a file other than the one this cut was made for.

    Raises:
        SystemExit: where the SHA-256 differs.
    """
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != SOURCE_SHA256:
        raise SystemExit(f"{path}: SHA-256 {found}, not {SOURCE_SHA256}: take the file of pycomlink 0.6.0")


def cut(source: xr.Dataset) -> xr.Dataset:
    """Take the events and the centre of the map, as packed int16 (time, y, x)."""
    # The source counts hours as float64: whole seconds come back only by rounding.
    times = source.time.dt.round("s").values.astype("datetime64[s]")
    chosen = np.zeros(len(times), dtype=bool)
    for start, end in EVENTS.values():
        chosen |= (times >= np.datetime64(start)) & (times < np.datetime64(end))
    positions = np.flatnonzero(chosen)
    packed = source["rainfall_amount"].isel(time=positions, y=ROWS, x=COLUMNS)
    rain = xr.Variable(("time", "y", "x"), packed.values, RAIN_ATTRIBUTES)
    return xr.Dataset({"rainfall_amount": rain}, _coordinates(times[positions], rain.shape[1:]), GLOBAL_ATTRIBUTES)


def _coordinates(times: np.ndarray, shape: tuple[int, ...]) -> dict[str, xr.Variable]:
    time_attributes = {
        "standard_name": "time",
        "units": "seconds since 1970-01-01",
        "calendar": "standard",
        "axis": "T",
    }
    coordinates = {"time": xr.Variable("time", times.astype(np.int64), time_attributes)}
    for axis, size in zip("yx", shape, strict=True):
        attributes = {"standard_name": f"projection_{axis}_coordinate", "units": "m", "axis": axis.upper()}
        coordinates[axis] = xr.Variable(axis, np.arange(size) * SPACING, attributes)
    return coordinates


def write(sample: xr.Dataset, path: Path) -> None:
    """Write beside and rename, one frame a chunk.

    Raises:
        SystemExit: where the file is larger than what may ship.
    """
    num_frames, height, width = sample["rainfall_amount"].shape
    packing = {"zlib": True, "complevel": 9, "shuffle": True, "chunksizes": (1, height, width)}
    unfilled = {name: {"_FillValue": None} for name in "yx"}
    beside = path.with_suffix(".partial")
    sample.to_netcdf(beside, engine="h5netcdf", encoding={"rainfall_amount": packing, **unfilled})
    size = beside.stat().st_size
    if size > LARGEST_SIZE:
        beside.unlink()
        raise SystemExit(f"{num_frames} frames take {size} bytes, more than {LARGEST_SIZE}: cut less")
    os.replace(beside, path)


def describe(path: Path) -> str:
    """A table of what the file holds: events with start, end, frames, share of wet and missing cells, bytes."""
    lines = [
        "| event | first frame (UTC) | last frame | frames | wet | missing | largest (mm) | bytes |",
        "|" + "---|" * 8,
    ]
    with xr.open_dataset(path, engine="h5netcdf") as sample:
        for name, (start, end) in EVENTS.items():
            inside = (sample.time >= np.datetime64(start)) & (sample.time < np.datetime64(end))
            rain = sample["rainfall_amount"].isel(time=np.flatnonzero(inside)).load()
            first, last = (str(rain.time.values[index])[:16] for index in (0, -1))
            wet, missing = float((rain > 0).mean()), float(rain.isnull().mean())
            lines.append(
                f"| {name} | {first} | {last} | {rain.sizes['time']} | {wet:.1%} | {missing:.2%} "
                f"| {float(rain.max()):.2f} | {_stored_size(path, inside.values)} |"
            )
    return "\n".join([*lines, f"{path.name}: {path.stat().st_size} bytes"])


def _stored_size(path: Path, inside: np.ndarray) -> int:
    with h5py.File(path) as file:
        stored = file["rainfall_amount"].id
        return sum(stored.get_chunk_info_by_coord((int(frame), 0, 0)).size for frame in np.flatnonzero(inside))


def main() -> None:
    """Check, cut, write, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="example_areal_reference_data.nc of pycomlink 0.6.0")
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT)
    arguments = parser.parse_args()
    check_source(arguments.source)
    with xr.open_dataset(arguments.source, engine="h5netcdf", mask_and_scale=False) as source:
        write(cut(source), arguments.output)
    print(describe(arguments.output))


if __name__ == "__main__":
    main()
