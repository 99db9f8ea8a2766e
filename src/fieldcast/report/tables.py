"""The tables: scores over all lead times and by lead time with their intervals, and the rows of a benchmark."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

import numpy as np
import xarray as xr

from fieldcast.lead_times import lead_labels
from fieldcast.report.contents import REFERENCE, ReportPart, lead_name
from fieldcast.report.elements import details_html, row_heading, table_html, unseen
from fieldcast.report.verdict import outcomes
from fieldcast.report.wording import interval_label, number_label

BETTER = {
    "smaller": "smaller is better",
    "larger": "larger is better",
    "zero": "best at 0",
    "one": "best at 1",
    "none": "a description",
}
MANY_STATIONS = 20
MAX_ON_ONE_LINE = 60  # characters; a reason why a run failed is longer
SYMBOLS = {"better": ("win", "▲", f"better than {REFERENCE}"), "worse": ("loss", "▼", f"worse than {REFERENCE}")}
MARKS_NOTE = (
    "Bold: the best value of a row, which is not yet a claim. ▲ better, ▼ worse than persistence: the interval of the "
    "difference excludes zero. Under a value stands its interval."
)


def overall_table(part: ReportPart, space: str) -> str:
    """Every plain metric over all lead times in one space: rows metrics with units and convention, columns models."""
    rows = []
    for name in part.plain_metrics:
        variable = f"{name}_overall"
        if not part.models_with(variable, space):
            continue
        note = f"{part.scores[name].attrs.get('convention', '')}; {BETTER[part.orientation(name)]}"
        rows.append(
            row_heading(part.title(name, space), note.removeprefix("; ")) + score_cells(part, variable, space).html()
        )
    if not rows:
        return ""
    table = table_html(["score", *part.models], rows, f"Scores over all lead times, {space} space")
    return f'<div class="overall">{table}</div>'


def lead_table(part: ReportPart, name: str, space: str) -> str:
    """One metric in one space: rows lead times, columns models."""
    labels = lead_labels(part.scores.lead_time.values)
    cells = score_cells(part, name, space)
    rows = [row_heading(label) + cells.html({"lead_time": number}) for number, label in enumerate(labels)]
    return table_html([lead_name(part), *part.models], rows, part.title(name, space))


def stations_html(part: ReportPart) -> str:
    """Scores of each station over all lead times: a table a score, to unfold where there are many stations."""
    tables = []
    for space in part.shown_spaces:
        for name in part.metrics_along("station"):
            if not part.models_with(name, space):
                continue
            cells = score_cells(part, f"{name}_overall", space)
            rows = [
                row_heading(str(station)) + cells.html({"station": number})
                for number, station in enumerate(part.scores["station"].values)
            ]
            title = f"{part.title(name, space)} over all lead times"
            table = table_html(["station", *part.models], rows, title)
            tables.append(details_html(title, table) if len(rows) > MANY_STATIONS else table)
    return f'<div class="tables">{"".join(tables)}</div>' if tables else ""


class ScoreCells(NamedTuple):
    """A variable in one space, ready to be put into tables: M models, further dimensions *D.

    Attributes:
        values: (M, *D).
        bounds: of their intervals, (2, M, *D), or None.
        outcomes: against persistence, (M, *D) texts as `verdict.outcomes` gives them.
        orientation: which value is better.
    """

    values: xr.DataArray
    bounds: np.ndarray | None
    outcomes: np.ndarray
    orientation: str

    def html(self, at: Mapping[str, int] | None = None, undefined: str = "undefined") -> str:
        """One cell a model: its score at positions of all further dimensions, the best marked, and what is claimed."""
        positions = tuple((at or {})[str(dimension)] for dimension in self.values.dims[1:])
        where: tuple[slice | int, ...] = (slice(None), *positions)
        values = self.values.values[where]
        bounds = np.full((2, len(values)), np.nan) if self.bounds is None else self.bounds[(slice(None), *where)]
        best = _best(self.orientation, values)
        return "".join(
            _cell(float(value), interval, _mark(str(outcome)), value == best, undefined)
            for value, interval, outcome in zip(values, bounds.T, self.outcomes[where], strict=True)
        )


def score_cells(part: ReportPart, variable: str, space: str) -> ScoreCells:
    """The cells of a metric, or of its ``_overall``, in the order of the part's models."""
    values = part.scores[variable].sel(space=space, model=part.models).transpose("model", ...)
    bounds = part.interval(variable, space)
    if bounds is not None:
        bounds = bounds.sel(model=part.models).transpose("bound", *values.dims)
    found = [outcomes(part, variable, space, REFERENCE, model) for model in part.models]
    orientation = part.orientation(variable.removesuffix("_overall"))
    return ScoreCells(values, None if bounds is None else bounds.values, np.stack(found), orientation)


def _cell(value: float, interval: np.ndarray, mark: str, is_best: bool, undefined: str) -> str:
    if not np.isfinite(value):
        return f'<td class="absent-value">{escape(undefined)}</td>'
    text = f"<b>{number_label(value)}</b>{unseen(' best')}" if is_best else number_label(value)
    below = f"<small>{interval_label(*interval)}</small>" if np.isfinite(interval).all() else ""
    return f"<td>{text}{mark}{below}</td>"


def _best(orientation: str, values: np.ndarray) -> float:
    """The best value, or NaN where none is better than another."""
    target = {"smaller": -np.inf, "larger": np.inf, "zero": 0.0, "one": 1.0}.get(orientation)
    finite = values[np.isfinite(values)]
    if target is None or finite.size == 0:
        return np.nan
    if np.isinf(target):
        return float(finite.max() if target > 0 else finite.min())
    return float(finite[np.argmin(np.abs(finite - target))])


def _mark(outcome: str) -> str:
    """A symbol, with text for those who hear it, where the difference to persistence excludes zero."""
    if outcome not in SYMBOLS:
        return ""
    style, symbol, meaning = SYMBOLS[outcome]
    return f'<span class="{style}" role="img" aria-label="{meaning}" title="{meaning}">{symbol}</span>'


def benchmark_table(rows: Sequence[dict]) -> str:
    """Rows of a benchmark with the columns as they come, but for those that are empty; numbers to the right."""
    columns = list(dict.fromkeys(key for row in rows for key in row if any(one.get(key) != "" for one in rows)))
    lines = ["".join(_plain_cell(row.get(column), first=not at) for at, column in enumerate(columns)) for row in rows]
    return f'<div class="benchmark">{table_html([str(column) for column in columns], lines, "Benchmark")}</div>'


def _plain_cell(value: str | float | int | None, first: bool) -> str:
    """A number, or words; of a score that comes with its interval in brackets, the interval below it."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    text = "not known" if value is None else number_label(float(value)) if is_number else str(value)
    if first:
        return row_heading(text)
    if len(text) > MAX_ON_ONE_LINE:
        return f'<td class="words">{escape(text)}</td>'
    score, bracket, interval = text.partition(" [")
    below = f"<small>{escape(f'[{interval}')}</small>" if bracket else ""
    return f'<td class="value">{escape(score)}{below}</td>'
