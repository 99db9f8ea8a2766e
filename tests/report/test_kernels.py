"""Kernels on a page: the numbers in the pictures, what the page holds, and what it says of a surrogate that fails."""

import base64
import html
import json
import re
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report.rivers import RIVERS, make_kernels, make_pixel_kernels
from report.synthetic import HOSTILE, make_contents
from scipy import ndimage

from fieldcast.data.catchments import great_circle
from fieldcast.errors import DataError
from fieldcast.report.kernels import kernel_figure, kernels_html, outputs_in_detail, write_kernels_page
from fieldcast.report.kernels.comparison import correlation
from fieldcast.report.kernels.fidelity import verdict_of
from fieldcast.report.kernels.maps import LEVELS, diverging_scale, limit_of, packed, thinned
from fieldcast.report.kernels.travel import centres, close_up, ground_of, place_of
from fieldcast.report.kernels.view import MAX_LAG_MAPS, KernelView, in_groups, lag_curve, lag_sum
from fieldcast.report.page import page_html

MAX_BYTES = 5_000_000
HOLDS, FAILS, UNTESTED = RIVERS


@pytest.fixture(scope="module")
def body() -> str:
    """The section of rivers that have everything."""
    return kernels_html(make_kernels())


def cards(body: str) -> list[str]:
    """Each card of the gallery with all that it opens to."""
    return re.split(r"(?=<(?:details|div) class=\"card\")", body)[1:]


def unpacked(codes: str, step: float) -> np.ndarray:
    """What the page's script reads: values of 16-bit codes, their low bytes first."""
    low, high = np.frombuffer(zlib.decompress(base64.b64decode(codes)), np.uint8).reshape(2, -1)
    found = (low | high.astype(np.uint16) << 8).astype(np.uint16).view(np.int16)
    return np.where(found == -32768, np.nan, found * step)


def map_values(card: str, name: str) -> np.ndarray:
    """The values of a map of a card, by its name."""
    pattern = r'data-codes="([^"]*)" data-step="([^"]*)" data-name="([^"]*)"'
    found = {html.unescape(known): unpacked(codes, float(step)) for codes, step, known in re.findall(pattern, card)}
    return found[name]


# --- the numbers ---


@given(st.integers(0, 2**31), st.floats(1e-6, 1e6))
@settings(max_examples=20, deadline=None)
def test_packed_maps_are_exact_to_half_a_step(seed, size):
    maps = np.random.default_rng(seed).normal(size=(2, 5, 7)) * size
    maps[0, 1, 2] = np.nan
    step = limit_of(maps) / LEVELS
    found = unpacked(packed(maps, limit_of(maps)), step).reshape(maps.shape)
    assert np.isnan(found[0, 1, 2]) and np.isnan(found).sum() == 1
    assert np.nanmax(np.abs(found - maps)) <= 0.5001 * step


def test_colours_end_where_smaller_values_hold_95_percent_of_the_squares():
    maps = np.concatenate([np.full(96, 1.0), np.full(4, -1.0001), np.zeros(10_000)])
    assert limit_of(maps) == 1.0
    assert limit_of(-7 * maps) == 7.0
    assert limit_of(np.array([0.0, np.nan])) == 1.0


def test_middle_colour_is_around_zero_and_the_ends_are_red_and_blue():
    scale = diverging_scale(2.0, "")
    lowest, middle, highest = scale.image(np.array([[-5.0, 0.01, 2.1]]))[0].astype(int)
    assert lowest[2] > lowest[0] and highest[0] > highest[2]
    assert np.ptp(middle) <= 2 and middle.min() > 240


def test_thinned_maps_keep_the_mean_of_what_is_known():
    values = np.arange(20.0).reshape(4, 5)
    values[0, 0] = np.nan
    assert np.allclose(thinned(values, 2), [[(1 + 5 + 6) / 3, 5, 6.5], [13, 15, 16.5]])
    assert thinned(values, 1) is values


def test_centres_of_mass_against_scipy():
    maps = np.random.default_rng(0).normal(size=(4, 6, 9))
    maps[2] *= 1e-4
    maps[0, 3, 3] = np.nan
    found = centres(maps)
    assert np.isnan(found[2]).all()
    for at in (0, 1, 3):
        assert np.allclose(found[at], ndimage.center_of_mass(np.nan_to_num(np.abs(maps[at]))))


def test_great_circle_distances():
    places = np.array([[1.0, 0.0], [0.0, 90.0], [90.0, 12.0], [0.0, 180.0]])
    wanted = 6371.0 * np.pi * np.array([1 / 180, 0.5, 0.5, 1.0])
    assert np.allclose(great_circle(*places.T, *np.zeros(2)), wanted)


