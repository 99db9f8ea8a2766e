"""The HTML page: one file that asks nothing of a network, with every text escaped."""

import json
from collections.abc import Iterator
from html import escape
from pathlib import Path

import numpy as np

from fieldcast.files import write_atomic
from fieldcast.report.contents import ReportContents, ReportPart
from fieldcast.report.curves import curves_html, shown_metrics
from fieldcast.report.document import document_html
from fieldcast.report.elements import Section, details_html, row_heading, table_html
from fieldcast.report.ensembles import ensembles_html
from fieldcast.report.events import events_html
from fieldcast.report.figures import forecast_figure, png, score_figure, training_figure
from fieldcast.report.frames import Shown, encode
from fieldcast.report.hydrographs import hydrograph_figure, hydrographs_html
from fieldcast.report.kernels import kernel_figure, kernels_html, outputs_in_detail
from fieldcast.report.player import case_html
from fieldcast.report.scale import colour_scale
from fieldcast.report.spectra import spectra_html
from fieldcast.report.tables import BETTER, MARKS_NOTE, benchmark_table, lead_table, overall_table, stations_html
from fieldcast.report.training_curves import training_html
from fieldcast.report.verdict import interval_note, verdicts
from fieldcast.report.wording import quantity_label

NUM_OPEN_CASES = 3  # of a part, the others are to unfold
NUM_KERNEL_FIGURES = 3
FACTS = {
    "split": "split",
    "samples": "num_samples",
    "data range": "data_range",
    "unit space": "unit_space",
    "members of an ensemble": "num_members",
    "precision": "precision",
    "training step": "step",
    "events": "event",
    "independent blocks": "num_blocks",
    "length of a block": "block_length",
    "left out": "left_out",
}


def write_report(contents: ReportContents, folder: Path) -> Path:
    """Write `report.html` and `figures/*.png` into the folder, each file beside and then renamed.

    Returns the path of the page.
    """
    shown = [_shown(part) for part in contents.parts]
    page = page_html(contents, shown)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for name, content in _figures(contents, shown):
        write_atomic(folder / "figures" / f"{name}.png", content)
    return write_atomic(folder / "report.html", page.encode("utf-8"))


def _shown(part: ReportPart) -> list[Shown]:
    """The frames of each case with their colours; cases of one variable share a scale."""
    frames = [case.frames for case in part.cases]
    labels = [quantity_label(values) for values in frames]
    scales = {
        label: colour_scale([values for values, other in zip(frames, labels, strict=True) if other == label], label)
        for label in dict.fromkeys(labels)
    }
    return [Shown(values, scales[label]) for values, label in zip(frames, labels, strict=True)]


def _figures(contents: ReportContents, shown: list[list[Shown]]) -> Iterator[tuple[str, bytes]]:
    """The PNG files with their names: scores of each part, training, and one forecast sheet a case."""
    for number, part in enumerate(contents.parts, start=1):
        if names := shown_metrics(part):
            yield _numbered("scores", number), png(score_figure(part, names))
    if any(contents.histories.values()):
        yield "training", png(training_figure(contents.histories))
    for number, case in enumerate([case for cases in shown for case in cases], start=1):
        yield _numbered("forecast", number), png(forecast_figure(case.frames, case.scale))
    if contents.kernels is not None:
        for number, output in enumerate(outputs_in_detail(contents.kernels)[:NUM_KERNEL_FIGURES], start=1):
            yield _numbered("kernel", number), png(kernel_figure(contents.kernels, output))
    for number, part in enumerate(contents.parts, start=1):
        if part.hydrographs is not None:
            yield _numbered("hydrographs", number), png(hydrograph_figure(part.hydrographs))


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-{number}"


def page_html(contents: ReportContents, shown: list[list[Shown]] | None = None) -> str:
    """The page alone; ``shown`` are the frames of each part's cases, where they are ready."""
    shown = [_shown(part) for part in contents.parts] if shown is None else shown
    verdict = "".join(_verdict_html(part, len(contents.parts) > 1) for part in contents.parts)
    return document_html(contents.title, verdict, list(_sections(contents, shown)))


