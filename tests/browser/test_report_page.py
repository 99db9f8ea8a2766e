"""The report as a browser shows it: quiet, playable, readable on a phone, in the dark and on paper."""

from pathlib import Path

import numpy as np
import pytest
from browser.looks import MIN_CONTRAST, OUTSIDE, PAINTED, WITHOUT_NAME, contrast, listened, luminance, pixels
from report.synthetic import MODELS, NUM_INPUTS, NUM_LEADS, make_contents

from fieldcast.report import write_report
from fieldcast.report.scale import RAIN_COLOURS

pytestmark = pytest.mark.browser

START = NUM_INPUTS + NUM_LEADS // 2  # the frame that a player shows first
LAST = NUM_INPUTS + NUM_LEADS - 1


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    """Where the report of contents that have everything lies."""
    return write_report(make_contents(), tmp_path_factory.mktemp("report")).as_uri()


@pytest.fixture
def open_page(browser, address):
    """Opens the report in a window of some size and colours, and closes it again."""
    contexts = []

    def open_in(width=1280, height=900, colours="light"):
        viewport = {"width": width, "height": height}
        context = browser.new_context(viewport=viewport, color_scheme=colours, reduced_motion="reduce")
        contexts.append(context)
        page = context.new_page()
        page.goto(address)
        return page

    yield open_in
    for context in contexts:
        context.close()


@pytest.fixture
def page(open_page):
    return open_page()


def time_of(page) -> str:
    return page.locator(".player output").first.inner_text()


def position(page) -> int:
    return int(page.locator(".player input").first.input_value())


def focus_player(page) -> None:
    page.locator(".player").first.focus()


def test_page_loads_without_complaint_and_asks_for_nothing_else(browser, address):
    page, said, requested = listened(browser)
    page.goto(address)
    page.locator("summary").last.click()
    page.locator(".player .play").first.click()
    page.wait_for_timeout(500)
    page.close()
    assert said == []
    assert [url for url in requested if not url.startswith("data:")] == [address]


@pytest.mark.parametrize("way", ["button", "space"])
def test_player_plays_and_pauses(page, way):
    play = page.locator(".player .play").first

    def press():
        if way == "button":
            play.click()
        else:
            focus_player(page)
            page.keyboard.press("Space")

    before = time_of(page)
    press()
    page.wait_for_function("before => document.querySelector('.player output').textContent !== before", arg=before)
    assert play.get_attribute("aria-label") == "Pause"
    press()
    assert play.get_attribute("aria-label") == "Play"
    stopped = time_of(page)
    page.wait_for_timeout(800)
    assert time_of(page) == stopped


def test_keys_step_and_jump(page):
    focus_player(page)
    assert position(page) == START
    places = []
    for key in ("ArrowRight", "ArrowLeft", "ArrowLeft", "Home", "End", "ArrowRight"):
        page.keyboard.press(key)
        places.append(position(page))
    assert places == [START + 1, START, START - 1, 0, LAST, 0]


def test_each_frame_says_its_time_and_lead_time(page):
    focus_player(page)
    page.keyboard.press("Home")
    assert time_of(page) == "2018-05-19 22:35 UTC · -25 min, input"
    page.keyboard.press("End")
    assert time_of(page) == "2018-05-20 00:00 UTC · +60 min"


def test_buttons_and_slider_step(page):
    page.locator(".player .forward").first.click()
    assert position(page) == START + 1
    page.locator(".player .back").first.click()
    page.locator(".player .back").first.click()
    assert position(page) == START - 1
    slider = page.locator(".player input").first
    box = slider.bounding_box()
    page.mouse.click(box["x"] + box["width"] - 4, box["y"] + box["height"] / 2)
    assert position(page) == LAST and "+60 min" in time_of(page)
    slider.focus()
    page.keyboard.press("ArrowLeft")
    assert position(page) == LAST - 1 and "+55 min" in time_of(page)
    assert slider.get_attribute("aria-valuetext") == time_of(page)


def test_only_the_chosen_player_moves(page):
    other = page.locator(".player output").nth(1).inner_text()
    focus_player(page)
    page.keyboard.press("ArrowRight")
    assert page.locator(".player output").nth(1).inner_text() == other


def test_inputs_have_no_forecast_and_say_so(page):
    focus_player(page)
    page.keyboard.press("Home")
    panels = page.locator(".player").first.locator(".frame")
    assert [panel.locator(".absent").is_visible() for panel in panels.all()] == [False] + [True] * len(MODELS)


def test_observed_model_and_baselines_stand_side_by_side(page):
    figures = page.locator(".player").first.locator(".panels figure")
    names = figures.locator("figcaption").all_inner_texts()
    boxes = [frame.bounding_box() for frame in figures.locator(".frame").all()]
    assert names == ["observed", *MODELS]
    assert len({round(box["width"]) for box in boxes}) == 1
    tops, bottoms = [box["y"] for box in boxes], [box["y"] + box["height"] for box in boxes]
    assert max(tops) < min(bottoms) and max(tops) - min(tops) < 2
    lefts = [box["x"] for box in boxes]
    assert lefts == sorted(lefts) and len(set(lefts)) == len(lefts)


