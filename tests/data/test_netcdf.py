"""NetCDF, HDF5 and Zarr: labels, order of time, values through packing, and every refusal."""

import contextlib
import os
import sys
import threading
from pathlib import Path

import cftime
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldcast.data.files import find_files
from fieldcast.data.netcdf import NetCDF, NetCDFConfig, open_frames
from fieldcast.data.times import decode_time, format_time
from fieldcast.errors import ConfigError, DataError, MissingExtra
from fieldcast.settings import read_settings

SECOND = 10**9
START = decode_time("2018-05-10")
SHARED = Path(os.environ.get("FIELDCAST_TEST_DATA", Path(__file__).parents[2] / "../shared/data"))


def make(num_frames=6, shape=(4, 5), first=0, name="rain", step=5):
    """A data set as xarray users have it: (time, y, x) float32 in mm, 5 minutes apart."""
    times = np.datetime64("2018-05-10T00:00", "ns") + np.arange(first, first + num_frames) * np.timedelta64(step, "m")
    values = np.random.default_rng(first).random((num_frames, *shape), dtype=np.float32)
    return xr.Dataset(
        {name: (("time", "y", "x"), values, {"units": "mm", "long_name": "rain", "cell_methods": "time: sum"})},
        {
            "time": times,
            "y": ("y", np.arange(shape[0])[::-1] * 1000.0, {"units": "m"}),
            "x": np.arange(shape[1]) * 1000.0,
        },
    )


def config(paths="unused", variables=("rain",), **options):
    return NetCDFConfig(paths=str(paths), variables=variables, **options)


def write(dataset, path, **encoding):
    dataset.to_netcdf(path, engine="h5netcdf", encoding=encoding)
    return path


def frames_of(source, **options):
    sequence = source.sequences("train", None)[0]
    return sequence.read(np.arange(len(sequence.times)), **options)


def raw(num_frames=3, **variables):
    """A data set as it is stored, with encoded times."""
    time = ("time", np.arange(num_frames) * 5, {"units": "minutes since 2018-05-10"})
    return xr.Dataset({name: (("time", "y", "x"), *item) for name, item in variables.items()}, {"time": time})


