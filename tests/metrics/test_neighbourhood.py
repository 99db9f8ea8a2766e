"""The fractions skill score against pysteps, the `scores` package, plain loops with missing pixels, worked examples."""

import operator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pysteps.verification.spatialscores import fss, fss_accum, fss_compute, fss_init
from scores.spatial import fss_2d_single_field

import fieldcast.metrics.neighbourhood as neighbourhood
from fieldcast.metrics.metric import Yardstick
from fieldcast.metrics.neighbourhood import NEIGHBOURHOOD_METRICS, fractions_sums

(FSS,) = NEIGHBOURHOOD_METRICS
RAIN = Yardstick(units="mm/h", thresholds=(0.1, 2.0, 10.0), scales=(1, 3, 9, 33, 101))

both_events = pytest.mark.parametrize("event", ["at-or-above", "below"])
both_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def rain(shape=(2, 2, 2, 12, 17), share_missing=0.0, seed=0, dtype=torch.float64):
    """Skewed values in steps of 0.1, so that many equal a threshold; NaN where missing."""
    generator = np.random.default_rng(seed)
    observed = np.round(generator.gamma(0.3, 6.0, shape), 1)
    predicted = np.round(np.abs(observed + generator.normal(0, 2, shape)), 1)
    observed[generator.random(shape) < share_missing] = np.nan
    predicted, observed = torch.tensor(predicted, dtype=dtype), torch.tensor(observed, dtype=dtype)
    return predicted, observed, ~observed.isnan()


def score(fields, yardstick=RAIN):
    return FSS.score(fractions_sums(*fields, yardstick), yardstick)


def one_frame(predicted, observed):
    observed = torch.as_tensor(observed, dtype=torch.float32)[None, None, None]
    predicted = torch.as_tensor(predicted, dtype=torch.float32)[None, None, None]
    return predicted, observed, ~observed.isnan()


def windows(events, width):
    """Mean over the window around each pixel of a map that is surrounded by zeros, window by window."""
    reach = width // 2
    padded = np.pad(events.astype(float), reach)
    rows, columns = events.shape
    fractions = np.zeros(events.shape)
    for row in range(rows):
        for column in range(columns):
            fractions[row, column] = padded[row : row + width, column : column + width].sum() / width**2
    return fractions


def plain_score(fields, lead_time, threshold, width, happens):
    above, below = 0.0, 0.0
    frames = [field[:, lead_time].flatten(0, 1).numpy() for field in fields]
    for predicted, observed, valid in zip(*frames, strict=True):
        forecast, event = (windows(happens(field, threshold) & valid, width) for field in (predicted, observed))
        above += ((forecast - event) ** 2)[valid].sum()
        below += (forecast**2 + event**2)[valid].sum()
    return 1 - above / below


@both_dtypes
@both_events
@pytest.mark.parametrize("share_missing", [0.0, 0.2])
def test_scores_are_those_of_plain_loops(share_missing, event, dtype):
    fields = rain(share_missing=share_missing, dtype=dtype)
    happens = {"at-or-above": operator.ge, "below": operator.lt}[event]
    result = score(fields, RAIN._replace(event=event))
    assert result.shape == (3, 5, 2)
    for lead_time in range(2):
        for number, threshold in enumerate(torch.tensor(RAIN.thresholds, dtype=dtype).tolist()):
            expected = [plain_score(fields, lead_time, threshold, width, happens) for width in RAIN.scales]
            np.testing.assert_allclose(result[number, :, lead_time], expected, rtol=0, atol=1e-14)


@both_dtypes
@pytest.mark.parametrize("shape", [(2, 1, 1, 12, 17), (1, 1, 1, 64, 64), (1, 1, 1, 1, 30), (3, 1, 1, 7, 1)])
def test_scores_are_those_of_pysteps_where_nothing_is_missing(shape, dtype):
    fields = rain(shape, dtype=dtype)
    result = score(fields)
    for number, threshold in enumerate(torch.tensor(RAIN.thresholds, dtype=dtype).tolist()):
        for scale, width in enumerate(RAIN.scales):
            expected = fss_init(threshold, width)
            for predicted, observed in zip(*(field.flatten(0, 2).numpy() for field in fields[:2]), strict=True):
                fss_accum(expected, predicted, observed)
            with np.errstate(invalid="ignore"):
                assert result[number, scale, 0].item() == pytest.approx(fss_compute(expected), abs=1e-13, nan_ok=True)


