"""Gaps of a sequence filled: by straight lines, of which the answer is known, and by a network."""

import h5py
import numpy as np
import pytest
import xarray as xr
from forecast_fixtures import ATTRIBUTES, START, make_rain, shared_run, train_on  # noqa: F401
from hypothesis import given, settings
from hypothesis import strategies as st

import fieldcast
from fieldcast.errors import ConfigError, DataError
from fieldcast.fill import fill, find_gaps
from fieldcast.forecast import save_forecast
from fieldcast.models import build
from fieldcast.run import Run

MINUTE = np.timedelta64(1, "m")
CADENCE = 5 * 60 * 10**9
VID_ODE = {
    "key": "vid-ode",
    "widths": [2, 2],
    **{f"{part}coder_ode": {"width": 2, "depth": 1} for part in ("en", "de")},
}
quiet = pytest.mark.filterwarnings("ignore::UserWarning")


def growing(num_frames=16, dtype=np.float32) -> xr.Dataset:
    """Rain of which log(1 + rate) grows by a steady amount, another at each pixel; the last column is missing."""
    data = make_rain(num_frames)
    slope = 0.02 + 0.1 * np.random.default_rng(4).random((1, 16, 24))
    rain = np.expm1(slope * (1 + np.arange(num_frames))[:, None, None]).astype(dtype)
    rain[:, :, -1] = np.nan
    return data.assign(rain=(("time", "y", "x"), rain, ATTRIBUTES))


def without(data: xr.Dataset, *frames: int) -> xr.Dataset:
    return data.isel(time=np.setdiff1d(np.arange(data.sizes["time"]), frames))


def blank(data: xr.Dataset, *frames: int, name="rain") -> xr.Dataset:
    data = data.copy(deep=True)
    data[name][{"time": list(frames)}] = np.nan
    return data


@pytest.fixture
def straight(shared_run, monkeypatch) -> Run:  # noqa: F811
    """A run on steps of five minutes, of three inputs, whose model is the straight line."""
    monkeypatch.setattr(Run, "model", lambda self, device="cpu": build("linear-interpolation"))
    return shared_run


@pytest.fixture(scope="module")
def learned(tmp_path_factory) -> Run:
    """A run that learnt to interpolate: six frames, of which four are inputs."""
    changes = {"windows": {"num_inputs": 4, "num_targets": 2}, "sampling": {"task": "interpolate"}, "model": VID_ODE}
    return train_on(make_rain(), tmp_path_factory.mktemp("learned"), **changes, **{"training.num_steps": 1})


@quiet
class TestValues:
    def test_what_is_known(self, straight):
        full = growing()
        result = fill(straight, without(blank(full, 13), 3, 4, 9), "cpu", "1 h")
        assert (result.time == full.time).all()
        np.testing.assert_allclose(result.rain, full.rain, rtol=1e-5)
        filled = [3, 4, 9, 13]
        np.testing.assert_array_equal(np.flatnonzero(result.rain_filled), filled)
        observed = np.setdiff1d(np.arange(16), filled)
        np.testing.assert_array_equal(result.rain[observed], full.rain[observed])

    def test_missing_pixels_of_observed_frames_stay_missing(self, straight):
        data = without(growing(), 5)
        data.rain[2, :4] = np.nan
        data.rain[3:7, 2, 7] = np.nan
        result = fill(straight, data, "cpu", "1 h")
        np.testing.assert_array_equal(result.rain.isel(time=result.rain_filled == 0), data.rain)
        made = result.rain[5]
        assert np.isnan(made[2, 7]), "no frame around the gap has this pixel"
        assert np.isnan(made[:, -1]).all()
        assert made.notnull().sum() == 16 * 23 - 1

    def test_a_network(self, learned):
        full = make_rain(20)
        result = fill(learned, without(full, 3, 4, 12), "cpu")
        assert (result.time == full.time).all()
        np.testing.assert_array_equal(np.flatnonzero(result.rain_filled), [3, 4, 12])
        made = result.rain[[3, 4, 12], :, :-1]
        assert np.isfinite(made).all() and (made.std(("y", "x")) > 0).all()
        assert not np.allclose(made[0], made[1])
        xr.testing.assert_equal(fill(learned, without(full, 3, 4, 12), "cpu"), result)

    def test_the_model_is_asked_at_times_before_the_last_input(self, learned, monkeypatch):
        asked, model = [], learned.model()
        forward = type(model).forward
        monkeypatch.setattr(
            type(model), "forward", lambda self, *given: asked.append(given[1:]) or forward(self, *given)
        )
        fill(learned, without(make_rain(20), 3, 4, 12), "cpu")
        times = [[part[0].tolist() for part in each] for each in asked]
        assert times == [[[-5, -4, -1, 0], [-3, -2]], [[-4, -3, -1, 0], [-2]]]

    def test_one_variable_of_two(self, tmp_path, monkeypatch):
        def both(data):
            return data.assign(snow=((1 + data.rain) ** 2 - 1).assign_attrs(units="mm/h"))

        run = train_on(both(make_rain()), tmp_path, ("rain", "snow"), **{"training.num_steps": 1})
        monkeypatch.setattr(Run, "model", lambda self, device="cpu": build("linear-interpolation", num_channels=2))
        full = both(growing())
        result = fill(run, without(blank(full, 6, name="snow"), 9), "cpu", "1 h")
        np.testing.assert_array_equal(np.flatnonzero(result.rain_filled), [9])
        np.testing.assert_array_equal(np.flatnonzero(result.snow_filled), [6, 9])
        np.testing.assert_array_equal(result.rain[6], full.rain[6])
        np.testing.assert_allclose(result.snow[9], full.snow[9], rtol=1e-5)
        assert np.isfinite(result.snow[6, :, :-1]).all()


