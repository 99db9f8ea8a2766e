"""The report holds what it promises: self-contained, escaped, readable without sight, whole on awkward contents."""

import base64
import hashlib
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import xarray as xr
from PIL import Image
from report.synthetic import (
    BASELINES,
    HOSTILE,
    MODELS,
    NUM_INPUTS,
    NUM_LEADS,
    make_case,
    make_contents,
    make_frames,
    make_history,
    make_part,
    make_scores,
    minutes,
)

from fieldcast.errors import DataError
from fieldcast.lead_times import lead_labels
from fieldcast.report import Case, ReportContents, ReportPart, write_report
from fieldcast.report.frames import MAX_CHARACTERS, Shown, encode, frame_png
from fieldcast.report.page import page_html
from fieldcast.report.scale import MISSING_COLOUR, RAIN_BOUNDARIES, colour_scale
from fieldcast.report.tables import overall_table
from fieldcast.report.verdict import interval_note, verdicts
from fieldcast.report.wording import time_label

MAX_BYTES = 8_000_000
PAIR = ("trajgru", "persistence")
CASE_PANELS = 1 + len(MODELS)


class Page(HTMLParser):
    """Tags and attributes of a page, its text, and the sections by heading."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.sections = dict(re.findall(r"<section id=\"([^\"]*)\">(.*?)</section>", text, re.S))
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))

    def named(self, name: str) -> list[dict]:
        return [attributes for tag, attributes in self.tags if tag == name]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the report of contents that have everything."""
    folder = tmp_path_factory.mktemp("report")
    write_report(make_contents(), folder)
    return folder


@pytest.fixture(scope="module")
def text(folder) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text) -> Page:
    return Page(text)


def bare_contents(**changes) -> ReportContents:
    """Contents without scores, histories, cases and table, but for what is changed; ``scores`` and ``cases`` go in."""
    empty = xr.Dataset(coords=make_scores(PAIR).coords)
    part = ReportPart("radar", changes.pop("scores", empty), changes.pop("cases", []))
    return make_contents(**{"parts": [part], "histories": {}, "table": [], **changes})


def written(contents: ReportContents, folder) -> tuple[str, Page]:
    text = write_report(contents, folder).read_text(encoding="utf-8")
    return text, Page(text)


def read(contents: ReportContents) -> tuple[str, Page]:
    """The page alone, without the figures, which take longer."""
    text = page_html(contents)
    return text, Page(text)


def with_difference(low: float, high: float, metric="mse") -> ReportPart:
    """A part of a model and persistence, with one interval of their difference at all lead times and over all."""
    scores = make_scores(PAIR)
    for name in (f"{metric}_difference_interval", f"{metric}_overall_difference_interval"):
        scores[name].loc[{"model": "trajgru", "bound": "low"}] = low
        scores[name].loc[{"model": "trajgru", "bound": "high"}] = high
    return ReportPart("radar", scores)


def row_of(table: str, heading: str) -> str:
    """The row of a table that starts with a heading."""
    return re.search(rf"<tr><th scope=\"row\">{re.escape(heading)}.*?</tr>", table, re.S).group()


# --- the file ---


def test_page_asks_nothing_of_a_network(text, page):
    addresses = [attributes.get(key) for _, attributes in page.tags for key in ("src", "srcset", "poster", "data")]
    assert all(address.startswith("data:image/png;base64,") for address in addresses if address)
    assert all(link["href"].startswith("#") for link in page.named("a"))
    assert not page.named("link") and not page.named("iframe") and "@import" not in text and "url(" not in text