def _verdict_html(part: ReportPart, named: bool) -> str:
    """What can be claimed, and below it by how much."""
    name = f"<h2>{escape(part.name)}</h2>" if named else ""
    lines = []
    for verdict in verdicts(part):
        more = "".join(f"<li>{escape(line)}</li>" for line in verdict.comparisons)
        lines.append(f"<p><strong>{escape(verdict.claim)}</strong></p>" + (f"<ul>{more}</ul>" if more else ""))
    note = f'<p class="note">{escape(interval_note(part))}</p>' if part.plain_metrics else ""
    return f'<div class="verdict">{name}{"".join(lines)}{note}</div>'


def _sections(contents: ReportContents, shown: list[list[Shown]]) -> Iterator[Section]:
    if contents.table:
        yield Section("Benchmark", benchmark_table(contents.table))
    flat = [case for cases in shown for case in cases]
    step, encoded = encode(flat) if flat else (1, [])
    addresses = iter(encoded)
    for part, cases in zip(contents.parts, shown, strict=True):
        prefix = f"{part.name}: " if len(contents.parts) > 1 else ""
        bodies = {
            "Cases to look at": "".join(
                case_html(case, frames, next(addresses), step, is_open=number < NUM_OPEN_CASES)
                for number, (case, frames) in enumerate(zip(part.cases, cases, strict=True))
            ),
            "Scores against lead time": curves_html(part),
            "Score tables": _tables_html(part),
            "Events": events_html(part),
            "Power spectra": spectra_html(part),
            "Ensemble": ensembles_html(part),
            "Hydrographs": "" if part.hydrographs is None else hydrographs_html(part.hydrographs),
            "Stations": stations_html(part),
            "Conventions": _conventions_html(part),
        }
        for heading, body in bodies.items():
            yield Section(prefix + heading, body)
    if contents.kernels is not None:
        yield Section("Kernels", kernels_html(contents.kernels))
    yield Section("Training", training_html(contents.histories))
    yield Section("Settings, versions, seed", _settings_html(contents))


def _tables_html(part: ReportPart) -> str:
    if not part.plain_metrics:
        return ""
    first, *others = (overall_table(part, space) for space in part.spaces)
    body = f'<p class="note">{escape(MARKS_NOTE)}</p>{first}'
    body += "".join(details_html(f"In {space} space", table) for space, table in zip(part.spaces[1:], others) if table)
    by_lead = "".join(
        lead_table(part, name, space)
        for space in part.shown_spaces
        for name in part.plain_metrics
        if part.models_with(name, space)
    )
    return body + details_html("By lead time", f'<div class="tables">{by_lead}</div>')


def _conventions_html(part: ReportPart) -> str:
    """How each score was taken."""
    if not part.metrics:
        return ""
    attributes = part.scores.attrs
    facts = _pairs({word: attributes[key] for word, key in FACTS.items() if attributes.get(key) not in (None, "")})
    rows = []
    for name in part.metrics:
        known = part.scores[name].attrs
        units = "; ".join(str(known.get(f"units_{space}", "")) for space in part.spaces)
        words = (known.get("long_name", ""), known.get("convention", ""), BETTER[part.orientation(name)], units)
        cells = "".join(f'<td class="words">{escape(str(word))}</td>' for word in words)
        rows.append(row_heading(name, str(known.get("family", ""))) + cells)
    headings = ["score", "name", "convention", "which is better", f"units ({'; '.join(part.spaces)})"]
    table = table_html(headings, rows, "How each score is taken")
    return f"{facts}{details_html('How each score is taken', table)}"


def _settings_html(contents: ReportContents) -> str:
    seed = f"<p>Seed: {escape(str(contents.settings['seed']))}.</p>" if "seed" in contents.settings else ""
    settings = _pairs(contents.settings)
    return seed + _pairs(contents.environment) + (details_html("All settings", settings) if settings else "")


def _pairs(values: dict) -> str:
    """Nested plain values as a table of dotted keys."""
    rows = "".join(f'<tr>{row_heading(key)}<td class="words">{escape(value)}</td></tr>' for key, value in _flat(values))
    return f'<div class="wide"><table class="pairs"><tbody>{rows}</tbody></table></div>' if rows else ""


def _flat(values: dict, above: str = "") -> list[tuple[str, str]]:
    pairs = []
    for key, value in values.items():
        path = f"{above}{key}"
        if isinstance(value, dict) and value:
            pairs += _flat(value, f"{path}.")
        else:
            # Attributes of scores that were read from a file are numpy's numbers, which JSON does not know.
            plain = value.item() if isinstance(value, np.generic) else value
            text = plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False, default=str)
            pairs.append((path, text))
    return pairs
