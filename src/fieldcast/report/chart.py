"""Charts as SVG inside the page: lines with bands, and bars. Colours come from the page's style.

Shapes: N points of a line.
"""

from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from fieldcast.report.series import Stroke
from fieldcast.report.wording import listed, number_label

WIDTH, HEIGHT = 360, 230
LEFT, TOP, BOTTOM = 50, 8, 190
RIGHT_MARGIN = 10
Places = Callable[[ArrayLike], np.ndarray]
MAX_POINTS_MARKED = 30
ROOM_TO_ZERO = 0.4  # an axis starts at 0 where the smallest value is below this share of the largest


class Axis(NamedTuple):
    """An axis: what it measures, its ends, and where the ticks are."""

    label: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    log: bool = False

    def fractions(self, values: ArrayLike) -> np.ndarray:
        """Where values lie between the ends, 0 to 1; NaN for what has no place."""
        ends = np.array([self.low, self.high])
        known = np.asarray(values, dtype=np.float64)
        if self.log:
            known, ends = np.log(np.where(known > 0, known, np.nan)), np.log(ends)
        places = (known - ends[0]) / (ends[1] - ends[0])
        return np.where(np.isfinite(places), places, np.nan)


class Line(NamedTuple):
    """A line of N points, with a band where there are bounds."""

    name: str
    style: str
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None


class Chart(NamedTuple):
    """Lines over axes; ``guide`` is the two ends of a thin line to judge by, ``nothing`` what an empty chart says.

    ``width`` is that of the drawing, where its height is 230.
    """

    title: str
    x: Axis
    y: Axis
    lines: Sequence[Line]
    guide: tuple[tuple[float, float], tuple[float, float]] | None = None
    nothing: str = "no value"
    width: int = WIDTH

    @property
    def right(self) -> int:
        """Where the horizontal axis ends."""
        return self.width - RIGHT_MARGIN