def test_policy_admits_only_the_pages_own_script_and_style(text, page):
    policy = next(meta["content"] for meta in page.named("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;") and "unsafe" not in policy
    inline = re.findall(r"<script>(.*?)</script>", text, re.S) + re.findall(r"<style>(.*?)</style>", text, re.S)
    assert len(inline) == 2
    for content in inline:
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert not any("style" in attributes or "onclick" in attributes for _, attributes in page.tags)


def test_links_of_the_contents_lead_to_sections(page):
    links = [link["href"].removeprefix("#") for link in page.named("a")]
    assert links and links == list(page.sections)


def test_text_from_files_is_escaped(tmp_path):
    scores = make_scores((HOSTILE, "persistence"))
    for variable in scores.data_vars.values():
        variable.attrs.update(long_name=HOSTILE, convention=HOSTILE, units_physical=HOSTILE, family=HOSTILE)
    scores.attrs.update(dict.fromkeys(scores.attrs, HOSTILE), confidence=0.9, event="below")
    frames = make_frames(name=HOSTILE, units=HOSTILE, models=(HOSTILE, "persistence"))
    frames = frames.assign_coords(valid_time=("lead_time", [HOSTILE] * frames.sizes["lead_time"]))
    plain = {HOSTILE: HOSTILE, "nested": {HOSTILE: [HOSTILE]}, "seed": HOSTILE}
    part = ReportPart(HOSTILE, scores, [Case(HOSTILE, frames)])
    contents = ReportContents(HOSTILE, [part, part], {HOSTILE: make_history()}, plain, plain, [{HOSTILE: HOSTILE}])
    text, page = read(contents)
    assert "<script>alert" not in text and text.count("&lt;script&gt;alert") > 100
    assert len(page.named("script")) == 1


def test_every_image_chart_and_control_says_what_it_is(page):
    images = page.named("img")
    num_inputs = len(MODELS) * NUM_INPUTS  # models have no frames of inputs
    num_frames = CASE_PANELS * (NUM_INPUTS + NUM_LEADS) - num_inputs
    assert len(images) == 4 * (num_frames + CASE_PANELS)
    assert all(len(image["alt"]) > 20 for image in images)
    assert all(svg.get("aria-label") or svg.get("aria-hidden") == "true" for svg in page.named("svg"))
    assert all(element.get("aria-label") for tag in ("button", "input", "nav") for element in page.named(tag))


def test_figures_are_written_and_not_blank(folder):
    names = {path.name for path in (folder / "figures").iterdir()}
    assert names == {"scores.png", "training.png", "forecast.png", "forecast-2.png", "forecast-3.png", "forecast-4.png"}
    for name in names:
        pixels = np.asarray(Image.open(folder / "figures" / name).convert("RGB"))
        assert (pixels != pixels[0, 0]).any(axis=2).mean() > 0.005


def test_forecast_figure_has_north_at_the_top(tmp_path):
    frames = make_frames(models=())
    frames = frames.copy(data=np.where(np.arange(frames.sizes["y"])[:, None] >= 24, 80.0, 0.0) + 0 * frames.values)
    write_report(bare_contents(cases=[Case("half", frames.fillna(0.0))]), tmp_path)
    pixels = np.asarray(Image.open(tmp_path / "figures" / "forecast.png").convert("RGB")).astype(int)
    scale = colour_scale([frames], "rain")
    rainy = np.flatnonzero((pixels[:, :900] == scale.image(np.array([[80.0]]))[0, 0]).all(axis=2).any(axis=1))
    dry = np.flatnonzero((pixels[:, :900] == scale.image(np.array([[0.0]]))[0, 0]).all(axis=2).any(axis=1))
    assert rainy.max() <= dry.min() + 1


def test_equal_contents_give_equal_files_and_nothing_is_left_beside(tmp_path):
    contents = bare_contents(scores=make_scores(PAIR), histories={"trajgru": make_history()}, cases=[make_case()])
    files = []
    for _ in range(2):
        write_report(contents, tmp_path)
        files.append({path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()})
    assert files[0] == files[1]
    assert set(files[0]) == {"report.html", "scores.png", "training.png", "forecast.png"}


ONE_METRIC = make_scores(PAIR)[["mse", "mse_overall"]]
AWKWARD = [
    {},
    {"parts": []},
    {"histories": {"a": [{"step": 1, "train_loss": float("nan"), "validation_loss": None, "learning_rate": 0.1}]}},
    {"histories": {"a": []}},
    {"cases": [make_case(), make_case(name="temperature", units="K"), make_case(name="temperature", units="K")]},
    {"cases": [Case("missing", make_frames() * np.nan)]},
    {"cases": [Case("level", make_frames(name="level", units="1") * 0)]},
    {"cases": [Case("inputs only", make_frames().isel(lead_time=slice(0, 2)))]},
    {"cases": [Case("one frame", make_frames().isel(lead_time=slice(8, 9)))]},
    {"cases": [Case("observed only", make_frames(models=()))]},
    {"cases": [Case("one pixel", make_frames(size=(1, 1)))]},
    {"scores": make_scores(PAIR) * np.nan},
    {"scores": make_scores(PAIR).isel(lead_time=[0])},
    {"scores": make_scores(PAIR).sel(model=["persistence"])},
    {"scores": make_scores(("trajgru",))},
    {"scores": make_scores(PAIR).sel(space=["unit"])},
    {"scores": make_scores(PAIR)[["bias", "bias_overall"]]},
    {"settings": {}, "environment": {}},
]


@pytest.mark.parametrize("changes", AWKWARD)
def test_awkward_contents_still_make_a_page(changes):
    text, page = read(bare_contents(**changes))
    assert page.named("h1") and text.endswith("</html>\n")
    assert "nan" not in re.sub(r"<(script|style)>.*?</\1>|base64,[^\"]*", "", text, flags=re.S).lower().split()


@pytest.mark.slow
@pytest.mark.parametrize("changes", [changes for changes in AWKWARD if changes.keys() & {"cases", "histories"}])
def test_awkward_contents_still_make_figures(changes, tmp_path):
    write_report(bare_contents(**{"scores": ONE_METRIC, **changes}), tmp_path)
    names = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert "scores" in names
    assert sum(name.startswith("forecast") for name in names) == len(changes.get("cases", ()))


def test_scores_that_are_undefined_still_make_a_figure(tmp_path):
    for scores in (ONE_METRIC * np.nan, ONE_METRIC.isel(lead_time=[0])):
        write_report(bare_contents(scores=scores), tmp_path)
        assert (tmp_path / "figures" / "scores.png").stat().st_size > 1000


def test_case_of_another_layout_is_refused():
    with pytest.raises(DataError, match="transpose"):
        Case("turned", make_frames().transpose("lead_time", "panel", "y", "x"))
    with pytest.raises(DataError, match="'observed' first"):
        Case("turned", make_frames().isel(panel=[1, 0]))


# --- verdict ---


@pytest.mark.parametrize(
    ("metric", "low", "high", "expected"),
    [
        ("mse", -2.0, -0.1, "trajgru beats persistence."),
        ("mse", -2.0, 0.1, "trajgru is not shown to beat persistence."),
        ("mse", 0.0, 0.1, "trajgru is not shown to beat persistence."),
        ("mse", 0.1, 2.0, "trajgru is worse than persistence."),
        ("ssim", 0.1, 0.2, "trajgru beats persistence."),
        ("ssim", -0.1, 0.2, "trajgru is not shown to beat persistence."),
        ("ssim", -0.2, -0.1, "trajgru is worse than persistence."),
    ],
)
def test_verdict_claims_what_the_interval_of_the_difference_shows(metric, low, high, expected):
    part = with_difference(low, high, metric)
    only = [name for name in part.scores.data_vars if str(name).split("_")[0] == metric]
    found = verdicts(ReportPart("radar", part.scores[only]))
    assert [verdict.claim for verdict in found] == [expected]


def test_nothing_is_claimed_without_intervals(tmp_path):
    scores = make_scores(intervals=False)
    part = ReportPart("radar", scores)
    claims = " ".join(verdict.claim for verdict in verdicts(part))
    assert claims.count("Nothing can be claimed") == 2
    assert "There are no intervals" in interval_note(part)
    text, _ = read(bare_contents(scores=scores))
    body = text.partition("</style>")[2].partition("<script>")[0]
    assert not re.search(r"\bbeats\b|is worse than|is not shown to|class=\"(win|loss)\"|class=\"band\"", body)


def test_verdict_names_each_baseline_by_its_outcome():
    found = verdicts(make_part(cases=[]))
    assert found[0].claim == "trajgru beats persistence and climatology; it is not shown to beat optical-flow."
    assert len(found) == 2 and all(len(verdict.comparisons) == len(BASELINES) for verdict in found)


def test_verdict_joins_neighbouring_lead_times():
    part = with_difference(-2.0, -1.0)
    bounds = part.scores["mse_difference_interval"]
    bounds.loc[{"model": "trajgru", "bound": "high", "lead_time": minutes([5, 20])}] = 1.0
    line = verdicts(part)[0].comparisons[0]
    assert "Better at +10 min to +15 min, +25 min to +60 min; not shown to differ at +5 min, +20 min" in line


# --- tables, charts and sections ---


def test_best_score_is_marked_by_orientation(tmp_path):
    scores = make_scores(PAIR, intervals=False)
    for name, values in {"bias": (3.5, -3.0), "ssim": (0.4, 0.9), "frequency-bias": (1.2, 0.7)}.items():
        for model, value in zip(PAIR, values, strict=True):
            scores[f"{name}_overall"].loc[{"model": model}] = value
    _, page = read(bare_contents(scores=scores))
    table = page.sections["score-tables"]
    assert "<td>3.5</td>" in row_of(table, "long bias") and "<b>\N{MINUS SIGN}3</b>" in row_of(table, "long bias")
    assert "<td>0.4</td>" in row_of(table, "long ssim") and "<b>0.9</b>" in row_of(table, "long ssim")
    events = page.sections["events"].partition("long frequency-bias over all lead times")[2]
    assert "<b>1.2</b>" in row_of(events, "≥ 0.5 mm/h") and "<td>0.7</td>" in row_of(events, "≥ 0.5 mm/h")


def test_description_has_no_best_value(page):
    assert "<b>" not in row_of(page.sections["score-tables"], "long spread")


def test_cells_hold_the_scores_their_intervals_and_marks():
    part = with_difference(-2.0, -1.0)
    scores = part.scores["mse_overall"].sel(space="physical")
    low, high = part.scores["mse_overall_interval"].sel(space="physical", model="trajgru").values
    row = row_of(_tables(part), "long mse")
    assert f"{float(scores.sel(model='trajgru')):.4g}" in row and f"{low:.3g} to {high:.3g}" in row
    assert row.count('class="win"') == 1 and 'class="loss"' not in row
    assert row_of(_tables(with_difference(1.0, 2.0)), "long mse").count('class="loss"') == 1
    assert not re.search("win|loss", row_of(_tables(with_difference(-1.0, 2.0)), "long mse"))


def _tables(part: ReportPart) -> str:
    return overall_table(part, "physical")


def test_columns_stay_with_their_models_in_whatever_order_the_scores_come(tmp_path):
    scores = make_scores(PAIR)
    turned = scores.isel(model=[1, 0])
    pages = [read(bare_contents(scores=each))[1] for each in (scores, turned)]
    assert pages[0].sections["score-tables"] == pages[1].sections["score-tables"]
    assert pages[0].sections["events"] == pages[1].sections["events"]


def test_event_tables_count_events_and_say_where_there_were_none(page):
    events = page.sections["events"]
    table = events.partition("<caption>long csi over all lead times")[2]
    assert "<td>52\N{NARROW NO-BREAK SPACE}344</td>" in row_of(table, "≥ 0.5 mm/h")
    never = row_of(table, "≥ 100 mm/h")
    assert "<td>0</td>" in never and never.count("no events") == len(MODELS)
    assert "≥ 0.5 mm/h; events observed: 52\N{NARROW NO-BREAK SPACE}344" in events


def test_event_charts_without_events_say_so(page):
    charts = re.findall(
        r"<figcaption>(long csi, ≥ [^<]*|fractions[^<]*)</figcaption>(<svg.*?</svg>)", page.sections["events"]
    )
    assert len(charts) == 8
    for title, chart in charts:
        assert ("no events" in chart) == ("≥ 100 mm/h" in title) == ('class="nothing"' in chart)


def test_score_of_events_that_happened_may_still_be_undefined(tmp_path):
    scores = make_scores(PAIR)
    scores["far_overall"].loc[{"threshold": 10.0}] = np.nan
    _, page = read(bare_contents(scores=scores))
    table = page.sections["events"].partition("<caption>long far over all lead times")[2]
    assert "undefined" in row_of(table, "≥ 10 mm/h") and "no events" not in row_of(table, "≥ 10 mm/h")


def test_neighbourhood_scores_have_a_row_for_each_width(page):
    table = page.sections["events"].partition("<caption>fractions skill score over all lead times")[2]
    assert all(row_of(table, f"≥ 2 mm/h, {width} pixels wide") for width in (1, 3, 9, 17, 33))


@pytest.mark.parametrize(
    ("section", "names", "title"),
    [
        ("events", ["pod", "far", "csi", "frequency-bias", "fss"], "long csi"),
        ("power-spectra", ["spectrum", "spectrum-ratio"], "power relative to observed at +60 min"),
        ("ensemble", ["reliability", "sharpness", "rank-histogram"], "rank histogram"),
    ],
)
def test_sections_appear_where_the_scores_have_them(section, names, title, page, tmp_path):
    assert title in page.sections[section] and "<svg" in page.sections[section]
    scores = make_scores(PAIR)
    left = [name for name in scores.data_vars if str(name).split("_")[0] not in (*names, "spectrum-observed")]
    _, without = read(bare_contents(scores=scores[left]))
    assert section not in without.sections and "score-tables" in without.sections


def test_only_models_that_are_ensembles_stand_in_the_ensemble_charts(page):
    named = re.findall(r"<g class=\"[^\"]*\"><title>([^<]*)</title>", page.sections["ensemble"])
    assert set(named) == {"trajgru"} and len(named) == 4 + 4 + 1


def test_rank_histogram_shows_shares_of_1(tmp_path):
    _, page = read(bare_contents(scores=make_scores(PAIR)))
    chart = page.sections["ensemble"].rpartition("<figcaption>rank histogram")[2]
    bars = re.findall(r"M[\d.]+ ([\d.]+)V([\d.]+)h", chart)
    heights = np.array([float(ground) - float(top) for ground, top in bars])
    level = float(bars[0][0]) - float(re.search(r'class="guide" d="M\d+ ([\d.]+)H', chart).group(1))
    assert len(heights) == 11 and heights.mean() == pytest.approx(level, abs=0.1)


def test_intervals_are_bands_of_charts(page):
    chart = page.sections["scores-against-lead-time"].partition("<figcaption>long mse")[2].partition("</figure>")[0]
    assert chart.count('class="band"') == len(MODELS) and chart.count('class="line"') == len(MODELS)


def test_spread_between_seeds_is_no_metric_of_its_own():
    scores = make_scores(PAIR)
    both = scores.assign({"mse_spread": scores["mse"] * 0.1, "mse_overall_spread": scores["mse_overall"] * 0.1})
    assert ReportPart("radar", both).metrics == ReportPart("radar", scores).metrics


def test_benchmark_table_has_its_rows_as_they_come(page, tmp_path):
    table = page.sections["benchmark"]
    assert ">1234567</td>" in row_of(table, "trajgru") and "not known" in row_of(table, "persistence")
    assert "benchmark" not in read(bare_contents())[1].sections


def test_conventions_seed_and_versions_appear(page):
    conventions, settings = page.sections["conventions"], page.sections["settings-versions-seed"]
    for said in ("mean over valid pixels", "best at 1", "physical: 50 mm/h", "normalised by log-rate", "2 h", "120"):
        assert said in conventions
    assert "crps needs an ensemble" in conventions
    assert "Seed: 7." in settings and "2.13" in settings and "model.widths" in settings


def test_numbers_of_attributes_read_from_a_file_are_plain(tmp_path):
    scores = make_scores(PAIR)
    scores.attrs["num_samples"] = np.int64(103)
    _, page = read(bare_contents(scores=scores))
    assert '<td class="words">103</td>' in row_of(page.sections["conventions"], "samples")


def test_each_part_of_several_has_its_own_sections(tmp_path):
    parts = [make_part("radar", cases=[]), make_part("satellite", cases=[])]
    text, page = written(bare_contents(parts=parts), tmp_path)
    assert {"radar-score-tables", "satellite-score-tables"} <= set(page.sections)
    assert (tmp_path / "figures" / "scores-2.png").is_file()
    assert text.count('class="verdict"') == 2


def test_first_cases_are_unfolded_and_all_say_why_they_are_shown(page):
    cases = [details for details in page.named("details") if details.get("class") == "case"]
    assert ["open" in case for case in cases] == [True, True, True, False]
    assert "Best against persistence: MSE 0.31 against 0.92" in page.sections["cases-to-look-at"]


# --- colours and frames ---


@pytest.mark.parametrize("position", range(len(RAIN_BOUNDARIES)))
def test_rain_colour_changes_at_its_boundary(position):
    scale = colour_scale([make_frames()], "rain")
    boundary = RAIN_BOUNDARIES[position]
    below, at = scale.positions(np.array([np.nextafter(boundary, 0), boundary]))
    assert (below, at) == (position, position + 1)


def test_frame_has_the_colours_of_the_scale_and_missing_is_grey():
    frames = make_frames()
    scale = colour_scale([frames], "rain")
    frame = frames.values[0, 0]
    image = np.asarray(Image.open(io.BytesIO(frame_png(frame, scale))).convert("RGB"))
    assert np.array_equal(image, scale.image(frame))
    assert "#" + bytes(image[0, 0]).hex() == MISSING_COLOUR


def test_northern_row_is_drawn_at_the_top(tmp_path):
    frames = make_frames(models=())
    _, page = read(bare_contents(cases=[Case("radar", frames)]))
    shown = next(image for image in page.named("img") if "src" in image)
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown["src"].partition(",")[2]))))
    scale = colour_scale([frames], "rain")
    assert np.array_equal(drawn, scale.positions(frames.values[0, 0])[::-1])


