"""Hydrographs of a split: a small one for each river, large ones for the best, the median and the worst.

Shapes: N times.
"""

from html import escape

import numpy as np
import xarray as xr

from fieldcast.data.dataset import spread
from fieldcast.report.chart import Axis, Chart, Line, key_html, linear_axis, values_of
from fieldcast.report.contents import OBSERVED
from fieldcast.report.elements import details_html, figure_html
from fieldcast.report.hover import hover_chart
from fieldcast.report.hydrographs.station_map import station_map
from fieldcast.report.hydrographs.view import HydrographView
from fieldcast.report.wording import number_label

CHART_WIDTH = 1100
MAX_LEADS = 4
SMALL_WIDTH, SMALL_HEIGHT = 200, 44
MAX_SMALL_POINTS = 120
LONG_YEARS, LONG_MONTHS = 4, 2  # longer stretches have ticks at years, or months


def hydrographs_html(hydrographs: xr.Dataset) -> str:
    """Observed and forecast flow of each river over a split: up to four lead times, each to unfold.

    Args:
        hydrographs: ``flow`` (model, lead_time, time, station) with units, NaN where there is none; the first model
            is "observed", the second the one that rivers are ordered by; ``time`` is that of the flow. Stations
            may have ``title``, ``latitude``, ``longitude``.

    Raises:
        DataError: for one that does not look like this.
    """
    view = HydrographView(hydrographs)
    shown = spread(len(view.leads), MAX_LEADS)
    groups = "".join(
        details_html(f"Lead time {view.leads[lead]}", _lead_html(view, lead), is_open=lead == shown[0])
        for lead in shown
    )
    note = (
        f"Rivers are in the order of the NSE of {view.models[0]}. Gaps are missing values; scores are of the times at "
        "which both flows are known. Small hydrographs show the largest flow of neighbouring times."
    )
    return f'<p class="note">{escape(note)}</p>{key_html(view.strokes)}{groups}'


def _lead_html(view: HydrographView, lead: int) -> str:
    """Large hydrographs of three rivers, the map of the stations, and small hydrographs of all."""
    order = view.order(lead)
    large = "".join(_large(view, lead, station, rank) for station, rank in view.ranks(lead).items())
    small = "".join(_small(view, lead, station) for station in order)
    return f'<div class="hydrographs">{large}</div>{station_map(view, lead)}<div class="cards">{small}</div>'


def _large(view: HydrographView, lead: int, station: int, rank: str) -> str:
    axis = time_axis(view.times)
    places = _seconds(view.times)
    flow = view.flow(lead, station)
    lines = [Line(model, view.strokes[model].style, places, flow[model]) for model in view.strokes]
    title = f"{view.heading(station)} ({rank})"
    chart = Chart(title, axis, linear_axis("", [*values_of(lines), np.zeros(1)]), lines, width=CHART_WIDTH)
    labels = [str(np.datetime_as_string(time, unit="m")).replace("T00:00", "").replace("T", " ") for time in view.times]
    scores = "; ".join(f"{model}: {view.scored(lead, station, model)}" for model in view.models)
    heading = f"{title}: {view.quantity}. {scores}"
    return figure_html(heading, hover_chart(chart, labels, view.units))


def _small(view: HydrographView, lead: int, station: int) -> str:
    """A card with the observed flow and that of the first model."""
    flow = view.flow(lead, station)
    curves = {model: _peaks(flow[model]) for model in (view.models[0], OBSERVED)}
    highest = max((np.nanmax(curve) for curve in curves.values() if np.isfinite(curve).any()), default=1.0) or 1.0
    lines = "".join(
        f'<path class="{view.strokes[model].style} small-line" d="{_path(curve / highest)}"/>'
        for model, curve in curves.items()
    )
    box = f'viewBox="0 0 {SMALL_WIDTH} {SMALL_HEIGHT}" preserveAspectRatio="none"'
    score = escape(view.scored(lead, station, view.models[0]))
    label = escape(f"Hydrograph of {view.heading(station)}, up to {number_label(float(highest), 3)} {view.units}")
    return (
        f'<div class="card"><span class="card-name"><b>{escape(view.heading(station))}</b> '
        f'<span class="score">{score}</span></span>'
        f'<svg class="small-curves" role="img" aria-label="{label}" {box}>{lines}</svg></div>'
    )


def _peaks(flow: np.ndarray) -> np.ndarray:
    """The largest known value of each of at most so many stretches of neighbouring times."""
    size = -(-len(flow) // MAX_SMALL_POINTS)
    room = np.pad(flow, (0, -len(flow) % size), constant_values=np.nan).reshape(-1, size)
    return np.where(np.isnan(room).all(axis=1), np.nan, np.nanmax(np.nan_to_num(room, nan=-np.inf), axis=1))


def _path(shares: np.ndarray) -> str:
    """Shares of the height as a path with gaps where they are missing."""
    across = np.linspace(0, SMALL_WIDTH, len(shares))
    path, pen = "", "M"
    for x, share in zip(across, shares, strict=True):
        if np.isfinite(share):
            path += f"{pen}{x:.0f} {SMALL_HEIGHT - (SMALL_HEIGHT - 3) * share:.0f}"
        pen = "L" if np.isfinite(share) else "M"
    return path


def _seconds(times: np.ndarray) -> np.ndarray:
    return times.astype("datetime64[s]").astype(np.float64)


def time_axis(times: np.ndarray) -> Axis:
    """An axis of times (N,) datetime64, with ticks where years, months or days begin."""
    first, last = times.min().astype("datetime64[s]"), times.max().astype("datetime64[s]")
    days = (last - first) / np.timedelta64(1, "D")
    unit = "Y" if days > 366 * LONG_YEARS else "M" if days > 31 * LONG_MONTHS else "D"
    begins = np.arange(first.astype(f"datetime64[{unit}]"), last.astype(f"datetime64[{unit}]") + 1)
    begins = begins[begins >= first][:: -(-len(begins) // 9)]
    ticks = [(float(_seconds(begin[None])[0]), str(begin)) for begin in begins]
    ends = _seconds(np.array([first, last]))
    return Axis("date", float(ends[0]), float(max(ends[1], ends[0] + 1)), ticks)
