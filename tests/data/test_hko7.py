"""HKO-7: grey levels to rain rates, masks, missing frames, lists of days, and files that don't fit."""

import zlib

import numpy as np
import pytest
import torch
from hko7_fixtures import DAYS, frame_path, write_hko7, write_mask
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fieldcast.data import make_samples, source_settings
from fieldcast.data.hko7 import rain_rates
from fieldcast.data.normalize import NormalizerSettings
from fieldcast.data.splits import SPLITS, SplitSettings
from fieldcast.data.times import decode_time, format_time
from fieldcast.data.windows import WindowSettings
from fieldcast.errors import ConfigError, DataError

OWN = SplitSettings(train="source", validation="source", test="source")
LOG_RATE = NormalizerSettings(transform="log-rate")
DAY = "20140601"


@pytest.fixture
def values(tmp_path):
    return write_hko7(tmp_path)


def open_source(values, **changes):
    return source_settings({**values, **changes}).open(0)


def plain_rate(level: float, a: float = 58.53, b: float = 1.56) -> float:
    """Rain rate of a grey level, read from the paper: dBZ = 70 p / 255 - 10, Z = 10^(dBZ / 10) = a R^b."""
    reflectivity = 10.0 ** ((70.0 * level / 255.0 - 10.0) / 10.0)
    return float((reflectivity / a) ** (1.0 / b)) if level else 0.0


@settings(max_examples=25, deadline=None)
@given(a=st.floats(1.0, 500.0), b=st.floats(0.8, 3.0))
def test_rates(a, b):
    expected = [plain_rate(level, a, b) for level in range(256)]
    np.testing.assert_allclose(rain_rates(a, b), expected, rtol=1e-5)
    assert rain_rates(a, b)[0] == 0


def test_rates_of_the_archive():
    rates = rain_rates(58.53, 1.56)
    # By hand: 255 is 60 dBZ; (10^6 / 58.53)^(1 / 1.56).
    assert rates[255] == pytest.approx(516.2, rel=1e-3)
    assert (np.diff(rates) > 0).all()


def test_frames(values, tmp_path):
    sequence = open_source(values).sequences("train", None)[0]
    read = sequence.read(np.array([7, 0]))
    assert (read.shape, read.dtype) == ((2, 1, 24, 24), np.float32)
    for frame, number in zip(read, (7, 0), strict=True):
        pixels = np.array(Image.open(frame_path(tmp_path / "radarPNG", DAY, 6 * number)))
        mask = frame_path(tmp_path / "radarPNG_mask", DAY, 6 * number, "mask").read_bytes()
        counts = np.frombuffer(zlib.decompress(mask), bool).reshape(24, 24)
        expected = np.where(counts, np.vectorize(plain_rate)(pixels.astype(float)), np.nan)
        np.testing.assert_allclose(frame[0], expected, rtol=1e-5)
        assert 0 < np.isnan(frame).sum() < frame.size / 2


def test_labels(values):
    source = open_source(values)
    assert (source.kind, source.shape, source.cadence, source.real_times) == ("divided", (24, 24), 360 * 10**9, True)
    assert [(variable.name, variable.units) for variable in source.variables] == [("rainfall_rate", "mm/h")]
    assert source.value_range == (0, pytest.approx(516.2, rel=1e-3))


def test_without_masks_every_pixel_counts(values):
    del values["masks"]
    assert np.isfinite(open_source(values).sequences("test", None)[0].read(np.arange(12))).all()


def test_another_relation(values):
    own, other = (open_source(values, **changes).sequences("test", None)[0] for changes in ({}, {"a": 200.0, "b": 1.6}))
    rain, other_rain = own.read(np.array([3])), other.read(np.array([3]))
    wet = rain > 0
    expected = (58.53 / 200 * rain.astype(float) ** 1.56) ** (1 / 1.6)
    np.testing.assert_allclose(other_rain[wet], expected[wet], rtol=1e-5)


