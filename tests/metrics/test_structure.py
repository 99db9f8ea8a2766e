"""Spectra against pysteps and a plain reading, SAL against worked objects, a plain reading and pysteps."""

import builtins
import importlib.util

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pysteps.utils.spectral import rapsd
from pysteps.verification import salscores
from scipy.ndimage import gaussian_filter

from fieldcast.errors import MissingExtra
from fieldcast.metrics.metric import DIMENSIONS, Yardstick, num_wavenumbers
from fieldcast.metrics.structure import STRUCTURE_METRICS

METRICS = {metric.name: metric for metric in STRUCTURE_METRICS}
SAL = ("sal-structure", "sal-amplitude", "sal-location")
SHAPE = (30, 40)
YARDSTICK = Yardstick(units="mm/h", data_range=60.0, shape=SHAPE, thresholds=(0.1, 1.0))

metrics = pytest.mark.parametrize("metric", STRUCTURE_METRICS, ids=METRICS)
few = settings(max_examples=25, deadline=None)


def rain(num_samples=3, shape=SHAPE, share_missing=0.02, seed=0):
    """Showers, (B, 2, 2, H, W) in float32."""
    generator = np.random.default_rng(seed)
    noise = gaussian_filter(generator.standard_normal((2, num_samples, 2, 2, *shape)), (0, 0, 0, 0, 2, 2))
    predicted, observed = np.where(noise > 0.1, np.exp(12 * noise) / 5, 0).astype(np.float32)
    observed[generator.random(observed.shape) < share_missing] = np.nan
    return torch.tensor(predicted), torch.tensor(observed), torch.tensor(~np.isnan(observed))


def scores(name, predicted, observed, valid, yardstick=YARDSTICK):
    metric = METRICS[name]
    return metric.score(metric.sums(predicted, observed, valid, yardstick), yardstick)


