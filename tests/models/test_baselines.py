"""Baselines against pysteps, scikit-image and xarray, and on motions that are known."""

import subprocess
import sys
import warnings
from types import SimpleNamespace

import cftime
import numpy as np
import pytest
import torch
import xarray as xr
from conftest import radar_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from pysteps.extrapolation.semilagrangian import extrapolate
from pysteps.motion.lucaskanade import dense_lucaskanade
from skimage.registration import phase_cross_correlation

from fieldcast.config import read_config
from fieldcast.data import Batch, Normalizer, make_samples
from fieldcast.data.dataset import frames_and_times
from fieldcast.data.netcdf import NetCDFConfig, open_frames
from fieldcast.data.normalize import NormalizerSettings, Transform
from fieldcast.data.splits import SplitSettings
from fieldcast.data.windows import WindowSettings
from fieldcast.errors import ConfigError, DataError, MissingExtra
from fieldcast.models import MODELS, build
from fieldcast.models.baselines import optical_flow
from fieldcast.models.baselines.climatology import Season
from fieldcast.models.baselines.lagrangian_persistence import phase_correlation
from fieldcast.models.baselines.optical_flow import find_motion
from fieldcast.training.loop import train

HOUR, DAY = 3600 * 10**9, 86400 * 10**9
SIZE = 64
FLOWS = ["optical-flow", "lagrangian-persistence"]
every_flow = pytest.mark.parametrize("key", FLOWS)


def blobs(times, velocity=(1.5, -1.0), size=SIZE):
    """Three blobs that move steadily (columns, rows per unit of time): (n, 1, H, W), float32."""
    row, column = np.mgrid[:size, :size]
    frames = np.zeros((len(times), size, size))
    for frame, time in zip(frames, times, strict=True):
        for place, (top, left, width) in enumerate([(0.5, 0.4, 4), (0.4, 0.6, 3), (0.62, 0.55, 2.5)]):
            across = column - left * size - velocity[0] * time
            down = row - top * size - velocity[1] * time
            frame += (1 - 0.2 * place) * np.exp(-(across**2 + down**2) / (2 * width**2))
    return torch.from_numpy(frames).float()[:, None]


def forecast(key, input_times, target_times, frames=None, **options):
    """Frames (S, C, H, W) of one sample."""
    inputs = blobs(input_times) if frames is None else frames
    times = (torch.tensor([times], dtype=torch.float32) for times in (input_times, target_times))
    with torch.inference_mode():
        return build(key, num_channels=inputs.shape[1], **options)(inputs[None], *times)[0]


def mean_square(frames, expected):
    return (frames - expected).square().mean((1, 2, 3))


@every_flow
@pytest.mark.parametrize("input_times", [(-2, -1, 0), (-3.5, -1, 0), (-1.5, -1, 0), (-1.2, 0)], ids=str)
def test_what_moves_steadily_is_forecast_better_than_by_persistence(key, input_times):
    target_times = [0.5, 1, 2, 3.3, 5]
    truth = blobs(target_times)
    own = mean_square(forecast(key, input_times, target_times), truth)
    still = mean_square(forecast("persistence", input_times, target_times), truth)
    assert (own < 0.1 * still).all()


@every_flow
def test_a_diagnosis_is_the_last_frame_and_what_lies_between_inputs_is_refused(key):
    inputs = blobs([-2, -1, 0])
    torch.testing.assert_close(forecast(key, [-2, -1, 0], [0], inputs)[0], inputs[2], rtol=0, atol=1e-6)
    with pytest.raises(DataError, match="does not interpolate"):
        forecast(key, [-2, -1, 0], [-0.5, 1], inputs)


BETWEEN = ["persistence", "linear-interpolation"]


