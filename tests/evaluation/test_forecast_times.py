"""Forecasts at times of day, from frames at irregular times, and as members."""

import cftime
import h5py
import numpy as np
import pytest
import torch
import xarray as xr
from forecast_fixtures import ATTRIBUTES, NUM_FRAMES, START, make_rain, train_on

from fieldcast.errors import ConfigError, DataError
from fieldcast.forecast import forecast, save_forecast
from fieldcast.run import Run

MINUTE = np.timedelta64(1, "m")
ODE = {"key": "trajgru-ode", "widths": [3, 4, 5], "up_widths": [4, 3, 4], "head_width": 4, "num_links": 2}
ODE = {"model": {**ODE, "ode": {"width": 3, "depth": 1}}, "source.transform": "scale"}
VID_ODE = {
    "key": "vid-ode",
    "widths": [2, 2],
    **{f"{part}coder_ode": {"width": 2, "depth": 1} for part in ("en", "de")},
}
BRIEF = {"training.num_steps": 1}


@pytest.fixture(scope="module")
def past():
    return make_rain(40)


@pytest.fixture(scope="module")
def any_time(tmp_path_factory) -> Run:
    """A run of a model that takes any times, on steps of up to ten minutes."""
    return train_on(
        make_rain(), tmp_path_factory.mktemp("vid"), model=VID_ODE, **BRIEF, **{"windows.max_gap": "10 min"}
    )


@pytest.fixture(scope="module")
def drawing(tmp_path_factory) -> Run:
    """A run of a model that draws."""
    values = {"key": "latent-ode", "widths": [3, 4], "grid": 3, "features": 5, "state_width": 4, "gate_width": 6}
    return train_on(make_rain(), tmp_path_factory.mktemp("drawing"), model=values, **BRIEF)


class TestTimesOfDay:
    def test_they_are_lead_times_by_another_name(self, shared_run, past):
        expected = forecast(shared_run, past, [5, 15], "cpu")
        at = ["2018-05-10T03:20", "2018-05-10T03:30:00Z"]
        xr.testing.assert_equal(forecast(shared_run, past, device="cpu", at=at), expected)
        xr.testing.assert_equal(forecast(shared_run, past, [5], "cpu", at[1:]), expected)
        xr.testing.assert_equal(forecast(shared_run, past, [5, 15], "cpu", at), expected)

    def test_any_time_of_a_model_that_can(self, any_time, past, tmp_path):
        result = forecast(any_time, past, [5, 10], "cpu", ["2018-05-10T03:22", "2018-05-10T03:23:30.25"])
        leads = [5, 7, 8.5 + 0.25 / 60, 10]
        np.testing.assert_allclose(result.lead_time / MINUTE, leads)
        assert (np.diff(result.rain, axis=1) != 0).any(axis=(0, 2, 3)).all()
        path = save_forecast(result, tmp_path / "forecast.nc")
        with xr.open_dataset(path, engine="h5netcdf", decode_timedelta=True) as opened:
            xr.testing.assert_identical(opened.load(), result)
        with h5py.File(path) as file:
            assert file["valid_time"].dtype == file["lead_time"].dtype == np.int64

    def test_a_date_that_only_its_calendar_has(self, tmp_path):
        times = xr.date_range("2018-02-29", periods=NUM_FRAMES, freq="5min", calendar="360_day", use_cftime=True)
        run = train_on(make_rain(times=times), tmp_path, **BRIEF)
        data = make_rain(times=times)
        result = forecast(run, data.isel(time=slice(0, 3)), device="cpu", at=["2018-02-30"])
        assert result.valid_time.values[0, 0] == cftime.datetime(2018, 2, 30, calendar="360_day")
        with pytest.raises(ConfigError, match="not a time of the 360_day calendar"):
            forecast(run, data, device="cpu", at=["2018-03-31"])

    @pytest.mark.parametrize("at", ["2018-05-10T03:15", "2018-05-10", "2018-05-10T03:14:59"])
    def test_what_is_past_is_refused(self, shared_run, past, at):
        with pytest.raises(ConfigError, match=f"at = '{at}': the last input is of 2018-05-10T03:15:00"):
            forecast(shared_run, past, device="cpu", at=[at, "2018-05-10T04:00"])

    @pytest.mark.parametrize(
        ("at", "message"),
        [
            ("2018-05-10T04:00", "a list of times, such as"),
            ([7], "a list of times, such as"),
            (["10:07"], "'10:07' is not a time: write"),
            (["2018-05-10T04:00", "2018-05-10T03:50"], "times in order, each once"),
            (["2018-05-10T04:00", "2018-05-10T04:00:00"], "times in order, each once"),
        ],
    )
    def test_what_is_no_list_of_times(self, shared_run, past, at, message):
        with pytest.raises(ConfigError, match=message):
            forecast(shared_run, past, device="cpu", at=at)

    def test_neither_is_refused(self, shared_run, past):
        with pytest.raises(ConfigError, match=r"minutes = \[\]: .*or times in 'at'"):
            forecast(shared_run, past, device="cpu")

    def test_a_regular_model_says_what_it_can_and_who_can_more(self, shared_run, past):
        with pytest.raises(
            DataError, match=r"convgru .*multiples of the cadence, 5, 10, 15 min.*; 7 min came.*trajgru-ode"
        ):
            forecast(shared_run, past, [5], "cpu", ["2018-05-10T03:22"])