def plain_spectrum(field):
    """Ring means of the whole transform, ring by ring; for frames of any shape."""
    length = max(field.shape)
    power = np.abs(np.fft.fft2(field)) ** 2 / field.size
    wavenumbers = [length * np.fft.fftfreq(size) for size in field.shape]
    radius = np.sqrt(wavenumbers[0][:, None] ** 2 + wavenumbers[1] ** 2)
    rings = [(radius >= k - 0.5) & (radius < k + 0.5) for k in range(length // 2 + 1)]
    return np.array([power[ring].mean() for ring in rings])


def one_frame(*fields):
    """Arrays (H, W) as fields (1, 1, 1, H, W), and all of it valid."""
    frames = [torch.tensor(field, dtype=torch.float64)[None, None, None] for field in fields]
    return *frames, torch.ones_like(frames[0], dtype=torch.bool)


def sal(predicted, observed, yardstick=YARDSTICK):
    return [scores(name, *one_frame(predicted, observed), yardstick).item() for name in SAL]


def rectangles(*places, shape=SHAPE):
    """Frame with rectangles of (rows, columns, value)."""
    frame = np.zeros(shape)
    for rows, columns, value in places:
        frame[slice(*rows), slice(*columns)] = value
    return frame


def plain_objects(field, lowest):
    """Sets of pixels that touch, found by walking, with what Wernli et al. ask of them."""
    wet = field[(field >= lowest) & (field > 0)]
    if not wet.size:
        return []
    left = {tuple(place) for place in np.argwhere(field >= np.quantile(wet, 0.95) / 15)}
    objects = []
    while left:
        border, places = [left.pop()], []
        while border:
            row, column = border.pop()
            places.append((row, column))
            near = {(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            border += near
        values = np.array([field[place] for place in places])
        objects.append((values.sum(), values.max(), values @ np.array(places) / values.sum()))
    return objects


def plain_sal(predicted, observed, lowest):
    """S, A and L of one frame, NaN where not defined."""
    totals, centres, volumes, distances = [], [], [], []
    for field in (predicted, observed):
        totals.append(field.sum())
        centres.append(np.array([(field * index).sum() for index in np.indices(field.shape)]) / field.sum())
        objects = plain_objects(field, lowest)
        amount = sum(rain for rain, _, _ in objects)
        volumes.append(sum(rain**2 / largest for rain, largest, _ in objects) / amount if objects else 0)
        away = [rain * np.linalg.norm(centre - centres[-1]) for rain, _, centre in objects]
        distances.append(sum(away) / amount if objects else np.nan)
    diagonal = np.hypot(*predicted.shape)
    location = np.linalg.norm(centres[0] - centres[1]) / diagonal + 2 * abs(distances[0] - distances[1]) / diagonal
    return *(2 * (pair[0] - pair[1]) / (pair[0] + pair[1]) for pair in (volumes, totals)), location


@pytest.mark.parametrize("size", [5, 6, 16, 17, 64])
def test_spectra_of_square_frames_are_those_of_pysteps(size):
    predicted, observed, valid = rain(shape=(size, size), share_missing=0)
    predicted, observed = 280 + predicted.double(), observed.double()
    yardstick = YARDSTICK._replace(shape=(size, size))
    wavenumbers = DIMENSIONS["wavenumber"][1](yardstick)
    for name, field in (("spectrum", predicted), ("spectrum-observed", observed)):
        result = scores(name, predicted, observed, valid, yardstick).numpy()
        frames = field[:, 1].flatten(0, 1).numpy()
        expected = np.mean([rapsd(frame, np.fft) for frame in frames], axis=0)
        frequencies = rapsd(frames[0], np.fft, return_freq=True)[1]
        # Of an even size pysteps leaves out the last ring, of half a cycle per pixel.
        assert len(result) == len(expected) + (size % 2 == 0)
        np.testing.assert_allclose(result[: len(expected), 1], expected, rtol=1e-10)
        np.testing.assert_allclose(wavenumbers[: len(expected)], frequencies, atol=1e-15)
    assert wavenumbers[-1] == (size // 2) / size


@pytest.mark.parametrize("shape", [(16, 16), (12, 40), (41, 12), (7, 9), (1, 8), (2, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_spectra_of_frames_with_gaps_are_those_of_a_plain_reading(shape, dtype):
    predicted, observed, valid = rain(shape=shape, share_missing=0.2)
    observed[0, 0], valid[0, 0] = torch.nan, False
    power = np.zeros((2, 2, num_wavenumbers(shape)))
    number = np.zeros(2)
    for sample, lead, channel in np.ndindex(valid.shape[:3]):
        where, frame = valid[sample, lead, channel].numpy(), (sample, lead, channel)
        if where.any():
            mean = observed[frame].numpy()[where].mean(dtype=np.float64)
            number[lead] += 1
            for i, field in enumerate((predicted, observed)):
                power[i, lead] += plain_spectrum(np.where(where, field[frame].double().numpy(), mean))
    assert number.tolist() != [6, 6]
    yardstick = YARDSTICK._replace(shape=shape)
    given = predicted.to(dtype), observed.to(dtype), valid, yardstick
    np.testing.assert_allclose(scores("spectrum", *given).mT, power[0] / number[:, None], rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(
        scores("spectrum-observed", *given).mT, power[1] / number[:, None], rtol=1e-7, atol=1e-12
    )


def test_a_wave_has_its_power_at_its_wavenumber():
    """A wave of amplitude a has the power a^2 H W / 2, in two frequencies of its ring; a ring is a circle in cycles."""
    yardstick = Yardstick(shape=(16, 32))
    rows, columns = np.mgrid[:16, :32]
    for wave in (np.cos(2 * np.pi * rows * 4 / 16), np.cos(2 * np.pi * columns * 8 / 32)):
        power = scores("spectrum", *one_frame(3 * wave, wave), yardstick).flatten()
        assert power.argmax() == 8
        assert power[torch.arange(17) != 8].max() < 1e-20
        assert DIMENSIONS["wavenumber"][1](yardstick)[8] == 0.25
        assert scores("spectrum-ratio", *one_frame(3 * wave, wave), yardstick)[8].item() == pytest.approx(9)


def test_the_spectrum_adds_to_the_mean_square():
    """Parseval, in one dimension, where a ring is a frequency and its mirror image."""
    field = np.random.default_rng(0).standard_normal((1, 17))
    power = scores("spectrum", *one_frame(field, field), Yardstick(shape=(1, 17))).flatten()
    assert (power[0] + 2 * power[1:].sum()).item() == pytest.approx((field**2).sum())


def test_a_smooth_forecast_has_a_ratio_below_1_at_high_wavenumbers():
    observed = np.random.default_rng(0).standard_normal((64, 64))
    fields = one_frame(gaussian_filter(observed, 1.5, mode="wrap"), observed)
    ratio = scores("spectrum-ratio", *fields, Yardstick(shape=(64, 64))).flatten()
    assert ratio[0].item() == pytest.approx(1)
    assert (ratio.diff() < 0.05).all()
    assert ratio[16:].max() < 0.1


@pytest.mark.parametrize("share_missing", [0, 0.05])
def test_sal_is_that_of_a_plain_reading(share_missing):
    predicted, observed, valid = rain(4, share_missing=share_missing)
    predicted[0, 0, 0], observed[1, 0, 0], predicted[2, 0, 0] = 0, 0, predicted[2, 0, 0] - 1
    covered = [torch.where(valid, field, 0).double().numpy() for field in (predicted.clamp(min=0), observed)]
    with np.errstate(invalid="ignore"):
        expected = [
            [plain_sal(covered[0][s, lead, c], covered[1][s, lead, c], 0.1) for s in range(4) for c in range(2)]
            for lead in range(2)
        ]
    for name, parts in zip(SAL, np.moveaxis(expected, 2, 0), strict=True):
        np.testing.assert_allclose(scores(name, predicted, observed, valid), np.nanmean(parts, 1), rtol=1e-6)
        result = scores(name, predicted.double(), observed.double(), valid)
        np.testing.assert_allclose(result, np.nanmean(parts, 1), rtol=1e-12)
    sums = METRICS[SAL[0]].sums(predicted, observed, valid, YARDSTICK)
    assert sums[1::2, 0].tolist() == [8, 8, 6]


@pytest.mark.parametrize("shape", [(60, 60), (50, 80)])
def test_amplitude_and_first_part_of_location_are_those_of_pysteps(shape):
    """With one object each, whose centre is that of all rain, location has its first part only."""
    rows, columns = np.indices(shape)
    generator = np.random.default_rng(0)
    for _ in range(5):
        fields = []
        for row, column in generator.uniform(20, 30, (2, 2)):
            shower = generator.uniform(1, 9) * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 50)
            # One value everywhere in the object: where rain is, an object is.
            fields.append(np.where(shower > 0.5, generator.uniform(1, 9), 0))
        _, amplitude, location = sal(*fields, YARDSTICK._replace(shape=shape))
        assert amplitude == pytest.approx(salscores.sal_amplitude(*fields), rel=1e-12)
        assert location == pytest.approx(salscores._sal_l1_param(*fields), rel=1e-12)


def test_sal_of_pysteps_for_separate_showers():
    """Its objects need 50 pixels and maxima 10 pixels apart, and touch at sides; here that makes no difference."""
    rows, columns = np.indices((100, 100))
    predicted, observed = (
        sum(
            np.where(np.hypot(rows - row, columns - column) < radius, peak - np.hypot(rows - row, columns - column), 0)
            for row, column, radius, peak in showers
        )
        for showers in (
            [(20, 25, 9, 14.0), (60, 70, 12, 21.0)],
            [(24, 25, 8, 16.0), (70, 60, 10, 19.0), (80, 20, 7, 12.5)],
        )
    )
    result = sal(predicted, observed, YARDSTICK._replace(shape=(100, 100)))
    np.testing.assert_allclose(result, salscores.sal(predicted, observed, thr_factor=1 / 15), rtol=1e-12)


def test_sal_of_a_shifted_object_is_its_shift():
    predicted, observed = rectangles(((5, 9), (13, 19), 2)), rectangles(((8, 12), (9, 15), 2))
    assert sal(predicted, observed) == [0, 0, pytest.approx(5 / 50)]


def test_sal_of_a_wider_object_is_its_area():
    """24 and 8 pixels of one value: V is the area, so S = A = 2 (24 - 8) / (24 + 8) = 1; the centre moves by 2."""
    predicted, observed = rectangles(((5, 9), (10, 16), 3)), rectangles(((5, 9), (10, 12), 3))
    assert sal(predicted, observed) == [pytest.approx(1), pytest.approx(1), pytest.approx(2 / 50)]


def test_sal_of_two_objects_apart():
    """Forecast: areas 4 and 4 at a distance of 10 from their centre. Observed: both together, area 8, distance 0."""
    predicted = rectangles(((10, 12), (8, 10), 1), ((10, 12), (28, 30), 1))
    observed = rectangles(((10, 12), (17, 21), 1))
    assert sal(predicted, observed) == [pytest.approx(2 * (4 - 8) / 12), 0, pytest.approx(2 * 10 / 50)]


def test_objects_that_touch_at_a_corner_are_one():
    touching, one = rectangles(((4, 6), (4, 6), 1), ((6, 8), (6, 8), 1)), rectangles(((4, 6), (4, 8), 1))
    assert sal(touching, one)[0] == 0


def test_objects_of_different_frames_are_apart():
    """The last row of one frame doesn't touch the first of the next, nor does the same place."""
    low, high = rectangles(((28, 30), (0, 5), 1.0)), rectangles(((0, 2), (0, 5), 1.0))
    frames = torch.tensor(np.stack([low, high, high]))[:, None, None]
    valid = torch.ones_like(frames, dtype=torch.bool)
    assert scores("sal-structure", frames, frames[[1, 0, 2]], valid).item() == 0
    one = torch.tensor(rectangles(((0, 2), (0, 5), 1.0)))[None, None, None]
    # 10 pixels in each frame, so V = 10; an object across frames would have more.
    halved = torch.tensor(rectangles(((0, 1), (0, 5), 1.0)))[None, None, None].expand(3, 1, 1, *SHAPE)
    together = scores("sal-structure", frames[[1, 1, 1]], halved, valid).item()
    assert together == scores("sal-structure", one, halved[:1], valid[:1]).item() == pytest.approx(2 * 5 / 15)


def test_objects_begin_at_a_fifteenth_of_the_quantile_of_wet_values():
    """Of 40 wet values the quantile is 15, so that 1 is in the object; 0.05 is below the lowest threshold."""
    field = rectangles(((4, 8), (4, 14), 15), ((4, 8), (14, 15), 1), ((20, 25), (20, 30), 0.05))
    below = field - rectangles(((4, 8), (14, 15), 0.01))
    core = rectangles(((4, 8), (4, 14), 15))
    assert sal(field, core)[0] == pytest.approx(2 * (604 / 15 - 40) / (604 / 15 + 40))
    assert sal(below, core)[0] == 0


def test_sal_where_it_does_not_rain():
    shower, nothing = rectangles(((4, 8), (4, 14), 5)), rectangles()
    drizzle = rectangles(((4, 8), (4, 14), 0.05))
    assert sal(nothing, shower)[:2] == [-2, -2]
    assert sal(shower, nothing)[:2] == [2, 2]
    assert np.isnan([sal(nothing, shower)[2], sal(shower, nothing)[2], *sal(nothing, nothing)]).all()
    structure, amplitude, location = sal(drizzle, shower)
    assert structure == -2
    assert amplitude == pytest.approx(2 * (0.05 - 5) / 5.05)
    assert np.isnan(location)
    assert np.isnan(sal(drizzle, drizzle)).tolist() == [True, False, True]


def test_sal_of_fields_below_zero():
    shower, warmth = rectangles(((4, 8), (4, 14), 5)), rectangles(((4, 8), (4, 14), 5)) - 1
    assert sal(warmth, rectangles(((4, 8), (4, 14), 4))) == [0, 0, 0]
    assert np.isnan(sal(shower, warmth)).all()


@few
@given(st.integers(0, 2**31), st.floats(0.1, 10), st.booleans())
def test_sal_is_antisymmetric_and_has_no_units(seed, factor, turned):
    predicted, observed, _ = rain(1, seed=seed, share_missing=0)
    predicted, observed = predicted[0, 0, 0].double().numpy(), observed[0, 0, 0].double().numpy()
    structure, amplitude, location = sal(predicted, observed)
    again = sal(observed, predicted)
    np.testing.assert_allclose([-structure, -amplitude, location], again, rtol=1e-9, atol=1e-12)
    scaled = sal(predicted * factor, observed * factor, YARDSTICK._replace(thresholds=(0.1 * factor,)))
    np.testing.assert_allclose([structure, amplitude, location], scaled, rtol=1e-9, atol=1e-12)
    assert abs(structure) <= 2 and abs(amplitude) <= 2 and 0 <= location <= 2


@metrics
def test_sums_of_batches_add_to_the_sums_of_the_whole(metric):
    predicted, observed, valid = rain(5)
    whole = metric.sums(predicted, observed, valid, YARDSTICK)
    parts = [
        metric.sums(predicted[part], observed[part], valid[part], YARDSTICK)
        for part in (slice(0, 1), slice(1, 4), slice(4, 5))
    ]
    torch.testing.assert_close(parts[2] + parts[0] + parts[1], whole, rtol=1e-12, atol=1e-12)
    assert whole.dtype == torch.float64
    expected = [len(DIMENSIONS[name][1](YARDSTICK)) for name in metric.dimensions]
    assert whole.shape[1:] == (*expected, 2)
    alone = metric.sums(predicted[:, 1:], observed[:, 1:], valid[:, 1:], YARDSTICK)
    torch.testing.assert_close(alone[..., 0], whole[..., 1], rtol=1e-12, atol=0)


@metrics
def test_scores_are_elementwise_over_resamples(metric):
    sums = metric.sums(*rain(), YARDSTICK)
    score = metric.score(sums, YARDSTICK)
    torch.testing.assert_close(metric.score(torch.stack([sums, 3 * sums], 1), YARDSTICK), torch.stack([score, score]))
    pooled = metric.score(sums.sum(-1), YARDSTICK)
    assert pooled.shape == score.shape[:-1]


@metrics
def test_nothing_valid_gives_nan_and_spoils_no_other_lead_time(metric):
    predicted, observed, valid = rain(share_missing=0)
    expected = scores(metric.name, predicted, observed, valid)
    observed[:, 0], predicted[:, 0], valid[:, 0] = torch.nan, torch.inf, False
    result = scores(metric.name, predicted, observed, valid)
    assert result[..., 0].isnan().all()
    assert torch.equal(result[..., 1], expected[..., 1])


@metrics
def test_what_lies_under_the_mask_does_not_matter(metric):
    predicted, observed, valid = rain()
    covered = predicted.masked_fill(~valid, torch.inf), observed.masked_fill(~valid, -7), valid
    assert torch.equal(metric.sums(*covered, YARDSTICK), metric.sums(predicted, observed, valid, YARDSTICK))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("name", ["spectrum", "spectrum-ratio", *SAL])
def test_a_forecast_that_is_not_finite_shows(name, value):
    predicted, observed, valid = rain(share_missing=0)
    predicted[0, 0, 0, 8, 8] = value
    result = scores(name, predicted, observed, valid)
    assert result[..., 0].isnan().all()
    assert result[..., 1].isfinite().all()


@pytest.mark.parametrize("name", ["spectrum-ratio", *SAL])
def test_perfect_forecasts_have_the_best_score(name):
    _, observed, valid = rain()
    assert (scores(name, observed, observed, valid) == (1 if name == "spectrum-ratio" else 0)).all()


@pytest.mark.parametrize("name", SAL)
def test_fields_that_can_not_have_sal_are_told_why(name, monkeypatch):
    lacks = METRICS[name].lacks
    assert lacks(YARDSTICK) is None
    assert lacks(YARDSTICK._replace(thresholds=())) == "thresholds"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert lacks(YARDSTICK) == "scipy (extra 'verify')"


def test_sal_without_scipy_names_the_extra(monkeypatch):
    original = builtins.__import__

    def without_scipy(name, *rest):
        if name.startswith("scipy"):
            raise ImportError(name)
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_scipy)
    with pytest.raises(MissingExtra, match=r'pip install "fieldcast\[verify\]"'):
        METRICS["sal-structure"].sums(*rain(1), YARDSTICK)
