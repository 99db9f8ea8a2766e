"""Tables of flow: text and NetCDF in their many forms, times to UTC, units to m3/s, and every refusal."""

import datetime
import logging
import zoneinfo

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldcast.data.flow_table import FlowSettings, read_flow
from fieldcast.data.text_table import read_table
from fieldcast.data.times import decode_time, format_time
from fieldcast.data.written_times import TimeReading, read_times
from fieldcast.errors import ConfigError, DataError
from fieldcast.settings import read_settings

HOUR = 3600 * 10**9
DAY = 24 * HOUR


def text_settings(path, text, **options):
    path = path / "flow.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return FlowSettings(**{"flow": str(path), "flow_units": "m3/s", "timezone": "UTC", **options})


def read_text(path, text, **options):
    return read_flow(text_settings(path, text, **options))


def dataset(num_days=5, names=("08MF005", "08MG001"), units="m3 s-1"):
    """A file of flow as xarray users have it, on (station, time) and with a fill value."""
    flow = np.arange(num_days * len(names), dtype=np.float32).reshape(len(names), num_days)
    flow[0, 1] = np.nan
    times = np.datetime64("2018-05-10", "ns") + np.arange(num_days) * np.timedelta64(1, "D")
    return xr.Dataset(
        {"discharge": (("station", "time"), flow, {"units": units, "long_name": "river flow"})},
        {
            "time": times,
            "station": list(names),
            "lat": ("station", [49.5, 50.25]),
            "lon": ("station", [-121.5, -122.75]),
            "area": ("station", [100.0, 2000.0], {"units": "km2"}),
        },
    )


def written(folder, values, engine="scipy"):
    pytest.importorskip(engine)
    values.to_netcdf(folder / "flow.nc", engine=engine)
    return FlowSettings(flow=str(folder / "flow.nc"))


def lines_of(times):
    return [format_time(time) for time in times]