class TestBetweenInputs:
    @settings(max_examples=25, deadline=None)
    @given(seed=st.integers(0, 1000), num_inputs=st.integers(1, 5), num_targets=st.integers(1, 6))
    def test_against_numpy(self, seed, num_inputs, num_targets):
        random = np.random.default_rng(seed)
        input_times = np.array([np.append(np.sort(-random.random(num_inputs - 1) * 5 - 0.01), 0) for _ in range(2)])
        target_times = np.sort(random.uniform(-7, 3, (2, num_targets)), axis=1)
        inputs = random.random((2, num_inputs, 1, 2, 3))
        arguments = [torch.from_numpy(values) for values in (inputs, input_times, target_times)]
        straight, still = (build(key)(*arguments) for key in ("linear-interpolation", "persistence"))
        for sample, place, row, column in np.ndindex(2, num_targets, 2, 3):
            own, known = target_times[sample, place], input_times[sample]
            series = inputs[sample, :, 0, row, column]
            assert straight[sample, place, 0, row, column] == pytest.approx(np.interp(own, known, series), abs=1e-6)
            newest = max((k for k in range(num_inputs) if known[k] <= own), default=0)
            assert still[sample, place, 0, row, column] == series[newest]

    @pytest.mark.parametrize("key", BETWEEN)
    def test_at_an_input_it_is_that_input_and_after_the_last_the_last(self, key):
        inputs = torch.rand(3, 2, 4, 5)
        result = forecast(key, [-3.5, -1, 0], [-3.5, -1, 0, 0.5, 7], inputs)
        assert torch.equal(result, inputs[[0, 1, 2, 2, 2]])

    @pytest.mark.parametrize("key", BETWEEN)
    def test_it_is_listed_as_one_that_interpolates(self, key):
        assert MODELS[key].forecaster.interpolates
        assert not MODELS[key].forecaster.trained


@every_flow
@pytest.mark.parametrize(
    "inputs",
    [
        torch.zeros(3, 1, 16, 16),
        torch.full((3, 1, 16, 16), 0.3),
        blobs([0]),
        torch.stack([*blobs([-2, -1]), torch.zeros(1, SIZE, SIZE)]),
        torch.stack([torch.zeros(1, SIZE, SIZE)] * 2 + [*blobs([0])]),
        torch.rand(3, 1, 1, 1),
        torch.zeros(3, 1, 1, 12),
    ],
    ids=["dry", "constant", "one frame", "now dry", "dry till now", "a pixel", "a line"],
)
def test_nothing_to_track_is_persistence_and_silent(key, inputs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = forecast(key, range(1 - len(inputs), 1), [0.7, 1, 4], inputs)
    torch.testing.assert_close(result, inputs[-1:].expand(3, -1, -1, -1), rtol=0, atol=1e-6)


@every_flow
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), height=st.integers(1, 24), width=st.integers(1, 24), num_inputs=st.integers(1, 4))
def test_any_small_map_of_noise(key, seed, height, width, num_inputs):
    inputs = torch.rand(num_inputs, 1, height, width, generator=torch.Generator().manual_seed(seed))
    result = forecast(key, range(1 - num_inputs, 1), [1, 2.5], inputs)
    assert result.shape == (2, 1, height, width)
    assert result.isfinite().all()
    assert result.amin() >= 0 and result.amax() <= 1 + 1e-5