@quiet
class TestWhatComesBack:
    @pytest.mark.parametrize("order", [("time", "y", "x"), ("x", "time", "y")])
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_type_order_and_bits(self, straight, order, dtype):
        data = without(growing(dtype=dtype), 6).transpose(*order)
        result = fill(straight, data.isel(time=slice(None, None, -1)), "cpu", "1 h")
        assert result.rain.dims == order
        assert result.rain.dtype == dtype
        observed = result.rain.isel(time=result.rain_filled == 0).transpose(*order)
        assert observed.values.tobytes() == data.rain.values.tobytes()

    def test_units_of_the_input(self, straight):
        full = growing()
        amounts = full.assign(rain=(full.rain / 12).assign_attrs(units="mm", standard_name="rainfall_amount"))
        result = fill(straight, without(amounts, 6), "cpu", "1 h")
        assert result.rain.attrs["units"] == "mm"
        np.testing.assert_allclose(result.rain, amounts.rain, rtol=1e-5)

    def test_packed_values_in_a_file(self, straight, tmp_path):
        packing = {"dtype": "int16", "scale_factor": 0.01, "_FillValue": np.int16(-1)}
        without(growing(), 6, 7).to_netcdf(tmp_path / "gappy.nc", engine="h5netcdf", encoding={"rain": packing})
        path = save_forecast(fill(straight, str(tmp_path / "gappy.nc"), "cpu", "1 h"), tmp_path / "filled.nc")
        with (
            xr.open_dataset(tmp_path / "gappy.nc", engine="h5netcdf") as before,
            xr.open_dataset(path, engine="h5netcdf") as after,
        ):
            observed = after.rain.isel(time=after.rain_filled == 0)
            np.testing.assert_array_equal(observed, before.rain)
            np.testing.assert_allclose(after.rain, growing().rain, atol=0.01)
            assert after.rain.dtype == before.rain.dtype

    def test_whole_numbers(self, straight):
        full = growing().fillna(0)
        whole = full.assign(rain=full.rain.astype(np.int16).assign_attrs(ATTRIBUTES))
        result = fill(straight, without(whole, 6), "cpu", "1 h")
        assert result.rain.dtype == np.float32
        np.testing.assert_array_equal(result.rain[5], whole.rain[5])

    def test_labels(self, straight, tmp_path):
        data = without(growing(), 6, 9, 10).assign_attrs(
            history="made", source="radar", Conventions="CF-1.8", title="R"
        )
        data["crs"] = ((), np.int32(0), {"grid_mapping_name": "polar_stereographic"})
        data["rain"] = data.rain.assign_attrs(grid_mapping="crs")
        data = data.assign_coords(lat=(("y", "x"), np.random.default_rng(0).random((16, 24))))
        data.time.attrs["standard_name"] = "time"
        result = fill(straight, data, "cpu", "1 h")
        assert {name: result.attrs[name] for name in ("Conventions", "title")} == {
            "Conventions": "CF-1.11",
            "title": "R",
        }
        first, second = result.attrs["history"].split("\n")
        assert first == "made"
        assert second.endswith("fieldcast fill of run 'tiny', step 4: 3 frames in 2 gaps")
        assert result.attrs["source"].startswith("radar; gaps filled by fieldcast ")
        assert result.rain.attrs == {**data.rain.attrs, "ancillary_variables": "rain_filled"}
        assert result.rain_filled.dtype == np.uint8
        assert result.rain_filled.attrs["flag_meanings"] == "observed filled"
        assert result.rain_filled.attrs["flag_values"].tolist() == [0, 1]
        assert result.time.attrs == data.time.attrs
        xr.testing.assert_identical(result.lat, data.lat)
        xr.testing.assert_identical(result.crs, data.crs)
        path = save_forecast(result, tmp_path / "filled.nc")
        with xr.open_dataset(path, engine="h5netcdf") as opened:
            xr.testing.assert_identical(opened.load().drop_encoding(), result)
        with h5py.File(path) as file:
            assert file["time"].dtype == np.int64
            assert file["rain"].dtype == np.float32 and np.isnan(file["rain"].attrs["_FillValue"])
            assert file["rain_filled"].dtype == np.uint8 and "_FillValue" not in file["rain_filled"].attrs

    def test_a_calendar_of_its_own(self, tmp_path, monkeypatch):
        times = xr.date_range("2018-02-29T23:00", periods=72, freq="5min", calendar="360_day", use_cftime=True)
        run = train_on(make_rain(times=times), tmp_path, **{"training.num_steps": 1})
        monkeypatch.setattr(Run, "model", lambda self, device="cpu": build("linear-interpolation"))
        full = growing().assign_coords(time=times[:16])
        result = fill(run, without(full, 11, 12, 13), "cpu", "1 h")
        assert result.time.values.tolist() == times[:16].tolist()
        path = save_forecast(result, tmp_path / "filled.nc")
        with xr.open_dataset(path, engine="h5netcdf") as opened:
            xr.testing.assert_equal(opened, result)

    def test_filled_twice(self, straight):
        full = growing()
        once = fill(straight, without(full, 3, 9), "cpu", "1 h")
        twice = fill(straight, without(once, 11), "cpu", "1 h")
        np.testing.assert_array_equal(np.flatnonzero(twice.rain_filled), [3, 9, 11])
        assert twice.rain.attrs["ancillary_variables"] == "rain_filled"
        assert len(twice.attrs["history"].split("\n")) == 2

    def test_a_zarr_folder(self, straight, tmp_path):
        data = without(growing(), 6)
        data.to_zarr(tmp_path / "gappy", consolidated=False)
        xr.testing.assert_equal(fill(straight, tmp_path / "gappy", "cpu", "1 h"), fill(straight, data, "cpu", "1 h"))

    def test_time_stamps_stay_as_they_are(self, straight):
        full = growing()
        late = full.time.values.copy()
        late[8] += 40 * np.timedelta64(1, "s")
        result = fill(straight, without(full.assign_coords(time=late), 6, 9), "cpu", "1 h")
        expected = late.copy()
        expected[9] = late[8] + 5 * MINUTE
        assert (result.time.values == expected).all()


