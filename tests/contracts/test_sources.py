"""What every source in the table gives: frames by position, at ascending times, with labels."""

import numpy as np
import pytest
from forecast_fixtures import make_rain
from hko7_fixtures import write_hko7

from fieldcast.data import SOURCES, source_settings
from fieldcast.data.source import FrameSequence, Grid, RenderedSequence, Variable
from fieldcast.data.times import known_calendar

SEED, COUNT = 5, 3


def write_netcdf(folder):
    make_rain(12, 5, 7).to_netcdf(folder / "rain.nc", engine="h5netcdf")
    return {"paths": str(folder / "rain.nc"), "variables": ["rain"]}


def write_runoff(folder):
    rain = make_rain(12, 5, 7)
    rain.to_netcdf(folder / "rain.nc", engine="h5netcdf")
    hours = np.datetime_as_string(rain.time.values[2:], unit="m")
    lines = [f"{hour},{0.5 * number},{number}" for number, hour in enumerate(hours)]
    (folder / "flow.csv").write_text("\n".join(["time,08MF005,08MG001", *lines]))
    weather = {"paths": str(folder / "rain.nc"), "variables": ["rain"]}
    return {**weather, "flow": str(folder / "flow.csv"), "flow_units": "m3/s", "timezone": "UTC"}


def encode_video(path, darkest):
    av = pytest.importorskip("av", reason="PyAV (extra 'video') is not installed")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        for number in range(12):
            image = np.full((32, 48, 3), 20 * number + darkest, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def write_video(folder):
    encode_video(folder / "video.mp4", 0)
    return {"paths": str(folder / "video.mp4")}


def write_kth(folder):
    for person in (1, 15, 17):
        encode_video(folder / f"person{person:02d}_walking_d1_uncomp.avi", person)
    lines = [f"person{person:02d}_walking_d1\tframes\t1-6, 7-12\n" for person in (1, 15, 17)]
    (folder / "00sequences.txt").write_text("".join(lines))
    return {"videos": str(folder), "sequence_list": str(folder / "00sequences.txt")}


def write_digits(folder):
    images = np.zeros((40, 28, 28), np.uint8)
    for number, image in enumerate(images):
        image[8:20, 10 : 16 + number % 5] = 100 + number
    np.savez(folder / "digits.npz", images=images)
    return {"digits": str(folder / "digits.npz"), "num_frames": 12, "size": 32, "num_digits": 1, "subset": 40}


SETTINGS = {
    "netcdf": write_netcdf,
    "runoff": write_runoff,
    "hko7": write_hko7,
    "kth": write_kth,
    "video": write_video,
    "mackey-glass": lambda folder: {"length": 12},
    **dict.fromkeys(("moving-mnist", "moving-mnist-pp", "moving-mnist-2"), write_digits),
}


@pytest.fixture(scope="module", params=list(SOURCES))
def source(request, tmp_path_factory):
    key = request.param
    if key not in SETTINGS:
        pytest.fail(f"the source '{key}' is new: add to SETTINGS how a small one is made")
    values = SETTINGS[key](tmp_path_factory.mktemp(key))
    return source_settings({"key": key, **values}).open(SEED)


@pytest.fixture
def sequence(source) -> FrameSequence:
    return sequences(source)[0]


def sequences(source, split="train"):
    return source.sequences(split, COUNT if source.kind == "generator" else None)


def test_no_factory_without_a_source():
    assert set(SETTINGS) == set(SOURCES)


def test_labels(source):
    assert source.kind in ("archive", "divided", "generator")
    assert all(isinstance(variable, Variable) and variable.name for variable in source.variables)
    assert isinstance(source.grid, Grid)
    height, width = source.shape
    for axis, size in ((source.grid.rows, height), (source.grid.columns, width)):
        assert axis is None or axis.shape == (size,)
    assert type(source.cadence) is int
    assert source.cadence > 0
    assert known_calendar(source.calendar, "") == source.calendar
    assert type(source.real_times) is bool
    assert not (source.real_times and source.kind == "generator")
    if source.value_range is not None:
        assert source.value_range[0] < source.value_range[1]


def test_sequences(source):
    found = sequences(source)
    assert len(found) == COUNT if source.kind == "generator" else len(found) > 0
    assert len({one.name for one in found}) == len(found)
    for one in found:
        assert one.times.dtype == np.int64
        assert (np.diff(one.times) > 0).all()


def test_frames(source, sequence):
    frames = sequence.read(np.array([0, 1, 4]))
    assert frames.shape == (3, len(source.variables), *source.shape)
    assert frames.dtype == np.float32
    assert np.isfinite(frames).any()
    if source.value_range is not None:
        assert np.nanmin(frames) >= source.value_range[0]
        # By its published rule, Moving MNIST++ shines over the range a little.
        assert np.nanmax(frames) <= source.value_range[1] * (1.5 if source.kind == "generator" else 1)


def test_reading_again_gives_the_same(sequence):
    positions = np.arange(len(sequence.times))
    np.testing.assert_array_equal(sequence.read(positions), sequence.read(positions))


@pytest.mark.parametrize("positions", [[3], [4, 0, 2], [1, 1, 5], []], ids=str)
def test_positions_in_any_order(sequence, positions):
    everything = sequence.read(np.arange(len(sequence.times)))
    positions = np.array(positions, dtype=np.int64)
    np.testing.assert_array_equal(sequence.read(positions), everything[positions])


def test_what_is_read_can_be_changed(sequence):
    positions = np.array([0, 1])
    frames = sequence.read(positions)
    kept = frames.copy()
    frames += 1
    np.testing.assert_array_equal(sequence.read(positions), kept)


@pytest.mark.parametrize("window", [(slice(0, 3), slice(2, 6)), (slice(1, 5), slice(0, 1)), (slice(2, 4), slice(None))])
def test_a_window_is_a_part(sequence, window):
    positions = np.array([2, 0])
    whole = sequence.read(positions)
    np.testing.assert_array_equal(sequence.read(positions, window), whole[:, :, window[0], window[1]])


def test_what_renders_any_time_has_its_frames_at_their_times(source, sequence):
    renders = isinstance(sequence, RenderedSequence)
    assert renders or source.kind != "generator"
    if renders:
        frames = sequence.read_at(sequence.times / source.cadence)
        np.testing.assert_array_equal(frames, sequence.read(np.arange(len(sequence.times))))
        later = sequence.read_at(np.array([0.5, len(sequence.times) + 3.25]))
        assert later.shape == (2, *frames.shape[1:])


def test_splits_of_a_generator_or_a_divided_archive_share_nothing(source):
    if source.kind == "archive":
        assert [one.name for one in sequences(source)] == [one.name for one in sequences(source, "test")]
        return
    seen = [
        one.read(np.arange(3)).tobytes()
        for split in ("train", "validation", "test")
        for one in sequences(source, split)
    ]
    assert len(set(seen)) == len(seen) > 2