def test_large_frames_are_thinned_to_keep_the_page_small(tmp_path):
    frames = make_frames("noise", "K", PAIR, size=(500, 600))
    frames = frames.copy(data=np.random.default_rng(0).normal(size=frames.shape))
    shown = Shown(frames, colour_scale([frames], "noise"))
    step, (addresses,) = encode([shown])
    size = sum(len(address) for row in addresses for address in row if address)
    assert step > 1 and MAX_CHARACTERS / 3 < size <= MAX_CHARACTERS
    thinned = np.asarray(Image.open(io.BytesIO(base64.b64decode(addresses[0][0].partition(",")[2]))))
    assert np.array_equal(thinned, shown.scale.positions(frames.values[0, 0, ::step, ::step])[::-1])


@pytest.mark.slow
def test_page_of_twenty_sequences_stays_below_its_limit(tmp_path):
    models = (*PAIR, "optical-flow")
    cases = [make_case(f"case {seed}", models=models, size=(128, 128), seed=seed) for seed in range(20)]
    generator = np.random.default_rng(0)
    noisy = [Case(case.heading, case.frames * generator.gamma(2.0, 0.5, case.frames.shape)) for case in cases]
    for name, shown in (("smooth", cases), ("noisy", noisy)):
        path = write_report(make_contents(parts=[make_part(cases=shown)]), tmp_path / name)
        assert path.stat().st_size < MAX_BYTES