def test_screen_shows_the_colours_of_the_legend(page):
    player = pixels(page.locator(".player .panels").first.screenshot())
    legend = pixels(page.locator(".legend").first.screenshot())
    assert len(np.unique(player.reshape(-1, 3), axis=0)) > 8
    for colour in RAIN_COLOURS[1:9]:
        wanted = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)])
        assert (player == wanted).all(axis=-1).any(), f"no {colour} on the maps"
        assert (legend == wanted).all(axis=-1).any(), f"no {colour} in the legend"


def test_whole_page_is_not_blank(page):
    shown = pixels(page.screenshot(full_page=True))
    rows = (shown != shown[0, 0]).any(axis=(1, 2))
    assert rows.mean() > 0.5


@pytest.mark.parametrize("width", [320, 360, 768])
def test_page_is_no_wider_than_the_screen(open_page, width):
    page = open_page(width, 740)
    page.evaluate("() => document.querySelectorAll('details').forEach(each => { each.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate(OUTSIDE) == []


def test_maps_stay_in_their_place_on_a_phone_while_time_passes(open_page):
    page = open_page(360, 740)
    panels = page.locator(".player .panels").first
    tops = []
    for key in ("Home", "End"):
        focus_player(page)
        page.keyboard.press(key)
        tops.append(panels.evaluate("e => e.offsetTop"))
    assert tops[0] == tops[1]


def test_controls_are_large_enough_to_touch(open_page):
    page = open_page(360, 740)
    for control in page.locator(".player").first.locator("button, input").all():
        box = control.bounding_box()
        assert min(box["width"], box["height"]) >= 36


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_text_stands_out_from_its_ground(open_page, colours):
    page = open_page(colours=colours)
    page.evaluate("() => document.querySelectorAll('details').forEach(each => { each.open = true; })")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert luminance(ground) < 0.05 if colours == "dark" else luminance(ground) > 0.9
    for selector in ("body", "p", ".note", "small", "a", "summary", "th", "td", "td b", ".win", ".loss", "button"):
        found = page.evaluate(PAINTED, selector)
        assert found, f"nothing is a {selector}"
        lowest = min((contrast(*pair), *pair) for pair in set(map(tuple, found)))
        assert lowest[0] >= MIN_CONTRAST, f"{selector}: {lowest}"


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_chart_text_stands_out_too(open_page, colours):
    page = open_page(colours=colours)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    for selector in (".chart text", ".legend text"):
        fill = page.evaluate("selector => getComputedStyle(document.querySelector(selector)).fill", selector)
        assert contrast(fill, ground) >= MIN_CONTRAST


def test_every_image_figure_and_control_has_a_name_after_the_script_ran(page):
    assert page.locator("img").count() > 100
    assert page.evaluate(WITHOUT_NAME) == []
    focus_player(page)
    page.keyboard.press("End")
    shown = page.locator(".player .frame img").first.get_attribute("alt")
    assert shown.startswith("Map of rain rate (mm/h): observed") and shown.endswith("+60 min")


def test_keyboard_reaches_what_scrolls(page):
    scrolling = page.evaluate(
        "() => [...document.querySelectorAll('*')].filter(e => e.scrollWidth > e.clientWidth + 1"
        " && getComputedStyle(e).overflowX === 'auto').map(e => e.tabIndex)"
    )
    assert scrolling and all(index == 0 for index in scrolling)


def test_paper_has_contact_sheets_and_all_that_was_folded(page):
    page.emulate_media(media="print")
    visible = {
        name: [element.is_visible() for element in page.locator(name).all()]
        for name in (".player", "nav", ".sheet", "details > .wide, details > .tables, details > .charts")
    }
    assert not any(visible[".player"]) and not any(visible["nav"])
    assert len(visible[".sheet"]) == 4 and all(visible[".sheet"])
    folded = visible["details > .wide, details > .tables, details > .charts"]
    assert folded and all(folded)
    heights = [box["height"] for box in (each.bounding_box() for each in page.locator(".sheet img:visible").all())]
    assert heights and min(heights) > 10


def test_page_prints_to_pdf(page, tmp_path: Path):
    path = tmp_path / "report.pdf"
    page.pdf(path=path)
    assert path.read_bytes().startswith(b"%PDF") and path.stat().st_size > 50_000


def test_what_was_folded_is_folded_again_after_printing(page):
    count = "document.querySelectorAll('details[open]').length"
    before = page.evaluate(count)
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(count) == page.locator("details").count() > before
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(count) == before