def score_of_scores(predicted, observed, width, zero_padding=False):
    return fss_2d_single_field(
        predicted,
        observed,
        event_threshold=2.0,
        window_size=(width, width),
        zero_padding=zero_padding,
        threshold_operator=np.greater_equal,
    )


@pytest.mark.parametrize("width", [1, 3, 9, 33])
def test_scores_are_those_of_the_scores_package_for_maps_with_a_dry_rim(width):
    fields = rain((1, 1, 1, 12, 17))
    yardstick = Yardstick(thresholds=(2.0,), scales=(width,))
    # Its windows lie within the map: with a rim as wide as half of one, there is one around each pixel of the map.
    maps = [np.pad(field[0, 0, 0].numpy(), width // 2) for field in fields[:2]]
    assert score(fields, yardstick).item() == pytest.approx(score_of_scores(*maps, width), abs=1e-14)


def test_the_zero_padding_of_the_scores_package_has_windows_around_pixels_outside_the_map():
    """One more row and column of them, after the last ones; here every pixel of the map has its window, no other."""
    observed, predicted = torch.zeros(2, 6, 7)
    observed[5, 6], predicted[5, 4] = 3, 3
    yardstick = Yardstick(thresholds=(2.0,), scales=(3,))
    # Of windows two rows high, those around columns 5 and 6 hold the one event, those around 3, 4 and 5 the other.
    expected = 1 - (2 * 1 + 2 * 2) / (2 * 2 + 2 * 3)
    assert score(one_frame(predicted, observed), yardstick).item() == pytest.approx(expected, rel=1e-14)
    padded = score_of_scores(predicted.numpy(), observed.numpy(), 3, zero_padding=True)
    assert padded == pytest.approx(1 - (3 * 2 + 3 * 2) / (3 * 3 + 3 * 3), rel=1e-14)
    larger = one_frame(*(torch.nn.functional.pad(field, (0, 1, 0, 1)) for field in (predicted, observed)))
    assert score(larger, yardstick).item() == pytest.approx(padded, rel=1e-14)


def test_windows_around_missing_pixels_are_left_out_which_pysteps_counts_as_dry_ones():
    observed = [[5.0, np.nan, 0.0, 0.0, 0.0]]
    predicted = [[5.0, 5.0, 0.0, 0.0, 0.0]]
    yardstick = Yardstick(thresholds=(2.0,), scales=(1, 3))
    result = score(one_frame(predicted, observed), yardstick).flatten().tolist()
    assert result == [1, 1]
    frames = (np.array(predicted), np.array(observed))
    # A forecast of rain where nobody looked is a fault to it.
    assert fss(*frames, 2.0, 1) == pytest.approx(1 - 1 / 3)
    assert fss(*frames, 2.0, 3) < 0.9


def test_a_value_equal_to_the_threshold_is_an_event():
    yardstick = Yardstick(thresholds=(0.1,), scales=(1,))
    assert score(one_frame([[0.1, 0.0]], [[0.1, 0.0]]), yardstick).item() == 1
    below = yardstick._replace(event="below")
    assert score(one_frame([[0.1, 0.0]], [[0.1, 0.1]]), below).item() == 0


def test_a_displaced_pixel_in_a_worked_example():
    """Of the n^2 windows that hold an event, n (n - 1) hold one a pixel aside too: FSS = 2 n (n - 1) / (2 n^2)."""
    observed, predicted = torch.zeros(2, 9, 9)
    observed[4, 4], predicted[4, 5] = 1, 1
    yardstick = Yardstick(thresholds=(1.0,), scales=(1, 3, 5))
    result = score(one_frame(predicted, observed), yardstick).flatten().tolist()
    assert result == pytest.approx([0, 2 / 3, 4 / 5], rel=1e-15)


def test_at_the_widest_scale_only_the_frequency_counts():
    """As in Roberts and Lean: windows over the whole map give 2 f_o f_f / (f_o^2 + f_f^2)."""
    predicted, observed, valid = rain((1, 1, 1, 12, 17))
    forecast, event = ((field >= 2.0).sum().item() for field in (predicted, observed))
    yardstick = Yardstick(thresholds=(2.0,), scales=(35, 1001))
    expected = 2 * forecast * event / (forecast**2 + event**2)
    assert score((predicted, observed, valid), yardstick).flatten().tolist() == pytest.approx([expected] * 2, rel=1e-14)


def test_without_any_event_it_is_undefined_and_with_one_sided_events_zero():
    dry, wet = torch.zeros(5, 6), torch.ones(5, 6)
    yardstick = Yardstick(thresholds=(1.0,), scales=(1, 5))
    assert score(one_frame(dry, dry), yardstick).isnan().all()
    assert score(one_frame(wet, dry), yardstick).flatten().tolist() == [0, 0]
    assert score(one_frame(dry, wet), yardstick).flatten().tolist() == [0, 0]
    assert score(one_frame(wet, wet), yardstick).flatten().tolist() == [1, 1]
    predicted, observed, valid = one_frame(wet, wet)
    assert score((predicted, observed, torch.zeros_like(valid)), yardstick).isnan().all()


@both_events
def test_a_value_that_is_not_a_number_shows_at_its_lead_time_alone(event):
    yardstick = RAIN._replace(event=event)
    for field in (0, 1):
        fields = rain()
        expected = score(fields, yardstick)
        fields[field][1, 0, 1, 3, 4] = torch.nan
        result = score(fields, yardstick)
        assert result[..., 0].isnan().all()
        assert torch.equal(result[..., 1], expected[..., 1])


@both_events
@pytest.mark.parametrize("filler", [torch.nan, torch.inf, -torch.inf, 1e30, 3.0])
def test_missing_pixels_do_not_matter(filler, event):
    yardstick = RAIN._replace(event=event)
    predicted, observed, valid = rain(share_missing=0.2)
    expected = fractions_sums(predicted, observed, valid, yardstick)
    assert expected.isfinite().all()
    filled = (torch.where(valid, field, filler) for field in (predicted, observed))
    assert torch.equal(fractions_sums(*filled, valid, yardstick), expected)


@pytest.mark.parametrize("chunk", [1, 12 * 17 * 4 * 2, 12 * 17 * 4 * 3])
def test_sums_do_not_depend_on_how_much_is_worked_on_at_once(chunk, monkeypatch):
    fields = rain((2, 5, 2, 12, 17), share_missing=0.1)
    expected = fractions_sums(*fields, RAIN)
    monkeypatch.setattr(neighbourhood, "_CHUNK", chunk)
    assert torch.equal(fractions_sums(*fields, RAIN), expected)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 999), rows=st.integers(1, 9), columns=st.integers(1, 9), cut=st.integers(1, 3))