# --- wording ---


@pytest.mark.parametrize(
    ("values", "unit", "expected"),
    [
        ([-600, 0, 1500], "s", ["-10 min", "0 min", "+25 min"]),
        ([3600, 7200], "s", ["+1 h", "+2 h"]),
        ([1, 3], "D", ["+1 d", "+3 d"]),
        ([40, 120], "ms", ["+0.04 s", "+0.12 s"]),
        ([1030, 2000], "s", ["+17.17 min", "+33.33 min"]),
        ([-744_000_000_001, -1, 443_999_999_999], "ns", ["-12.4 min", "0 min", "+7.4 min"]),
        ([12_345_678, 60], "s", ["+142.9 d", "0 d"]),
    ],
)
def test_lead_times_are_worded_in_one_unit(values, unit, expected):
    assert lead_labels(np.array(values, dtype=f"timedelta64[{unit}]")) == expected


def test_valid_time_is_worded_in_utc_and_text_is_kept():
    assert time_label(np.datetime64("2018-05-19T23:40", "ns")) == "2018-05-19 23:40 UTC"
    assert time_label("frame 3") == "frame 3"


# --- times of a case ---


def own_times(seconds, is_input) -> Case:
    """A case with frames at these seconds after the last input."""
    frames = make_frames(models=PAIR, size=(4, 6)).isel(lead_time=slice(0, len(seconds)))
    leads = np.array(seconds, "timedelta64[s]").astype("timedelta64[ns]")
    start = np.datetime64("2018-05-19T23:00", "ns")
    coordinates = {"lead_time": leads, "valid_time": ("lead_time", start + leads), "is_input": ("lead_time", is_input)}
    return Case("own times", frames.assign_coords(coordinates))


