"""The HTML page: one file that asks nothing of a network, with every text escaped."""

import base64
import hashlib
import json
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

import numpy as np
import xarray as xr

from fieldcast.files import write_atomic
from fieldcast.report.contents import ReportContents, number_label, quantity_label, time_label, units_label
from fieldcast.report.figures import DARK, forecast_figure, png, score_figure, training_figure
from fieldcast.report.player import data_address, player_html, thinning
from fieldcast.report.scale import ColourScale, colour_scale
from fieldcast.report.scores import lead_table, overall_table, shown_metrics, verdict


def write_report(contents: ReportContents, folder: Path) -> Path:
    """Write `report.html` and `figures/*.png` into the folder, each file beside and then renamed.

    Returns the path of the page.
    """
    scales = _colour_scales(contents.cases)
    figures = _figures(contents, scales)
    page = _page(contents, figures, scales)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for name, content in figures.items():
        write_atomic(folder / "figures" / f"{name}.png", content)
    write_atomic(folder / "report.html", page.encode("utf-8"))
    return folder / "report.html"


def _colour_scales(cases: list[xr.DataArray]) -> list[ColourScale]:
    """The scale of each case; cases of one variable share one."""
    labels = [quantity_label(case) for case in cases]
    shared = {
        label: colour_scale([case for case, other in zip(cases, labels, strict=True) if other == label], label)
        for label in dict.fromkeys(labels)
    }
    return [shared[label] for label in labels]


def _figures(contents: ReportContents, scales: list[ColourScale]) -> dict[str, bytes]:
    """The PNG files by name: scores, training, and one forecast sheet a case."""
    figures = {}
    if contents.metrics:
        figures["scores"] = png(score_figure(contents, shown_metrics(contents)))
    if contents.history:
        figures["training"] = png(training_figure(contents.history))
    for number, (case, scale) in enumerate(zip(contents.cases, scales, strict=True), start=1):
        figures[_sheet_name(number)] = png(forecast_figure(case, scale))
    return figures


def _sheet_name(number: int) -> str:
    return "forecast" if number == 1 else f"forecast-{number}"


def _page(contents: ReportContents, figures: dict[str, bytes], scales: list[ColourScale]) -> str:
    style, script = (_asset(name) for name in ("page.css", "page.js"))
    sections = [
        *_case_sections(contents, figures, scales),
        _score_section(contents),
        _training_section(contents, figures),
        _section("Settings", f"<details><summary>All settings</summary>{_pairs(contents.settings)}</details>"),
        _section("Environment", _pairs(contents.environment)),
    ]
    return Template(_asset("template.html")).substitute(
        title=escape(contents.title),
        verdict=escape(verdict(contents)),
        sections="".join(sections),
        style=style,
        script=script,
        style_hash=_content_hash(style),
        script_hash=_content_hash(script),
    )


def _asset(name: str) -> str:
    return (files("fieldcast.report") / name).read_text(encoding="utf-8")


def _content_hash(text: str) -> str:
    """The name that a content security policy knows an inline script or style by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _section(heading: str, body: str) -> str:
    return f"<section><h2>{escape(heading)}</h2>{body}</section>" if body else ""


def _case_sections(contents: ReportContents, figures: dict[str, bytes], scales: list[ColourScale]) -> list[str]:
    step = thinning(contents.cases)
    sections = []
    for number, (case, scale) in enumerate(zip(contents.cases, scales, strict=True), start=1):
        panels = ", ".join(str(name) for name in case.panel.values)
        sheet = _image(
            figures[_sheet_name(number)],
            f"Contact sheet of {scale.label}: a row each for {panels}; columns are lead times up to the last one",
        )
        body = (
            f"{player_html(case, scale, step)}<details><summary>Lead times side by side</summary>"
            f'<div class="wide sheet">{sheet}</div></details>'
        )
        sections.append(_section(_case_heading(case, number, len(contents.cases)), body))
    return sections


def _case_heading(case: xr.DataArray, number: int, num_cases: int) -> str:
    last_input = int(np.flatnonzero(case.lead_time.values <= np.timedelta64(0, "ns")).max(initial=0))
    name = f"Case {number}" if num_cases > 1 else "Forecast"
    return f"{name}: {quantity_label(case)}, from {time_label(case.valid_time.values[last_input])}"


def _score_section(contents: ReportContents) -> str:
    if not contents.metrics:
        return ""
    attributes = contents.scores.attrs
    counted = {"Split": "split", "samples": "num_samples", "data range": "data_range", "unit space": "unit_space"}
    known = "; ".join(f"{word}: {attributes[key]}" for word, key in counted.items() if key in attributes)
    shown, physical = shown_metrics(contents), contents.spaces[0]
    curves = "".join(_curve(contents, name) for name in shown)
    leads = "".join(f"<div>{lead_table(contents, name, physical)}</div>" for name in shown)
    overall = "".join(
        f"<h3>Over all lead times, {escape(space)} space</h3>{overall_table(contents, space)}"
        for space in contents.spaces
    )
    return _section(
        "Scores",
        f'<p>{escape(known)}</p><div class="curves">{curves}</div>{overall}'
        f'<h3>By lead time, {escape(physical)} space</h3><div class="tables">{leads}</div>',
    )


def _curve(contents: ReportContents, name: str) -> str:
    score = contents.scores[name].sel(space=contents.spaces[0])
    last = score.isel(lead_time=-1)
    units = units_label(str(score.attrs.get(f"units_{contents.spaces[0]}", "")))
    ends = ", ".join(f"{model} {number_label(float(last.sel(model=model)))}" for model in contents.models)
    alternative = f"Curves of {score.attrs.get('long_name', name)}{units} against lead time; at the last one: {ends}"
    light, dark = (png(score_figure(contents, [name])), png(score_figure(contents, [name], DARK)))
    return _picture(light, dark, alternative)


def _training_section(contents: ReportContents, figures: dict[str, bytes]) -> str:
    if not contents.history:
        return ""
    last = contents.history[-1]
    losses = [f"{key.replace('_', ' ')} {number_label(last[key])}" for key in _losses_of(last)]
    reached = f"step {last['step']}, {', '.join(losses)}"
    dark = png(training_figure(contents.history, DARK))
    picture = _picture(
        figures["training"], dark, f"Curves of the loss and the learning rate over steps; last: {reached}"
    )
    return _section("Training", f'<p>Last: {escape(reached)}.</p><div class="curves">{picture}</div>')


def _losses_of(row: dict) -> list[str]:
    return [key for key in ("train_loss", "validation_loss") if row.get(key) is not None]


def _image(content: bytes, alternative: str) -> str:
    return f'<img src="{data_address(content)}" alt="{escape(alternative)}">'


def _picture(light: bytes, dark: bytes, alternative: str) -> str:
    source = f'<source media="(prefers-color-scheme: dark)" srcset="{data_address(dark)}">'
    return f"<picture>{source}{_image(light, alternative)}</picture>"


def _pairs(values: dict) -> str:
    """Nested plain values as a table of dotted keys."""
    rows = "".join(
        f'<tr><th scope="row">{escape(key)}</th><td>{escape(value)}</td></tr>' for key, value in _flat(values)
    )
    return f'<div class="wide"><table class="pairs"><tbody>{rows}</tbody></table></div>' if rows else ""


def _flat(values: dict, above: str = "") -> list[tuple[str, str]]:
    pairs = []
    for key, value in values.items():
        path = f"{above}{key}"
        if isinstance(value, dict) and value:
            pairs += _flat(value, f"{path}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
            pairs.append((path, text))
    return pairs