class TestText:
    @pytest.mark.parametrize(
        "text",
        [
            "time,a,b\n2018-05-10,1.5,2\n2018-05-11,,1e3\n",
            "time;a;b\r\n10.05.2018;1,5;2\r\n11.05.2018;;1000\r\n13.05.2018;;\r\n",
            "time\ta\tb\n2018/05/10\t1.5\t2\n2018/05/11\tNaN\t1000\n",
            '\ufefftime, a, b\n# a remark, of two\n\n20180510, "1.5", 2.0\n20180511, nan, 1000\n',
            "time;a;b;\n5/10/2018;1,5;2;\n5/11/2018;;1000;\n5/20/2018;;;\n;;;\n",
            "time,a,b\n2018-05-11 00:00,,1000\n2018-05-10 00:00:00,1.5,2\n",
            "time,a,b\n2018-05-10T02:00+02:00,1.5,2\n2018-05-10T23:30-0030,,1000\n",
        ],
        ids=("comma", "semicolon", "tab", "blanks", "trailing", "unordered", "offsets"),
    )
    def test_many_forms_of_the_same(self, tmp_path, text):
        table = read_text(tmp_path, text, **({"timezone": None} if "+" in text else {}))
        assert table.names == ("a", "b")
        assert (table.times[:2] == decode_time("2018-05-10") + DAY * np.arange(2)).all()
        np.testing.assert_array_equal(table.flow[:2], [[1.5, 2], [np.nan, 1000]])
        assert (table.variable.units, table.calendar) == ("m3/s", "standard")

    def test_what_was_found_is_said(self, tmp_path, caplog):
        with caplog.at_level(logging.INFO):
            read_text(tmp_path, "time;a\n13.05.2018;1,5\n14.05.2018;2\n")
        assert "separated by semicolons" in caplog.text
        assert "decimal comma" in caplog.text
        assert "'13.05.2018' are read day first" in caplog.text

    def test_stations_in_the_order_asked_for_and_the_others_are_not_read(self, tmp_path):
        text = "time,a,b,c\n2018-05-10,1,x,3\n2018-05-11,4,y,6\n"
        table = read_text(tmp_path, text, stations=("c", "a"))
        assert table.names == ("c", "a")
        assert table.flow.tolist() == [[3, 1], [6, 4]]

    def test_missing_values_as_declared(self, tmp_path):
        text = "time,a\n2018-05-10,-999\n2018-05-11,M\n2018-05-12,3\n"
        assert np.isnan(read_text(tmp_path, text, missing=(-999, "M")).flow[:, 0]).tolist() == [True, True, False]

    def test_a_number_that_only_looks_missing_can_be_kept(self, tmp_path):
        assert read_text(tmp_path, "time,a\n2018-05-10,-999\n", missing=()).flow.tolist() == [[-999]]

    def test_a_decimal_comma_by_request(self, tmp_path):
        text = "time;a\n2018-05-10;1,234\n2018-05-11;5,678\n"
        assert read_text(tmp_path, text, decimal=",").flow[:, 0].tolist() == [1.234, 5.678]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("time,a\n2018-05-10,1\n2018-05-11,1,2\n", "line 3: 3 cells, the header has 2 .separated by commas"),
            ("time a\n2018-05-10 1\n", "no semicolon, tab or comma in the header"),
            ("time,a;b\n2018-05-10,1;2\n", "separated by semicolon or comma"),
            ("time,a,a\n2018-05-10,1,2\n", "two columns are called 'a'"),
            ("time,a,\n2018-05-10,1,2\n", "column 3 has no name"),
            ("time,a\n", "1 lines; a header and at least one row"),
            ("time,a\n,\n", "no row below the header"),
            ("time,a\n2018-05-10,ice\n", "line 2, column 'a': 'ice' is no number.*missing = ..ice.."),
            ("time,a\n2018-05-10,1_0\n", "'1_0' is no number"),
            ("time;a\n2018-05-10;1,5\n2018-05-11;1.5\n", "commas .'1,5', line 2. and with points .'1.5', line 3"),
            ("time;a\n2018-05-10;1,500\n2018-05-11;2\n", "line 2: '1,500' can be read.*set decimal"),
            ("time,a\n2018-05-10,-999\n2018-05-11,-999\n", r"-999 at station 'a', 2018-05-10.*\(2 such\).*= \[-999\]"),
            ("time,a\n2018-05-10,1e31\n", "flow is 1e.31"),
            ("time,a\n2018-05-10,1\n2018-05-10,2\n", "1 times come twice: 2018-05-10T00:00:00"),
            ("time,a\n2018-05-10,1\n11.05.2018,2\n", "2 forms, '2018-05-10' .line 2. and '11.05.2018' .line 3"),
            ("time,a\n2018-05-10,1\n2018-05-11 06:00,2\n", "written in 2 forms"),
            ("time,a\n5/10/2018,1\n5/11/2018,2\n", "line 2: nothing tells whether the day or the month.*day_first"),
            ("time,a\n13/05/2018,1\n5/14/2018,2\n", "the day comes first in some.*line 2.*line 3"),
            ("time,a\n2018-02-30,1\n", "line 2: '2018-02-30' is no time of the calendar"),
            ("time,a\n1500-02-20,1\n", "years from 1678"),
            ("time,a\nMay 10th,1\n", "line 2: 'May 10th' is no time that can be read"),
            ("time,a\n10.5.18,1\n", "no time that can be read"),
            ('time,a\n2018-05-10,"1\n2018-05-11,1\n', "a quoted cell runs over the end"),
            (b"time,\xe9\n2018-05-10,1\n", "not UTF-8 text"),
        ],
    )
    def test_refused(self, tmp_path, text, message):
        with pytest.raises(DataError, match=message):
            read_text(tmp_path, text)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"flow_units": None}, "set flow_units"),
            ({"timezone": None}, "do not say their zone: set timezone"),
            ({"timezone": "America/Vancuver"}, "did you mean 'America/Vancouver'"),
            ({"timezone": "America"}, "unknown timezone 'America'"),
            ({"timezone": "+30:00"}, "unknown timezone"),
            ({"flow_variable": "q"}, "flow_variable: for NetCDF or Zarr only"),
            ({"usual_variable": "q"}, "usual_variable: for NetCDF"),
        ],
    )
    def test_settings_that_do_not_go_with_it(self, tmp_path, options, message):
        with pytest.raises(ConfigError, match=message):
            read_text(tmp_path, "time,a\n2018-05-10,1\n", **options)

    def test_a_zone_beside_offsets(self, tmp_path):
        with pytest.raises(ConfigError, match="carry their own offset: leave timezone out"):
            read_text(tmp_path, "time,a\n2018-05-10T00:00Z,1\n")

    def test_more_than_one_file(self, tmp_path):
        for name in ("a.csv", "b.csv"):
            (tmp_path / name).write_text("time,a\n2018-05-10,1\n")
        with pytest.raises(DataError, match="2 files; all flow is wanted in one"):
            read_flow(FlowSettings(flow=str(tmp_path / "*.csv"), flow_units="m3/s"))


