"""Power spectra of forecasts and observations, where a forecast that is too smooth loses its short waves.

Shapes: K wavenumbers.
"""

import numpy as np

from fieldcast.lead_times import lead_labels
from fieldcast.report.chart import Axis, Chart, Line, key_html, line_chart, log_axis, values_of
from fieldcast.report.contents import OBSERVED, ReportPart
from fieldcast.report.curves import View, part_strokes
from fieldcast.report.elements import charts_html, figure_html
from fieldcast.report.series import OBSERVED_CLASS, Stroke

SPECTRUM, OBSERVATION, RATIO = "spectrum", "spectrum-observed", "spectrum-ratio"
NOTE = (
    "A wave of 1/16 cycles per pixel is 16 pixels long; short waves are to the right. A forecast whose line falls "
    "below the observed one there is too smooth: it shows blurred fields."
)


def spectra_html(part: ReportPart) -> str:
    """Spectra at the first, the middle and the last lead time, and their ratio to the observed one."""
    names = [name for name in part.metrics_along("wavenumber") if name in (SPECTRUM, OBSERVATION, RATIO)]
    figures = [
        _figures(part, space, lead, names)
        for space in part.shown_spaces
        if any(part.models_with(name, space) for name in names)
        for lead in _leads(part)
    ]
    if not figures:
        return ""
    drawn = {OBSERVED: Stroke("", "", OBSERVED_CLASS)} | part_strokes(part)
    return f"<p>{NOTE}</p>{key_html(drawn)}" + charts_html(
        [figure for kind in zip(*figures, strict=True) for figure in kind]
    )


def _leads(part: ReportPart) -> list[int]:
    last = part.scores.sizes["lead_time"] - 1
    return sorted({0, last // 2, last})


def _figures(part: ReportPart, space: str, lead: int, names: list[str]) -> list[str]:
    """The spectrum, and the ratio where there is one, at one lead time."""
    label = lead_labels(part.scores.lead_time.values)[lead]
    x = part.scores["wavenumber"].values.astype(np.float64)
    axis = _wave_axis(x)
    figures = []
    if SPECTRUM in names:
        lines = _lines(part, OBSERVATION, space, lead, x)[:1] if OBSERVATION in names else []
        lines = [line._replace(name=OBSERVED, style=OBSERVED_CLASS, low=None, high=None) for line in lines]
        lines += _lines(part, SPECTRUM, space, lead, x)
        figures.append(_figure(f"{part.title(SPECTRUM, space)} at {label}", axis, lines))
    if RATIO in names:
        lines = _lines(part, RATIO, space, lead, x)
        figures.append(_figure(f"{part.title(RATIO)} at {label}", axis, lines, guide=True))
    return figures


def _lines(part: ReportPart, name: str, space: str, lead: int, x: np.ndarray) -> list[Line]:
    """Lines without their constant part and without what a logarithm has no place for."""
    lines = View(part, name, space, "wavenumber", {"lead_time": lead}).lines(part_strokes(part), x)
    kept = x > 0
    return [
        line._replace(
            x=x[kept],
            y=np.where(line.y > 0, line.y, np.nan)[kept],
            low=None if line.low is None else line.low[kept],
            high=None if line.high is None else line.high[kept],
        )
        for line in lines
    ]


def _figure(title: str, axis: Axis, lines: list[Line], guide: bool = False) -> str:
    y = log_axis("", [*values_of(lines), np.array([1.0])] if guide else [line.y for line in lines])
    level = ((axis.low, 1.0), (axis.high, 1.0)) if guide else None
    return figure_html(title, line_chart(Chart(title, axis, y, lines, level)))


def _wave_axis(x: np.ndarray) -> Axis:
    """Cycles per pixel, ticks at wavelengths of powers of two."""
    positive = x[x > 0]
    if positive.size == 0:
        positive = np.array([0.25, 0.5])
    low, high = float(positive.min()), max(float(positive.max()), 1.001 * float(positive.min()))
    lengths = [2**power for power in range(1, 16) if low <= 1 / 2**power <= high * 1.001]
    return Axis("cycles per pixel", low, high, [(1 / length, f"1/{length}") for length in lengths], log=True)