class TestWhatIsSaid:
    def test_gaps_within_what_was_learnt(self, learned, recwarn):
        result = fill(learned, without(make_rain(20), 3, 4, 12), "cpu")
        assert not [str(entry.message) for entry in recwarn if entry.category is UserWarning]
        assert result.rain_filled.sum() == 3

    def test_a_gap_longer_than_what_was_learnt_is_left(self, learned):
        full = make_rain(20)
        message = (
            r"^1 of 2 gaps are longer than 15 min and stay as they are; the longest, from 2018-05-10T00:15:00 to "
            r"2018-05-10T00:25:00, is 20 min: longest \(--longest\) says"
        )
        with pytest.warns(UserWarning, match=message) as caught:
            result = fill(learned, without(full, 3, 4, 5, 12), "cpu")
        assert len(caught) == 1
        assert caught[0].filename == __file__
        assert (result.time == without(full, 3, 4, 5).time).all()
        np.testing.assert_array_equal(np.flatnonzero(result.rain_filled), [9])

    def test_longest_fills_longer_gaps_too(self, learned):
        message = "^1 of 2 filled gaps are longer than the 15 min between inputs .* to .*00:25:00, is 20 min$"
        with pytest.warns(UserWarning, match=message) as caught:
            result = fill(learned, without(make_rain(20), 3, 4, 5, 12), "cpu", longest="20 min")
        assert len(caught) == 1
        np.testing.assert_array_equal(np.flatnonzero(result.rain_filled), [3, 4, 5, 12])

    def test_longest_leaves_shorter_gaps_too(self, learned):
        with pytest.warns(UserWarning, match="1 of 2 gaps are longer than 10 min and stay .* is 15 min") as caught:
            result = fill(learned, without(make_rain(20), 3, 4, 12), "cpu", longest="10 min")
        assert len(caught) == 1
        np.testing.assert_array_equal(np.flatnonzero(result.rain_filled), [10])

    def test_days_between_events(self, learned):
        full = make_rain(24)
        times = full.time.values + np.where(np.arange(24) < 12, 0, 3 * 24 * 60) * MINUTE
        data = blank(without(full.assign_coords(time=times), 4, 18), 8)
        with pytest.warns(UserWarning, match="1 of 4 gaps .* from .*10T01:00:00 to .*13T00:55:00, is 4325 min"):
            result = fill(learned, data, "cpu")
        assert (result.time == times).all()
        np.testing.assert_array_equal(np.flatnonzero(result.rain_filled), [4, 9, 18])

    @pytest.mark.parametrize("change", [without, blank])
    def test_only_longer_gaps(self, learned, change):
        data = change(make_rain(20), 3, 4, 5)
        with pytest.warns(UserWarning, match="1 of 1 gaps are longer than 15 min and stay") as caught:
            result = fill(learned, data, "cpu")
        assert len(caught) == 1
        np.testing.assert_array_equal(result.rain, data.rain)
        assert (result.time == data.time).all()
        assert not result.rain_filled.any()

    def test_a_gap_that_is_left_needs_no_frames_around_it(self, learned):
        data = make_rain(20).isel(time=[0, 1, 10])
        with pytest.warns(UserWarning, match="1 of 1 gaps"):
            assert not fill(learned, data, "cpu").rain_filled.any()

    @pytest.mark.filterwarnings("ignore:1 of 1 filled gaps are longer")
    def test_a_run_that_learnt_something_else(self, straight):
        with pytest.warns(UserWarning, match="trained to forecast, not to interpolate"):
            fill(straight, without(growing(), 3), "cpu", longest="1 h")

    def test_the_ends(self, learned):
        data = blank(make_rain(20), 0, 1, 7, 19)
        with pytest.warns(UserWarning, match="nothing is before or after: 3 frames without a value") as caught:
            result = fill(learned, data, "cpu")
        assert len(caught) == 1
        np.testing.assert_array_equal(np.flatnonzero(result.rain_filled), [7])
        assert np.isnan(result.rain[[0, 1, 19]]).all()
        assert result.sizes["time"] == 20

    def test_no_gap(self, learned):
        data = make_rain(20)
        with pytest.warns(UserWarning, match="no frame is missing between the first and the last: nothing was filled"):
            result = fill(learned, data, "cpu")
        np.testing.assert_array_equal(result.rain, data.rain)
        assert not result.rain_filled.any()

    def test_what_else_changes_in_time(self, learned):
        data = without(make_rain(20), 5)
        edges = np.stack([data.time.values - 5 * MINUTE, data.time.values], axis=1)
        data = data.assign(quality=("time", np.ones(19, np.int8)), time_bnds=(("time", "edge"), edges))
        data.time.attrs["bounds"] = "time_bnds"
        with pytest.warns(UserWarning, match="left out, since .*: quality, time_bnds"):
            result = fill(learned, data, "cpu")
        assert set(result.data_vars) == {"rain", "rain_filled"}
        assert "bounds" not in result.time.attrs