class TestOpticalFlow:
    def test_it_is_the_nowcast_of_pysteps(self):
        inputs = blobs([-2, -1, 0])
        own = forecast("optical-flow", [-2, -1, 0], range(1, 7), inputs)[:, 0].numpy()
        motion = dense_lucaskanade(inputs[:, 0].double().numpy())
        theirs = extrapolate(inputs[-1, 0].double().numpy(), motion, 6)
        known = ~np.isnan(theirs)
        assert 0.5 < known.mean() < 1
        assert np.abs(own - theirs)[known].max() < 1e-3
        still = np.broadcast_to(inputs[-1, 0].numpy(), own.shape)
        np.testing.assert_array_equal(own[~known], still[~known])

    def test_velocities_are_per_unit_of_time(self):
        frames = blobs([-4, -2, 0])[:, 0].double().numpy()
        by_halves = find_motion(frames, np.array([-2.0, -1.0, 0.0]))
        np.testing.assert_allclose(find_motion(frames, np.array([-4.0, -2.0, 0.0])), by_halves / 2)
        assert np.abs(by_halves.mean((1, 2)) - [3, -2]).max() < 0.2

    @pytest.mark.parametrize("times", [(-3.0, -1.0, 0.0), (-2.5, -2.0, -1.5, 0.0), (-2.0, -1.1, 0.0)], ids=str)
    def test_pairs_of_uneven_steps_find_what_even_ones_do(self, times):
        even = find_motion(blobs([-2, -1, 0])[:, 0].double().numpy(), np.array([-2.0, -1.0, 0.0]))
        uneven = find_motion(blobs(times)[:, 0].double().numpy(), np.array(times))
        assert np.abs(uneven - even).max() < 0.15

    def test_a_frame_without_contrast_is_left_out(self):
        frames = blobs([-3, -2, -1, 0])[:, 0].double().numpy()
        frames[2] = 0
        motion = find_motion(frames, np.array([-3.0, -2.0, -1.0, 0.0]))
        assert np.abs(motion.mean((1, 2)) - [1.5, -1]).max() < 0.15

    def test_each_channel_has_its_own_motion(self):
        times = [-2, -1, 0]
        frames = torch.cat([blobs(times, (2, 0)), blobs(times, (-1, 1.5))], dim=1)
        result = forecast("optical-flow", times, [1, 2], frames)
        for channel in range(2):
            alone = forecast("optical-flow", times, [1, 2], frames[:, channel : channel + 1])
            torch.testing.assert_close(result[:, channel : channel + 1], alone, rtol=0, atol=1e-6)

    def test_it_looks_at_the_last_frames_only(self):
        frames = torch.cat([blobs([0], (0, 0)), blobs([-1, 0])])
        settings_of = {count: forecast("optical-flow", [-2, -1, 0], [2], frames, num_frames=count) for count in (2, 3)}
        alone = forecast("optical-flow", [-1, 0], [2], frames[1:])
        assert torch.equal(settings_of[2], alone)
        assert not torch.equal(settings_of[3], alone)

    @pytest.mark.parametrize("missing", ["cv2", "pysteps.motion.lucaskanade"])
    def test_without_its_extra_it_says_what_to_install(self, monkeypatch, missing):
        optical_flow._import_lucas_kanade.cache_clear()
        monkeypatch.setitem(sys.modules, missing, None)
        with pytest.raises(MissingExtra, match=r'optical flow needs .*pip install "fieldcast\[nowcast\]"'):
            forecast("optical-flow", [-1, 0], [1])

    def test_its_extra_is_here(self, monkeypatch):
        assert optical_flow.has_optical_flow()
        monkeypatch.setattr(optical_flow.importlib.util, "find_spec", lambda name: None if name == "cv2" else name)
        assert not optical_flow.has_optical_flow()

    @pytest.mark.slow
    def test_it_leaves_standard_output_alone(self):
        script = (
            "import torch; from fieldcast.models import build; times = torch.tensor([[-1.0, 0.0]])\n"
            "build('optical-flow')(torch.rand(1, 2, 1, 32, 32), times, times + 2)"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=200, check=True)
        assert done.stdout == ""

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    def test_on_a_gpu(self):
        inputs, times = blobs([-2, -1, 0])[None], torch.tensor([[-2.0, -1.0, 0.0]])
        for key in FLOWS:
            model = build(key)
            there = model(inputs.cuda(), times.cuda(), times.cuda() + 3).cpu()
            torch.testing.assert_close(there, model(inputs, times, times + 3), rtol=0, atol=1e-4)


class TestPhaseCorrelation:
    @settings(max_examples=25, deadline=None)
    @given(seed=st.integers(0, 1000), down=st.integers(-6, 6), across=st.integers(-6, 6))
    def test_whole_pixels_are_those_of_scikit_image(self, seed, down, across):
        before = np.random.default_rng(seed).random((40, 33))
        after = np.roll(before, (down, across), (0, 1))
        theirs = phase_cross_correlation(after, before)[0]
        own = phase_correlation(*(torch.from_numpy(field)[None, None] for field in (before, after)))[0].numpy()
        assert np.abs(own[::-1] - theirs).max() < 0.1
        assert theirs.tolist() == [down, across]

    @pytest.mark.parametrize("shift", [(0.5, -0.25), (2.4, 1.7), (-3.3, 0.1), (0.0, 0.0)], ids=str)
    def test_parts_of_a_pixel(self, shift):
        before, after = blobs([0, 1], shift)[:, None]
        assert np.abs(phase_correlation(before, after)[0].numpy() - shift).max() < 0.1

    def test_all_channels_share_it(self):
        before, after = (frame[None] for frame in blobs([0, 1], (3, 2)))
        dry = torch.zeros_like(before)
        both = phase_correlation(torch.cat([dry, before], 1), torch.cat([dry, after], 1))
        torch.testing.assert_close(both, phase_correlation(before, after))


def series(step, count, calendar="standard", missing=0.2, start=0, size=(3, 4)):
    """Frames (n, 2, H, W) with missing pixels and their times, in pieces; and a source that has them."""
    random = np.random.default_rng(7)
    frames = random.gamma(2.0, 3.0, (count, 2, *size)).astype(np.float32)
    frames[random.random(frames.shape) < missing] = np.nan
    times = start + step * np.arange(count, dtype=np.int64)
    pieces = [(frames[first : first + 7], times[first : first + 7]) for first in range(0, count, 7)]
    return pieces, frames, times, SimpleNamespace(cadence=step, calendar=calendar, real_times=True)


