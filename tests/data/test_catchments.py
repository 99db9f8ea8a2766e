"""Catchments: masks from a file, circles against a plain loop over the haversine formula, and every refusal."""

import math

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldcast.data.catchments import circles, great_circle, parse_distance, read_catchments
from fieldcast.data.source import Grid
from fieldcast.errors import ConfigError, DataError

NAMES = ("a", "b")
ROWS, COLUMNS = np.linspace(52.0, 48.0, 5), np.linspace(-125.0, -119.0, 7)
DEGREES = {"latitude": {"units": "degrees_north"}, "longitude": {"units": "degrees_east"}}
GRID = Grid("latitude", "longitude", ROWS, COLUMNS, DEGREES)
SHAPE = (5, 7)


def plain_distance(latitude, longitude, other_latitude, other_longitude):
    """The spherical law of cosines, another formula for the same."""
    north, other = math.radians(latitude), math.radians(other_latitude)
    turn = math.radians(other_longitude - longitude)
    cosine = math.sin(north) * math.sin(other) + math.cos(north) * math.cos(other) * math.cos(turn)
    return 6371.0 * math.acos(min(1.0, max(-1.0, cosine)))


def masks():
    shares = np.zeros((3, *SHAPE))
    shares[0, 1, 2], shares[1, 3, 4:6], shares[2] = 0.5, 1.0, 1.0
    shares[:, 0, 0] = np.nan
    coordinates = {"station": ["b", "a", "other"], "latitude": ROWS, "longitude": COLUMNS}
    return xr.Dataset({"share": (("station", "latitude", "longitude"), shares)}, coordinates)


def write(folder, dataset):
    pytest.importorskip("scipy")
    dataset.to_netcdf(folder / "masks.nc", engine="scipy")
    return str(folder / "masks.nc")


class TestMasks:
    def test_stations_by_name_and_dimensions_in_any_order(self, tmp_path):
        wanted = np.nan_to_num(masks().share.values[[1, 0]])
        for order in (("station", "latitude", "longitude"), ("longitude", "station", "latitude")):
            found = read_catchments(write(tmp_path, masks().transpose(*order)), NAMES, GRID, SHAPE)
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found, wanted)

    def test_coordinates_that_differ_by_rounding(self, tmp_path):
        near = masks().assign_coords(latitude=ROWS.astype(np.float32) + 5e-5)
        assert read_catchments(write(tmp_path, near), NAMES, GRID, SHAPE).shape == (2, *SHAPE)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda m: m.assign_coords(latitude=ROWS + 2e-3), "the coordinates 'latitude' differ"),
            (lambda m: m.isel(latitude=slice(None, None, -1)), "the coordinates 'latitude' differ .*order"),
            (lambda m: m.assign_coords(longitude=COLUMNS + 360), "the coordinates 'longitude' differ"),
            (lambda m: m.isel(latitude=slice(4)), "4 x 7 rows and columns, the weather has 5 x 7"),
            (lambda m: m.rename(latitude="y"), r"0 variables on \(station, latitude, longitude\), the weather's grid"),
            (lambda m: m.assign(more=m.share), "2 variables on"),
            (lambda m: m.isel(station=[0, 2]), "no station 'a'"),
            (lambda m: m.drop_vars("station"), "no names of stations"),
            (lambda m: 2 * m, "catchment of 'a' has values from 0 to 2"),
            (lambda m: m - 0.1, "catchment of 'a' has values from -0.1"),
            (lambda m: m.where(m.station != "b", 0), "catchment of 'b' is empty"),
        ],
    )
    def test_refused(self, tmp_path, change, message):
        with pytest.raises(DataError, match=message):
            read_catchments(write(tmp_path, change(masks())), NAMES, GRID, SHAPE)

    def test_two_files(self, tmp_path):
        for name in ("a.nc", "b.nc"):
            (tmp_path / name).write_bytes(b"")
        with pytest.raises(DataError, match="2 files; all catchments are wanted in one"):
            read_catchments(str(tmp_path / "*.nc"), NAMES, GRID, SHAPE)


