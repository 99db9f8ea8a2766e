"""A case on the page: animation, legend of the colours, and the contact sheet that the animation takes its frames from.

P panels, L lead times.
"""

from html import escape

import numpy as np

from fieldcast.lead_times import lead_labels
from fieldcast.report.contents import Case, spread_forecasts
from fieldcast.report.elements import details_html
from fieldcast.report.frames import Shown
from fieldcast.report.scale import MISSING_COLOUR, ColourScale
from fieldcast.report.wording import quantity_label, time_label

LEGEND_WIDTH = 400
NUM_PRINTED = 6  # lead times of a contact sheet on paper
FRAME_MILLISECONDS = 350  # on average
SHORTEST_AND_LONGEST = (0.3, 3.0)  # of this
PAUSE_AT_END = 1050
KEYS_NOTE = "Space plays, arrow keys step, Home and End jump."
Addresses = list[list[str | None]]


def case_html(case: Case, shown: Shown, addresses: Addresses, step: int, is_open: bool) -> str:
    """One case under its heading, to fold and unfold."""
    times = time_labels(shown)
    thinned = f" Every {_ordinal(step)} row and column is shown." if step > 1 else ""
    return (
        f'<details class="case"{" open" if is_open else ""}><summary><h3>{escape(case.heading)}</h3></summary>'
        f'<p class="note">{escape(quantity_label(shown.frames))}, {escape(_given(shown))}.{thinned}</p>'
        f"{_player_html(case, shown, addresses, times)}{legend_svg(shown.scale)}"
        f"{details_html('All times side by side', _sheet_html(shown, addresses, times))}</details>"
    )


def time_labels(shown: Shown) -> list[str]:
    """What the screen says at each frame: valid time and lead time, (L,)."""
    kinds = [", input" if given else "" for given in shown.frames.is_input.values]
    labels = lead_labels(_leads(shown))
    valid_times = shown.frames.valid_time.values
    return [f"{time_label(valid)} · {lead}{kind}" for valid, lead, kind in zip(valid_times, labels, kinds, strict=True)]


def _given(shown: Shown) -> str:
    """What the models were given: frames up to a time, or on both sides of the times that they fill in."""
    times, given = shown.frames.valid_time.values, shown.frames.is_input.values
    if not given.any():
        return f"forecast from before {time_label(times[0])}"
    first, last = np.flatnonzero(given)[[0, -1]]
    if not given.all() and last == len(given) - 1:
        return f"filled in between {time_label(times[first])} and {time_label(times[last])}"
    return f"forecast from {time_label(times[last])}"


def _leads(shown: Shown) -> np.ndarray:
    return shown.frames.lead_time.values