def linear_axis(label: str, values: Iterable[np.ndarray | None], num_ticks: int = 5) -> Axis:
    """An axis that holds all finite values, with round ticks."""
    finite = _finite(values)
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    low = 0.0 if 0 <= low < ROOM_TO_ZERO * high else low
    # Equal values, and those that differ by rounding, get an axis around them.
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        low, high = low - max(abs(low), 1.0) / 2, high + max(abs(high), 1.0) / 2
    ticks = MaxNLocator(num_ticks, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    inside = [tick for tick in ticks if low - 1e-9 * (high - low) <= tick <= high + 1e-9 * (high - low)]
    return Axis(label, low, high, [(float(tick), number_label(float(round(tick, 12)))) for tick in inside])


def log_axis(label: str, values: Iterable[np.ndarray | None]) -> Axis:
    """An axis of powers of ten that holds all positive values."""
    finite = _finite(values)
    finite = finite[finite > 0]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (1.0, 10.0)
    if high <= low:
        low, high = low / 2, high * 2
    first, last = int(np.ceil(np.log10(low))), int(np.floor(np.log10(high)))
    factors = (1.0,) if last - first >= 2 else (1.0, 2.0, 5.0)
    stride = max(1, (last - first) // 5)
    powers = range(first - 1, last + 1, stride)
    ticks = [factor * 10.0**power for power in powers for factor in factors]
    return Axis(label, low, high, [(tick, f"{tick:g}") for tick in ticks if low <= tick <= high], log=True)


def _finite(values: Iterable[np.ndarray | None]) -> np.ndarray:
    known = [np.ravel(value) for value in values if value is not None]
    together = np.concatenate(known) if known else np.empty(0)
    return together[np.isfinite(together)]


def values_of(lines: Sequence[Line]) -> list[np.ndarray | None]:
    """All values that a vertical axis has to hold."""
    return [value for line in lines for value in (line.y, line.low, line.high)]


def line_chart(chart: Chart) -> str:
    """The chart as an SVG element that says what it shows."""
    place, up = across(chart), _up(chart.y)
    drawn = "".join(_line_svg(line, place(line.x), up) for line in chart.lines)
    if not drawn:
        drawn = f'<text class="nothing" x="{(LEFT + chart.right) / 2}" y="{(TOP + BOTTOM) / 2}">{chart.nothing}</text>'
    guide = ""
    if chart.guide:
        (x0, y0), (x1, y1) = chart.guide
        points = [*place([x0, x1]), *up([y0, y1])]
        guide = '<path class="guide" d="M{0:.1f} {2:.1f}L{1:.1f} {3:.1f}"/>'.format(*points)
    return _svg(chart, _frame(chart) + guide + drawn)


def bar_chart(chart: Chart) -> str:
    """The chart with bars from 0 in place of lines, those of several models beside each other."""
    place, up = across(chart), _up(chart.y)
    step = (chart.right - LEFT) / max(1, len(chart.lines[0].x)) if chart.lines else 0.0
    width = 0.8 * step / max(1, len(chart.lines))
    ground = float(up([max(chart.y.low, 0.0)])[0])
    drawn = ""
    for number, line in enumerate(chart.lines):
        shift = (number - len(chart.lines) / 2) * width
        places = zip(place(line.x) + shift, up(line.y), strict=True)
        bars = "".join(f"M{x:.1f} {ground:.1f}V{y:.1f}h{width:.1f}V{ground:.1f}z" for x, y in places if np.isfinite(y))
        drawn += f'<g class="{line.style}"><title>{escape(line.name)}</title><path class="bars" d="{bars}"/></g>'
    guide = ""
    if chart.guide:
        y = float(up([chart.guide[0][1]])[0])
        guide = f'<path class="guide" d="M{LEFT} {y:.1f}H{chart.right}"/>'
    return _svg(chart, _frame(chart) + drawn + guide)


def across(chart: Chart) -> Places:
    """Where values of the horizontal axis lie on the drawing."""
    return lambda values: LEFT + (chart.right - LEFT) * chart.x.fractions(values)


def _up(axis: Axis) -> Places:
    return lambda values: BOTTOM - (BOTTOM - TOP) * axis.fractions(values)


def _svg(chart: Chart, body: str) -> str:
    label = escape(_alternative(chart))
    size = f"0 0 {chart.width} {HEIGHT}"
    return f'<svg class="chart" viewBox="{size}" role="img" aria-label="{label}">{body}</svg>'


def _frame(chart: Chart) -> str:
    """Grid, ticks and the label of the horizontal axis."""
    pieces = []
    for place, (_, text) in zip(_up(chart.y)([tick for tick, _ in chart.y.ticks]), chart.y.ticks, strict=True):
        pieces.append(f'<path class="grid" d="M{LEFT} {place:.1f}H{chart.right}"/>')
        pieces.append(f'<text class="y" x="{LEFT - 5}" y="{place + 4:.1f}">{escape(text)}</text>')
    for place, (_, text) in zip(across(chart)([tick for tick, _ in chart.x.ticks]), chart.x.ticks, strict=True):
        pieces.append(f'<path class="grid" d="M{place:.1f} {BOTTOM}v4"/>')
        pieces.append(f'<text class="x" x="{place:.1f}" y="{BOTTOM + 16}">{escape(text)}</text>')
    pieces.append(f'<path class="axis" d="M{LEFT} {BOTTOM}H{chart.right}"/>')
    pieces.append(f'<text class="x" x="{(LEFT + chart.right) / 2}" y="{BOTTOM + 34}">{escape(chart.x.label)}</text>')
    return "".join(pieces)


def _line_svg(line: Line, x: np.ndarray, up: Places) -> str:
    y = up(line.y)
    if not np.isfinite(y).any():
        return ""
    band = ""
    if line.low is not None and line.high is not None:
        low, high = up(line.low), up(line.high)
        for run in _runs(np.isfinite(low) & np.isfinite(high)):
            there = [f"{a:.1f} {b:.1f}" for a, b in zip(x[run], high[run], strict=True)]
            back = [f"{a:.1f} {b:.1f}" for a, b in zip(x[run][::-1], low[run][::-1], strict=True)]
            band += f"M{'L'.join(there + back)}z"
    path = "".join(
        "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x[run], y[run], strict=True)) for run in _runs(np.isfinite(y))
    )
    pieces = f'<path class="band" d="{band}"/>' if band else ""
    pieces += f'<path class="line" d="{path}"/>'
    if np.isfinite(y).sum() <= MAX_POINTS_MARKED:
        points = "".join(f"M{a:.1f} {b:.1f}h0" for a, b in zip(x, y, strict=True) if np.isfinite(b))
        pieces += f'<path class="points" d="{points}"/>'
    return f'<g class="{line.style}"><title>{escape(line.name)}</title>{pieces}</g>'


def _runs(known: np.ndarray) -> list[slice]:
    """Stretches of neighbours that are known."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], known, [False]]).astype(int)))
    return [slice(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True)]


def _alternative(chart: Chart) -> str:
    """Say what the chart shows, and each line's first and last value."""
    ends = []
    for line in chart.lines:
        known = np.flatnonzero(np.isfinite(line.y))
        if known.size:
            first, last = (number_label(float(line.y[at]), 3) for at in known[[0, -1]])
            ends.append(f"{line.name} from {first} to {last}")
    said = f"Chart of {chart.title} over {chart.x.label}"
    return f"{said}: {listed(ends)}." if ends else f"{said}: {chart.nothing}."


def key_html(strokes: dict[str, Stroke]) -> str:
    """Which line is whose."""
    swatch = '<svg aria-hidden="true" viewBox="0 0 30 8"><path class="line" d="M0 4H30"/></svg>'
    rows = "".join(
        f'<li><span class="{stroke.style}">{swatch}</span>{escape(model)}</li>' for model, stroke in strokes.items()
    )
    return f'<ul class="key">{rows}</ul>'
