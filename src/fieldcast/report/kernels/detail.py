"""One output in detail: maps summed over lag and at each lag, lag curves, the path of the centre of mass, fidelity.

Shapes: T lags, H rows, W columns.
"""

import json
import math
from html import escape

import numpy as np

from fieldcast.report.chart import Axis, Chart, Line, key_html, linear_axis, values_of
from fieldcast.report.elements import charts_html, figure_html
from fieldcast.report.hover import hover_chart
from fieldcast.report.kernels.comparison import comparison_html
from fieldcast.report.kernels.fidelity import fidelity_html, verdict_of
from fieldcast.report.kernels.gallery import field_strokes
from fieldcast.report.kernels.maps import InfluenceMap, Overlay, maps_html, thinned
from fieldcast.report.kernels.travel import centres, close_up, ground_of, place_of
from fieldcast.report.kernels.view import Field, KernelView, in_groups, lag_curve, lag_sum
from fieldcast.report.player import controls_html

MAP_NOTE = "Line: path of the centre of mass of |kernel|, its dot at the newest lag."
CLOSE_NOTE = " Maps show the part where the kernel has weight; beyond it there is less than 0.1 % of the largest."
PLACE_NOTE = " Ring: the place whose output this is."


def detail_html(view: KernelView, output: str, max_pixels: int) -> str:
    """All that is known of one output, with maps of at most so many pixels together."""
    close = close_up(view, output)
    height, width = (close.kernels.sizes[axis] for axis in close.axes)
    step = math.ceil(math.sqrt(len(view.fields) * (len(view.lag_groups.starts) + 1) * height * width / max_pixels)) or 1
    stamp = verdict_of(view, output).stamp
    warning = f'<p class="warning">{escape(stamp)}: these maps do not speak for the network.</p>' if stamp else ""
    thin = f" Maps show means of {step} by {step} pixels." if step > 1 else ""
    note = MAP_NOTE + (PLACE_NOTE if _place(close, output) else "") + thin + (CLOSE_NOTE if close is not view else "")
    return (
        f'<div class="detail">{warning}<p class="note">{escape(note)}</p>{_maps(close, output, step)}'
        f"{_charts(view, output)}{fidelity_html(view, output)}{comparison_html(view, close, output, step)}</div>"
    )


def _place(view: KernelView, output: str) -> tuple[float, float] | None:
    """Where the output lies on the map, in grid positions."""
    coordinates = place_of(view, output)
    return None if coordinates is None else ground_of(view).position(*coordinates)


def _maps(view: KernelView, output: str, step: int) -> str:
    """The summed map of each field, and below it the one that the slider chooses."""
    stamp, place = verdict_of(view, output).stamp, _place(view, output)
    summed = lags = ""
    for field in view.fields:
        kernel = view.kernel(field, output)
        grouped = in_groups(kernel, view.lag_groups.starts)
        size = tuple(-(-length // step) * step for length in kernel.shape[1:])
        overlay = Overlay((size[0], size[1]), centres(grouped), place, stamp)
        whole = thinned(lag_sum(kernel)[None], step)
        summed += InfluenceMap(f"{field.label}, summed over lag", field.units, whole, overlay).html()
        alone = Overlay(overlay.size, None, place, stamp)
        lags += InfluenceMap(f"{field.label}, at one lag", field.units, thinned(grouped, step), alone).html()
    body = f'<div class="panels">{summed}</div>{_player(view, output, lags)}'
    return maps_html(body, view.row_labels(step), view.column_labels(step))


def _player(view: KernelView, output: str, panels_html: str) -> str:
    labels = view.lag_groups.labels
    return (
        f'<div class="player" tabindex="0" role="group" data-start="0" hidden '
        f'data-labels="{escape(json.dumps(labels, ensure_ascii=False))}" '
        f'aria-label="{escape(f"Influence on {output} lag by lag")}">'
        f'<p class="time"><output>{escape(labels[0])}</output></p><div class="panels">{panels_html}</div>'
        f"{controls_html(len(labels), 0, 'Lag')}</div>"
    )


def _charts(view: KernelView, output: str) -> str:
    """Lag curves, one chart a field since units differ, and the distance of the centre of mass."""
    drawn = field_strokes(view)
    lags, unit = view.lags
    axis = linear_axis(f"lag ({unit})", [lags], 6)
    figures = [_curve(view, field, output, axis) for field in view.fields]
    travel = _travel(view, output)
    if travel is not None:
        title, lines = travel
        labels = [f"{name}" for name in view.lag_groups.labels]
        chart = Chart(title, axis, linear_axis("", values_of(lines)), lines)
        drawing = hover_chart(chart, labels, ground_of(view).unit)
        figures.append(figure_html(f"{title} ({ground_of(view).unit})", drawing + key_html(drawn)))
    return charts_html(figures)


def _curve(view: KernelView, field: Field, output: str, axis: Axis) -> str:
    curve, error = lag_curve(view.kernel(field, output)), view.curve_error(field, output)
    low, high = (None, None) if error is None else (curve - error, curve + error)
    lags, unit = view.lags
    line = Line(field.label, field_strokes(view)[field.label].style, lags, curve, low, high)
    title = f"{field.label}: lag curve, summed over the map ({field.units})"
    title += "; band: one standard error" if error is not None else ""
    chart = Chart(title, axis, linear_axis("", [*values_of([line]), np.zeros(1)]), [line])
    return figure_html(title, hover_chart(chart, [f"lag {lag:g} {unit}" for lag in lags], field.units))


def _travel(view: KernelView, output: str) -> tuple[str, list[Line]] | None:
    """What the distances are from, and a line a field; None where no lag has a centre."""
    ground, origin = ground_of(view), place_of(view, output)
    middles = _middles(view)
    lines = []
    for field, stroke in zip(view.fields, field_strokes(view).values(), strict=True):
        path = centres(in_groups(view.kernel(field, output), view.lag_groups.starts))
        known = np.flatnonzero(np.isfinite(path).all(axis=1))
        if known.size == 0:
            continue
        start = ground.at(path[known[:1]])[0]
        distances = np.full(len(path), np.nan)
        distances[known] = ground.distances(path[known], origin or (float(start[0]), float(start[1])))
        lines.append(Line(field.label, stroke.style, middles, distances))
    title = "Centre of mass: distance from " + ("the output's place" if origin else "where it is at the newest lag")
    return (title, lines) if lines else None


def _middles(view: KernelView) -> np.ndarray:
    """The mean lag of each group."""
    return np.array([part.mean() for part in np.split(view.lags[0], view.lag_groups.starts[1:])])