class TestCircles:
    @settings(max_examples=20, deadline=None)
    @given(
        places=st.tuples(
            st.floats(47.5, 52.5), st.floats(-125.5, -118.5), st.floats(47.5, 52.5), st.floats(-125, -119)
        ),
        radius=st.floats(1, 600),
    )
    def test_against_a_plain_loop(self, places, radius):
        latitudes, longitudes = np.array(places[::2]), np.array(places[1::2])
        found = circles(NAMES, (latitudes, longitudes), radius, GRID)
        assert found.shape == (2, *SHAPE)
        for river in range(2):
            distances = np.array(
                [
                    [plain_distance(latitudes[river], longitudes[river], row, column) for column in COLUMNS]
                    for row in ROWS
                ]
            )
            clear = np.abs(distances - radius) > 1e-3
            wanted = distances <= radius
            wanted.flat[distances.argmin()] = True
            # A gauge in the middle between pixels has more than one nearest.
            clear &= wanted | (distances > distances.min() + 1e-3)
            np.testing.assert_array_equal(found[river].astype(bool)[clear], wanted[clear])

    def test_a_quarter_of_the_earth_and_a_degree(self):
        assert great_circle(0.0, 0.0, 90.0, 0.0) == pytest.approx(6371 * np.pi / 2)
        assert great_circle(60.0, 359.5, 60.0, 0.5) == pytest.approx(plain_distance(60, -0.5, 60, 0.5), rel=1e-9)

    def test_a_small_circle_is_the_nearest_pixel(self):
        found = circles(("a",), (np.array([49.1]), np.array([-121.2])), 1.0, GRID)
        assert np.argwhere(found).tolist() == [[0, 3, 4]]

    def test_longitudes_of_either_convention(self):
        places = (np.array([49.1, 50.2]), np.array([-121.2, -124.9]))
        east = Grid("latitude", "longitude", ROWS, COLUMNS + 360, DEGREES)
        wanted = circles(NAMES, places, 150.0, GRID)
        np.testing.assert_array_equal(circles(NAMES, places, 150.0, east), wanted)
        np.testing.assert_array_equal(circles(NAMES, (places[0], places[1] + 360), 150.0, GRID), wanted)

    def test_axes_known_by_name(self):
        places = (np.array([49.1]), np.array([-121.2]))
        assert circles(("a",), places, 150.0, Grid("lat", "lon", ROWS, COLUMNS)).any()

    @pytest.mark.parametrize(
        ("places", "grid", "message"),
        [
            ((None, None), GRID, "needs the latitude and longitude of each station"),
            (
                ([49.0, 49.0], [-121.0, 121.0]),
                GRID,
                "station 'b' at 49 north, 121 east lies outside.*-125 to -119 east",
            ),
            (([44.0, 49.0], [-121.0, -121.0]), GRID, "station 'a' at 44 north.*48 to 52 north"),
            (([49.0, 49.0], [-121.0, -121.0]), Grid("y", "x", ROWS, COLUMNS), "its axes are 'y' and 'x': give masks"),
            (([49.0, 49.0], [-121.0, -121.0]), Grid("lat", "lon"), "its axes are 'lat' and 'lon'"),
        ],
    )
    def test_refused(self, places, grid, message):
        places = tuple(None if item is None else np.array(item) for item in places)
        with pytest.raises(DataError, match=message):
            circles(NAMES, places, 150.0, grid)


@pytest.mark.parametrize(("text", "kilometres"), [("150 km", 150.0), ("2.5km", 2.5), ("500 m", 0.5)])
def test_distances(text, kilometres):
    assert parse_distance(text) == kilometres


@pytest.mark.parametrize("text", ["150", "150 miles", "-3 km", "0 km", "km"])
def test_no_distances(text):
    with pytest.raises(ConfigError, match="is not a distance: write a number and one of m, km"):
        parse_distance(text)
