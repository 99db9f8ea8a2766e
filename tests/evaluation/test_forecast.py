"""NetCDF in, forecast out: times, labels, what it depends on, and what it refuses."""

import subprocess
import sys

import cftime
import h5py
import numpy as np
import pytest
import xarray as xr
from forecast_fixtures import ATTRIBUTES, NUM_COLUMNS, NUM_FRAMES, NUM_INPUTS, NUM_ROWS, START, make_rain, train_on

import fieldcast
from fieldcast.errors import ConfigError, DataError
from fieldcast.files import sha256
from fieldcast.forecast import forecast, save_forecast
from fieldcast.run import Run

MINUTE = np.timedelta64(1, "m")
LEADS = [5, 10, 30]


@pytest.fixture
def past():
    return make_rain().isel(time=slice(0, 40))


@pytest.fixture(scope="module")
def expected(shared_run):
    return forecast(shared_run, make_rain().isel(time=slice(0, 40)), LEADS, "cpu")


def same_values(result, expected, tolerance=1e-5):
    np.testing.assert_allclose(result.rain.values, expected.rain.values, atol=tolerance, rtol=tolerance)


class TestTimesAndLabels:
    def test_times(self, expected):
        last = START + 39 * 5 * MINUTE
        assert expected.rain.dims == ("init_time", "lead_time", "y", "x")
        assert expected.rain.shape == (1, 3, NUM_ROWS, NUM_COLUMNS)
        assert expected.init_time.values.tolist() == [last.astype("datetime64[ns]").astype(int)]
        assert expected.lead_time.dtype.kind == "m"
        assert (expected.lead_time.values == np.array(LEADS) * MINUTE).all()
        assert (expected.valid_time.values == last + np.array([LEADS]) * MINUTE).all()

    def test_attributes(self, expected, shared_run):
        names = {"init_time": "forecast_reference_time", "lead_time": "forecast_period", "valid_time": "time"}
        assert {name: expected[name].attrs["standard_name"] for name in names} == names
        assert expected.rain.attrs == {**ATTRIBUTES, "ancillary_variables": "rain_valid"}
        last = make_rain().rain.isel(time=39).transpose("y", "x")
        assert (expected.rain_valid.values[0] == last.notnull().values).all()
        assert not expected.rain_valid.values.all()
        assert expected.rain_valid.attrs["flag_meanings"] == "missing_input seen_input"
        assert expected.y.attrs == {"units": "m", "standard_name": "projection_y_coordinate"}
        assert expected.attrs["Conventions"] == "CF-1.11"
        step = shared_run.best.state["progress"]["step"]
        weights = shared_run.checkpoint_folder / f"step-{step:08d}" / "model.safetensors"
        assert expected.attrs["source"].split()[0] == "fieldcast"
        assert expected.attrs["source"].split()[-2:] == ["convgru", sha256(weights)]
        assert "'tiny'" in expected.attrs["history"]

    def test_values_are_in_physical_units(self, expected):
        assert np.isfinite(expected.rain.values).all()
        assert expected.rain.values.min() >= 0
        assert expected.rain.values.max() > 0

    def test_round_trip(self, expected, tmp_path):
        path = save_forecast(expected, tmp_path / "forecast.nc")
        with xr.open_dataset(path, engine="h5netcdf", decode_timedelta=True) as opened:
            xr.testing.assert_identical(opened.load(), expected)
            assert opened.lead_time.dtype.kind == "m"
            assert opened.init_time.dtype.kind == opened.valid_time.dtype.kind == "M"
        assert [item.name for item in tmp_path.iterdir()] == ["forecast.nc"]

    def test_bytes_in_the_file(self, expected, tmp_path):
        with h5py.File(save_forecast(expected, tmp_path / "forecast.nc")) as file:
            for name in ("init_time", "lead_time", "valid_time"):
                assert file[name].dtype == np.int64
                assert "_FillValue" not in file[name].attrs
            assert file["init_time"].attrs["units"] in ("seconds since 1970-01-01", "seconds since 1970-01-01 00:00:00")
            assert file["lead_time"].attrs["units"] in ("seconds", b"seconds")
            assert "_FillValue" not in file["y"].attrs
            assert file["rain"].dtype == np.float32
            assert np.isnan(file["rain"].attrs["_FillValue"])

    def test_a_360_day_calendar(self, tmp_path):
        times = xr.date_range("2018-02-29", periods=NUM_FRAMES, freq="5min", calendar="360_day", use_cftime=True)
        data = make_rain(times=times)
        run = train_on(data, tmp_path, **{"training.num_steps": 1})
        result = forecast(run, data, [5, 24 * 60], "cpu")
        last = times[-1]
        assert result.init_time.item() == last
        tomorrow = cftime.datetime(2018, 2, 30, last.hour, last.minute, calendar="360_day")
        assert result.valid_time.values[0, 1] == tomorrow
        path = save_forecast(result, tmp_path / "forecast.nc")
        with xr.open_dataset(path, engine="h5netcdf", decode_timedelta=True) as opened:
            xr.testing.assert_identical(opened.load(), result)
        with pytest.raises(DataError, match="calendar is standard, the model was trained on 360_day"):
            forecast(run, make_rain(), [5], "cpu")