def test_each_case_has_its_own_times():
    forecast = own_times([-720, -60, 0, 444, 600], [True, True, True, False, False])
    between = own_times([-720, -444, -60, 0], [True, False, True, True])
    text, page = read(bare_contents(cases=[forecast, between]))
    heads = [(head["data-label"], int(head["data-wait"])) for head in page.named("th") if "data-label" in head]
    assert [label.partition(" · ")[2] for label, _ in heads] == [
        *("-12 min, input", "-1 min, input", "0 min, input", "+7.4 min", "+10 min"),
        *("-12 min, input", "-7.4 min", "-1 min, input", "0 min, input"),
    ]
    assert "forecast from 2018-05-19 23:00 UTC" in text
    assert "filled in between 2018-05-19 22:48 UTC and 2018-05-19 23:00 UTC" in text
    # On average 350 ms, as long as each frame's time lasts: 660, 60, 444 and 156 s of 330.
    assert [wait for _, wait in heads[:5]] == [700, 105, 471, 165, 1050]
    starts = [int(player["data-start"]) for _, player in page.tags if "data-start" in player]
    assert starts == [4, 1], "half way into what is forecast"


def test_frames_evenly_apart_are_shown_evenly():
    _, page = read(bare_contents(cases=[make_case(models=PAIR)]))
    waits = [int(head["data-wait"]) for head in page.named("th") if "data-wait" in head]
    assert waits == [350] * (len(waits) - 1) + [1050]


def test_a_case_without_inputs_marked_is_refused():
    with pytest.raises(DataError, match="'one' has no coordinate is_input"):
        Case("one", make_frames().drop_vars("is_input"))


def test_charts_and_tables_say_where_lead_times_are_rounded():
    scores = make_scores(PAIR)
    scores.lead_time.attrs["long_name"] = "lead time, rounded to the cadence"
    text, _ = read(make_contents(parts=[ReportPart("radar", scores)]))
    assert ">lead time, rounded to the cadence (min)<" in text
    assert ">lead time, rounded to the cadence</th>" in text
    assert ">lead time (min)<" not in text and ">lead time</th>" not in text
