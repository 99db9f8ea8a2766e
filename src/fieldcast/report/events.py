"""Scores of events by threshold: against lead time, by neighbourhood, and with the number of events observed."""

from html import escape

import numpy as np

from fieldcast.report.chart import key_html
from fieldcast.report.contents import ReportPart
from fieldcast.report.curves import View, chart_figure, lead_chart, linear_axis, part_strokes
from fieldcast.report.elements import charts_html, details_html, row_heading, table_html
from fieldcast.report.tables import score_cells
from fieldcast.report.wording import number_label

FIRST_METRIC = "csi"
COUNT = "num-events"
NO_EVENTS, UNDEFINED = "no events", "undefined"
UNITS_FROM = ("mae", "rmse", "bias")  # metrics in the units of the field


def events_html(part: ReportPart) -> str:
    """Event scores of all spaces that have any."""
    return "".join(_events_in(part, space) for space in part.shown_spaces)


def _events_in(part: ReportPart, space: str) -> str:
    by_threshold, by_scale = (
        [name for name in part.metrics_along(*along) if part.is_score(name) and part.models_with(name, space)]
        for along in (("threshold",), ("threshold", "scale"))
    )
    names = sorted(by_threshold, key=lambda name: name != FIRST_METRIC)
    if not names + by_scale:
        return ""
    thresholds = _thresholds(part, space)
    drawn = part_strokes(part)
    body = f"<h3>{escape(space)}</h3>" if len(part.shown_spaces) > 1 else ""
    body += key_html(drawn)
    if names:
        body += _charts(part, names[0], space, thresholds) + _table(part, names[0], space, thresholds)
    body += "".join(_scale_charts(part, name, space, thresholds) for name in by_scale)
    more = "".join(_charts(part, name, space, thresholds) + _table(part, name, space, thresholds) for name in names[1:])
    more += "".join(_scale_table(part, name, space, thresholds) for name in by_scale)
    return body + (details_html("More event scores", key_html(drawn) + more) if more else "")


def _thresholds(part: ReportPart, space: str) -> dict[int, str]:
    """Position and words of the thresholds that apply in a space."""
    num_thresholds = part.scores.sizes["threshold"]
    known = [at for at in range(num_thresholds) if _num_events(part, space, at) is not None]
    return {at: threshold_label(part, space, at) for at in known}


def threshold_label(part: ReportPart, space: str, threshold: int) -> str:
    """Word the event at a threshold: "≥ 0.5 mm/h"."""
    values = part.scores["threshold"]
    units = str(values.attrs.get("units", _field_units(part, space)))
    sign = "below" if part.scores.attrs.get("event") == "below" else "≥"
    return f"{sign} {number_label(float(values[threshold]))} {units}".strip()


def _field_units(part: ReportPart, space: str) -> str:
    known = [part.scores[name].attrs.get(f"units_{space}", "") for name in UNITS_FROM if name in part.metrics]
    return next((str(units) for units in known if units not in ("", "1")), "")


def _num_events(part: ReportPart, space: str, threshold: int) -> float | None:
    """How many events were observed; NaN where nobody counted, None where the threshold is not one of this space."""
    variable = f"{COUNT}_overall"
    if variable not in part.scores:
        return np.nan
    counts = part.scores[variable].sel(space=space).isel(threshold=threshold).values
    return float(np.nanmax(counts)) if np.isfinite(counts).any() else None


def _events_label(part: ReportPart, space: str, threshold: int) -> str:
    number = _num_events(part, space, threshold)
    if number is None or np.isnan(number):
        return "not counted"
    return f"{number:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _undefined(part: ReportPart, space: str, threshold: int) -> str:
    """Why a score has no value: because nothing happened, as far as is known."""
    return NO_EVENTS if _num_events(part, space, threshold) == 0 else UNDEFINED


def _charts(part: ReportPart, name: str, space: str, thresholds: dict[int, str]) -> str:
    """One score against lead time, a chart for each threshold."""
    drawn = part_strokes(part)
    return charts_html(
        [
            lead_chart(
                View(part, name, space, at={"threshold": at}),
                drawn,
                f"{part.title(name, space)}, {label}; events observed: {_events_label(part, space, at)}",
                _undefined(part, space, at),
            )
            for at, label in thresholds.items()
        ]
    )


def _table(part: ReportPart, name: str, space: str, thresholds: dict[int, str]) -> str:
    """One score over all lead times: rows thresholds with the number of events, columns models."""
    cells = score_cells(part, f"{name}_overall", space)
    rows = [
        row_heading(label)
        + f"<td>{_events_label(part, space, at)}</td>"
        + cells.html({"threshold": at}, _undefined(part, space, at))
        for at, label in thresholds.items()
    ]
    headings = ["event", "events observed", *part.models]
    return table_html(headings, rows, f"{part.title(name, space)} over all lead times")


def _scale_charts(part: ReportPart, name: str, space: str, thresholds: dict[int, str]) -> str:
    """One score over all lead times against the width of the neighbourhood, a chart for each threshold."""
    drawn = part_strokes(part)
    widths = part.scores["scale"].values.astype(np.float64)
    axis = linear_axis("width of the neighbourhood (pixels)", [widths])
    figures = [
        chart_figure(
            f"{part.title(name, space)}, {label}, over all lead times",
            axis,
            View(part, f"{name}_overall", space, "scale", {"threshold": at}).lines(drawn, widths),
            _undefined(part, space, at),
        )
        for at, label in thresholds.items()
    ]
    return charts_html(figures)


def _scale_table(part: ReportPart, name: str, space: str, thresholds: dict[int, str]) -> str:
    cells = score_cells(part, f"{name}_overall", space)
    rows = [
        row_heading(f"{label}, {number_label(float(width))} pixels wide")
        + cells.html({"threshold": at, "scale": number}, _undefined(part, space, at))
        for at, label in thresholds.items()
        for number, width in enumerate(part.scores["scale"].values)
    ]
    return table_html(["event", *part.models], rows, f"{part.title(name, space)} over all lead times")
