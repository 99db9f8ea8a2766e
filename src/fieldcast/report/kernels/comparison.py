"""Three attributions of one forecast on the same axes: contribution of the kernel, integrated gradients, occlusion.

Shapes: T lags, H rows, W columns.
"""

import itertools
from html import escape

import numpy as np

from fieldcast.report.chart import Chart, Line, key_html, linear_axis, values_of
from fieldcast.report.elements import charts_html, details_html, figure_html, row_heading, table_html
from fieldcast.report.hover import hover_chart
from fieldcast.report.kernels.fidelity import verdict_of
from fieldcast.report.kernels.maps import InfluenceMap, Overlay, limit_of, maps_html, thinned
from fieldcast.report.kernels.view import ATTRIBUTIONS, Field, KernelView, lag_curve, lag_sum
from fieldcast.report.series import strokes
from fieldcast.report.wording import number_label

Compared = dict[str, np.ndarray]  # maps (T, H, W) of each attribution


def comparison_html(view: KernelView, close: KernelView, output: str, step: int) -> str:
    """Maps side by side in one scale a field, lag curves together, and how far the attributions agree.

    ``close`` is the part of the map that is drawn, every ``step``-th row and column of it.
    """
    found = {field: _known(view, field, output) for field in view.fields}
    found = {field: compared for field, compared in found.items() if len(compared) > 1}
    if not found:
        return ""
    stamp = verdict_of(view, output).stamp
    rows = "".join(_maps(close, field, _known(close, field, output), step, stamp) for field in found)
    maps = maps_html(rows, close.row_labels(step), close.column_labels(step))
    charts = charts_html([_curves(view, field, compared) for field, compared in found.items()])
    key = key_html(strokes(list(ATTRIBUTIONS.values()), []))
    at = view.kernels.attrs.get("at")
    note = "What each field at each place and lag adds to one forecast, against the same baseline sequence"
    note += f"; the inputs end at {at}." if at else "."
    body = f'<p class="note">{escape(note)}</p>{maps}{key}{charts}{_agreement(view, found)}'
    return details_html("Against integrated gradients and occlusion", body)


def _known(view: KernelView, field: Field, output: str) -> Compared:
    maps = {words: view.maps(variable, output) for words, variable in view.attributions(field).items()}
    return {words: values for words, values in maps.items() if np.isfinite(values).any()}


def _maps(view: KernelView, field: Field, compared: Compared, step: int, stamp: str) -> str:
    """One row of maps summed over lag, with one end of the colours for all."""
    summed = {words: thinned(lag_sum(values), step) for words, values in compared.items()}
    limit = limit_of(np.stack(list(summed.values())))
    panels = ""
    for words, values in summed.items():
        # Only the contribution is the kernel's: the others ask the network itself.
        size = (values.shape[0] * step, values.shape[1] * step)
        overlay = Overlay(size, stamp=stamp if words == ATTRIBUTIONS["contribution"] else "")
        panels += InfluenceMap(f"{field.label}: {words}", view.output_units, values[None], overlay, limit).html()
    return f'<div class="panels">{panels}</div>'


def _curves(view: KernelView, field: Field, compared: Compared) -> str:
    lags, unit = view.lags
    drawn = strokes(list(ATTRIBUTIONS.values()), [])
    lines = [Line(words, drawn[words].style, lags, lag_curve(values)) for words, values in compared.items()]
    title = f"{field.label}: summed over the map ({view.output_units})"
    chart = Chart(
        title, linear_axis(f"lag ({unit})", [lags], 6), linear_axis("", [*values_of(lines), np.zeros(1)]), lines
    )
    return figure_html(title, hover_chart(chart, [f"lag {lag:g} {unit}" for lag in lags], view.output_units))


def _agreement(view: KernelView, found: dict[Field, Compared]) -> str:
    """Pearson's r of each pair over lag, rows and columns, field by field."""
    names = list(dict.fromkeys(words for compared in found.values() for words in compared))
    rows = []
    for first, second in itertools.combinations(names, 2):
        values = [
            correlation(compared[first], compared[second]) if {first, second} <= set(compared) else np.nan
            for compared in found.values()
        ]
        rows.append(row_heading(f"{first}, {second}") + "".join(f"<td>{number_label(r, 3)}</td>" for r in values))
    for words in names:
        totals = [float(np.nansum(compared[words])) if words in compared else np.nan for compared in found.values()]
        heading = row_heading(f"total of {words}", view.output_units)
        rows.append(heading + "".join(f"<td>{number_label(total, 3)}</td>" for total in totals))
    return table_html(["pair", *(field.label for field in found)], rows, "Correlation over place and lag, and totals")


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's r of two arrays of one shape where both have values; NaN where either is constant."""
    known = np.isfinite(first) & np.isfinite(second)
    a, b = (values[known] - values[known].mean() if known.any() else np.zeros(1) for values in (first, second))
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 0 else np.nan