class TestTimes:
    def test_an_order_of_day_and_month_by_request(self):
        texts = ["5/10/2018", "6/10/2018"]
        first, second = (read_times(texts, [2, 3], TimeReading("UTC", day_first), "f") for day_first in (True, False))
        assert lines_of(first) == ["2018-10-05T00:00:00", "2018-10-06T00:00:00"]
        assert lines_of(second) == ["2018-05-10T00:00:00", "2018-06-10T00:00:00"]

    def test_a_request_that_the_text_belies(self):
        with pytest.raises(DataError, match="line 2: '5/13/2018' does not fit day_first = true"):
            read_times(["5/13/2018"], [2], TimeReading("UTC", True), "flow")

    def test_local_times_to_utc(self):
        texts = ["2018-01-10 06:00", "2018-07-10 06:00:30.5"]
        local = read_times(texts, [2, 3], TimeReading("America/Vancouver"), "flow")
        assert lines_of(local) == ["2018-01-10T14:00:00", "2018-07-10T13:00:30.5"]
        assert lines_of(read_times(texts, [2, 3], TimeReading("-08:00"), "flow"))[1] == "2018-07-10T14:00:30.5"

    @pytest.mark.parametrize(
        ("hours", "message"),
        [
            (["2018-11-04 00:30", "2018-11-04 01:00", "2018-11-04 01:30"], "2 local times came twice.*line 3, 4"),
            (["2018-03-11 01:30", "2018-03-11 02:30"], "1 local times never came.*line 3"),
        ],
    )
    def test_the_hour_of_changed_clocks(self, hours, message):
        with pytest.raises(DataError, match=message):
            read_times(hours, range(2, 2 + len(hours)), TimeReading("America/Vancouver"), "flow")

    @settings(max_examples=25, deadline=None)
    @given(
        moments=st.lists(
            st.datetimes(datetime.datetime(1900, 1, 1), datetime.datetime(2100, 1, 1)), min_size=1, max_size=4
        ),
        zone=st.sampled_from(["UTC", "America/Vancouver", "Asia/Kathmandu", "Australia/Lord_Howe"]),
        form=st.sampled_from(["%Y-%m-%dT%H:%M:%S", "%Y%m%d %H:%M:%S", "%Y/%m/%d %H:%M:%S.%f"]),
    )
    def test_against_the_library(self, moments, zone, form):
        aware = [moment.replace(tzinfo=datetime.UTC).astimezone(zoneinfo.ZoneInfo(zone)) for moment in moments]
        # What the clocks show twice is refused, which has a test of its own.
        aware = [moment for moment in aware if moment.utcoffset() == moment.replace(fold=1 - moment.fold).utcoffset()]
        texts = [moment.strftime(form) for moment in aware]
        epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
        step = datetime.timedelta(microseconds=1) if "%f" in form else datetime.timedelta(seconds=1)
        wanted = [(moment - epoch) // step * (step // datetime.timedelta(microseconds=1)) * 1000 for moment in aware]
        if texts:
            assert read_times(texts, range(len(texts)), TimeReading(zone), "flow").tolist() == wanted


class TestNetCDF:
    @pytest.mark.filterwarnings("ignore:The data type")  # how Zarr 3 stores text is not settled yet
    @pytest.mark.parametrize("storage", ["h5netcdf", "scipy", "zarr"])
    def test_every_storage_and_label(self, tmp_path, storage):
        values = dataset()
        if storage == "zarr":
            values.to_zarr(tmp_path / "flow.nc", consolidated=False)
        else:
            written(tmp_path, values, storage)
        table = read_flow(FlowSettings(flow=str(tmp_path / "flow.nc")))
        assert table.names == ("08MF005", "08MG001")
        assert (table.variable.name, table.variable.units) == ("discharge", "m3/s")
        assert table.variable.attributes == {"long_name": "river flow"}
        np.testing.assert_array_equal(table.flow, values.discharge.values.T)
        assert (table.times == decode_time("2018-05-10") + DAY * np.arange(5)).all()
        assert table.latitudes.tolist() == [49.5, 50.25]
        assert table.longitudes.tolist() == [-121.5, -122.75]
        assert table.areas.tolist() == [100, 2000]
        assert table.titles is None

    def test_some_stations_with_packed_values_and_the_usual_flow(self, tmp_path):
        values = dataset()
        values["usual"] = values.discharge.T + 1
        values["title"] = "station", ["Fraser at Hope", "Chehalis"]
        packed = {"dtype": "int16", "scale_factor": 0.5, "_FillValue": -1}
        values.to_netcdf(tmp_path / "flow.nc", engine="h5netcdf", encoding={"discharge": packed})
        table = read_flow(FlowSettings(flow=str(tmp_path / "flow.nc"), usual_variable="usual", stations=("08MG001",)))
        assert table.flow[:, 0].tolist() == [5, 6, 7, 8, 9]
        assert table.usual[:, 0].tolist() == [6, 7, 8, 9, 10]
        assert table.titles == ("Chehalis",)
        assert table.latitudes.tolist() == [50.25]

    def test_names_that_cf_marks_and_numbers_as_names(self, tmp_path):
        values = dataset().drop_vars("station")
        values["code"] = ("station", np.array([b"A1", b"B2"], dtype="S2"), {"cf_role": "timeseries_id"})
        assert read_flow(written(tmp_path, values)).names == ("A1", "B2")
        values = values.drop_vars("code").assign(id=("station", [12, 7]))
        assert read_flow(written(tmp_path, values)).names == ("12", "7")

    def test_a_station_table_says_where_they_are(self, tmp_path):
        settings = written(tmp_path, dataset().drop_vars(["lat", "lon", "area"])).model_copy(update={"decimal": ","})
        (tmp_path / "stations.csv").write_text(
            "Station;Latitude;Longitude;Area;Title;height\n08MG001;50,25;-122,75;2000;Chehalis;1\nother;;;;;\n"
            "08MF005;49,5;-121,5;100,5;Fraser;2\n"
        )
        table = read_flow(settings.model_copy(update={"station_table": str(tmp_path / "stations.csv")}))
        assert table.latitudes.tolist() == [49.5, 50.25]
        assert table.longitudes.tolist() == [-121.5, -122.75]
        assert table.areas.tolist() == [100.5, 2000]
        assert table.titles == ("Fraser", "Chehalis")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("station,latitude\n08MF005,49\n", "no station '08MG001'"),
            ("station,latitude\n08MF005,49\n08MG001,50\n08MF005,1\n", "two stations are called '08MF005'"),
            ("gauge,latitude\n08MF005,49\n", "columns gauge, latitude; wanted are 'station' and any of"),
            ("station,height\n08MF005,49\n", "wanted are 'station' and any of latitude"),
            ("station,latitude\n08MF005,49\n08MG001,\n", "'08MG001' has the latitude nan"),
            ("station,latitude\n08MF005,490\n08MG001,50\n", "'08MF005' has the latitude 490"),
            ("station,area\n08MF005,0\n08MG001,50\n", "'08MF005' has the area in km2 0"),
        ],
    )
    def test_bad_station_tables(self, tmp_path, text, message):
        (tmp_path / "stations.csv").write_text(text)
        settings = written(tmp_path, dataset())
        with pytest.raises(DataError, match=message):
            read_flow(settings.model_copy(update={"station_table": str(tmp_path / "stations.csv")}))

    @pytest.mark.parametrize(
        ("change", "options", "message"),
        [
            (lambda v: v, {"flow_variable": "discharg"}, "no variable 'discharg': did you mean 'discharge'"),
            (lambda v: v, {"stations": ("08MF05",)}, "no station '08MF05': did you mean '08MF005'"),
            (lambda v: v, {"usual_variable": "usual"}, r"no variable 'usual' on \(time, station\)"),
            (lambda v: v.assign(more=v.discharge), {}, "each of discharge, more could be it: set flow_variable"),
            (lambda v: v.drop_vars("time"), {}, "which variable is the flow"),
            (lambda v: v.drop_vars("time"), {"flow_variable": "discharge"}, "wanted .time, station., with one coord"),
            (lambda v: v.isel(station=0), {"flow_variable": "discharge"}, r"has dimensions \(time=5\)"),
            (lambda v: v.drop_vars("station"), {}, "no names of stations on dimension 'station'"),
            (lambda v: v.assign_coords(station=["a", "a"]), {}, "two stations are called 'a'"),
            (lambda v: v.astype(bool).assign_coords(v.coords), {"flow_variable": "discharge"}, "numbers are wanted"),
            (lambda v: xr.concat([v, v], "time"), {}, "5 times come twice: 2018-05-10"),
            (lambda v: v.where(v.discharge != 4, np.inf), {}, "flow is inf at station '08MF005', 2018-05-14"),
            (lambda v: v.where(v.discharge != 4, -9999), {}, "missing = .-9999."),
            (lambda v: v.assign(usual=v.discharge.assign_attrs(units="1")), {"usual_variable": "usual"}, "is in '1'"),
        ],
    )
    def test_refused(self, tmp_path, change, options, message):
        settings = written(tmp_path, change(dataset()))
        with pytest.raises(DataError, match=message):
            read_flow(settings.model_copy(update=options))

    def test_a_second_time_beside_the_coordinate(self, tmp_path):
        values = dataset()
        values["read_at"] = "time", values.time.values + np.timedelta64(1, "h")
        assert read_flow(written(tmp_path, values)).times[0] == decode_time("2018-05-10")
        values = values.drop_vars("time")
        assert read_flow(written(tmp_path, values)).times[0] == decode_time("2018-05-10T01:00")

    def test_settings_of_text_tables(self, tmp_path):
        settings = written(tmp_path, dataset())
        with pytest.raises(ConfigError, match="text in missing: for text tables only"):
            read_flow(settings.model_copy(update={"missing": (-1, "ice")}))
        with pytest.raises(ConfigError, match="timezone, decimal: for text tables only"):
            read_flow(settings.model_copy(update={"timezone": "UTC", "decimal": "."}))


