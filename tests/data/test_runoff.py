"""The source `runoff`: flow comes to the weather's times by its own, gaps stay gaps, and the published archive."""

import importlib.util
import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from fieldcast.data import source_settings
from fieldcast.data.flow import fit_flow_normalizer
from fieldcast.data.netcdf import NetCDF, NetCDFConfig
from fieldcast.data.runoff import RunoffConfig
from fieldcast.data.source import StationSequence, StationSource, forecast_variables
from fieldcast.data.times import decode_time
from fieldcast.errors import ConfigError, DataError
from fieldcast.settings import read_settings

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("FIELDCAST_TEST_DATA", ROOT / "../shared/data"))
NUM_DAYS = 8


def weather(num_days=NUM_DAYS, calendar=None):
    random = np.random.default_rng(0)
    times = np.datetime64("2018-05-10", "ns") + np.arange(num_days) * np.timedelta64(1, "D")
    dims = ("time", "latitude", "longitude")
    fields = {
        "rain": (dims, random.random((num_days, 3, 4), dtype=np.float32), {"units": "mm/d"}),
        "warmth": (dims, random.random((num_days, 3, 4), dtype=np.float32), {"units": "K"}),
    }
    axes = {
        "latitude": ("latitude", [51.0, 50.0, 49.0], {"units": "degrees_north"}),
        "longitude": ("longitude", [-124.0, -123.0, -122.0, -121.0], {"units": "degrees_east"}),
    }
    return xr.Dataset(fields, {"time": times if calendar is None else calendar, **axes})


def flow(days=range(NUM_DAYS), hour=0):
    """River a has the number of the day, river b ten times that, with a usual flow one above."""
    times = np.datetime64("2018-05-10", "ns") + np.array(days) * np.timedelta64(1, "D") + np.timedelta64(hour, "h")
    values = np.outer(days, [1.0, 10.0]).astype(np.float32)
    return xr.Dataset(
        {
            "discharge": (("time", "station"), values, {"units": "m3/s"}),
            "usual": (("time", "station"), values + 1, {"units": "m3/s"}),
            "latitude": ("station", [50.1, 49.2]),
            "longitude": ("station", [-122.9, -121.1]),
        },
        {"time": times, "station": ["a", "b"]},
    )


def opened(folder, weather_data=None, flow_data=None, **options):
    pytest.importorskip("scipy")
    for name, dataset in (("weather", weather_data or weather()), ("flow", flow_data or flow())):
        dataset.to_netcdf(folder / f"{name}.nc", engine="scipy")
    values = {
        "key": "runoff",
        "paths": str(folder / "weather.nc"),
        "variables": ["rain", "warmth"],
        "flow": str(folder / "flow.nc"),
        "flow_variable": "discharge",
    }
    return source_settings({**values, **options}).open(0)


def flow_of(source):
    sequence = source.sequences("train", None)[0]
    return sequence.read_flow(np.arange(len(sequence.times)))


def test_it_is_a_source_of_stations_with_the_weather_of_netcdf(tmp_path):
    source = opened(tmp_path, transform="scale", units=["mm/h", "degC"])
    sequence = source.sequences("test", None)[0]
    assert isinstance(source, StationSource)
    assert isinstance(sequence, StationSequence)
    assert forecast_variables(source) == (source.flow,)
    assert (source.flow.name, source.flow.units) == ("discharge", "m3/s")
    assert (source.stations.names, source.stations.catchments) == (("a", "b"), None)
    assert source.stations.latitudes.tolist() == [50.1, 49.2]
    plain = NetCDF(
        NetCDFConfig(paths=str(tmp_path / "weather.nc"), variables=("rain", "warmth"), units=("mm/h", "degC"))
    )
    for name in ("kind", "variables", "value_range", "shape", "cadence", "calendar", "real_times"):
        assert getattr(source, name) == getattr(plain, name), name
    positions = np.array([5, 0, 2])
    wanted = plain.sequences("", None)[0]
    np.testing.assert_array_equal(sequence.read(positions), wanted.read(positions))
    window = (slice(1, 3), slice(0, 2))
    np.testing.assert_array_equal(sequence.read(positions, window), wanted.read(positions, window))
    np.testing.assert_array_equal(sequence.times, wanted.times)