class TestRefusals:
    def test_a_model_that_does_not_interpolate(self, shared_run):  # noqa: F811
        with pytest.raises(ConfigError, match=r"convgru forecasts only .* interpolate: .*vid-ode"):
            fill(shared_run, make_rain(), "cpu")

    def test_a_run_that_ignores_times(self, straight, monkeypatch):
        monkeypatch.setattr(Run, "model", lambda self, device="cpu": build("linear-interpolation", ignore_times=True))
        with pytest.raises(ConfigError, match="ignores times, so it fills no gap"):
            fill(straight, make_rain(), "cpu")

    def test_a_run_that_learnt_to_fill_no_gap(self, straight):
        with pytest.raises(ConfigError, match=r'inputs 5 min apart, .*task = "interpolate", or say with longest'):
            fill(straight, without(growing(), 3), "cpu")

    @pytest.mark.parametrize(
        ("longest", "message"),
        [
            ("5 min", "longest = '5 min': .* longer than the cadence of 5 min; where one frame is missing, 10 min"),
            ("0 s", "longest = '0 s': a gap lasts"),
            ("half an hour", "'half an hour' is not a duration: write a number and one of s, "),
            (30, "'30' is not a duration"),
        ],
    )
    def test_a_length_that_no_gap_has(self, learned, longest, message):
        with pytest.raises(ConfigError, match=message):
            fill(learned, without(make_rain(20), 3), "cpu", longest=longest)

    def test_a_run_of_one_input(self, tmp_path):
        run = train_on(make_rain(), tmp_path, model=VID_ODE, **{"training.num_steps": 1, "windows.num_inputs": 1})
        with pytest.raises(ConfigError, match="a gap has two sides"):
            fill(run, make_rain(), "cpu")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda data: data.isel(time=[0, 1, 4]), "from 2018-05-10T00:10:00 to .*T00:15:00: .* reads 4 .* has 3"),
            (lambda data: blank(data, *range(20)), "no frame of the input has values of rain"),
            (lambda data: data.isel(time=[0]), "1 frame has no cadence"),
            (lambda data: data.assign_coords(x=data.x * 2), "spacing of 2000 along x"),
            (lambda data: data.rename(rain="snow"), "no variable 'rain'"),
            (lambda data: data.rain, "DataArray came"),
        ],
    )
    def test_inputs_that_do_not_fit(self, learned, change, message):
        with pytest.raises(DataError, match=message):
            fill(learned, change(make_rain(20)), "cpu")

    def test_several_files(self, learned, tmp_path):
        for number, part in enumerate((slice(0, 8), slice(10, 20))):
            make_rain(20).isel(time=part).to_netcdf(tmp_path / f"{number}.nc", engine="h5netcdf")
        with pytest.raises(DataError, match="2 files: fill takes one"):
            fill(learned, str(tmp_path / "*.nc"), "cpu")


