"""Kernels and hydrographs as a browser shows them: quiet, painted, with a slider that moves and values to point at."""

import re

import numpy as np
import pytest
from browser.looks import MIN_CONTRAST, OUTSIDE, PAINTED, WITHOUT_NAME, contrast, listened, pixels
from report.rivers import RIVERS, make_hydrographs, make_kernels
from report.synthetic import make_contents, make_part

from fieldcast.report import write_report
from fieldcast.report.kernels.view import KernelView, lag_sum

pytestmark = pytest.mark.browser

CARD = "details.card"
UNFOLD = "() => document.querySelectorAll('details').forEach(each => { each.open = true; })"
PAINTED_MAPS = (
    "() => [...document.querySelectorAll('canvas')].every(c => c.getContext('2d').getImageData(1, 1, 1, 1).data[3])"
)


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    """Where the report of kernels and hydrographs lies."""
    part = make_part(cases=[], hydrographs=make_hydrographs())
    contents = make_contents(parts=[part], histories={}, table=[], kernels=make_kernels())
    return write_report(contents, tmp_path_factory.mktemp("rivers")).as_uri()


@pytest.fixture
def open_page(browser, address):
    """Opens the report in a window of some size and colours, with its maps painted, and closes it again."""
    pages = []

    def open_in(width=1280, height=900, colours="light"):
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=colours)
        pages.append(page)
        page.goto(address)
        page.wait_for_function(PAINTED_MAPS)
        return page

    yield open_in
    for page in pages:
        page.close()


def opened(page, name: str):
    """The open card of a river."""
    card = page.locator(CARD).filter(has=page.locator("summary b", has_text=name))
    if card.get_attribute("open") is None:
        card.locator("summary").first.click()
    return card


def test_page_is_quiet_and_asks_for_nothing_else(browser, address):
    page, said, requested = listened(browser)
    page.goto(address)
    page.wait_for_function(PAINTED_MAPS)
    opened(page, RIVERS[0]).locator(".player .play").click()
    page.wait_for_timeout(600)
    page.close()
    assert said == []
    assert [url for url in requested if not url.startswith("data:")] == [address]


def test_slider_moves_the_maps_of_its_river_only(open_page):
    page = open_page()
    card = opened(page, RIVERS[0])
    maps = "card => [...card.querySelectorAll('.maps canvas')].map(canvas => canvas.toDataURL())"
    before = card.evaluate(maps)
    slider = card.locator(".player input")
    slider.focus()
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    assert card.locator(".player output").inner_text() == "lag 6 d"
    assert slider.get_attribute("aria-valuetext") == "lag 6 d"
    # Two summed maps, two at one lag, six to compare.
    moved = [map_before != map_after for map_before, map_after in zip(before, card.evaluate(maps), strict=True)]
    assert moved == [False, False, True, True] + 6 * [False]
    others = page.locator(".player output").all_inner_texts()
    assert sorted(others).count("lag 6 d") == 1


def test_pointer_reads_the_value_of_the_kernel(open_page):
    page = open_page()
    card = opened(page, RIVERS[0])
    view = KernelView(make_kernels())
    kernel = view.kernel(view.fields[0], RIVERS[0])
    row, column = np.unravel_index(np.nanargmax(lag_sum(kernel)), kernel.shape[1:])
    for selector, values in ((".maps > .panels canvas", lag_sum(kernel)), (".player canvas", kernel[0])):
        canvas = card.locator(selector).first
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        place = {"x": (column + 0.5) * box["width"] / 32, "y": (row + 0.5) * box["height"] / 12}
        canvas.hover(position=place)
        said = card.locator(".maps > .readout").first.inner_text()
        found = re.fullmatch(r"precipitation, .*: (\S+) m3/s per mm/day at (\S+)° N, (\S+)° W", said)
        assert found, said
        assert np.isclose(float(found[1]), values[row, column], rtol=0.01)
        assert float(found[2]) == 59 - row and float(found[3]) == 135 - 0.75 * column
    page.mouse.move(0, 0)
    assert "Point at a map" in card.locator(".maps > .readout").first.inner_text()


def test_pointer_reads_hydrographs_and_lag_curves(open_page):
    page = open_page()
    for chart in (page.locator("#hydrographs .plotted").first, opened(page, RIVERS[0]).locator(".plotted").first):
        drawing = chart.locator("svg")
        drawing.scroll_into_view_if_needed()
        drawing.hover()
        said = chart.locator(".readout").inner_text()
        assert re.match(r"(2010-09-\d\d: observed [\d.]+, |lag [56] d: precipitation [\d.]+ m3/s per mm/day)", said), (
            said
        )
        assert chart.locator(".cursor").get_attribute("d").startswith("M")


def test_maps_are_red_and_blue_and_stamped_where_the_surrogate_fails(open_page):
    page = open_page()
    card = opened(page, RIVERS[0])
    red, blue = (pixels(card.locator(".maps > .panels canvas").nth(number).screenshot()) for number in (0, 1))
    assert (red[..., 0].astype(int) - red[..., 2] > 80).any() and not (red[..., 2].astype(int) - red[..., 0] > 80).any()
    assert (blue[..., 2].astype(int) - blue[..., 0] > 80).any()
    assert not card.locator(".stamp").count()
    failed = opened(page, RIVERS[1]).locator(".map .stamp")
    assert failed.first.is_visible() and failed.first.inner_text() == "surrogate fails: R² = 0.21"


def test_cards_open_over_the_whole_width(open_page):
    page = open_page()
    cards = page.locator(CARD)
    widths = [cards.nth(number).bounding_box()["width"] for number in range(3)]
    assert widths[0] > 1000 and max(widths[1:]) < 400


@pytest.mark.parametrize("width", [320, 768])
def test_page_is_no_wider_than_the_screen(open_page, width):
    page = open_page(width, 740)
    page.evaluate(UNFOLD)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate(OUTSIDE) == []


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_text_stands_out_from_its_ground(open_page, colours):
    page = open_page(colours=colours)
    page.evaluate(UNFOLD)
    for selector in (
        ".readout",
        ".stamp",
        ".warning",
        ".score",
        ".loss-score",
        ".card-name b",
        ".ends span",
        "figcaption",
    ):
        found = page.evaluate(PAINTED, selector)
        assert found, f"nothing is a {selector}"
        lowest = min((contrast(*pair), *pair) for pair in set(map(tuple, found)))
        assert lowest[0] >= MIN_CONTRAST, f"{selector}: {lowest}"


def test_every_image_figure_and_control_has_a_name(open_page):
    page = open_page()
    assert page.evaluate(WITHOUT_NAME) == []
    named = "() => [...document.querySelectorAll('canvas')].every(canvas => canvas.getAttribute('aria-label'))"
    assert page.evaluate(named)


def test_paper_has_the_summed_maps(open_page):
    page = open_page()
    page.emulate_media(media="print")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert all(canvas.is_visible() for canvas in page.locator(".maps > .panels canvas").all())
    assert not any(player.is_visible() for player in page.locator(".player").all())
