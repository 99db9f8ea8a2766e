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

from fieldcast.errors import DataError
from fieldcast.lead_times import lead_labels
from fieldcast.report import ReportContents, write_report
from fieldcast.report.contents import time_label
from fieldcast.report.player import MAX_PIXELS, frame_png, thinning
from fieldcast.report.scale import MISSING_COLOUR, RAIN_BOUNDARIES, colour_scale
from fieldcast.report.scores import verdict

HOSTILE = "<script>alert('$x_1$ & \"y\"')</script>"
METRICS = {"mse": "smaller", "mae": "smaller", "ssim": "larger", "bias": "zero"}
NUM_LEADS = 6


class Page(HTMLParser):
    """Tags and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))

    def named(self, name: str) -> list[dict]:
        return [attributes for tag, attributes in self.tags if tag == name]


def minutes(values) -> np.ndarray:
    return np.array(values, dtype="timedelta64[m]").astype("timedelta64[ns]")


def make_case(name="rain_rate", units="mm/h", models=("trajgru", "persistence"), size=(24, 32)) -> xr.DataArray:
    """A blob that moves to the right; models lag behind it, and are missing for inputs."""
    leads = np.arange(-2, NUM_LEADS + 1) * 5
    y, x = np.mgrid[: size[0], : size[1]]
    frames = np.stack([30 * np.exp(-((x - 8 - lead / 5) ** 2 + (y - 9) ** 2) / 20) for lead in leads])
    frames[:, 0, 0] = np.nan
    values = np.stack([frames, *(np.roll(frames, number, axis=2) for number in range(1, len(models) + 1))])
    values[1:, leads <= 0] = np.nan
    start = np.datetime64("2018-05-19T23:00", "ns")
    coordinates = {
        "panel": ["observed", *models],
        "lead_time": minutes(leads),
        "valid_time": ("lead_time", start + minutes(leads)),
        "y": ("y", np.arange(size[0]) * 1000.0, {"standard_name": "projection_y_coordinate"}),
    }
    attributes = {"units": units, "long_name": name.replace("_", " ")}
    return xr.DataArray(values, coordinates, ("panel", "lead_time", "y", "x"), name, attributes)


def make_scores(models=("trajgru", "persistence"), error=(1.0, 2.0)) -> xr.Dataset:
    """Scores that grow with lead time in proportion to each model's error."""
    growth = np.asarray(error)[None, :, None] * np.arange(1, NUM_LEADS + 1) * np.array([1, 0.01])[:, None, None]
    coordinates = {"space": ["physical", "unit"], "model": list(models), "lead_time": minutes(np.arange(1, 7) * 5)}
    variables = {}
    for name, orientation in METRICS.items():
        attributes = {
            "long_name": f"long {name}",
            "units_physical": "mm/h",
            "units_unit": "1",
            "convention": "mean over pixels",
            "orientation": orientation,
        }
        values = -growth if orientation == "larger" else growth
        variables[name] = (("space", "model", "lead_time"), values, attributes)
        variables[f"{name}_overall"] = (("space", "model"), values.mean(axis=2), attributes)
    attributes = {"data_range": 50.0, "unit_space": "log rate", "split": "test", "num_samples": 12}
    return xr.Dataset(variables, coordinates, attributes)


def make_history() -> list[dict]:
    rows = [{"step": step, "train_loss": 10.0 / step, "learning_rate": 1e-3, "seconds": 1.0} for step in range(1, 30)]
    return [{**row, "validation_loss": 11.0 / row["step"] if row["step"] % 10 == 0 else None} for row in rows]