class TestGaps:
    @pytest.mark.parametrize(
        ("minutes", "missing"),
        [
            ([0, 5, 15, 20], [[10]]),
            ([0, 5, 25, 30, 40], [[10, 15, 20], [35]]),
            ([0, 5, 12.4, 17], []),
            ([0, 5, 12.5, 17], []),
            ([0, 5, 12.6, 17], [[10]]),
            ([0, 5, 17, 22], [[10]]),
            ([0, 5, 17.6, 22], [[10, 15]]),
            ([0, 4, 10, 15], []),
        ],
    )
    def test_steps_of_about_whole_cadences(self, minutes, missing):
        times = np.round(np.array(minutes) * CADENCE / 5).astype(np.int64)
        gaps = find_gaps(times, np.ones(len(times), bool), CADENCE, 2)
        assert [(gap.times * 5 / CADENCE).tolist() for gap in gaps] == missing

    def test_frames_without_values_keep_their_own_times(self):
        times = np.array([0, 5, 11, 15, 25, 30]) * CADENCE // 5
        gap, later = find_gaps(times, np.array([True, True, False, True, True, True]), CADENCE, 2)
        assert (gap.times * 5 / CADENCE).tolist() == [11]
        assert gap.inputs.tolist() == [1, 3]
        assert (later.times * 5 / CADENCE).tolist() == [20]
        assert gap.length == later.length == 2 * CADENCE

    @settings(max_examples=25, deadline=None)
    @given(seed=st.integers(0, 10**6), num_frames=st.integers(4, 30), num_inputs=st.integers(2, 6))
    def test_against_a_plain_search(self, seed, num_frames, num_inputs):
        random = np.random.default_rng(seed)
        grid = np.arange(num_frames)
        kept = np.sort(random.choice(grid, random.integers(2, num_frames), replace=False))
        there = random.random(len(kept)) < 0.8
        gaps = find_gaps(kept * CADENCE, there, CADENCE, num_inputs)
        good = kept[there].tolist()
        expected = [time for time in range(min(good, default=0), max(good, default=0)) if time not in good]
        assert [time // CADENCE for gap in gaps for time in gap.times.tolist()] == expected
        for gap in gaps:
            missing = gap.times[0] // CADENCE
            before, after = ([t for t in good if t < missing][::-1], [t for t in good if t > missing])
            want = min(num_inputs, len(good))
            taken = after[: num_inputs // 2]
            taken += before[: want - len(taken)]
            taken += after[num_inputs // 2 :][: want - len(taken)]
            assert kept[gap.inputs].tolist() == sorted(taken)
            assert len(set(taken)) == want
            assert gap.length == (after[0] - before[0]) * CADENCE


def test_the_name_a_newcomer_types(learned):
    assert fieldcast.fill is fill
    assert fieldcast.fill(learned, without(make_rain(20), 3), "cpu").time[0] == START