def plain_means(rain: np.ndarray, side: int) -> np.ndarray:
    """Mean of each block of side x side pixels that aren't masked (a frame (H, W)), one block after another."""
    height, width = (extent // side for extent in rain.shape)
    means = np.full((height, width), np.nan)
    for row in range(height):
        for column in range(width):
            there = [
                float(rain[side * row + down, side * column + across])
                for down in range(side)
                for across in range(side)
                if not np.isnan(rain[side * row + down, side * column + across])
            ]
            if there:
                means[row, column] = sum(there) / len(there)
    return means


class TestShrink:
    def sequence(self, values, **changes):
        return open_source(values, **changes).sequences("train", None)[0]

    @pytest.mark.parametrize("side", [1, 2, 3, 8, 24])
    def test_means_of_rates(self, values, tmp_path, side):
        counts = np.ones((24, 24), bool)
        counts[:8, :8] = counts[5, 13] = False
        write_mask(frame_path(tmp_path / "radarPNG_mask", DAY, 18, "mask"), counts)
        positions = np.array([5, 3])
        whole, read = self.sequence(values).read(positions), self.sequence(values, shrink=side).read(positions)
        assert (read.shape, read.dtype) == ((2, 1, 24 // side, 24 // side), np.float32)
        for frame, own in zip(read, whole, strict=True):
            np.testing.assert_allclose(frame[0], plain_means(own[0], side), rtol=1e-5)
        if side <= 8:
            assert np.isnan(read[1, 0, : 8 // side, : 8 // side]).all()
        assert (np.isnan(read).sum() < np.isnan(whole).sum() / side**2) == (side > 1)

    def test_a_block_by_hand(self, values, tmp_path):
        pixels, counts = np.zeros((24, 24), np.uint8), np.zeros((24, 24), bool)
        pixels[0, :2], pixels[1, :2] = (100, 200), (255, 0)
        counts[0, :2] = counts[1, 1] = True
        Image.fromarray(pixels).save(frame_path(tmp_path / "radarPNG", DAY, 0))
        write_mask(frame_path(tmp_path / "radarPNG_mask", DAY, 0, "mask"), counts)
        (frame,) = self.sequence(values, shrink=2).read(np.array([0]))[:, 0]
        # Of the rates, not of the grey levels; the masked 255 is left out, the dry pixel is not.
        assert frame[0, 0] == pytest.approx((plain_rate(100) + plain_rate(200) + 0) / 3)
        assert np.isnan(frame).sum() == 12 * 12 - 1

    def test_without_masks(self, values):
        del values["masks"]
        whole, read = (self.sequence(values, shrink=side).read(np.array([2]))[0, 0] for side in (1, 4))
        np.testing.assert_allclose(read, plain_means(whole, 4), rtol=1e-5)

    @pytest.mark.parametrize("side", [1, 3])
    def test_a_part_is_cut_from_the_means(self, values, side):
        sequence, positions = self.sequence(values, shrink=side), np.array([9, 1, 1])
        whole = sequence.read(positions)
        for rows, columns in (
            (slice(1, 6), slice(2, 5)),
            (slice(-3, None), slice(None, 4)),
            (slice(0, 8, 3), slice(4, 4)),
        ):
            read = sequence.read(positions, (rows, columns))
            np.testing.assert_array_equal(read, whole[..., rows, columns])
            assert sequence.read(positions[:0], (rows, columns)).shape == (0, *read.shape[1:])

    def test_sides_that_differ(self, values, tmp_path):
        for path in (tmp_path / "radarPNG").rglob("*.png"):
            Image.fromarray(np.array(Image.open(path))[:, :16]).save(path)
        del values["masks"]
        source = open_source(values, shrink=4)
        assert source.shape == (6, 4)
        whole, read = (self.sequence(values, shrink=side).read(np.array([2]))[0, 0] for side in (1, 4))
        np.testing.assert_allclose(read, plain_means(whole, 4), rtol=1e-5)
        for side in (3, 6, 16):  # divide one side at most
            with pytest.raises(DataError, match=rf"shrink = {side} doesn't divide the 24 x 16 .*one of 1, 2, 4, 8$"):
                open_source(values, shrink=side)

    @pytest.mark.parametrize("side", [5, 48])
    def test_sizes_that_do_not_divide(self, values, side):
        message = (
            rf"^source\.shrink = {side} doesn't divide the 24 x 24 pixels of .*RAD140601000000\.png: "
            r"take one of 1, 2, 3, 4, 6, 8, 12, 24$"
        )
        with pytest.raises(DataError, match=message):
            open_source(values, shrink=side)

    @pytest.mark.parametrize("side", [0, 2.0])
    def test_no_whole_number(self, values, side):
        with pytest.raises(ConfigError, match=r"source\.shrink"):
            open_source(values, shrink=side)

    def test_frames_keep_the_size_of_the_first_file(self, values, tmp_path):
        Image.new("L", (12, 12)).save(frame_path(tmp_path / "radarPNG", DAY, 36))
        with pytest.raises(DataError, match=r"has 12 x 12 pixels, .*RAD140601000000\.png has 24 x 24"):
            self.sequence(values, shrink=2).read(np.arange(12))

    def test_samples(self, values):
        source = open_source(values, shrink=4)
        assert source.shape == (6, 6)
        windows = WindowSettings(num_inputs=2, num_targets=3, crop=4)
        part = make_samples(source, windows, OWN, LOG_RATE)["train"]
        whole, truth = part.batch_and_truth([0, 5])
        assert truth.shape == (2, 3, 1, 6, 6)
        assert torch.equal(whole.valid, ~torch.isnan(truth))
        cut = part.batch([0, 5], [(1, 2), (0, 0)])
        assert torch.equal(cut.inputs[0], whole.inputs[0, :, :, 1:5, 2:6])
        with pytest.raises(DataError, match=r"windows\.crop = 8 is larger than the map 6 x 6"):
            make_samples(source, WindowSettings(num_inputs=2, num_targets=3, crop=8), OWN, LOG_RATE)


class TestSplits:
    def test_runs_of_days_are_sequences(self, values):
        source = open_source(values)
        assert [len(one.times) for one in source.sequences("train", None)] == [24, 12]
        first = source.sequences("train", None)[0].times
        assert format_time(first[0]) == "2014-06-01T00:00:00"
        assert format_time(first[12]) == "2014-06-02T00:00:00"
        assert [len(source.sequences(split, None)) for split in SPLITS] == [2, 1, 1]

    def test_each_day_is_in_one_split(self, values):
        source = open_source(values)
        samples = make_samples(source, WindowSettings(num_inputs=2, num_targets=3), OWN, LOG_RATE)
        for split, part in samples.items():
            batch = part.batch(range(len(part)))
            days = {format_time(time)[:10].replace("-", "") for time in batch.origin.tolist()}
            assert days == set(DAYS[split])
        assert {split: len(part) for split, part in samples.items()} == {"train": 24, "validation": 8, "test": 8}

    def test_a_sample_does_not_leave_its_split(self, values, tmp_path):
        # With frames until midnight, 2 June runs into 3 June, which is for validation.
        minutes = (23 * 60 + 48, 23 * 60 + 54)
        for ending, folder in (("png", "radarPNG"), ("mask", "radarPNG_mask")):
            data = frame_path(tmp_path / folder, "20140602", 0, ending).read_bytes()
            for minute in minutes:
                frame_path(tmp_path / folder, "20140602", minute, ending).write_bytes(data)
        windows = WindowSettings(num_inputs=1, num_targets=1)
        part = make_samples(open_source(values), windows, OWN, LOG_RATE)["train"]
        last = [time for time in part.batch(range(len(part))).origin.tolist() if time > decode_time("2014-06-02T12:00")]
        assert [format_time(time) for time in last if time < decode_time("2014-06-04")] == ["2014-06-02T23:48:00"]

    def test_the_format_fixes_what_is_normalised(self, values):
        relation = NormalizerSettings(transform="dbz", reflectivity=(58.53, 1.56))
        parts = make_samples(open_source(values), WindowSettings(num_inputs=2, num_targets=3), OWN, relation)
        (transform,) = parts["test"].normalizer.transforms
        # By hand: 60 dBZ is grey level 255, 0.1 mm/h is 10 log10(58.53) - 15.6 dBZ.
        assert (transform.low, transform.high) == (pytest.approx(2.0738, abs=1e-3), pytest.approx(60, abs=1e-3))

    def test_missing_frames_are_times_that_are_not_there(self, tmp_path):
        source = open_source(write_hko7(tmp_path, missing=(3, 8)))
        steps = np.diff(source.sequences("validation", None)[0].times) // source.cadence
        assert steps.tolist() == [1, 1, 2, 1, 1, 1, 2, 1, 1]
        windows = WindowSettings(num_inputs=2, num_targets=2, max_gap="12 min")
        batch = make_samples(source, windows, OWN, LOG_RATE)["validation"].batch([1])
        assert batch.input_times.tolist() == [[-1, 0]]
        assert batch.target_times.tolist() == [[2, 3]]

    def test_masked_pixels_are_not_valid(self, values):
        source = open_source(values)
        samples = make_samples(source, WindowSettings(num_inputs=2, num_targets=3), OWN, LOG_RATE)["test"]
        batch, truth = samples.batch_and_truth([0])
        assert torch.equal(batch.valid, ~torch.isnan(truth))
        assert 0.5 < float(batch.valid.float().mean()) < 1

    @pytest.mark.parametrize("splits", [SplitSettings(train=0.5, validation=0.25, test=0.25),
                                        SplitSettings(train=4, validation=1, test=1)])  # fmt: skip
    def test_other_splits_are_refused(self, values, splits):
        with pytest.raises(DataError, match='this source takes splits as train = "source"'):
            make_samples(open_source(values), WindowSettings(num_inputs=2, num_targets=3), splits, LOG_RATE)

    def test_its_splits_are_for_it_alone(self, tiny_config):
        config = tiny_config("radar")
        with pytest.raises(DataError, match="this source takes splits as times or fractions"):
            make_samples(config.source.open(0), config.windows, OWN, config.source.normalizer)

    def test_one_kind_for_all(self):
        with pytest.raises(ValueError, match='counts, or "source"'):
            SplitSettings(train="source", validation=0.5, test=0.5)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("20140601\n20150520, 3\n", r"^2015-05-20 is in train_days and in test_days: a day belongs to one split"),
            ("20140603\n20150520\n", r"^2014-06-03 is in train_days and in validation_days"),
            ("20140601\n20140601\n", r"train\.txt: 2014-06-01 comes twice"),
            ("20140601\n2014-06-02\n", r"train\.txt, line 2: '2014-06-02' is no day"),
            ("20140631\n", r"line 1: '20140631' is no day"),
            ("\n\n", r"train\.txt: no days"),
            ("20130101\n", r"no frames .* on any day of .*train\.txt"),
        ],
    )
    def test_lists_that_do_not_fit(self, values, tmp_path, text, message):
        (tmp_path / "train.txt").write_text(text)
        with pytest.raises(DataError, match=message):
            open_source(values)

    def test_a_list_that_is_no_text(self, values, tmp_path):
        (tmp_path / "train.txt").write_bytes(b"\x80\x04\x95\xff")
        with pytest.raises(DataError, match=r"train\.txt: the list of days can't be read"):
            open_source(values)

    @pytest.mark.parametrize("name", ["hko7_rainy_train.pkl", "days.PICKLE"])
    def test_a_pickle_is_refused_unread(self, values, name):
        with pytest.raises(ConfigError, match=r"source\.train_days.*never read: name the list as text"):
            open_source(values, train_days=name)


class TestDamage:
    """What a user gets for frames and masks that don't fit; the seventh frame of the first day is changed."""

    def read(self, values):
        return open_source(values).sequences("train", None)[0].read(np.arange(12))

    @pytest.mark.parametrize(
        ("image", "message"),
        [
            (Image.new("RGB", (24, 24)), "mode 'RGB'"),
            (Image.new("P", (24, 24)), "mode 'P'"),
            (Image.new("LA", (24, 24)), "mode 'LA'"),
            (Image.new("1", (24, 24)), "mode '1'"),
            (Image.fromarray(np.zeros((24, 24), np.uint16)), "mode 'I;16'"),
            (Image.new("L", (25, 24)), r"has 24 x 25 pixels, .*RAD140601000000\.png has 24 x 24"),
            (Image.new("L", (4097, 4096)), "4096 x 4097 pixels; at most"),
        ],
    )
    def test_other_images(self, values, tmp_path, image, message):
        image.save(frame_path(tmp_path / "radarPNG", DAY, 36))
        with pytest.raises(DataError, match=rf"RAD140601003600\.png.*{message}"):
            self.read(values)

    def test_a_jpeg_by_another_name(self, values, tmp_path):
        Image.new("L", (24, 24)).save(frame_path(tmp_path / "radarPNG", DAY, 36), format="jpeg")
        with pytest.raises(DataError, match=r"RAD140601003600\.png: no PNG"):
            self.read(values)

    @pytest.mark.parametrize("kept", [0, 4, 30, 60, 200])
    def test_a_frame_cut_short(self, values, tmp_path, kept):
        path = frame_path(tmp_path / "radarPNG", DAY, 36)
        path.write_bytes(path.read_bytes()[:kept])
        with pytest.raises(DataError, match=rf"RAD140601003600\.png: no PNG, damaged or cut short, {kept} bytes"):
            self.read(values)

    @pytest.mark.parametrize("minute", [0, 36])
    def test_a_frame_damaged_inside(self, values, tmp_path, minute):
        path = frame_path(tmp_path / "radarPNG", DAY, minute)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(data)
        with pytest.raises(DataError, match=rf"{path.name}: no PNG, damaged"):
            self.read(values)

    @pytest.mark.parametrize(
        "name", ["RAD140601010199.png", "RAD140602010000.png", "RAD140601250000.png", "RAD140601006000.png", "a.png"]
    )
    def test_a_frame_of_another_name(self, values, tmp_path, name):
        Image.new("L", (24, 24)).save(frame_path(tmp_path / "radarPNG", DAY, 0).with_name(name))
        with pytest.raises(DataError, match=rf"{name}: a frame of 2014-06-01 is called RAD140601HHMM00\.png"):
            open_source(values)

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", "cut short, or of another size"),
            (zlib.compress(bytes(24 * 24))[:-6], "cut short, or of another size"),
            (zlib.compress(bytes(24 * 23)), "another size than the frame's 24 x 24"),
            (zlib.compress(bytes(24 * 24 + 1)), "another size than the frame's 24 x 24"),
            (zlib.compress(b"\2" * 576), "0 and 1 only, but 2 came"),
            (b"\x89PNG and so on", "can't be read"),
            (zlib.compress(bytes(24 * 24))[:-1] + b"\7", "can't be read"),
        ],
    )
    def test_masks(self, values, tmp_path, data, message):
        frame_path(tmp_path / "radarPNG_mask", DAY, 36, "mask").write_bytes(data)
        with pytest.raises(DataError, match=rf"RAD140601003600\.mask.*{message}"):
            self.read(values)

    def test_a_mask_that_is_not_there(self, values, tmp_path):
        frame_path(tmp_path / "radarPNG_mask", DAY, 36, "mask").unlink()
        with pytest.raises(DataError, match=r"RAD140601003600\.mask: no such mask"):
            self.read(values)

    def test_a_mask_of_one_pixel(self, values, tmp_path):
        counts = np.ones((24, 24), bool)
        counts[3, 5] = False
        write_mask(frame_path(tmp_path / "radarPNG_mask", DAY, 36, "mask"), counts)
        np.testing.assert_array_equal(np.isnan(self.read(values)[6, 0]), ~counts)

    def test_no_folder(self, values, tmp_path):
        with pytest.raises(DataError, match=r"elsewhere: no such folder of frames"):
            open_source(values, frames=str(tmp_path / "elsewhere"))

    @pytest.mark.parametrize(("name", "value"), [("a", 0.0), ("b", -1.0), ("b", "1.56")])
    def test_settings(self, values, name, value):
        with pytest.raises(ConfigError, match=rf"source\.{name}"):
            open_source(values, **{name: value})