def test_flow_comes_by_its_own_times_and_gaps_stay_gaps(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        found = flow_of(opened(tmp_path, flow_data=flow(days=[9, -3, 1, 2, 6])))
    assert found.shape == (NUM_DAYS, 1, 2)
    assert found.dtype == np.float32
    assert "flow at 3 of 8 times of the weather" in caplog.text
    assert "left out" not in caplog.text
    wanted = np.full(NUM_DAYS, np.nan)
    wanted[[1, 2, 6]] = 1, 2, 6
    np.testing.assert_array_equal(found[:, 0, 0], wanted)
    np.testing.assert_array_equal(found[:, 0, 1], 10 * wanted)


def test_one_river_may_have_a_gap_where_another_has_none(tmp_path):
    values = flow()
    values.discharge[3, 1] = np.nan
    found = flow_of(opened(tmp_path, flow_data=values))
    assert np.argwhere(np.isnan(found)).tolist() == [[3, 0, 1]]


def test_positions_in_any_order_and_what_is_read_can_be_changed(tmp_path):
    sequence = opened(tmp_path).sequences("train", None)[0]
    found = sequence.read_flow(np.array([4, 0, 4]))
    assert found[:, 0, 0].tolist() == [4, 0, 4]
    found += 1
    assert sequence.read_flow(np.array([4]))[0, 0].tolist() == [4, 40]


def test_usual_flow(tmp_path):
    sequence = opened(tmp_path, flow_data=flow(days=[0, 1, 2]), usual_variable="usual").sequences("train", None)[0]
    assert sequence.read_usual(np.array([2, 1]))[:, 0].tolist() == [[3, 21], [2, 11]]
    assert np.isnan(sequence.read_usual(np.array([5]))).all()
    assert opened(tmp_path).sequences("train", None)[0].read_usual(np.array([1])) is None


def test_flow_between_frames_of_the_weather_is_left_out_with_a_warning(tmp_path, caplog):
    hourly = xr.concat([flow(hour=hour) for hour in (0, 6)], "time", data_vars="minimal")
    found = flow_of(opened(tmp_path, flow_data=hourly))
    assert found[:, 0, 0].tolist() == list(range(NUM_DAYS))
    assert "flow at 7 times between frames of the weather is left out" in caplog.text


def test_flow_from_text_with_a_station_table(tmp_path):
    rows = [f"2018-05-{10 + day} 02:00,{day},{10 * day}" for day in range(NUM_DAYS)]
    (tmp_path / "flow.csv").write_text("\n".join(["date,b,a", *rows]))
    (tmp_path / "stations.csv").write_text("station,latitude,longitude\na,50.1,-122.9\nb,49.2,-121.1\n")
    options = {"flow_variable": None, "flow_units": "m3/s", "timezone": "Europe/Berlin", "stations": ["a"]}
    source = opened(
        tmp_path,
        flow=str(tmp_path / "flow.csv"),
        station_table=str(tmp_path / "stations.csv"),
        catchment_radius="40 km",
        **options,
    )
    assert flow_of(source)[:, 0, 0].tolist() == [10 * day for day in range(NUM_DAYS)]
    assert np.argwhere(source.stations.catchments).tolist() == [[0, 1, 1]]


def test_catchments_from_a_file(tmp_path):
    shares = np.zeros((2, 3, 4), np.float32)
    shares[0, 1, 1], shares[1, 2, 3] = 1.0, 0.25
    axes = {name: weather()[name] for name in ("latitude", "longitude")}
    masks = xr.Dataset({"share": (("station", "latitude", "longitude"), shares)}, {"station": ["a", "b"], **axes})
    masks.to_netcdf(tmp_path / "masks.nc", engine="h5netcdf")
    source = opened(tmp_path, catchments=str(tmp_path / "masks.nc"), stations=["b", "a"])
    np.testing.assert_array_equal(source.stations.catchments, shares[::-1])


def test_settings_of_the_normaliser(tmp_path):
    source = opened(tmp_path, flow_transform="box-cox", box_cox_power=0.5, offset_share=0.2)
    assert source.flow_settings.model_dump() == {
        "flow_transform": "box-cox",
        "flow_scale": "station",
        "box_cox_power": 0.5,
        "offset_share": 0.2,
    }
    found = fit_flow_normalizer(source.flow_settings, source.stations, [flow_of(source)])
    assert found.offsets == pytest.approx((0.2 * 3.5, 0.2 * 35))


class TestRefusals:
    def test_no_time_in_common(self, tmp_path):
        message = (
            r"no time in common: flow 2018-05-10T08:00:00 to 2018-05-17T08:00:00, "
            r"weather 2018-05-10T00:00:00 to 2018-05-17T00:00:00 \(UTC\)"
        )
        with pytest.raises(DataError, match=message):
            opened(tmp_path, flow_data=flow(hour=8))

    def test_calendars_that_differ(self, tmp_path):
        days = xr.date_range("2018-05-10", periods=NUM_DAYS, calendar="360_day", use_cftime=True)
        with pytest.raises(DataError, match=r"standard calendar, .*weather\.nc the 360_day one"):
            opened(tmp_path, weather_data=weather(calendar=days))

    @pytest.mark.parametrize("name", ["discharge", "usual"])
    def test_flow_below_zero_at_any_time(self, tmp_path, name):
        values = flow()
        values[name][7, 1] = -2
        with pytest.raises(DataError, match=r"station 'b' has flow below zero \(-2\)"):
            opened(tmp_path, flow_data=values, usual_variable="usual")
        opened(tmp_path, flow_data=values, usual_variable="usual", flow_transform="identity")

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"catchments": "a.nc", "catchment_radius": "5 km"}, "say two things about the same: leave one out"),
            ({"catchment_radius": "5 parsec"}, "'5 parsec' is not a distance"),
            ({"variables": []}, "name at least one variable"),
            ({"units": ["K", "K"]}, "units has 2 entries for 1 variables"),
            ({"stations": []}, "name at least one station"),
            ({"station": ["a"]}, "unknown key 'source.station': did you mean 'stations'"),
            ({"flow_transform": "logarithm"}, "'source.flow_transform'"),
        ],
    )
    def test_bad_settings(self, values, message):
        with pytest.raises(ConfigError, match=message):
            read_settings(RunoffConfig, {"paths": "a.nc", "variables": ["rain"], "flow": "b.nc", **values}, "source")


