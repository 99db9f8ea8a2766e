"""Whether the probabilities and the spread of an ensemble can be trusted: reliability, sharpness, ranks."""

import numpy as np

from fieldcast.report.chart import Axis, Chart, Line, bar_chart, key_html, line_chart, linear_axis, values_of
from fieldcast.report.contents import ReportPart
from fieldcast.report.curves import View, part_strokes
from fieldcast.report.elements import charts_html, figure_html
from fieldcast.report.events import threshold_label

RELIABILITY, SHARPNESS, RANKS = "reliability", "sharpness", "rank-histogram"
NOTES = {
    RELIABILITY: "Reliability: on the thin diagonal an event forecast with 30 % happens 30 % of the time; below it "
    "the forecast says it too often.",
    SHARPNESS: "Sharpness: how often each probability is forecast.",
    RANKS: "Ranks: how often the observation falls between members; level where the spread is right, a valley where "
    "it is too small.",
}
PROBABILITIES = Axis("forecast probability", 0.0, 1.0, [(p, f"{p:g}") for p in (0.0, 0.25, 0.5, 0.75, 1.0)])


def ensembles_html(part: ReportPart) -> str:
    """Reliability diagrams, sharpness and rank histograms over all lead times, where there is an ensemble."""
    figures, notes = [], []
    for name in (RELIABILITY, SHARPNESS, RANKS):
        found = [
            _figure(view)
            for space in part.shown_spaces
            if f"{name}_overall" in part.scores and part.models_with(f"{name}_overall", space)
            for view in _views(part, name, space)
        ]
        figures += found
        notes += [NOTES[name]] if found else []
    if not figures:
        return ""
    said = "".join(f"<p>{note}</p>" for note in notes)
    return said + key_html(part_strokes(part)) + charts_html(figures)


def _views(part: ReportPart, name: str, space: str) -> list[View]:
    """A view of the score over all lead times, one for each threshold where it has any."""
    along = "rank" if name == RANKS else "probability"
    score = part.scores[f"{name}_overall"]
    if "threshold" not in score.dims:
        return [View(part, f"{name}_overall", space, along)]
    applies = score.sel(space=space).notnull().any([along, "model"]).values
    return [View(part, f"{name}_overall", space, along, {"threshold": int(at)}) for at in np.flatnonzero(applies)]


def _figure(view: View) -> str:
    part, name = view.part, view.variable.removesuffix("_overall")
    x = part.scores[view.along].values.astype(np.float64)
    lines = view.lines(part_strokes(part), x)
    title = part.title(name)
    if "threshold" in view.at:
        title += f", {threshold_label(part, view.space, view.at['threshold'])}"
    if name == RELIABILITY:
        y = Axis("", 0.0, 1.0, PROBABILITIES.ticks)
        chart = Chart(title, PROBABILITIES, y, lines, ((0.0, 0.0), (1.0, 1.0)))
        return figure_html(chart.title, line_chart(chart))
    lines = [_as_shares(line) for line in lines]
    level = ((0.0, 1 / len(x)), (1.0, 1 / len(x))) if name == RANKS else None
    y = linear_axis("", [*values_of(lines), np.array([0.0])])
    chart = Chart(title, _bar_axis(view.along, x), y, lines, level)
    return figure_html(chart.title, bar_chart(chart))


def _as_shares(line: Line) -> Line:
    """Counts or shares as shares that add up to 1."""
    total = np.nansum(line.y)
    return line._replace(y=line.y / total if total > 0 else line.y, low=None, high=None)


def _bar_axis(along: str, x: np.ndarray) -> Axis:
    """An axis with half a bar's room at both ends."""
    room = (x[1] - x[0]) / 2 if len(x) > 1 else 0.5
    label = "rank of the observation among the members" if along == "rank" else "forecast probability"
    ticks = x[:: max(1, len(x) // 6)]
    return Axis(label, float(x[0] - room), float(x[-1] + room), [(float(tick), f"{tick:.3g}") for tick in ticks])
