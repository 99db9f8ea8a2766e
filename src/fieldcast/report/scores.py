"""The score tables, and the one line that says whether the model is worth having."""

from html import escape

import numpy as np
import xarray as xr

from fieldcast.lead_times import lead_labels
from fieldcast.report.contents import BASELINES, ReportContents, number_label, units_label

MAIN_METRIC = "mse"
SHOWN_METRICS = ("mse", "mae", "ssim")
BETTER = {"smaller": "smaller is better", "larger": "larger is better", "zero": "best at 0"}


def shown_metrics(contents: ReportContents) -> list[str]:
    """Metrics with a curve and a table over lead times: MSE, MAE and SSIM, or the first three there are."""
    return [name for name in SHOWN_METRICS if name in contents.metrics] or contents.metrics[:3]


def verdict(contents: ReportContents) -> str:
    """One line: the best trained model against persistence, overall and by lead time."""
    if not contents.metrics:
        return "No scores."
    name = MAIN_METRIC if MAIN_METRIC in contents.metrics else contents.metrics[0]
    score, overall = (contents.scores[key].sel(space=contents.spaces[0]) for key in (name, f"{name}_overall"))
    trained = [model for model in contents.models if model not in BASELINES]
    if not trained:
        return "Only baselines were scored."
    losses = _loss(overall, contents.scores[name])
    model = min(trained, key=lambda key: np.nan_to_num(float(losses.sel(model=key)), nan=np.inf))
    quantity = score.attrs.get("long_name", name)
    units = str(score.attrs.get(f"units_{contents.spaces[0]}", ""))
    value = f"{number_label(float(overall.sel(model=model)))} {units if units != '1' else ''}".strip()
    if "persistence" not in contents.models:
        return f"{model}: {quantity} {value} over all lead times; persistence was not scored."
    reference = number_label(float(overall.sel(model="persistence")))
    margin = float(losses.sel(model="persistence") - losses.sel(model=model))
    beats = "beats" if margin > 0 else "does not beat" if np.isfinite(margin) else "cannot be compared with"
    return (
        f"{model} {beats} persistence: {quantity} {value} against {reference} over all lead times; "
        f"{_better_leads(_loss(score, score), model)}."
    )


def _loss(values: xr.DataArray, score: xr.DataArray) -> xr.DataArray:
    """Values turned so that the smallest is best, by the score's orientation."""
    orientation = score.attrs.get("orientation", "smaller")
    return -values if orientation == "larger" else abs(values) if orientation == "zero" else values


def _better_leads(losses: xr.DataArray, model: str) -> str:
    """Word the lead times at which the model is better than persistence, neighbours joined."""
    better = (losses.sel(model=model) < losses.sel(model="persistence")).values
    labels = lead_labels(losses.lead_time.values)
    if better.all():
        return "better at every lead time"
    if not better.any():
        return "better at no lead time"
    edges = np.flatnonzero(np.diff(np.concatenate([[False], better, [False]]).astype(int)))
    runs = [(labels[start], labels[end - 1]) for start, end in zip(edges[::2], edges[1::2], strict=True)]
    words = ", ".join(start if start == end else f"{start} to {end}" for start, end in runs)
    return f"better at {int(better.sum())} of {better.size} lead times ({words})"


def overall_table(contents: ReportContents, space: str) -> str:
    """Every metric over all lead times in one space: rows metrics with units and convention, columns models."""
    rows = []
    for name in contents.metrics:
        score = contents.scores[name]
        convention = f"{score.attrs.get('convention', '')}; {BETTER[score.attrs.get('orientation', 'smaller')]}"
        heading = (
            f'<th scope="row">{_metric_heading(score, name, space)}'
            f"<small>{escape(convention.removeprefix('; '))}</small></th>"
        )
        overall = contents.scores[f"{name}_overall"].sel(space=space, model=contents.models)
        rows.append(heading + _cells(overall, _loss(overall, score)))
    return f'<div class="overall">{_table(["metric", *contents.models], rows)}</div>'


def lead_table(contents: ReportContents, name: str, space: str) -> str:
    """One metric in one space: rows lead times, columns models."""
    score = contents.scores[name].sel(space=space, model=contents.models)
    rows = [
        f'<th scope="row">{escape(label)}</th>' + _cells(at_lead, _loss(at_lead, score))
        for label, at_lead in zip(lead_labels(score.lead_time.values), score.transpose("lead_time", ...), strict=True)
    ]
    return f"<h4>{_metric_heading(score, name, space)}</h4>" + _table(["lead time", *contents.models], rows)


def _metric_heading(score: xr.DataArray, name: str, space: str) -> str:
    return escape(f"{score.attrs.get('long_name', name)}{units_label(str(score.attrs.get(f'units_{space}', '')))}")


def _cells(values: xr.DataArray, losses: xr.DataArray) -> str:
    """One cell a model, the best marked."""
    best = losses.min(skipna=True)
    return "".join(
        f'<td class="best">{number_label(float(value))}</td>'
        if loss == best
        else f"<td>{number_label(float(value))}</td>"
        for value, loss in zip(values.values, losses.values, strict=True)
    )


def _table(headings: list[str], rows: list[str]) -> str:
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
