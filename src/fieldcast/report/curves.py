"""Charts of scores: against lead time, and against whatever else a score depends on.

Shapes: N points of a line; S lead times.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fieldcast.lead_times import lead_unit
from fieldcast.report.chart import Axis, Chart, Line, key_html, line_chart, linear_axis, values_of
from fieldcast.report.contents import ReportPart, lead_name
from fieldcast.report.elements import charts_html, details_html, figure_html
from fieldcast.report.series import Stroke, strokes

SHOWN_METRICS = ("mse", "mae", "bias", "correlation", "ssim", "psnr")
NO_VALUE = "no value"


@dataclass(frozen=True)
class View:
    """A variable of the scores in a space, along one dimension and at positions of the others."""

    part: ReportPart
    variable: str
    space: str
    along: str = "lead_time"
    at: dict[str, int] = field(default_factory=dict)

    def lines(self, drawn: dict[str, Stroke], x: np.ndarray) -> list[Line]:
        """A line for each model that has any value."""
        score = self.part.scores[self.variable].sel(space=self.space).isel(self.at)
        bounds = self.part.interval(self.variable, self.space)
        bounds = bounds if bounds is None else bounds.isel(self.at).transpose("bound", "model", ...)
        lines = []
        for model, stroke in drawn.items():
            y = score.sel(model=model).values
            low, high = (None, None) if bounds is None else bounds.sel(model=model).values
            if np.isfinite(y).any():
                lines.append(Line(model, stroke.style, x, y, low, high))
        return lines


def part_strokes(part: ReportPart) -> dict[str, Stroke]:
    """How each model of a part is drawn."""
    return strokes(part.trained, part.baselines)


def shown_metrics(part: ReportPart) -> list[str]:
    """Metrics whose curves stand first: the usual ones, or the first there are."""
    usual = [name for name in SHOWN_METRICS if name in part.plain_metrics]
    return usual or part.plain_metrics[: len(SHOWN_METRICS)]


def curves_html(part: ReportPart) -> str:
    """Every score against lead time with its interval, the usual ones first, the others to unfold.

    Of one lead time there is no curve; the tables have it.
    """
    if not part.metrics or part.scores.sizes["lead_time"] < 2:
        return ""
    drawn = part_strokes(part)
    shown = shown_metrics(part)
    rest = [name for name in part.plain_metrics if name not in shown]
    first, more = (_charts(part, names, drawn) for names in (shown, rest))
    more = details_html("More scores against lead time", key_html(drawn) + more) if more else ""
    return key_html(drawn) + first + more if first else ""


def _charts(part: ReportPart, names: Sequence[str], drawn: dict[str, Stroke]) -> str:
    views = [View(part, name, space) for space in part.shown_spaces for name in names if part.models_with(name, space)]
    return charts_html([lead_chart(view, drawn) for view in views])


def lead_chart(view: View, drawn: dict[str, Stroke], title: str | None = None, nothing: str = NO_VALUE) -> str:
    """One score against lead time; ``nothing`` is what an empty chart says."""
    x, axis = lead_axis(view.part)
    lines = view.lines(drawn, x)
    return chart_figure(title or view_title(view), axis, lines, nothing)


def view_title(view: View) -> str:
    """The metric's long name and units, with the variable where there are several."""
    name = view.variable.removesuffix("_overall")
    subject = f", {view.space}" if len(view.part.shown_spaces) > 1 else ""
    return view.part.title(name, view.space) + subject


def chart_figure(title: str, axis: Axis, lines: Sequence[Line], nothing: str = NO_VALUE) -> str:
    """Lines over an axis, under a title."""
    chart = Chart(title, axis, linear_axis("", values_of(lines)), lines, nothing=nothing)
    return figure_html(title, line_chart(chart))


def lead_axis(part: ReportPart) -> tuple[np.ndarray, Axis]:
    """Lead times (S,) in the unit that suits them, and their axis."""
    unit, size = lead_unit(part.scores.lead_time.values)
    leads = part.scores.lead_time.values / np.timedelta64(size, "s")
    return leads, linear_axis(f"{lead_name(part)} ({unit})", [leads], 6)
