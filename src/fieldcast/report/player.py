"""The animation of a case: its frames as small palette PNG files inside the page, and the legend of their colours.

P panels, L lead times, H rows, W columns.
"""

import base64
import io
import json
import math
from html import escape

import numpy as np
import xarray as xr
from PIL import Image

from fieldcast.lead_times import lead_labels
from fieldcast.report.contents import row_zero_is_bottom, time_label
from fieldcast.report.scale import ColourScale

# A palette pixel takes a byte at most before compression, so this bounds the size of the page.
MAX_PIXELS = 4_000_000
LEGEND_WIDTH = 400


def thinning(cases: list[xr.DataArray]) -> int:
    """Show every n-th row and column, so that all frames of all cases stay below ``MAX_PIXELS``."""
    return max(1, math.ceil(math.sqrt(sum(case.size for case in cases) / MAX_PIXELS)))


def data_address(content: bytes) -> str:
    """A PNG file as an address that holds the whole file."""
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")


def frame_png(values: np.ndarray, scale: ColourScale) -> bytes:
    """Values (H, W) as a palette PNG, the first row at the top."""
    height, width = values.shape
    image = Image.frombytes("P", (width, height), scale.positions(values).tobytes())
    image.putpalette(scale.palette().tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def player_html(case: xr.DataArray, scale: ColourScale, step: int) -> str:
    """The player of one case: panels side by side, buttons, slider, time on screen, legend."""
    labels = _time_labels(case)
    start = _start(case)
    frames = _frame_addresses(case, scale, step)
    names = [str(name) for name in case.panel.values]
    data = {"frames": frames, "panels": names, "labels": labels, "quantity": scale.label, "start": start}
    panels = "".join(
        _panel_html(name, addresses[start], f"Map of {scale.label}: {name}, {labels[start]}")
        for name, addresses in zip(names, frames, strict=True)
    )
    thinned = f'<p class="note">Every {_ordinal(step)} row and column is shown.</p>' if step > 1 else ""
    return (
        '<div class="player" tabindex="0" role="group" aria-label="Animation of the case">'
        f'<p class="time"><output>{escape(labels[start])}</output></p><div class="panels">{panels}</div>'
        f"{_controls_html(len(labels), start)}{legend_svg(scale)}{thinned}"
        f'<script type="application/json">{script_json(data)}</script></div>'
    )


def _start(case: xr.DataArray) -> int:
    """Half way into the forecast, where models differ; the last frame where nothing is forecast."""
    ahead = np.flatnonzero(case.lead_time.values > np.timedelta64(0, "ns"))
    return int(ahead[len(ahead) // 2]) if ahead.size else case.sizes["lead_time"] - 1


def script_json(data: dict) -> str:
    """JSON that can stand inside a script element whatever its texts are."""
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c").replace("&", "\\u0026")


def _time_labels(case: xr.DataArray) -> list[str]:
    leads = lead_labels(case.lead_time.values)
    now = np.timedelta64(0, "ns")
    kinds = ["" if lead > now else ", input" for lead in case.lead_time.values]
    return [
        f"{time_label(valid)} · {lead}{kind}"
        for valid, lead, kind in zip(case.valid_time.values, leads, kinds, strict=True)
    ]


def _frame_addresses(case: xr.DataArray, scale: ColourScale, step: int) -> list[list[str | None]]:
    """Addresses (P, L) of the frames; None where a model has no forecast because the frame is an input."""
    values = case.values[:, :, ::step, ::step]
    values = values[:, :, ::-1] if row_zero_is_bottom(case) else values
    inputs = case.lead_time.values <= np.timedelta64(0, "ns")
    addresses = []
    for panel in values:
        absent = [is_input and bool(np.isnan(frame).all()) for frame, is_input in zip(panel, inputs, strict=True)]
        shown = zip(panel, absent, strict=True)
        addresses.append([None if gone else data_address(frame_png(frame, scale)) for frame, gone in shown])
    return addresses


def _panel_html(name: str, address: str | None, alternative: str) -> str:
    source = f'src="{address}"' if address else "hidden"
    return (
        f'<figure><figcaption>{escape(name)}</figcaption><div class="frame"><img {source} alt="{escape(alternative)}">'
        '<span class="absent">input: no forecast yet</span></div></figure>'
    )


def _controls_html(num_frames: int, start: int) -> str:
    return (
        '<div class="controls"><button type="button" class="play" aria-label="Play">▶ Play</button>'
        '<button type="button" class="back" aria-label="One frame back">◀</button>'
        '<button type="button" class="forward" aria-label="One frame forward">▶</button>'
        f'<input type="range" min="0" max="{num_frames - 1}" value="{start}" step="1" aria-label="Time"></div>'
    )


def legend_svg(scale: ColourScale) -> str:
    """The colour scale as a bar with its boundaries and units, and the colour of missing values."""
    cell = LEGEND_WIDTH / len(scale.colours)
    cells = "".join(
        f'<rect x="{10 + index * cell:.1f}" y="2" width="{cell + 0.3:.1f}" height="14" fill="{colour}"/>'
        for index, colour in enumerate(scale.colours)
    )
    stride = 1 if scale.discrete else max(1, len(scale.boundaries) // 5)
    ticks = "".join(
        f'<text x="{10 + (index + 1) * cell:.1f}" y="30" text-anchor="middle">{scale.boundaries[index]:.3g}</text>'
        for index in range(0, len(scale.boundaries), stride)
    )
    return (
        f'<svg class="legend" viewBox="0 0 {LEGEND_WIDTH + 20} 36" role="img" '
        f'aria-label="Colour scale of {escape(scale.label)}">{cells}{ticks}</svg>'
        f'<p class="note">{escape(scale.label)}; grey: no value</p>'
    )


def _ordinal(number: int) -> str:
    return {2: "second", 3: "third"}.get(number, f"{number}th")