def _start(shown: Shown) -> int:
    """Half way into the forecast, where models differ; the last frame where nothing is forecast."""
    forecast = np.flatnonzero(~shown.frames.is_input.values)
    return int(forecast[len(forecast) // 2]) if forecast.size else len(_leads(shown)) - 1


def _player_html(case: Case, shown: Shown, addresses: Addresses, times: list[str]) -> str:
    """Panels side by side, buttons, slider and time; hidden until the script brings it to life."""
    start = _start(shown)
    height, width = shown.frames.shape[2:]
    panels = "".join(
        f'<figure><figcaption>{escape(name)}</figcaption><div class="frame">'
        f'<img width="{width}" height="{height}" alt="{escape(_alternative(shown, name, times[start]))}">'
        '<span class="absent">input: no forecast</span></div></figure>'
        for name in _panel_names(shown)
    )
    return (
        f'<div class="player" tabindex="0" role="group" data-start="{start}" hidden '
        f'aria-label="Animation: {escape(case.heading)}. {KEYS_NOTE}">'
        f'<p class="time"><output>{escape(times[start])}</output></p><div class="panels">{panels}</div>'
        f"{controls_html(len(addresses[0]), start, 'Time')}</div>"
    )


def controls_html(num_frames: int, start: int, name: str) -> str:
    """Buttons and slider of a player; ``name`` says what the slider moves through."""
    return (
        '<div class="controls"><button type="button" class="play" aria-label="Play">▶ Play</button>'
        '<button type="button" class="back" aria-label="One frame back">◀</button>'
        '<button type="button" class="forward" aria-label="One frame forward">▶</button>'
        f'<input type="range" min="0" max="{num_frames - 1}" value="{start}" step="1" aria-label="{escape(name)}">'
        f'<span class="note keys">{KEYS_NOTE}</span></div>'
    )


def _waits(shown: Shown) -> list[int]:
    """Milliseconds that the animation shows each frame: as its times are apart, and a while at the end."""
    steps = np.diff(_leads(shown)).astype(np.float64)
    shares = steps / steps.mean() if steps.any() else np.ones_like(steps)
    return [*(np.clip(shares, *SHORTEST_AND_LONGEST) * FRAME_MILLISECONDS).round().astype(int).tolist(), PAUSE_AT_END]


def _sheet_html(shown: Shown, addresses: Addresses, times: list[str]) -> str:
    """A table of all frames: a row each panel, a column each time; on paper some forecast times only."""
    printed = spread_forecasts(shown.frames, NUM_PRINTED)
    classes = ["" if lead in printed else ' class="screen"' for lead in range(len(times))]
    leads = lead_labels(_leads(shown))
    head = "".join(
        f'<th scope="col"{kind} data-label="{escape(time)}" data-wait="{wait}">{escape(lead)}</th>'
        for kind, time, lead, wait in zip(classes, times, leads, _waits(shown), strict=True)
    )
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{_row_html(shown, name, row, times, classes)}</tr>'
        for name, row in zip(_panel_names(shown), addresses, strict=True)
    )
    label = f"All times side by side: {shown.scale.label}"
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(label)}"><table class="sheet">'
        f'<thead><tr><th scope="col">{escape("panel")}</th>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _row_html(shown: Shown, name: str, row: list[str | None], times: list[str], classes: list[str]) -> str:
    cells = []
    for address, time, kind in zip(row, times, classes, strict=True):
        image = f'<img src="{address}" alt="{escape(_alternative(shown, name, time))}">' if address else "no forecast"
        cells.append(f"<td{kind}>{image}</td>")
    return "".join(cells)


def _panel_names(shown: Shown) -> list[str]:
    return [str(name) for name in shown.frames.panel.values]


def _alternative(shown: Shown, panel: str, time: str) -> str:
    return f"Map of {shown.scale.label}: {panel}, {time}"


def legend_svg(scale: ColourScale) -> str:
    """The colour scale as a bar with its boundaries and units, and the colour of missing values."""
    cell = LEGEND_WIDTH / len(scale.colours)
    cells = "".join(
        f'<rect x="{10 + number * cell:.1f}" y="2" width="{cell + 0.3:.1f}" height="14" fill="{colour}"/>'
        for number, colour in enumerate(scale.colours)
    )
    stride = 1 if scale.discrete else max(1, len(scale.boundaries) // 5)
    ticks = "".join(
        f'<text x="{10 + (number + 1) * cell:.1f}" y="30">{scale.boundaries[number]:.3g}</text>'
        for number in range(0, len(scale.boundaries), stride)
    )
    missing = f'<rect x="{LEGEND_WIDTH + 24}" y="2" width="14" height="14" fill="{MISSING_COLOUR}"/>'
    ends = f"{scale.boundaries[0]:.3g} to {scale.boundaries[-1]:.3g}"
    return (
        f'<figure class="scale"><figcaption>{escape(scale.label)}</figcaption>'
        f'<svg class="legend" viewBox="0 0 {LEGEND_WIDTH + 100} 36" role="img" '
        f'aria-label="Colour scale of {escape(scale.label)}, from {ends}; grey where there is no value">'
        f'{cells}{ticks}{missing}<text class="missing" x="{LEGEND_WIDTH + 43}" y="13">no value</text></svg></figure>'
    )


def _ordinal(number: int) -> str:
    return {2: "second", 3: "third"}.get(number, f"{number}th")
