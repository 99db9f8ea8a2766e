"""Hydrographs on a page, and the page of a run that forecasts stations and has no maps to look at."""

import html
import json
import re

import numpy as np
import pytest
import xarray as xr
from report.rivers import days, make_hydrographs
from report.synthetic import HOSTILE, make_contents

from fieldcast.errors import DataError
from fieldcast.report import ReportPart, write_report
from fieldcast.report.figures import png
from fieldcast.report.hydrographs import hydrograph_figure, hydrographs_html
from fieldcast.report.hydrographs.section import time_axis
from fieldcast.report.hydrographs.view import HydrographView
from fieldcast.report.page import page_html
from fieldcast.report.verdict import verdicts

MAX_BYTES = 5_000_000


@pytest.fixture(scope="module")
def hydrographs() -> xr.Dataset:
    return make_hydrographs()


@pytest.fixture(scope="module")
def body(hydrographs) -> str:
    return hydrographs_html(hydrographs)


def plotted(body: str) -> list[dict]:
    return [json.loads(html.unescape(values)) for values in re.findall(r'plotted" data-values="([^"]*)"', body)]


def test_scores_against_their_definitions(hydrographs):
    view = HydrographView(hydrographs)
    flow = view.flow(1, 0)
    observed, predicted = flow["observed"].astype(float), flow[view.models[0]].astype(float)
    known = np.isfinite(observed) & np.isfinite(predicted)
    o, p = observed[known], predicted[known]
    efficiency = 1 - ((p - o) ** 2).sum() / ((o - o.mean()) ** 2).sum()
    parts = np.corrcoef(p, o)[0, 1], p.std() / o.std(), p.mean() / o.mean()
    assert np.isclose(view.scores["nse"][0, 1, 0], efficiency)
    assert np.isclose(view.scores["kge"][0, 1, 0], 1 - np.linalg.norm(np.subtract(parts, 1)))
    assert f"NSE {efficiency:.2f}" in view.scored(1, 0, view.models[0])


def test_rivers_stand_in_the_order_of_their_scores_and_undefined_ones_last(hydrographs, body):
    view = HydrographView(hydrographs)
    first = body[: body.index("<summary>Lead time +1 d")]
    names = [html.unescape(name).partition(",")[0] for name in re.findall(r'card-name"><b>(.*?)</b>', first)]
    scores = dict(zip(view.stations, view.scores["nse"][0, 0], strict=True))
    assert sorted(names) == view.stations and np.isnan(scores[names[-1]])
    assert (np.diff([scores[name] for name in names[:-1]]) <= 0).all()