def test_correlation_against_numpy():
    first, second = np.random.default_rng(1).normal(size=(2, 3, 4, 5))
    first[0, 0, 0] = np.nan
    assert np.isclose(correlation(first, second), np.corrcoef(first.ravel()[1:], second.ravel()[1:])[0, 1])
    assert np.isnan(correlation(np.ones(3), np.arange(3.0)))


def test_many_lags_are_summed_in_groups():
    view = KernelView(make_kernels(num_lags=100))
    kernel = view.kernel(view.fields[0], HOLDS)
    groups = view.lag_groups
    assert len(groups.starts) == len(groups.labels) <= MAX_LAG_MAPS
    assert groups.labels[0] == "lags 0 d to 2 d, summed" and groups.labels[-1] == "lags 99 d to 99 d, summed"
    together = in_groups(kernel, groups.starts)
    assert np.allclose(np.nansum(together, axis=0), np.nansum(kernel, axis=0))
    assert np.isnan(together[:, -1, 0]).all() and np.isnan(lag_sum(kernel)).sum() == 4


def test_north_is_up_and_the_station_lies_where_its_coordinates_say():
    kernels = make_kernels()
    view = KernelView(kernels)
    assert view.row_labels(1)[0] == "59° N" and view.column_labels(1)[0] == "135° W"
    row, column = ground_of(view).position(*place_of(view, HOLDS))
    number = list(RIVERS).index(HOLDS)
    assert np.isclose(11 - row + 48, float(kernels.output_latitude[number]))
    assert np.isclose(column * 0.75 - 135, float(kernels.output_longitude[number]))
    assert ground_of(view).position(70.0, -120.0) is None
    stations = kernels.rename({"latitude": "lat", "longitude": "lon"})
    stations = stations.rename(output_latitude="latitude", output_longitude="longitude")
    assert np.allclose(place_of(KernelView(stations), HOLDS), place_of(view, HOLDS))


def test_close_up_holds_the_weight_and_the_place_and_nothing_else():
    kernels = make_pixel_kernels()
    output = str(kernels.output.values[0])
    view = KernelView(kernels)
    close = close_up(view, output)
    field = view.fields[0]
    assert close.kernels.sizes["y"] < 0.7 * view.kernels.sizes["y"]
    assert ground_of(close).position(*place_of(view, output)) is not None
    inside, whole = (np.nansum(each.kernel(field, output) ** 2) for each in (close, view))
    assert np.isclose(inside, whole, rtol=1e-6)
    assert close_up(close, output) is close


# --- the page ---


def test_every_output_has_a_card_in_the_order_of_names(body):
    names = [html.unescape(re.search(r"<b>(.*?)</b>", card).group(1)).partition(", ")[0] for card in cards(body)]
    assert names == sorted(RIVERS)
    assert all(card.count("<img src=") >= 2 and "small-curves" in card for card in cards(body))


def test_maps_of_the_page_hold_the_kernel(body):
    view = KernelView(make_kernels())
    card = next(card for card in cards(body) if HOLDS in card)
    kernel = view.kernel(view.fields[1], HOLDS)
    summed = map_values(card, "air temperature, summed over lag").reshape(kernel.shape[1:])
    assert np.allclose(summed, lag_sum(kernel), atol=limit_of(lag_sum(kernel)) / LEVELS, equal_nan=True)
    lags = map_values(card, "air temperature, at one lag").reshape(kernel.shape)
    assert np.allclose(lags, kernel, atol=limit_of(kernel) / LEVELS, equal_nan=True)


def test_lag_curve_of_the_page_is_the_sum_over_the_map(body):
    view = KernelView(make_kernels())
    card = next(card for card in cards(body) if HOLDS in card)
    plotted = [json.loads(html.unescape(values)) for values in re.findall(r'plotted" data-values="([^"]*)"', card)]
    name, values = plotted[0]["lines"][0]
    assert name == "precipitation" and plotted[0]["labels"][3] == "lag 3 d"
    assert np.allclose(values, lag_curve(view.kernel(view.fields[0], HOLDS)), rtol=1e-3)


def test_surrogate_that_fails_or_was_not_tested_is_stamped_across_its_pictures(body):
    stamped = {html.unescape(re.search(r"<b>(.*?)[,<]", card).group(1))[:7]: card for card in cards(body)}
    assert "stamp" not in stamped[HOLDS]
    num_maps = stamped[FAILS].count('class="frame map"')
    # Integrated gradients and occlusion ask the network itself: their maps are not the surrogate's.
    assert stamped[FAILS].count('class="stamp">surrogate fails: R² = 0.21') == 1 + num_maps - 4
    assert stamped[UNTESTED[:7]].count('class="stamp">surrogate not tested') == 1 + num_maps - 4
    assert "0.56 in the median; 1 of 3 fail, with less than 0.5. 1 were not tested." in body


