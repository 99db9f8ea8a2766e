"""A chart that says under the pointer what its lines are worth.

Shapes: N points of a line.
"""

import json
from collections.abc import Sequence
from html import escape

import numpy as np

from fieldcast.report.chart import BOTTOM, TOP, WIDTH, Chart, across, line_chart

DIGITS = 4
QUIET = "Point at the chart to read its values."


def hover_chart(chart: Chart, labels: Sequence[str], units: str = "") -> str:
    """The chart with its values at each of the N places that all its lines share; ``labels`` (N) word these places."""
    places = across(chart)(chart.lines[0].x) if chart.lines else np.empty(0)
    values = {
        "labels": list(labels),
        "places": [round(float(place), 1) for place in places],
        "lines": [[line.name, [_rounded(value) for value in line.y.tolist()]] for line in chart.lines],
        "units": units,
        "ends": [TOP, BOTTOM],
    }
    packed = escape(json.dumps(values, ensure_ascii=False, separators=(",", ":")))
    drawing = line_chart(chart)
    if chart.width > WIDTH:
        label = escape(f"Chart of {chart.title}")
        drawing = f'<div class="wide wide-chart" tabindex="0" role="region" aria-label="{label}">{drawing}</div>'
    return (
        f'<div class="plotted" data-values="{packed}">{drawing}'
        f'<output class="readout" aria-live="off">{QUIET}</output></div>'
    )


def _rounded(value: float) -> float | None:
    """A value to so many digits; None, which JSON knows, for one that is missing."""
    return float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None