def test_sums_add_over_any_split_and_scores_stay_in_their_range(seed, rows, columns, cut):
    fields = rain((4, 2, 1, rows, columns), share_missing=0.2, seed=seed)
    before = [field.clone() for field in fields]
    whole = fractions_sums(*fields, RAIN)
    parts = fractions_sums(*(f[:cut] for f in fields), RAIN) + fractions_sums(*(f[cut:] for f in fields), RAIN)
    torch.testing.assert_close(parts, whole, rtol=1e-13, atol=0)
    result = FSS.score(whole, RAIN)
    assert ((result >= 0) & (result <= 1) | (whole[1] == 0)).all()
    assert torch.equal(fields[0], before[0])
    # Mirrored maps have the same windows.
    mirrored = fractions_sums(*(field.flip(-1).mT for field in fields), RAIN)
    torch.testing.assert_close(mirrored, whole, rtol=1e-13, atol=0)


def test_scores_take_sums_of_any_further_shape():
    sums = fractions_sums(*rain(), RAIN)
    assert FSS.score(torch.stack([sums, 2 * sums], dim=1), RAIN).shape == (2, 3, 5, 2)
    assert FSS.score(sums.sum(-1), RAIN).shape == (3, 5)


@pytest.mark.slow
def test_counts_of_large_maps_are_exact():
    """More events than float32 can count: windows over the whole map, of which one pixel differs."""
    shape = (1, 1, 1, 4100, 4100)
    ones = torch.ones(shape)
    fewer = ones.clone()
    fewer[..., -1, -1] = 0
    yardstick = Yardstick(thresholds=(1.0,), scales=(8201,))
    sums = fractions_sums(fewer, ones, torch.ones(shape, dtype=torch.bool), yardstick).flatten()
    num_pixels = 4100**2
    expected = [num_pixels / 8201**4, num_pixels * ((num_pixels - 1) ** 2 + num_pixels**2) / 8201**4]
    assert sums.tolist() == pytest.approx(expected, rel=1e-12)


def test_metrics_say_what_they_are():
    assert (FSS.name, FSS.family, FSS.orientation, FSS.dimensions) == (
        "fss",
        "events",
        "larger",
        ("threshold", "scale"),
    )
    assert FSS.lacks(RAIN) is None
    assert FSS.lacks(RAIN._replace(thresholds=())) == "thresholds"
    assert FSS.lacks(RAIN._replace(scales=())) == "scales"