def test_best_median_and_worst_are_those_with_a_score(hydrographs):
    view = HydrographView(hydrographs)
    ranks, scores = view.ranks(0), view.scores["nse"][0, 0]
    best, median, worst = ranks
    assert list(ranks.values()) == ["best", "median", "worst"]
    assert scores[best] == np.nanmax(scores) and scores[worst] == np.nanmin(scores)
    assert scores[median] == np.sort(scores[np.isfinite(scores)])[::-1][(8 - 1) // 2]
    alone = HydrographView(hydrographs.isel(station=[0]))
    assert alone.ranks(0) == {0: "best and median and worst"}


def test_gaps_are_gaps_and_the_pointer_finds_values(hydrographs, body):
    view = HydrographView(hydrographs)
    chart = plotted(body)[list(view.ranks(0)).index(0)]
    name, values = chart["lines"][0]
    assert name == "observed" and values[100:130] == [None] * 30 and None not in values[:100]
    assert chart["labels"][0] == "2009-10-01" and chart["units"] == "m3/s"
    assert np.allclose(values[:100], view.flow(0, 0)["observed"][:100], rtol=1e-3)


def test_at_most_four_lead_times_and_the_first_is_open():
    body = hydrographs_html(make_hydrographs(3, 40, leads=range(9)))
    said = re.findall(r"<details( open)?><summary>Lead time (.*?)</summary>", body)
    assert len(said) == 4 and [bool(is_open) for is_open, _ in said] == [True, False, False, False]
    assert said[0][1] == "0 d" and said[-1][1] == "+8 d"


def test_stations_are_on_the_map_where_they_have_coordinates(hydrographs, body):
    assert body.count("<circle") == 3 * 9
    nowhere = hydrographs.assign_coords(latitude=("station", np.full(9, np.nan)))
    assert "<circle" not in hydrographs_html(nowhere)
    assert "<circle" not in hydrographs_html(hydrographs.drop_vars(["latitude", "longitude"]))


@pytest.mark.parametrize(("num_days", "unit"), [(3000, 4), (400, 7), (20, 10)])
def test_time_axis_has_ticks_at_years_months_or_days(num_days, unit):
    times = np.datetime64("2009-10-05", "ns") + days(np.arange(num_days))
    axis = time_axis(times)
    assert 2 <= len(axis.ticks) <= 10 and {len(label) for _, label in axis.ticks} == {unit}
    for place, label in axis.ticks:
        assert place == np.datetime64(label, "s").astype(float) and axis.low <= place <= axis.high


def test_figure_shows_the_stations_asked_for(hydrographs):
    figure = hydrograph_figure(hydrographs, ("08EA004",), lead=1)
    assert len(figure.axes) == 1 and len(figure.axes[0].lines) == 4
    assert png(figure).startswith(b"\x89PNG")
    with pytest.raises(DataError, match="no station 'Rhine'"):
        hydrograph_figure(hydrographs, ("Rhine",))


def test_what_are_no_hydrographs_is_refused(hydrographs):
    with pytest.raises(DataError, match="no variable 'flow'"):
        hydrographs_html(hydrographs.drop_vars("flow"))
    with pytest.raises(DataError, match="transpose to"):
        hydrographs_html(hydrographs.transpose("time", ...))
    with pytest.raises(DataError, match="put 'observed' first"):
        hydrographs_html(hydrographs.isel(model=[1, 0]))


def station_scores(hydrographs: xr.Dataset) -> xr.Dataset:
    """Scores of a run that forecasts stations: every metric has the dimension station."""
    view = HydrographView(hydrographs)
    scores = xr.Dataset(
        coords={
            "space": ["physical"],
            "model": view.models,
            "baseline": ["persistence", "climatology"],
            "station": view.stations,
            "lead_time": ("lead_time", hydrographs.lead_time.values, {"long_name": "lead time"}),
            "bound": ["low", "high"],
        },
        attrs={"split": "test", "num_samples": 700, "confidence": 0.95, "num_blocks": 5, "num_resamples": 100},
    )
    for name, values in view.scores.items():
        described = {"long_name": name, "family": "rivers", "orientation": "larger", "units_physical": "1"}
        scores[name] = (("space", "model", "station", "lead_time"), values.transpose(0, 2, 1)[None], described)
        scores[f"{name}_overall"] = (("space", "model", "station"), values.mean(axis=1)[None], described)
    return scores


def test_page_of_a_station_run_needs_no_cases(tmp_path, hydrographs):
    part = ReportPart("rivers", station_scores(hydrographs), hydrographs=hydrographs)
    path = write_report(make_contents(parts=[part], histories={}, table=[]), tmp_path)
    text = path.read_text(encoding="utf-8")
    sections = re.findall(r'<section id="([^"]*)">', text)
    assert sections == ["hydrographs", "stations", "conventions", "settings-versions-seed"]
    assert "alert('" not in text and html.escape(HOSTILE) in text
    assert "No scores." not in text and "in the median of 9 stations." in text
    assert (tmp_path / "figures" / "hydrographs.png").read_bytes().startswith(b"\x89PNG")


def test_verdict_counts_stations_where_the_model_is_shown_to_be_better_or_worse(hydrographs):
    scores = station_scores(hydrographs).isel(station=slice(0, 8))
    part = ReportPart("rivers", scores)
    (verdict,) = verdicts(part)
    medians = scores.nse_overall.sel(space="physical").median("station").values
    assert f"nse {medians[0]:.3g} in the median of 8 stations." in verdict.claim
    assert verdict.comparisons[0] == f"Against persistence, median {medians[1]:.3g}: not to be said at 8 of 8 stations."
    against = scores.nse_overall.sel(model=["persistence", "climatology"]).rename(model="baseline")
    difference = (scores.nse_overall - against).transpose("space", "baseline", "model", "station")
    scores["nse_overall_difference"] = difference.drop_vars("baseline", errors="ignore")
    scores["nse_overall_difference_interval"] = xr.concat([difference - 0.01, difference + 0.01], "bound")
    won, lost = (int((sign * difference.values[0, 0, 0] > 0.01).sum()) for sign in (1, -1))
    line = verdicts(ReportPart("rivers", scores))[0].comparisons[0]
    assert f"better at {won}, not shown to differ at {8 - won - lost}, worse at {lost} of 8 stations." in line
    assert won and lost and won + lost < 8


@pytest.mark.slow
def test_page_of_two_hundred_rivers_stays_small():
    hydrographs = make_hydrographs(226, 1500, leads=(0, 1, 2, 3))
    part = ReportPart("rivers", xr.Dataset(coords={"space": [], "model": [], "lead_time": []}), hydrographs=hydrographs)
    assert len(page_html(make_contents(parts=[part], histories={}, table=[])).encode()) < MAX_BYTES