def test_threshold_of_the_file_decides():
    kernels = make_kernels()
    assert not verdict_of(KernelView(kernels), FAILS).holds
    kernels.attrs["threshold"] = 0.2
    assert verdict_of(KernelView(kernels), FAILS).holds
    assert "stamp" not in kernels_html(kernels[["kernel_precipitation", "r2"]].sel(output=[FAILS]))


def test_stamp_stands_in_the_figure_too():
    kernels = make_kernels()
    said = {
        output: [text.get_text() for axes in kernel_figure(kernels, output).axes for text in axes.texts]
        for output in (HOLDS, FAILS)
    }
    assert said == {HOLDS: [], FAILS: ["surrogate fails: R² = 0.21"] * 2}


def test_fidelity_tables_give_surrogates_by_flow_and_season(body):
    card = next(card for card in cards(body) if HOLDS in card)
    captions = re.findall(r"<caption>(.*?)</caption>", card)
    assert "R² by flow, against the network" in captions and "R² by season, against the observations" in captions
    assert "its kernel is shown" in card and "<td>0.91</td>" in card


def test_band_is_drawn_only_where_the_file_has_the_error_of_the_curve():
    kernels = make_kernels((HOLDS,))
    assert kernels_html(kernels).count('class="band"') == 2
    bare = kernels.drop_vars(["lag_curve_error_precipitation", "lag_curve_error_air_temperature"])
    assert 'class="band"' not in kernels_html(bare)


def test_comparison_is_there_with_two_attributions_and_not_with_one(body):
    assert "contribution, integrated gradients" in body and "total of occlusion" in body
    kernels = make_kernels((HOLDS,))
    other = [name for name in kernels.data_vars if str(name).startswith(("integrated", "occlusion"))]
    assert "Correlation" not in kernels_html(kernels.drop_vars(other))


def test_details_are_those_asked_for():
    kernels = make_kernels([f"river {number:02d}" for number in range(14)], num_lags=2, attributions=False)
    assert outputs_in_detail(kernels) == [f"river {number:02d}" for number in range(12)]
    body = kernels_html(kernels, details=["river 13"])
    assert body.count('<details class="card"') == 1 and body.count('<div class="card"') == 13
    assert "1 of 14 cards open" in body


def test_page_of_its_own_and_section_of_the_report_are_escaped_and_quiet(tmp_path):
    kernels = make_kernels(attributions=False)
    kernels.attrs |= {"method": HOSTILE, "title": HOSTILE}
    kernels["kernel_precipitation"].attrs |= {"units": HOSTILE, "field": HOSTILE}
    own = write_kernels_page(kernels, tmp_path / "kernels.html").read_text(encoding="utf-8")
    whole = page_html(make_contents(parts=[], histories={}, table=[], kernels=kernels))
    for text in (own, whole):
        assert '<section id="kernels">' in text and text.count("<script") == 1
        assert "alert('" not in text and re.findall(r'(?:src|href)="(?!data:image/png|#)', text) == []
        assert ' style="' not in text and "url(" not in text
    assert len(list(tmp_path.iterdir())) == 1


def test_page_of_a_noisy_pixel_stays_small_on_a_large_grid(tmp_path):
    kernels = make_pixel_kernels((300, 320), 20)
    noise = np.random.default_rng(5).normal(size=kernels.kernel_rain_rate.shape)
    kernels["kernel_rain_rate"] = kernels.kernel_rain_rate.copy(data=noise.astype(np.float32))
    path = write_kernels_page(kernels, tmp_path / "kernels.html")
    assert path.stat().st_size < MAX_BYTES
    assert "Maps show means of 2 by 2 pixels" in path.read_text(encoding="utf-8")


def test_what_is_no_kernel_file_is_refused():
    kernels = make_kernels((HOLDS,), attributions=False)
    with pytest.raises(DataError, match="no variable 'kernel_FIELD', only"):
        kernels_html(kernels[["value"]])
    with pytest.raises(DataError, match=r"transpose to \('output', 'lag', 'latitude', 'longitude'\)"):
        kernels_html(kernels.assign(kernel_air_temperature=kernels.kernel_air_temperature.transpose("lag", ...)))
    with pytest.raises(DataError, match="has no output 'Rhine': it has 08MF005"):
        kernel_figure(kernels, "Rhine")
    with pytest.raises(DataError, match="has no output 'Rhine'"):
        kernels_html(kernels, details=["Rhine"])