IDENTITY = Normalizer((Transform("identity"),) * 2)


def fitted(pieces, source, normalizer=IDENTITY):
    model = build("climatology", num_channels=2)
    model.fit(pieces, source, normalizer)
    return model


def batch_at(origins, target_times, size=(3, 4)):
    shape = (len(origins), len(target_times[0]), 2, *size)
    return Batch(
        inputs=torch.zeros(len(origins), 1, 2, *size),
        input_times=torch.zeros(len(origins), 1),
        targets=torch.zeros(shape),
        target_times=torch.tensor(target_times, dtype=torch.float32),
        valid=torch.ones(shape, dtype=torch.bool),
        origin=torch.tensor(origins),
    )


class TestClimatology:
    def test_by_hour_of_day_against_xarray(self):
        pieces, frames, times, source = series(HOUR // 3, 24 * 3 * 4, start=5 * DAY + HOUR // 2)
        model = fitted(pieces, source)
        labelled = xr.DataArray(frames, dims=("time", "c", "y", "x"), coords={"time": times.astype("datetime64[ns]")})
        usual = labelled.astype(np.float64).groupby("time.hour").mean()
        origins = [100 * DAY + 23 * HOUR, 200 * DAY + HOUR // 3]
        result = model.forward_batch(batch_at(origins, [(1 / 3, 3, 7), (2, 3, 4)]))
        hours = [(23, 0, 1), (1, 1, 1)]
        for sample in range(2):
            for place, hour in enumerate(hours[sample]):
                np.testing.assert_allclose(result[sample, place], usual.sel(hour=hour), rtol=1e-6)

    @pytest.mark.parametrize("calendar", ["standard", "noleap", "360_day", "all_leap", "julian"])
    def test_by_day_of_year_against_a_plain_loop(self, calendar):
        pieces, frames, times, source = series(DAY, 800, calendar, start=10950 * DAY)
        model = fitted(pieces, source)
        dates = cftime.num2date(times // DAY, "days since 1970-01-01", calendar=calendar)
        bins = [[] for _ in range(37)]
        for date, frame in zip(dates, frames, strict=True):
            bins[(date.dayofyr - 1) // 10].append(frame.astype(np.float64))
        result = model.forward_batch(batch_at([int(times[0]) - DAY], [range(1, 401)]))[0]
        for place in range(0, 400, 9):
            expected = np.nanmean(bins[(dates[place].dayofyr - 1) // 10], axis=0)
            np.testing.assert_allclose(result[place], expected, rtol=1e-5)

    @pytest.mark.parametrize("calendar", ["standard", "noleap", "360_day", "all_leap"])
    def test_bins_of_a_calendar_are_those_of_xarray(self, calendar):
        reference = xr.date_range("1950-01-01", periods=500, freq="53D", calendar=calendar, use_cftime=True)
        days = cftime.date2num(reference, "days since 1970-01-01", calendar=calendar)
        times = np.asarray(days, dtype=np.int64).reshape(50, 10) * DAY + DAY - 10**9
        expected = (xr.DataArray(reference, dims="time").dt.dayofyear.values - 1) // 10
        found = Season(DAY, calendar, True).bins(times)
        np.testing.assert_array_equal(found, expected.reshape(50, 10))
        assert found.max() <= 36

    def test_a_bin_without_data_has_the_mean_of_all_and_a_pixel_never_seen_the_low_end(self):
        pieces, frames, _, source = series(HOUR, 6)
        frames[:, 1, 2, 3] = np.nan
        frames[2, 0, 0, 0] = np.nan
        model = fitted(pieces, source)
        overall = np.nanmean(np.where(np.isnan(frames).all(0), 0, frames).astype(np.float64), axis=0)
        result = model.forward_batch(batch_at([0], [(2, 12)]))[0]
        np.testing.assert_allclose(result[1], overall, rtol=1e-6)
        assert result[0, 1, 2, 3] == 0
        np.testing.assert_allclose(result[0, 0, 0, 0], overall[0, 0, 0], rtol=1e-6)
        without_calendar = model(torch.zeros(1, 1, 2, 3, 4), torch.zeros(1, 1), torch.ones(1, 3))
        np.testing.assert_allclose(without_calendar[0, 2], overall, rtol=1e-6)

    def test_times_that_are_not_real_have_one_mean(self):
        pieces, frames, _, source = series(HOUR, 40)
        source.real_times = False
        result = fitted(pieces, source).forward_batch(batch_at([0], [(2, 12)]))[0]
        for frame in result:
            np.testing.assert_allclose(frame, np.nanmean(frames.astype(np.float64), axis=0), rtol=1e-5)

    def test_the_mean_is_taken_in_physical_units(self):
        _, frames, _, source = series(DAY, 1)
        frames = np.stack([frames[0], frames[0] + 30, frames[0] + 90])
        normalizer = Normalizer((Transform("log-rate", 0.0, 5.0), Transform("scale", -10.0, 50.0)))
        model = fitted([(frames, DAY * np.arange(3))], source, normalizer)
        mean = np.nan_to_num(frames.mean(0), nan=-99)
        expected = np.stack([np.log1p(np.where(mean[0] == -99, 0, mean[0])) / 5, (mean[1] + 10) / 60])
        expected[mean == -99] = 0
        np.testing.assert_allclose(model.forward_batch(batch_at([0], [(0,)]))[0, 0], expected, rtol=1e-5)

    def test_ignored_times_follow_at_the_cadence(self):
        pieces, _, _, source = series(HOUR, 48)
        ignoring = build("climatology", num_channels=2, ignore_times=True)
        ignoring.fit(pieces, source, IDENTITY)
        expected = fitted(pieces, source).forward_batch(batch_at([0], [(1, 2)]))
        assert torch.equal(ignoring.forward_batch(batch_at([0], [(5, 9)])), expected)

    def test_a_source_is_read_frame_by_frame_once(self):
        dataset = radar_dataset(60, missing=0.3)
        source = open_frames(dataset, NetCDFConfig(paths="unused", variables=("rain",)))
        splits = SplitSettings(train=0.5, validation=0.25, test=0.25)
        windows = WindowSettings(num_inputs=3, num_targets=2)
        train_split = make_samples(source, windows, splits, NormalizerSettings())["train"]
        pieces = list(frames_and_times(train_split))
        times = np.concatenate([piece[1] for piece in pieces])
        assert len(np.unique(times)) == len(times)
        frames = dataset.rain.sel(time=times.astype("datetime64[ns]"))
        np.testing.assert_array_equal(np.concatenate([piece[0] for piece in pieces])[:, 0], frames.values)
        model = build("climatology")
        model.fit(frames_and_times(train_split), train_split.source, train_split.normalizer)
        batch, _ = train_split.batch_and_truth([0, 5])
        usual = train_split.normalizer.denormalise(model.forward_batch(batch))[:, :, 0].numpy()
        hours = frames.astype(np.float64).groupby("time.hour").mean()
        for sample, start in enumerate([0, 5]):
            for place in range(2):
                hour = int(dataset.time.dt.hour[start + 3 + place])
                np.testing.assert_allclose(usual[sample, place], hours.sel(hour=hour), atol=1e-5)

    def test_it_says_that_it_has_seen_nothing(self):
        model = build("climatology", num_channels=2)
        with pytest.raises(DataError, match="climatology has seen no frames: fit it"):
            model(torch.zeros(1, 1, 2, 3, 4), torch.zeros(1, 1), torch.ones(1, 1))
        with pytest.raises(DataError, match="climatology has seen no frames: fit it"):
            model.forward_batch(batch_at([0], [(1,)]))
        with pytest.raises(DataError, match="no frames to take the mean of"):
            model.fit([], SimpleNamespace(cadence=HOUR, calendar="standard", real_times=True), IDENTITY)

    def test_another_map_is_refused(self):
        pieces, _, _, source = series(HOUR, 5)
        with pytest.raises(DataError, match="2 x 3 x 4, the inputs are 2 x 5 x 4"):
            fitted(pieces, source).forward_batch(batch_at([0], [(1,)], size=(5, 4)))

    def test_its_state_goes_into_an_unfitted_one(self):
        pieces, _, _, source = series(HOUR, 30)
        model, other = fitted(pieces, source), build("climatology", num_channels=2)
        other.load_state_dict(model.state_dict())
        batch = batch_at([0], [(1, 7)])
        assert torch.equal(other.forward_batch(batch), model.forward_batch(batch))


@pytest.mark.parametrize("key", [key for key, row in MODELS.items() if not row.forecaster.trained])
def test_training_a_baseline_is_refused(key, tiny_values, tmp_path):
    config = read_config({**tiny_values(), "model": {"key": key}})
    with pytest.raises(ConfigError, match=rf"model\.key: {key} is not trained"):
        train(config, tmp_path / "run")
