"""Which pixels drain to a station: from a file of masks or shares, or all within a distance of the gauge.

Shapes: R stations, H rows, W columns.
"""

import re
from pathlib import Path

import numpy as np
import xarray as xr

from fieldcast.data.files import find_files, open_raw, read_values
from fieldcast.data.flow_table import station_names, take
from fieldcast.data.netcdf import same_axis
from fieldcast.data.source import Grid
from fieldcast.errors import ConfigError, DataError

EARTH_RADIUS = 6371.0  # km, of the sphere with the Earth's volume
_DISTANCES = {"m": 0.001, "km": 1.0}


def parse_distance(text: str) -> float:
    """Read a distance such as ``"150 km"`` or ``"500 m"`` as kilometres.

    Raises:
        ConfigError: where the text is not a number above 0 and a unit.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", text)
    if not match or match[2] not in _DISTANCES or float(match[1]) == 0:
        raise ConfigError(f"'{text}' is not a distance: write a number and one of {', '.join(_DISTANCES)}")
    return float(match[1]) * _DISTANCES[match[2]]


def read_catchments(path: str, names: tuple[str, ...], grid: Grid, shape: tuple[int, int]) -> np.ndarray:
    """Read the share of each pixel that drains to each of the stations, (R, H, W) float32 in [0, 1].

    The file has one variable (station, rows, columns) on the grid, whose row and column dimensions have the same names
    and, to a ten-thousandth of a cell, the same coordinates. What is missing in it counts as 0.

    Raises:
        DataError: where stations, dimensions, coordinates or values do not fit.
    """
    found = find_files(path)
    if len(found) > 1:
        raise DataError(f"{path}: {len(found)} files; all catchments are wanted in one")
    dataset = xr.decode_cf(open_raw(found[0]), decode_times=False, decode_coords=False)
    axes = (grid.row_name, grid.column_name)
    solid = [name for name in dataset.data_vars if dataset[name].ndim == 3 and set(axes) < set(dataset[name].dims)]
    if len(solid) != 1:
        raise DataError(
            f"{found[0]}: {len(solid)} variables on (station, {', '.join(axes)}), the weather's grid; one is wanted"
        )
    variable = dataset[solid[0]]
    along = next(dim for dim in variable.dims if dim not in axes)
    if tuple(variable.sizes[axis] for axis in axes) != shape:
        sizes = " x ".join(str(variable.sizes[axis]) for axis in axes)
        raise DataError(f"{found[0]}: {sizes} rows and columns, the weather has {shape[0]} x {shape[1]}")
    for axis, ours in zip(axes, (grid.rows, grid.columns), strict=True):
        theirs = dataset[axis].to_numpy() if axis in dataset.variables else None
        if not same_axis(ours, theirs):
            raise DataError(
                f"{found[0]}: the coordinates '{axis}' differ from those of the weather (order and sign count too)"
            )
    rows = take(station_names(dataset, str(along), found[0]), names, str(found[0]))
    ordered = variable.transpose(along, *axes).variable
    shares = read_values(ordered, f"{found[0]}: '{solid[0]}'").astype(np.float32)[rows]
    return _checked(np.nan_to_num(shares, nan=0.0), names, found[0])


def _checked(shares: np.ndarray, names: tuple[str, ...], path: Path) -> np.ndarray:
    for name, share in zip(names, shares, strict=True):
        if share.min() < 0 or share.max() > 1:
            raise DataError(
                f"{path}: the catchment of '{name}' has values from {share.min():g} to {share.max():g}; shares of a "
                "pixel from 0 to 1 are wanted"
            )
        if not share.any():
            raise DataError(f"{path}: the catchment of '{name}' is empty: it may lie outside the weather's map")
    return shares


def circles(
    names: tuple[str, ...], places: tuple[np.ndarray | None, np.ndarray | None], radius: float, grid: Grid
) -> np.ndarray:
    """Mark the pixels whose centre is within a distance of each gauge, at least the nearest one: (R, H, W), 0 or 1.

    Args:
        names: the R stations.
        places: their latitudes and longitudes (R,), degrees north and east.
        radius: the distance, km.
        grid: rows are latitudes, columns longitudes, in degrees.

    Raises:
        DataError: where the grid is of other coordinates, a place is unknown, or a gauge lies outside the map.
    """
    latitudes, longitudes = places
    if latitudes is None or longitudes is None:
        raise DataError("catchment_radius needs the latitude and longitude of each station: give station_table")
    if not _has_degrees(grid) or grid.rows is None or grid.columns is None:
        raise DataError(
            f"catchment_radius needs weather on latitudes and longitudes; its axes are '{grid.row_name}' and "
            f"'{grid.column_name}': give masks in `catchments`"
        )
    _refuse_outside(names, latitudes, longitudes, grid)
    distances = great_circle(
        latitudes[:, None, None], longitudes[:, None, None], grid.rows[None, :, None], grid.columns[None, None, :]
    )
    nearest_pixel = distances == distances.min(axis=(1, 2), keepdims=True)
    return ((distances <= radius) | nearest_pixel).astype(np.float32)


def great_circle(
    latitude: np.ndarray, longitude: np.ndarray, other_latitude: np.ndarray, other_longitude: np.ndarray
) -> np.ndarray:
    """Distance in km of places in degrees, by the haversine formula: sin^2(d / 2r) = hav(dlat) + cos cos hav(dlon)."""
    south, west, north, east = (
        np.radians(np.asarray(angle, dtype=np.float64))
        for angle in (latitude, longitude, other_latitude, other_longitude)
    )
    half = np.sin((north - south) / 2) ** 2 + np.cos(south) * np.cos(north) * np.sin((east - west) / 2) ** 2
    return 2 * EARTH_RADIUS * np.arcsin(np.sqrt(half.clip(0, 1)))


def _has_degrees(grid: Grid) -> bool:
    for name, words in ((grid.row_name, ("latitude", "lat")), (grid.column_name, ("longitude", "lon"))):
        attributes = grid.attributes.get(name, {})
        told = (str(attributes.get("standard_name", "")), name.lower())
        if not set(words) & set(told) and "degrees_" not in str(attributes.get("units", "")):
            return False
    return True


def _refuse_outside(names: tuple[str, ...], latitudes: np.ndarray, longitudes: np.ndarray, grid: Grid) -> None:
    """Refuse gauges more than a cell off the map, as they are where a longitude has lost its sign."""
    assert grid.rows is not None
    assert grid.columns is not None
    steps = [abs(step or 1.0) for step in grid.spacing()]
    middle = (grid.columns.max() + grid.columns.min()) / 2
    # The same meridian may be 230 or -130 degrees east.
    east = (longitudes - middle + 180) % 360 - 180 + middle
    ends = [(grid.rows, latitudes, steps[0]), (grid.columns, east, steps[1])]
    inside = [(axis.min() - step <= place) & (place <= axis.max() + step) for axis, place, step in ends]
    outside = np.flatnonzero(~(inside[0] & inside[1]))
    if len(outside):
        first = outside[0]
        raise DataError(
            f"station '{names[first]}' at {latitudes[first]:g} north, {longitudes[first]:g} east lies outside the "
            f"weather's map, {grid.rows.min():g} to {grid.rows.max():g} north and {grid.columns.min():g} to "
            f"{grid.columns.max():g} east ({len(outside)} such): degrees west are negative"
        )