def make_contents(**changes) -> ReportContents:
    parts = {
        "title": "radar-trajgru",
        "scores": make_scores(),
        "history": make_history(),
        "cases": [make_case()],
        "settings": {"seed": 0, "model": {"key": "trajgru", "widths": [16, 24]}},
        "environment": {"fieldcast": "0.1", "device": "cpu"},
    }
    return ReportContents(**{**parts, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the report of ordinary contents, two cases among them."""
    folder = tmp_path_factory.mktemp("report")
    write_report(make_contents(cases=[make_case(), make_case()]), folder)
    return folder


@pytest.fixture(scope="module")
def text(folder) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text) -> Page:
    return Page(text)


def bare_contents(**changes) -> ReportContents:
    """Contents without scores, history and cases, but for what is changed."""
    nothing = {"scores": xr.Dataset(coords=make_scores().coords), "history": [], "cases": []}
    return make_contents(**{**nothing, **changes})


def written(contents: ReportContents, folder) -> tuple[str, Page]:
    text = write_report(contents, folder).read_text(encoding="utf-8")
    return text, Page(text)


def test_page_asks_nothing_of_a_network(text, page):
    addresses = [attributes.get(key) for _, attributes in page.tags for key in ("src", "href", "srcset")]
    assert all(address.startswith("data:image/png;base64,") for address in addresses if address)
    assert not page.named("link") and not page.named("iframe") and "@import" not in text and "url(" not in text
    assert len(text) < 8_000_000


def test_policy_admits_only_the_pages_own_script_and_style(text, page):
    policy = next(meta["content"] for meta in page.named("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;") and "unsafe" not in policy
    for content in re.findall(r"<script>(.*?)</script>", text, re.S) + re.findall(r"<style>(.*?)</style>", text, re.S):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert not any("style" in attributes or "onclick" in attributes for _, attributes in page.tags)


def test_text_from_files_is_escaped(tmp_path):
    scores = make_scores(models=(HOSTILE, "persistence"))
    for variable in scores.data_vars.values():
        variable.attrs.update(long_name=HOSTILE, convention=HOSTILE, units_physical=HOSTILE)
    scores.attrs["unit_space"] = HOSTILE
    case = make_case(name=HOSTILE, units=HOSTILE, models=(HOSTILE, "persistence"))
    case = case.assign_coords(valid_time=("lead_time", [HOSTILE] * case.sizes["lead_time"]))
    plain = {HOSTILE: HOSTILE, "nested": {HOSTILE: [HOSTILE]}}
    contents = make_contents(title=HOSTILE, scores=scores, cases=[case], settings=plain, environment=plain)
    text, page = written(contents, tmp_path)
    assert "<script>alert" not in text
    assert [tag.get("type") for tag in page.named("script")] == ["application/json", None]


def test_every_image_says_what_it_shows(page):
    images = page.named("img")
    num_panels, num_cases, num_curves = 3, 2, 4
    assert len(images) == num_cases * (num_panels + 1) + num_curves
    assert all(len(image["alt"]) > 20 for image in images)
    assert all("aria-label" in svg for svg in page.named("svg"))


def test_figures_are_written_and_not_blank(folder):
    names = {path.name for path in (folder / "figures").iterdir()}
    assert names == {"scores.png", "training.png", "forecast.png", "forecast-2.png"}
    for name in names:
        pixels = np.asarray(Image.open(folder / "figures" / name).convert("RGB"))
        assert (pixels != pixels[0, 0]).any(axis=2).mean() > 0.005


def test_equal_contents_give_equal_files_and_nothing_is_left_beside(tmp_path):
    contents = bare_contents(history=make_history(), cases=[make_case()])
    assert written(contents, tmp_path)[0] == written(contents, tmp_path)[0]
    assert not [path for path in tmp_path.rglob("*") if "partial" in path.name]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"history": [{"step": 1, "train_loss": float("nan"), "validation_loss": None, "learning_rate": 0.1}]},
        {"cases": []},
        {"cases": [make_case(), make_case("temperature", "K"), make_case("temperature", "K")]},
        {"cases": [make_case() * np.nan]},
        {"cases": [make_case("level", "1") * 0]},
        {"cases": [make_case().isel(lead_time=slice(0, 2))]},
        {"cases": [make_case().isel(lead_time=slice(4, 5))]},
        {"scores": make_scores() * np.nan},
        {"scores": make_scores().isel(lead_time=[0])},
        {"scores": make_scores().sel(model=["persistence"])},
        {"scores": make_scores().sel(space=["unit"])},
        {"scores": make_scores()[["bias", "bias_overall"]]},
        {"settings": {}, "environment": {}},
    ],
)
def test_awkward_contents_still_make_a_page(changes, tmp_path):
    text, page = written(bare_contents(**changes), tmp_path)
    assert page.named("h1") and text.endswith("</html>\n")


@pytest.mark.parametrize(
    ("error", "expected"),
    [((1.0, 2.0), "trajgru beats persistence"), ((2.0, 1.0), "trajgru does not beat persistence")],
)
def test_verdict_compares_with_persistence(error, expected):
    assert verdict(make_contents(scores=make_scores(error=error))).startswith(expected)


def test_verdict_joins_neighbouring_lead_times():
    scores = make_scores()
    scores["mse"].loc[{"model": "trajgru", "lead_time": minutes([5, 20])}] = 1e3
    line = verdict(make_contents(scores=scores))
    assert "better at 4 of 6 lead times (+10 min to +15 min, +25 min to +30 min)" in line


def test_best_score_is_marked_by_orientation(tmp_path):
    scores = make_scores()
    scores["bias_overall"].loc[{"model": "persistence"}] = -3.0
    text, _ = written(bare_contents(scores=scores), tmp_path)
    row = re.search(r"long bias.*?</tr>", text, re.S).group()
    assert '<td class="best">3.5</td>' not in row and '<td class="best">-3</td>' in row


@pytest.mark.parametrize("position", range(len(RAIN_BOUNDARIES)))
def test_rain_colour_changes_at_its_boundary(position):
    scale = colour_scale([make_case()], "rain")
    boundary = RAIN_BOUNDARIES[position]
    below, at = scale.positions(np.array([np.nextafter(boundary, 0), boundary]))
    assert (below, at) == (position, position + 1)


def test_frame_has_the_colours_of_the_scale_and_missing_is_grey():
    case = make_case()
    scale = colour_scale([case], "rain")
    frame = case.values[0, 0]
    image = np.asarray(Image.open(io.BytesIO(frame_png(frame, scale))).convert("RGB"))
    assert np.array_equal(image, scale.image(frame))
    assert "#" + bytes(image[0, 0]).hex() == MISSING_COLOUR


def test_northern_row_is_drawn_at_the_top(tmp_path):
    case = make_case(models=())
    _, page = written(bare_contents(cases=[case]), tmp_path)
    shown = base64.b64decode(page.named("img")[0]["src"].partition(",")[2])
    drawn = np.asarray(Image.open(io.BytesIO(shown)))
    scale = colour_scale([case], "rain")
    assert np.array_equal(drawn, scale.positions(case.values[0, 6])[::-1])


def test_large_frames_are_thinned_to_keep_the_page_small(tmp_path):
    generator = np.random.default_rng(0)
    case = make_case("noise", "K", size=(500, 600))
    case = case.copy(data=generator.normal(size=case.shape))
    assert case.isel(y=slice(None, None, thinning([case]))).size <= 2 * MAX_PIXELS
    text, _ = written(bare_contents(cases=[case]), tmp_path)
    assert len(text) < 8_000_000 and "row and column is shown" in text


@pytest.mark.parametrize(
    ("values", "unit", "expected"),
    [
        ([-600, 0, 1500], "s", ["-10 min", "0 min", "+25 min"]),
        ([3600, 7200], "s", ["+1 h", "+2 h"]),
        ([1, 3], "D", ["+1 d", "+3 d"]),
        ([40, 120], "ms", ["+0.04 s", "+0.12 s"]),
        ([1030, 2000], "s", ["+17.17 min", "+33.33 min"]),
    ],
)
def test_lead_times_are_worded_in_one_unit(values, unit, expected):
    assert lead_labels(np.array(values, dtype=f"timedelta64[{unit}]")) == expected


def test_valid_time_is_worded_in_utc_and_text_is_kept():
    assert time_label(np.datetime64("2018-05-19T23:40", "ns")) == "2018-05-19 23:40 UTC"
    assert time_label("frame 3") == "frame 3"


def test_case_of_another_layout_is_refused():
    with pytest.raises(DataError, match="transpose"):
        make_contents(cases=[make_case().transpose("lead_time", "panel", "y", "x")])
    with pytest.raises(DataError, match="'observed' first"):
        make_contents(cases=[make_case().isel(panel=[1, 0])])