class TestReading:
    @pytest.mark.parametrize("storage", ["h5netcdf", "zarr", "scipy", "memory"])
    @pytest.mark.parametrize("cache_megabytes", [0, 512])
    def test_every_storage_gives_the_same(self, tmp_path, storage, cache_megabytes):
        dataset, path = make(), tmp_path / "rain"
        if storage == "zarr":
            dataset.to_zarr(path, consolidated=False)
        elif storage == "scipy":
            pytest.importorskip("scipy")
            dataset.to_netcdf(path, engine="scipy")
        elif storage == "h5netcdf":
            write(dataset, path)
        options = config(path, cache_megabytes=cache_megabytes)
        source = open_frames(dataset, options) if storage == "memory" else NetCDF(options)
        sequence = source.sequences("test", None)[0]
        assert (source.kind, source.shape, source.calendar) == ("archive", (4, 5), "standard")
        assert source.cadence == 300 * SECOND
        assert (sequence.times == START + np.arange(6) * 300 * SECOND).all()
        assert source.variables[0].units == "mm"
        assert source.variables[0].attributes == {"long_name": "rain", "cell_methods": "time: sum"}
        assert (source.grid.row_name, source.grid.column_name) == ("y", "x")
        assert source.grid.rows.tolist() == [3000, 2000, 1000, 0]
        assert source.grid.spacing() == (-1000, 1000)
        assert source.grid.attributes["y"] == {"units": "m"}
        wanted = dataset["rain"].values[:, None]
        assert frames_of(source).dtype == np.float32
        assert np.array_equal(frames_of(source), wanted)
        positions, window = np.array([4, 1, 5]), (slice(1, 3), slice(0, 2))
        assert np.array_equal(sequence.read(positions, window), wanted[positions, :, 1:3, 0:2])
        assert sequence.read(np.array([], dtype=int)).shape == (0, 1, 4, 5)

    def test_several_variables_are_channels_in_the_order_asked_for(self, tmp_path):
        dataset = xr.merge([make(), make(name="wind", first=0) * 2])
        source = NetCDF(config(write(dataset, tmp_path / "a.nc"), ("wind", "rain")))
        assert [variable.name for variable in source.variables] == ["wind", "rain"]
        assert np.array_equal(frames_of(source), np.stack([dataset["wind"], dataset["rain"]], axis=1))

    @settings(max_examples=25, deadline=None)
    @given(st.permutations(["time", "y", "x", "height"]))
    def test_the_order_of_dimensions_changes_nothing(self, dims):
        dataset = make()
        permuted = dataset.expand_dims("height").transpose(*dims)
        assert np.array_equal(frames_of(open_frames(permuted, config())), dataset["rain"].values[:, None])

    def test_permuted_dimensions_in_a_file(self, tmp_path):
        dataset = make()
        path = write(dataset.transpose("x", "time", "y"), tmp_path / "a.nc")
        for cache_megabytes in (0, 1):
            source = NetCDF(config(path, cache_megabytes=cache_megabytes))
            part = source.sequences("", None)[0].read(np.array([3, 2]), (slice(2, 4), slice(1, 5)))
            assert np.array_equal(part, dataset["rain"].values[[3, 2], None, 2:4, 1:5])

    def test_decoded_and_raw_data_sets_are_the_same(self, tmp_path):
        packing = {"dtype": "int16", "scale_factor": 0.01, "_FillValue": -1}
        path = write(make(), tmp_path / "a.nc", rain=packing)
        expected = frames_of(NetCDF(config(path)))
        for decode in (True, False):
            with xr.open_dataset(path, engine="h5netcdf", decode_cf=decode) as dataset:
                assert np.array_equal(frames_of(open_frames(dataset, config())), expected)

    def test_threads_read_what_one_reads(self, tmp_path):
        path = write(make(50), tmp_path / "a.nc", rain={"zlib": True, "chunksizes": (7, 4, 5)})
        for cache_megabytes in (0, 1):
            source = NetCDF(config(path, cache_megabytes=cache_megabytes))
            sequence, wanted = source.sequences("", None)[0], make(50)["rain"].values
            wrong = []

            def work(start, sequence=sequence, wanted=wanted, wrong=wrong):
                for shift in range(10):
                    positions = (np.arange(5) + start + shift) % 50
                    if not np.array_equal(sequence.read(positions)[:, 0], wanted[positions]):
                        wrong.append(positions)

            threads = [threading.Thread(target=work, args=(start,)) for start in (0, 20, 40)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert not wrong

    def test_an_archive_beyond_the_cache_is_never_loaded_whole(self, tmp_path, monkeypatch):
        path = write(make(40, (200, 200)), tmp_path / "a.nc", rain={"chunksizes": (1, 200, 200)})
        largest = []
        values = xr.Variable.values.fget
        spy = property(lambda variable: (largest.append(variable.size), values(variable))[1])
        monkeypatch.setattr(xr.Variable, "values", spy)
        for cache_megabytes, wanted in ((1, 2 * 40_000), (512, 40 * 40_000)):
            largest.clear()
            NetCDF(config(path, cache_megabytes=cache_megabytes)).sequences("", None)[0].read(np.array([7, 8]))
            assert max(largest) == wanted


class TestAxes:
    def test_cf_attributes_win_over_names_and_position(self):
        dataset = make().rename(x="lines", y="cells")
        dataset["lines"].attrs["axis"] = "Y"
        source = open_frames(dataset, config())
        assert (source.grid.row_name, source.grid.column_name) == ("lines", "cells")
        assert np.array_equal(frames_of(source)[:, 0], dataset["rain"].values.transpose(0, 2, 1))

    @pytest.mark.parametrize(
        ("rows", "columns"),
        [("lat", "lon"), ("latitude", "longitude"), ("row", "column"), ("south_north", "west_east")],
    )
    def test_common_names(self, rows, columns):
        dataset = make().rename(y=rows, x=columns).drop_vars([rows, columns]).transpose(columns, rows, "time")
        source = open_frames(dataset, config())
        assert (source.grid.row_name, source.grid.column_name, source.grid.rows) == (rows, columns, None)

    def test_nameless_dimensions_go_by_their_order_or_by_the_settings(self):
        dataset = make().drop_vars(["x", "y"]).rename(y="a", x="b")
        assert open_frames(dataset, config()).shape == (4, 5)
        source = open_frames(dataset, config(rows="b"))
        assert (source.shape, source.grid.column_name) == ((5, 4), "a")

    def test_other_dimensions_are_refused_by_name(self):
        dataset = make().expand_dims(level=3)
        with pytest.raises(
            DataError, match=r"'rain' has dimensions \(level=3, time=6, y=4, x=5\); wanted \(time, y, x\).*'level'"
        ):
            open_frames(dataset, config())
        profile = make().isel(x=0).expand_dims(level=3)
        with pytest.raises(DataError, match=r"say which in 'rows' and 'columns'"):
            open_frames(profile, config())
        unknown = make().expand_dims(a=3).rename(y="b", x="c").drop_vars(["b", "c"])
        with pytest.raises(DataError, match=r"say which in 'rows' and 'columns'"):
            open_frames(unknown, config())
        with pytest.raises(DataError, match=r"wanted 'north' for the rows"):
            open_frames(make(), config(rows="north"))
        two = make().rename(x="lat")
        with pytest.raises(DataError, match=r"could be the rows"):
            open_frames(two, config())

    def test_the_time_coordinate_is_found_or_named(self):
        dataset = make().rename(time="when")
        assert open_frames(dataset, config()).cadence == 300 * SECOND
        dataset = dataset.assign_coords(issued=("when", dataset["when"].values))
        assert open_frames(dataset.drop_indexes("when").rename_vars(when="shown"), config(time="shown")).shape == (4, 5)
        with pytest.raises(DataError, match=r"'time' has no coordinate"):
            open_frames(make().drop_vars("time"), config())
        with pytest.raises(DataError, match=r"by the name 'clock'"):
            open_frames(make(), config(time="clock"))
        two = make().drop_indexes("time").rename_vars(time="a")
        with pytest.raises(DataError, match=r"each of a, b could be the time"):
            open_frames(two.assign_coords(b=("time", two["a"].values)), config())

    def test_two_dimensional_coordinates_are_left_out(self):
        dataset = make().assign_coords(latitudes=(("y", "x"), np.zeros((4, 5))))
        assert set(open_frames(dataset, config()).grid.attributes) == {"y", "x"}

    def test_variables_on_other_grids_are_refused(self):
        dataset = make().assign(other=(("time", "lat", "lon"), np.zeros((6, 2, 2))))
        with pytest.raises(DataError, match=r"'other' lies on .time, lat=2, lon=2.*one grid is wanted"):
            open_frames(dataset, config(variables=("rain", "other")))

    def test_an_unknown_variable_is_named_with_the_nearest(self):
        with pytest.raises(DataError, match=r"no variable 'rian': did you mean 'rain'"):
            open_frames(make(), config(variables=("rian",)))


class TestManyFiles:
    @settings(max_examples=30, deadline=None)
    @given(st.permutations(range(12)), st.lists(st.integers(0, 3), min_size=12, max_size=12))
    def test_shuffled_and_interleaved_files_change_nothing(self, order, owners):
        whole = make(12)
        parts = [whole.isel(time=[i for i in order if owners[i] == owner]) for owner in set(owners)]
        source = NetCDF(config(), [(f"file {number}", part) for number, part in enumerate(parts)])
        sequence = source.sequences("", None)[0]
        assert (sequence.times == START + np.arange(12) * 300 * SECOND).all()
        assert np.array_equal(frames_of(source), whole["rain"].values[:, None])

    def test_files_of_one_frame_with_a_scalar_time(self, tmp_path):
        whole = make(5)
        for index in (3, 0, 4, 1, 2):
            write(whole.isel(time=index), tmp_path / f"{9 - index}.nc")
        for cache_megabytes in (0, 1):
            source = NetCDF(config(tmp_path / "*.nc", cache_megabytes=cache_megabytes))
            assert np.array_equal(frames_of(source), whole["rain"].values[:, None])
            assert "and 4 more" in source.sequences("", None)[0].name

    def test_every_file_has_its_own_packing_dimension_order_and_units(self, tmp_path):
        first, second = make(6), make(6, first=6)
        paths = [tmp_path / "a.nc", tmp_path / "b.nc"]
        write(first, paths[0], rain={"dtype": "int16", "scale_factor": 0.001, "_FillValue": -1})
        second["rain"] = (second["rain"] * 12).assign_attrs(units="mm/h")
        write(second.transpose("x", "y", "time"), paths[1])
        source = NetCDF(NetCDFConfig(paths=tuple(map(str, paths)), variables=("rain",)))
        wanted = np.concatenate([first["rain"], make(6, first=6)["rain"]])[:, None]
        assert np.abs(frames_of(source) - wanted).max() < 0.00051

    def test_gaps_are_times_that_are_not_there(self):
        sequence = open_frames(make(12).isel(time=[0, 1, 2, 6, 7, 11]), config()).sequences("", None)[0]
        assert (np.diff(sequence.times) // (300 * SECOND)).tolist() == [1, 1, 4, 1, 4]

    def test_times_that_come_twice_are_listed_with_their_files(self):
        with pytest.raises(DataError, match=r"3 times come twice: 2018-05-10T00:15:00 \(a.nc and b.nc\), .*keep one"):
            NetCDF(config(), [("a.nc", make(6)), ("b.nc", make(6, first=3))])
        with pytest.raises(DataError, match=r"1 times come twice: 2018-05-10T00:05:00 \(the data set\)"):
            open_frames(make().isel(time=[0, 1, 1, 2]), config())

    def test_other_grids_and_calendars_are_refused(self):
        shifted = make(first=6)
        with pytest.raises(DataError, match=r"b: the coordinates of its columns differ from those of a"):
            NetCDF(config(), [("a", make()), ("b", shifted.assign_coords(x=shifted["x"] + 1))])
        with pytest.raises(DataError, match=r"rows differ"):
            NetCDF(config(), [("a", make()), ("b", shifted.drop_vars("y"))])
        with pytest.raises(DataError, match=r"b has \(4, 6\) rows and columns"):
            NetCDF(config(), [("a", make()), ("b", make(shape=(4, 6), first=6))])
        dates = [cftime.datetime(2018, 5, 30, minute, calendar="360_day") for minute in range(6)]
        with pytest.raises(DataError, match=r"b has the 360_day calendar, a the standard one"):
            NetCDF(config(), [("a", make()), ("b", shifted.assign_coords(time=dates))])
        almost = shifted.assign_coords(x=shifted["x"] + 0.01)
        assert NetCDF(config(), [("a", make()), ("b", almost)]).shape == (4, 5)

    def test_one_frame_or_none_is_refused(self):
        with pytest.raises(DataError, match=r"at least two frames"):
            open_frames(make(1), config())
        with pytest.raises(DataError, match=r"no frames"):
            open_frames(make().isel(time=[]), config())


class TestTimes:
    @pytest.mark.parametrize("calendar", ["360_day", "noleap", "all_leap", "julian"])
    def test_other_calendars(self, tmp_path, calendar):
        dates = [cftime.datetime(2000, month, 28, calendar=calendar) for month in (1, 2, 3, 4)]
        path = write(make(4).assign_coords(time=dates), tmp_path / "a.nc")
        source = NetCDF(config(path))
        times = source.sequences("", None)[0].times
        assert source.calendar == calendar
        assert [format_time(time, calendar)[:10] for time in times] == [f"2000-0{m}-28" for m in (1, 2, 3, 4)]

    def test_jitter_is_snapped_within_the_tolerance(self):
        dataset = make(20)
        jitter = np.random.default_rng(0).integers(-3, 4, 20).astype("timedelta64[s]")
        jittered = dataset.assign_coords(time=dataset["time"].values + jitter)
        assert open_frames(jittered, config()).cadence != 0
        source = open_frames(jittered, config(tolerance="3 s"))
        assert source.cadence == 300 * SECOND
        assert (source.sequences("", None)[0].times == START + np.arange(20) * 300 * SECOND).all()

    def test_microseconds_as_pandas_3_gives_them(self):
        dataset = make()
        dataset = dataset.assign_coords(time=dataset["time"].values.astype("datetime64[us]"))
        assert (np.diff(open_frames(dataset, config()).sequences("", None)[0].times) == 300 * SECOND).all()

    def test_a_missing_time_names_file_and_index(self, tmp_path):
        dataset = make()
        times = dataset["time"].values.copy()
        times[2] = np.datetime64("NaT")
        path = write(dataset.assign_coords(time=times), tmp_path / "a.nc")
        with pytest.raises(DataError, match=r"a.nc: 'time': 1 of 6 times are missing .index 2"):
            NetCDF(config(path))


class TestValues:
    @settings(max_examples=50, deadline=None)
    @given(
        st.floats(1e-4, 10),
        st.floats(-1000, 1000),
        st.lists(st.integers(-32767, 32767), min_size=24, max_size=24),
        st.sampled_from([">i2", "<i2", "<i4"]),
    )
    def test_packed_values_come_back_within_half_a_step(self, scale, offset, stored, dtype):
        exact = np.array(stored).reshape(3, 2, 4) * scale + offset
        exact[0, 0, 0] = np.nan
        packed = np.where(np.isnan(exact), -32768, np.rint((np.nan_to_num(exact) - offset) / scale)).astype(dtype)
        attributes = {"scale_factor": scale, "add_offset": offset, "_FillValue": np.int16(-32768)}
        frames = frames_of(open_frames(raw(rain=(packed, attributes)), config()))[:, 0]
        assert np.array_equal(np.isnan(frames), np.isnan(exact))
        slack = 2e-7 * np.abs(exact)
        assert (np.abs(frames - exact)[~np.isnan(exact)] <= (scale / 2 + slack)[~np.isnan(exact)]).all()

    def test_missing_values_of_every_kind_are_nan(self):
        values = np.arange(24, dtype=np.float32).reshape(3, 2, 4)
        values[0, 0, :3] = (-999, 1e20, 9.96921e36)
        stored = raw(
            a=(values, {"_FillValue": np.float32(-999), "missing_value": 1e20}),
            b=(values, {}),
            c=(np.arange(24, dtype=np.int16).reshape(3, 2, 4), {"missing_value": np.array([3, 4])}),
            d=(np.full((3, 2, 4), -2, np.int8), {"_Unsigned": "true", "scale_factor": 0.5}),
        )
        frames = frames_of(open_frames(stored, config(variables=("a", "b", "c", "d"))))
        assert np.isnan(frames[0, :, 0]).tolist()[:2] == [[True, True, False, False], [False, False, True, False]]
        assert np.argwhere(np.isnan(frames[:, 2])).tolist() == [[0, 0, 3], [0, 1, 0]]
        assert (frames[:, 3] == 127).all()

    def test_units_are_converted_and_the_labels_follow(self):
        stored = raw(
            rain=(np.full((3, 2, 4), 5), {"units": "kg", "standard_name": "rainfall_amount", "scale_factor": 0.1})
        )
        source = open_frames(stored, config(units="mm/h"))
        assert frames_of(source) == pytest.approx(6.0)
        assert source.variables[0].units == "mm/h"
        assert source.variables[0].attributes == {"standard_name": "rainfall_rate"}
        assert open_frames(stored, config()).variables[0].units == "kg"
        both = open_frames(
            stored.assign(t=(("time", "y", "x"), np.zeros((3, 2, 4)), {"units": "degC"})),
            config(variables=("rain", "t"), units=("mm/h", "K")),
        )
        assert frames_of(both)[0, :, 0, 0] == pytest.approx([6.0, 273.15])
        with pytest.raises(DataError, match=r"rain.*unknown units 'furlong'.*accepted"):
            open_frames(stored, config(units="furlong"))
        del stored["rain"].attrs["units"]
        with pytest.raises(DataError, match=r"'rain' has no units; wanted 'mm/h'"):
            open_frames(stored, config(units="mm/h"))

    def test_infinite_values_are_refused_with_variable_and_time(self):
        dataset = make()
        dataset["rain"][2, 1, 1] = np.inf
        sequence = open_frames(dataset, config()).sequences("", None)[0]
        assert np.isfinite(sequence.read(np.array([0, 1]))).all()
        with pytest.raises(DataError, match=r"'rain' is infinite at 2018-05-10T00:10:00 .1 pixels"):
            sequence.read(np.array([1, 2, 3]))

    @pytest.mark.parametrize("dtype", ["object", "U3", "complex64", "bool", "timedelta64[s]"])
    def test_types_that_are_no_real_numbers_are_refused(self, dtype):
        dataset = make()
        dataset["rain"] = (("time", "y", "x"), np.zeros((6, 4, 5)).astype(dtype))
        with pytest.raises(DataError, match=r"variable 'rain' has type .*integers or real"):
            open_frames(dataset, config())

    def test_a_boolean_in_a_file_is_refused(self, tmp_path):
        with pytest.raises(DataError, match=r"has type bool"):
            NetCDF(config(write(make() > 0, tmp_path / "a.nc")))


class TestFiles:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "not NetCDF/HDF5 .first bytes: none, the file is empty"),
            (b"hello, I am text", "not NetCDF/HDF5 .first bytes: 'hello, I'"),
            (b"CDF\x05\0\0\0\0", "not NetCDF/HDF5"),
            (b"\x89HDF\r\n\x1a\n", "damaged or cut short, 8 bytes"),
        ],
    )
    def test_other_files_are_refused(self, tmp_path, content, message):
        path = tmp_path / "a.nc"
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"a.nc: {message}"):
            NetCDF(config(path))

    def test_missing_files_patterns_and_folders(self, tmp_path):
        with pytest.raises(DataError, match=r"a.nc: no such file"):
            NetCDF(config(tmp_path / "a.nc"))
        with pytest.raises(DataError, match=r"no file matches this pattern"):
            NetCDF(config(tmp_path / "*.nc"))
        with pytest.raises(DataError, match=r"no Zarr store; for the files in it write"):
            NetCDF(config(tmp_path))
        with pytest.raises(DataError, match=r"paths is empty"):
            find_files(())
        (tmp_path / "odd[1].nc").write_bytes(b"")
        assert find_files(str(tmp_path / "odd[1].nc")) == [tmp_path / "odd[1].nc"]

    @pytest.mark.parametrize("engine", ["h5netcdf", "scipy"])
    def test_a_file_cut_anywhere_is_refused(self, tmp_path, engine, capfd):
        if engine == "scipy":
            pytest.importorskip("scipy")
        dataset, path = make(20), tmp_path / "a.nc"
        dataset.to_netcdf(path, engine=engine, unlimited_dims=["time"])
        content = path.read_bytes()
        for part in range(20):
            path.write_bytes(content[: len(content) * part // 20])
            with pytest.raises(DataError, match=r"a.nc"):
                frames_of(NetCDF(config(path)))
        assert capfd.readouterr().err == ""

    @pytest.mark.parametrize("engine", ["h5netcdf", "scipy"])
    def test_a_flipped_bit_never_ends_in_a_traceback(self, tmp_path, engine):
        if engine == "scipy":
            pytest.importorskip("scipy")
        path = tmp_path / "a.nc"
        make(20).to_netcdf(path, engine=engine)
        damage = np.random.default_rng(0)
        content = path.read_bytes()
        for _ in range(60):
            damaged = bytearray(content)
            damaged[damage.integers(700)] ^= 1 << int(damage.integers(8))
            path.write_bytes(damaged)
            with contextlib.suppress(DataError):
                frames_of(NetCDF(config(path)))

    def test_netcdf_3_without_scipy_names_the_extra(self, tmp_path, monkeypatch):
        path = tmp_path / "a.nc"
        path.write_bytes(b"CDF\x01\0\0\0\0")
        monkeypatch.setitem(sys.modules, "scipy", None)
        with pytest.raises(MissingExtra, match=r"reading netCDF-3 needs the 'netcdf3' extra"):
            NetCDF(config(path))

    def test_a_damaged_zarr_is_refused(self, tmp_path):
        make().to_zarr(tmp_path / "a.zarr", consolidated=False)
        chunk = next(
            path for path in (tmp_path / "a.zarr" / "rain").rglob("*") if path.is_file() and path.name != "zarr.json"
        )
        chunk.write_bytes(chunk.read_bytes()[:10])
        source = NetCDF(config(tmp_path / "a.zarr"))
        with pytest.raises(DataError, match=r"'rain': cannot be read"):
            frames_of(source)
        (tmp_path / "a.zarr" / "zarr.json").write_text("{")
        with pytest.raises(DataError, match=r"a.zarr: damaged"):
            NetCDF(config(tmp_path / "a.zarr"))


class TestSettings:
    def test_lists_from_toml_become_tuples(self):
        settings = read_settings(
            NetCDFConfig, {"paths": ["a.nc", "b.nc"], "variables": ["rain"], "units": ["mm"]}, "source"
        )
        assert (settings.paths, settings.variables, settings.units) == (("a.nc", "b.nc"), ("rain",), ("mm",))
        assert read_settings(NetCDFConfig, {"paths": "a.nc", "variables": ["rain"]}, "source").paths == "a.nc"

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"variables": []}, "at least one variable"),
            ({"variables": ["rain", "rain"]}, "each once"),
            ({"tolerance": "3 parsecs"}, "source.tolerance.*not a duration"),
            ({"units": ["mm", "K"]}, "2 entries for 1 variables"),
            ({"cache_megabytes": -1}, "source.cache_megabytes"),
            ({"row": "y"}, "did you mean 'rows'"),
        ],
    )
    def test_bad_settings_are_refused(self, values, message):
        with pytest.raises(ConfigError, match=message):
            read_settings(NetCDFConfig, {"paths": "a.nc", "variables": ["rain"], **values}, "source")


