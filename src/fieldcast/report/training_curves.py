"""Training curves: losses and learning rate of each trained model over the steps."""

import math
from html import escape

import numpy as np

from fieldcast.data.dataset import spread
from fieldcast.report.chart import Axis, Chart, Line, line_chart, linear_axis, log_axis
from fieldcast.report.elements import charts_html, figure_html
from fieldcast.report.wording import listed, number_label

LOSSES = {"train_loss": ("training", "model-0"), "validation_loss": ("validation", "model-1")}
MAX_POINTS = 300
LOG_FROM = 10  # a logarithmic axis where values span more than this factor


def training_html(histories: dict[str, list[dict]]) -> str:
    """For each model its losses, its learning rate, and where it ended."""
    known = {model: rows for model, rows in histories.items() if rows}
    said = "".join(f"<li>{escape(model)}: {escape(_last(rows))}.</li>" for model, rows in known.items())
    figures = [figure for model, rows in known.items() for figure in _figures(model, rows)]
    return f"<ul>{said}</ul>{charts_html(figures)}" if known else ""


def column(rows: list[dict], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of the rows that have a finite value under ``key``."""
    known = [(row["step"], row[key]) for row in rows if row.get(key) is not None and math.isfinite(row[key])]
    pairs = np.array(known, dtype=np.float64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def spans_decades(values: np.ndarray) -> bool:
    """Whether values are better read on a logarithmic axis."""
    return bool(values.size and values.min() > 0 and values.max() > LOG_FROM * values.min())


def _figures(model: str, rows: list[dict]) -> list[str]:
    losses = [_thinned(name, style, rows, key) for key, (name, style) in LOSSES.items()]
    rate = _thinned("learning rate", "baseline-0", rows, "learning_rate")
    steps = linear_axis("step", [line.x for line in (*losses, rate)])
    title = f"{model}: loss in training (blue) and validation (orange)"
    figures = [figure_html(title, line_chart(Chart(title, steps, _axis(losses), losses)))]
    if rate.y.size:
        title = f"{model}: learning rate"
        figures.append(figure_html(title, line_chart(Chart(title, steps, _axis([rate]), [rate]))))
    return figures


def _axis(lines: list[Line]) -> Axis:
    values = np.concatenate([line.y for line in lines])
    return (log_axis if spans_decades(values) else linear_axis)("", [values])


def _thinned(name: str, style: str, rows: list[dict], key: str) -> Line:
    x, y = column(rows, key)
    kept = spread(len(x), MAX_POINTS)
    return Line(name, style, x[kept], y[kept])


def _last(rows: list[dict]) -> str:
    """Where training ended, and the lowest validation loss."""
    words = [f"last step {number_label(float(rows[-1]['step']), 12)}"]
    for key, (name, _) in LOSSES.items():
        steps, values = column(rows, key)
        if values.size:
            words.append(f"{name} loss {number_label(float(values[-1]))}")
            if key == "validation_loss":
                best = int(values.argmin())
                words.append(f"lowest {number_label(float(values[best]))} at step {steps[best]:.0f}")
    return listed(words)