class TestIrregularInputs:
    def test_real_times_are_used(self, any_time, past):
        missing = past.isel(time=[*range(37), 38, 39])
        times = missing.time.values.copy()
        times[-3] += 5 * MINUTE
        moved = missing.assign_coords(time=times)
        late, even = (forecast(any_time, data, [5, 10], "cpu") for data in (missing, moved))
        assert (late.init_time == even.init_time).all()
        assert not np.allclose(late.rain, even.rain, atol=1e-6)

    def test_last_frames_that_are_further_apart_than_the_cadence(self, any_time, past):
        sparse = past.isel(time=[35, 37, 39])
        full = past.isel(time=[*range(34), 35, 37, 39])
        result = forecast(any_time, sparse, [5], "cpu")
        np.testing.assert_allclose(result.rain, forecast(any_time, full, [5], "cpu").rain, rtol=1e-5)
        amounts = sparse.assign(rain=(sparse.rain / 12).assign_attrs(units="mm", standard_name="rainfall_amount"))
        with pytest.raises(
            DataError, match=r"every 10 min.* every 5 min, so how long its amounts took to fall is unclear"
        ):
            forecast(any_time, amounts, [5], "cpu")
        finer = past.assign_coords(time=START + np.arange(40) * MINUTE)
        with pytest.raises(DataError, match="every 1 min, the model was trained on one every 5 min"):
            forecast(any_time, finer, [5], "cpu")

    def test_a_longer_gap_than_in_training(self, any_time, past):
        with pytest.raises(
            DataError, match=r"15 min without a frame before input 2 .* at most 10 min.*fieldcast fill.*max_gap"
        ):
            forecast(any_time, past.isel(time=[*range(36), 38, 39]), [5], "cpu")

    def test_some_frames_of_a_stretch(self, tmp_path, past):
        # Three inputs of six frames: three can be missing between two.
        sampling = {"sampling.input_interval": [1, 6], "sampling.target_interval": [7, 10]}
        run = train_on(make_rain(120), tmp_path, **ODE, **BRIEF, **sampling)
        sparse = past.isel(time=[*range(30), 34, 38, 39])
        with pytest.warns(UserWarning, match="25 min is beyond the 20 min"):
            result = forecast(run, sparse, [5, 20, 25], "cpu")
        assert np.isfinite(result.rain).all()
        # This model goes from target to target, so that it matters which are asked for on the way.
        alone = forecast(run, sparse, [20], "cpu")
        assert np.array_equal(alone.rain[0, 0], result.rain[0, 1])
        assert not np.allclose(result.rain[0, 0], result.rain[0, 1], atol=1e-5)
        with pytest.raises(DataError, match=r"25 min without a frame before input 2 .* steps of at most 20 min"):
            forecast(run, past.isel(time=[*range(30), 33, 38, 39]), [5], "cpu")

    def test_a_run_that_ignores_times(self, tmp_path, past):
        run = train_on(make_rain(), tmp_path, **BRIEF, **{"model.ignore_times": True, "windows.max_gap": "10 min"})
        gappy = past.isel(time=[*range(37), 38, 39])
        both = forecast(run, gappy, [5, 10, 15], "cpu")
        assert np.array_equal(forecast(run, gappy, [15], "cpu").rain[0, 0], both.rain[0, 2])
        assert both.attrs["title"] == "Forecast by convgru (times ignored)"
        with pytest.raises(DataError, match=r"times ignored.* whole multiples .*7 min came"):
            forecast(run, gappy, [7], "cpu")


class TestMembers:
    def test_layout(self, drawing, past, tmp_path):
        result = forecast(drawing, past, [5, 10], "cpu", members=4)
        assert result.rain.dims == ("init_time", "lead_time", "number", "y", "x")
        assert result.rain.shape == (1, 2, 4, 16, 24)
        assert result.number.attrs == {"standard_name": "realization", "units": "1"}
        assert result.rain_valid.dims == ("init_time", "y", "x")
        assert result.rain.attrs == {**ATTRIBUTES, "ancillary_variables": "rain_valid"}
        path = save_forecast(result, tmp_path / "members.nc")
        with xr.open_dataset(path, engine="h5netcdf", decode_timedelta=True) as opened:
            xr.testing.assert_identical(opened.load(), result)

    def test_they_differ_and_come_again(self, drawing, past):
        few, many = (forecast(drawing, past, [5, 10], "cpu", members=number) for number in (2, 4))
        np.testing.assert_array_equal(few.rain, many.rain[:, :, :2])
        for one in range(3):
            assert not np.allclose(many.rain[:, :, one], many.rain[:, :, one + 1], atol=1e-6)
        assert "number" not in forecast(drawing, past, [5], "cpu").dims

    def test_they_leave_the_random_numbers_of_others_alone(self, drawing, past):
        after = []
        for members in (None, 3):
            torch.manual_seed(11)
            forecast(drawing, past, [5], "cpu", members=members)
            after.append(torch.get_rng_state())
        assert torch.equal(*after)

    @pytest.mark.parametrize("members", [0, -1, 2.0, True, "4"])
    def test_a_number_is_wanted(self, drawing, past, members):
        with pytest.raises(ConfigError, match="a whole number from 1"):
            forecast(drawing, past, [5], "cpu", members=members)

    def test_others_have_none(self, shared_run, past):
        with pytest.raises(ConfigError, match=r"members = 4: convgru has one forecast .* draw several: .*latent-ode"):
            forecast(shared_run, past, [5], "cpu", members=4)