def shared(path):
    if not (SHARED / path).exists():
        pytest.skip(f"no test data at {SHARED / path}; set FIELDCAST_TEST_DATA")
    return SHARED / path


class TestSharedData:
    def test_german_radar(self):
        path = shared("radar_dwd/example_areal_reference_data.nc")
        options = {"variables": ("rainfall_amount",), "units": "mm/h", "cache_megabytes": 0}
        source = NetCDF(config(path, **options))
        sequence = source.sequences("train", None)[0]
        assert (sequence.times == START + np.arange(3168) * 300 * SECOND).all()
        assert (source.shape, source.cadence, source.grid.rows) == ((190, 228), 300 * SECOND, None)
        window = (slice(38, 76), slice(46, 92))
        rain = sequence.read(np.arange(3168), window)
        with xr.open_dataset(path, engine="h5netcdf", decode_times=False) as dataset:
            wanted = dataset["rainfall_amount"][:, *window].values * 12
        assert np.allclose(rain[:, 0], wanted, rtol=1e-6, equal_nan=True)

    def test_german_radar_share_of_rain(self):
        path = shared("radar_dwd/example_areal_reference_data.nc")
        sequence = NetCDF(config(path, variables=("rainfall_amount",))).sequences("train", None)[0]
        rain = sequence.read(np.arange(0, 3168, 24))
        assert (rain > 0).mean() == pytest.approx(0.084, abs=0.002)
        assert np.isnan(rain).mean() == pytest.approx(0.025, abs=0.002)

    def test_climate_of_360_days(self):
        path = shared("climate/E1_north_america.nc")
        source = NetCDF(config(path, variables=("air_temperature",)))
        times = source.sequences("train", None)[0].times
        assert (source.calendar, source.shape, len(times)) == ("360_day", (37, 49), 240)
        assert source.cadence == 360 * 86400 * SECOND
        assert format_time(times[0], "360_day") == "1860-06-01T00:00:00"
        assert source.grid.rows[0] < source.grid.rows[-1]
        assert 270 < np.nanmean(frames_of(source)) < 300
