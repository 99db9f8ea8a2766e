"""Video files: true times, pixels, seeking, and files that are cut short."""

import os
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from fieldcast.data.video import Video, VideoConfig
from fieldcast.errors import ConfigError, DataError, MissingExtra
from fieldcast.settings import read_settings

av = pytest.importorskip("av", reason="PyAV (extra 'video') is not installed")
SECOND = 10**9
SHARED = Path(os.environ.get("FIELDCAST_TEST_DATA", Path(__file__).parents[2] / "../shared/data"))


def write(path, stamps, *, shape=(48, 64), codec="mpeg4", pixels=None):
    """A video of flat greys, each 10 brighter, dark again after 25, shown at the stamps (in tenths of a second)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width = shape
        stream.pix_fmt = "yuv420p" if codec != "ffv1" else "bgr0"
        stream.codec_context.gop_size = 4
        if codec != "ffv1":
            stream.codec_context.max_b_frames = 2
            stream.bit_rate = 2_000_000
        for number, stamp in enumerate(stamps):
            image = np.full((*shape, 3), 10 * (number % 25), np.uint8) if pixels is None else pixels[number]
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=stream.pix_fmt)
            frame.pts, frame.time_base = stamp, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def config(path, **options):
    return VideoConfig(paths=str(path), **options)


def levels(frames):
    return frames.mean((1, 2, 3)) / 10


@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi"])
@pytest.mark.parametrize("cache_megabytes", [0, 1])
def test_frames_and_times(tmp_path, ending, cache_megabytes):
    source = Video(config(write(tmp_path / f"a.{ending}", range(50)), cache_megabytes=cache_megabytes))
    sequence = source.sequences("train", None)[0]
    assert (source.kind, source.shape, source.cadence, source.calendar) == (
        "archive",
        (48, 64),
        SECOND // 10,
        "standard",
    )
    assert [(variable.name, variable.units) for variable in source.variables] == [("intensity", "1")]
    assert (sequence.times == np.arange(50) * SECOND // 10).all()
    positions = np.array([43, 2, 2, 19, 37])
    frames = sequence.read(positions, (slice(8, 24), slice(0, 8)))
    assert (frames.shape, frames.dtype) == ((5, 1, 16, 8), np.float32)
    assert np.abs(levels(frames) - positions % 25).max() < 0.5
    for position in range(50):
        assert abs(levels(sequence.read(np.array([position])))[0] - position % 25) < 0.5
    assert sequence.read(np.array([], dtype=int)).shape == (0, 1, 48, 64)


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_a_variable_frame_rate_stays_one(tmp_path, ending):
    stamps = [0, 1, 2, 5, 6, 7, 8, 13]
    source = Video(config(write(tmp_path / f"a.{ending}", stamps)))
    sequence = source.sequences("train", None)[0]
    assert (sequence.times == np.array(stamps) * SECOND // 10).all()
    assert source.cadence == SECOND // 10
    assert np.abs(levels(sequence.read(np.arange(8))) - np.arange(8)).max() < 0.5


def test_colours_are_exact_in_a_lossless_file(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 16, 24, 3), dtype=np.uint8)
    path = write(tmp_path / "a.mkv", range(5), shape=(16, 24), codec="ffv1", pixels=pixels)
    source = Video(config(path, colour=True))
    assert [variable.name for variable in source.variables] == ["red", "green", "blue"]
    assert np.array_equal(source.sequences("", None)[0].read(np.arange(5)), pixels.transpose(0, 3, 1, 2))


def test_size_cuts_the_middle_and_resizes(tmp_path):
    pixels = np.zeros((3, 16, 32, 3), np.uint8)
    pixels[:, :, 8:24] = 200
    pixels[:, :8, 8:24] = 100
    path = write(tmp_path / "a.mkv", range(3), shape=(16, 32), codec="ffv1", pixels=pixels)
    source = Video(config(path, size=(4, 4), colour=True))
    frames = source.sequences("", None)[0].read(np.arange(3))
    assert (source.shape, frames.shape) == ((4, 4), (3, 3, 4, 4))
    assert (frames[:, :, 0] == 100).all()
    assert (frames[:, :, 3] == 200).all()


def test_many_files_are_sequences_of_their_own(tmp_path):
    write(tmp_path / "a.mp4", range(4))
    write(tmp_path / "b.mp4", range(6))
    source = Video(config(tmp_path / "*.mp4"))
    assert [(item.name, len(item.times), item.times[0]) for item in source.sequences("", None)] == [
        ("a.mp4", 4, 0),
        ("b.mp4", 6, 0),
    ]
    write(tmp_path / "c.mp4", range(4), shape=(32, 64))
    with pytest.raises(DataError, match=r"c.mp4 has 32 x 64 pixels, .*a.mp4 has 48 x 64; set 'size'"):
        Video(config(tmp_path / "*.mp4"))
    assert Video(config(tmp_path / "*.mp4", size=(16, 16))).shape == (16, 16)


@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi"])
def test_a_file_cut_short_is_refused(tmp_path, ending):
    noise = np.random.default_rng(0).integers(0, 256, (20, 48, 64, 3), dtype=np.uint8)
    content = write(tmp_path / f"whole.{ending}", range(20), pixels=noise).read_bytes()
    path = tmp_path / f"half.{ending}"
    for share in (0.0, 0.01, 0.3, 0.5, 0.8):
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(DataError, match=r"half"):
            Video(config(path))


def test_what_is_no_video_is_refused(tmp_path):
    (tmp_path / "a.mp4").write_text("hello")
    with pytest.raises(DataError, match=r"a.mp4: not a readable video, or cut short .5 bytes"):
        Video(config(tmp_path / "a.mp4"))
    with pytest.raises(DataError, match=r"no such file"):
        Video(config(tmp_path / "b.mp4"))
    with pytest.raises(DataError, match=r"at least two frames"):
        Video(config(write(tmp_path / "one.mp4", range(1))))
    with pytest.raises(ConfigError, match=r"source.size.*height, width"):
        read_settings(VideoConfig, {"paths": "a.mp4", "size": [3]}, "source")


def test_without_pyav_the_extra_is_named(tmp_path, monkeypatch):
    path = write(tmp_path / "a.mp4", range(3))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtra, match=r"reading video needs the 'video' extra"):
        Video(config(path))


@pytest.mark.parametrize(
    ("name", "shape", "num_frames", "milliseconds"),
    [("carphone_pristine.mp4", (144, 176), 120, 33), ("tree.avi", (240, 320), 68, 400)],
)
def test_shared_videos(name, shape, num_frames, milliseconds):
    path = SHARED / "video" / name
    if not path.exists():
        pytest.skip(f"no test data at {path}; set FIELDCAST_TEST_DATA")
    with av.open(str(path)) as container:
        wanted = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    source = Video(config(path, cache_megabytes=0))
    sequence = source.sequences("", None)[0]
    assert (source.shape, len(sequence.times), source.cadence // 10**6) == (shape, num_frames, milliseconds)
    positions = np.array([num_frames - 1, 50, 3])
    assert np.array_equal(sequence.read(positions)[:, 0], np.stack([wanted[position] for position in positions]))