def converter():
    spec = importlib.util.spec_from_file_location("converter", ROOT / "examples" / "runoff_canada_to_netcdf.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_published_archive(tmp_path):
    archive, table = (SHARED / "runoff_canada" / name for name in ("swcanada_era5_226.npz", "station_table.csv"))
    if not archive.exists():
        pytest.skip(f"no test data at {archive}; set FIELDCAST_TEST_DATA")
    paths = converter().convert(archive, table, tmp_path)
    with np.load(archive) as stored:
        values = dict(stored)
    source = source_settings(
        {
            "key": "runoff",
            "paths": str(paths[0]),
            "variables": ["tmax", "tmin", "precipitation"],
            "flow": str(paths[1]),
            "usual_variable": "usual_flow",
            "flow_transform": "identity",
            "catchment_radius": "100 km",
        }
    ).open(0)
    sequence = source.sequences("train", None)[0]
    assert (source.shape, len(source.stations), len(sequence.times)) == ((12, 32), 226, 729)
    assert sequence.times[0] == decode_time("2014-01-01")
    everything = np.arange(729)
    np.testing.assert_array_equal(sequence.read(everything[::90]), values["x"][::90].transpose(0, 3, 1, 2))
    found, usual = sequence.read_flow(everything)[:, 0], sequence.read_usual(everything)[:, 0]
    assert np.isnan(found[:365]).all()
    np.testing.assert_array_equal(found[365:], values["y"][:364].astype(np.float32))
    np.testing.assert_array_equal(usual[365:], values["flowseason_norm"][:364].astype(np.float32))
    assert source.stations.names[0] == "07EC002"
    assert source.stations.titles[0] == "OMINECA RIVER ABOVE OSILINKA RIVER"
    np.testing.assert_allclose(source.stations.longitudes, values["station_lon"])
    assert (source.stations.catchments.sum(axis=(1, 2)) >= 1).all()
    # Rain of the day raises the flow of that day more than rain of the day before or after.
    rise = np.diff(found[365:].mean(axis=1))[2:-2]
    rain = sequence.read(everything[365:])[:, 2].mean(axis=(1, 2))
    match = [np.corrcoef(rise, rain[3 + shift : 3 + shift + len(rise)])[0, 1] for shift in range(-2, 3)]
    assert int(np.argmax(match)) == 2
    normalizer = fit_flow_normalizer(source.flow_settings, source.stations, [sequence.read_flow(everything)])
    normalised = normalizer.normalise(torch.from_numpy(found[365:, None]))
    torch.testing.assert_close(normalised.mean(dim=0), torch.zeros(1, 226), rtol=0, atol=1e-5)