class TestGridMapping:
    def test_it_goes_through(self, shared_run, past, expected, tmp_path):
        past["crs"] = ((), np.int32(0), {"grid_mapping_name": "polar_stereographic", "semi_major_axis": 6370040.0})
        past["rain"] = past.rain.assign_attrs(grid_mapping="crs")
        path = fieldcast.save_forecast(forecast(shared_run, past, LEADS, "cpu"), tmp_path / "mapped.nc")
        with xr.open_dataset(path, engine="h5netcdf", decode_timedelta=True) as saved:
            assert "grid_mapping" in {**saved.rain.attrs, **saved.rain.encoding}
            assert saved.crs.attrs["semi_major_axis"] == 6370040.0
            same_values(saved, expected)


class TestWhatItDependsOn:
    def test_earlier_frames_change_nothing(self, shared_run, past, expected):
        past.rain[: 40 - NUM_INPUTS] = 3.0
        xr.testing.assert_equal(forecast(shared_run, past, LEADS, "cpu"), expected)

    def test_a_later_frame_moves_the_start(self, shared_run, expected):
        result = forecast(shared_run, make_rain().isel(time=slice(0, 41)), LEADS, "cpu")
        assert (result.init_time.values - expected.init_time.values == 5 * MINUTE).all()
        assert not np.allclose(result.rain.values, expected.rain.values)

    def test_each_input_matters(self, shared_run, past, expected):
        for number in range(1, NUM_INPUTS + 1):
            changed = past.copy(deep=True)
            changed.rain[-number] *= 0.5
            assert not np.allclose(forecast(shared_run, changed, LEADS, "cpu").rain, expected.rain, atol=1e-7)

    def test_a_lead_time_is_the_same_alone(self, shared_run, past, expected):
        result = forecast(shared_run, past, [30], "cpu")
        np.testing.assert_allclose(result.rain[0, 0], expected.rain[0, 2], atol=1e-6)

    def test_the_order_of_frames_and_what_is_beside_them(self, shared_run, past, expected):
        past["other"] = past.rain * 2
        same_values(forecast(shared_run, past.isel(time=slice(None, None, -1)), LEADS, "cpu"), expected)

    @pytest.mark.parametrize(
        ("units", "factor", "name"),
        [("mm", 1 / 12, "rainfall_amount"), ("kg m-2 s-1", 1 / 3600, "rainfall_flux"), ("mm hour^-1", 1.0, "")],
    )
    def test_units_are_converted(self, shared_run, past, expected, units, factor, name):
        past["rain"] = (past.rain * factor).assign_attrs(units=units, standard_name=name)
        result = forecast(shared_run, past, LEADS, "cpu")
        same_values(result, expected)
        assert result.rain.attrs == {**ATTRIBUTES, "ancillary_variables": "rain_valid"}

    @pytest.mark.parametrize("order", [("x", "y", "time"), ("y", "time", "x")])
    def test_the_order_of_dimensions(self, shared_run, past, expected, order):
        same_values(forecast(shared_run, past.transpose(*order), LEADS, "cpu"), expected)

    @pytest.mark.parametrize("storage", ["h5netcdf", "zarr"])
    def test_files_and_folders(self, shared_run, past, expected, tmp_path, storage):
        path = tmp_path / "past"
        if storage == "zarr":
            past.to_zarr(path, consolidated=False)
        else:
            past.to_netcdf(path, engine="h5netcdf")
        for given in (path, str(path)):
            same_values(forecast(shared_run, given, LEADS, "cpu"), expected)

    @pytest.mark.parametrize("shape", [(16, 48), (21, 13), (5, 7)])
    def test_other_maps_of_the_same_spacing(self, shared_run, shape):
        result = forecast(shared_run, make_rain(10, *shape), [5, 10], "cpu")
        assert result.rain.shape == (1, 2, *shape)
        assert np.isfinite(result.rain).all()

    def test_missing_pixels(self, shared_run, past):
        past.rain[-1, :8] = np.nan
        past.rain[-2] = np.nan
        assert np.isfinite(forecast(shared_run, past, LEADS, "cpu").rain).all()

    def test_exactly_the_frames_it_reads(self, shared_run, past, expected):
        same_values(forecast(shared_run, past.isel(time=slice(-NUM_INPUTS, None)), LEADS, "cpu"), expected)


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda past: past.assign_coords(x=("x", past.x.values * 2)), "spacing of 2000 along x.*trained on 1000"),
            (lambda past: past.isel(y=slice(None, None, -1)), "spacing of -1000 along y.*trained on 1000"),
            (lambda past: past.drop_vars("y"), "no coordinate along y.*trained on 1000"),
            (lambda past: past.rename(rain="rian"), "no variable 'rain': did you mean 'rian'"),
            (lambda past: past.assign(rain=past.rain.assign_attrs(units="furlongs")), "unknown units.*furlongs"),
            (lambda past: past.assign(rain=past.rain.assign_attrs(units="K")), "'K' .temperature. cannot become"),
            (lambda past: past.assign(rain=past.rain.drop_attrs()), "'rain' has no units; wanted 'mm/h'"),
            (lambda past: past.isel(time=slice(None, None, 2)), "every 10 min.*one every 5 min"),
            (lambda past: past.isel(time=slice(0, NUM_INPUTS - 1)), f"reads {NUM_INPUTS} frames, the input has 2"),
            (lambda past: past.isel(time=[*range(38), 39]), "10 min without a frame before input 3 of the last 3"),
            (lambda past: past.where(past.time < past.time[-1]), "last input frame has no valid pixel"),
            (lambda past: past.where(past.rain < 1, np.inf), "infinite"),
            (lambda past: past.isel(time=slice(0, 0)), "no frames|0 frame"),
        ],
    )
    def test_inputs_that_do_not_fit(self, shared_run, past, change, message):
        with pytest.raises(DataError, match=message):
            forecast(shared_run, change(past), [5], "cpu")

    @pytest.mark.parametrize("minutes", [[], [0], [-5, 5], [10, 5], [5, 5], [float("nan")], [float("inf")]], ids=repr)
    def test_lead_times_that_are_none(self, shared_run, past, minutes):
        with pytest.raises(ConfigError, match="lead times above 0, ascending, each once"):
            forecast(shared_run, past, minutes, "cpu")

    @pytest.mark.parametrize("minutes", [5, "five", ["five"], [None]], ids=repr)
    def test_lead_times_that_are_no_numbers(self, shared_run, past, minutes):
        with pytest.raises(ConfigError, match="a list of numbers, such as"):
            forecast(shared_run, past, minutes, "cpu")

    def test_a_data_array(self, shared_run, past):
        with pytest.raises(DataError, match=r"DataArray came.*to_dataset\(name='rain'\)"):
            forecast(shared_run, past.rain, [5], "cpu")

    def test_a_regular_model_knows_whole_steps_only(self, shared_run, past):
        with pytest.raises(DataError, match="whole multiples"):
            forecast(shared_run, past, [5, 7.5], "cpu")

    def test_a_gap_before_the_inputs_is_none_of_its_business(self, shared_run, past, expected):
        gappy = past.isel(time=[*range(10), *range(20, 40)])
        same_values(forecast(shared_run, gappy, LEADS, "cpu"), expected)

    def test_no_such_file(self, shared_run, tmp_path):
        with pytest.raises(DataError, match="no such file"):
            forecast(shared_run, tmp_path / "none.nc", [5], "cpu")

    def test_a_run_on_another_source(self, tmp_path, tiny_values):
        from fieldcast.config import read_config
        from fieldcast.training.loop import train

        values = tiny_values(**{"training.num_steps": 1})
        run = train(read_config(values), tmp_path / "run", "cpu")
        with pytest.raises(DataError, match="trained on 'moving-mnist'"):
            forecast(run, make_rain(), [5], "cpu")


class TestPython:
    def test_the_names_a_newcomer_types(self, tiny_run, rain_file):
        # In a fresh process, because modules and functions of one name get into each other's way by order of imports.
        script = f"""
import importlib
import xarray as xr
import fieldcast as fc
run = fc.Run({str(tiny_run.folder)!r})
with xr.open_dataset({str(rain_file)!r}, engine="h5netcdf") as dataset:
    forecast = fc.forecast(run, dataset, minutes=[5, 30])
assert forecast.rain.sizes["lead_time"] == 2
scores = fc.evaluate(run, split="test")
assert "mse" in scores
for name in ("benchmark", "forecast", "report", "demo"):
    importlib.import_module("fieldcast." + name)
    assert callable(getattr(fc, name)), name
"""
        subprocess.run([sys.executable, "-c", script], check=True, timeout=120)

    def test_every_public_name_is_there(self):
        for name in fieldcast.__all__:
            assert getattr(fieldcast, name) is not None
        with pytest.raises(AttributeError, match="no attribute 'forcast'"):
            _ = fieldcast.forcast

    def test_a_folder_that_is_no_run(self, tmp_path):
        with pytest.raises(fieldcast.FieldcastError, match="is no run"):
            Run(tmp_path)