class TestUnits:
    @pytest.mark.parametrize(
        ("units", "factor"), [("m3/s", 1), ("l s-1", 1e-3), ("cfs", 0.3048**3), ("m3 d-1", 1 / 86400), ("cumecs", 1)]
    )
    def test_flow_becomes_cubic_metres_per_second(self, tmp_path, units, factor):
        table = read_flow(written(tmp_path, dataset(units=units)))
        assert table.variable.units == "m3/s"
        np.testing.assert_allclose(table.flow, dataset().discharge.values.T * factor, rtol=1e-6)

    @pytest.mark.parametrize(("units", "factor"), [("mm/d", 1), ("mm", 1), ("kg m-2 s-1", 86400)])
    def test_a_depth_is_spread_over_the_basin(self, tmp_path, units, factor):
        values = dataset(units=units)
        table = read_flow(written(tmp_path, values))
        # 1 mm over 1 km2 is 1000 m3, here in a day.
        wanted = values.discharge.values.T * factor * values.area.values * 1000 / 86400
        assert table.variable.units == "m3/s"
        np.testing.assert_allclose(table.flow, wanted, rtol=1e-6)

    def test_areas_in_other_units(self, tmp_path):
        values = dataset(units="mm/d")
        metric = values.assign_coords(area=("station", [1e8, 2e9], {"units": "m2"}))
        other = tmp_path / "other"
        other.mkdir()
        np.testing.assert_allclose(read_flow(written(tmp_path, metric)).flow, read_flow(written(other, values)).flow)

    def test_normalised_flow_stays(self, tmp_path):
        table = read_flow(written(tmp_path, dataset(units="1") - 20).model_copy(update={"flow_units": "1"}))
        assert table.variable.units == "1"
        assert np.nanmin(table.flow) == -20

    def test_units_that_override_those_of_the_file(self, tmp_path, caplog):
        settings = written(tmp_path, dataset(units="m3/s")).model_copy(update={"flow_units": "l/s"})
        assert np.nanmax(read_flow(settings).flow) == pytest.approx(0.009)
        assert "taken to be in 'l/s', though the file says 'm3/s'" in caplog.text

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            (
                lambda v: v.assign(discharge=v.discharge.assign_attrs(units="mm/d")).drop_vars("area"),
                DataError,
                "depth",
            ),
            (
                lambda v: v.assign(discharge=v.discharge.assign_attrs(units="K")),
                DataError,
                "temperature.*cannot become",
            ),
            (lambda v: v.assign(discharge=v.discharge.assign_attrs(units="x")), DataError, "unknown units 'x'"),
            (lambda v: v.assign(discharge=v.discharge.drop_attrs()), ConfigError, "has no units: set flow_units"),
            (lambda v: v.assign_coords(area=v.area.assign_attrs(units="ha")), DataError, "area.*unknown units 'ha'"),
        ],
    )
    def test_refused(self, tmp_path, change, error, message):
        with pytest.raises(error, match=message):
            read_flow(written(tmp_path, change(dataset())))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "missing key 'source.flow'"),
        ({"flow": "a.csv", "stations": []}, "name at least one station"),
        ({"flow": "a.csv", "stations": ["a", "a"]}, "each once"),
        ({"flow": "a.csv", "decimal": ";"}, "'.' or ','"),
    ],
)
def test_bad_settings(values, message):
    with pytest.raises(ConfigError, match=message):
        read_settings(FlowSettings, values, "source")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_flow(FlowSettings(flow=str(tmp_path / "flow.csv")))
    with pytest.raises(DataError, match="cannot be read"):
        read_table(tmp_path)
