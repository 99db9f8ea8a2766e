"""The gallery: a small card for each output, which opens to its detail where there is one.

Shapes: T lags, H rows, W columns.
"""

from html import escape

import numpy as np

from fieldcast.data.dataset import spread
from fieldcast.report.frames import data_address, frame_png
from fieldcast.report.kernels.fidelity import verdict_of
from fieldcast.report.kernels.maps import diverging_scale, limit_of, stamp_html, thinned
from fieldcast.report.kernels.view import Field, KernelView, lag_curve, lag_sum
from fieldcast.report.series import Stroke, strokes

MAX_SIDE = 40  # pixels of a small map
MAX_SMALL_MAPS = 3  # fields of a card
WIDTH, HEIGHT, MARGIN = 150, 36, 3
MAX_POINTS = 60  # of a small curve


def field_strokes(view: KernelView) -> dict[str, Stroke]:
    """The colour of each field's curves, by its label."""
    return strokes([field.label for field in view.fields], [])


def card_html(view: KernelView, output: str, detail_html: str, is_open: bool) -> str:
    """The card of one output."""
    verdict = verdict_of(view, output)
    heading = view.heading(output)
    maps = "".join(_small_map(view, field, output) for field in view.fields[:MAX_SMALL_MAPS])
    score = f'<span class="score {"" if verdict.holds else "loss-score"}">{escape(verdict.words)}</span>'
    kind = "card-maps struck" if verdict.stamp else "card-maps"
    body = (
        f'<span class="card-name"><b>{escape(heading)}</b> {score}</span>'
        f'<span class="{kind}">{maps}{stamp_html(verdict.stamp)}</span>{_small_curves(view, output)}'
    )
    if not detail_html:
        return f'<div class="card">{body}</div>'
    return f'<details class="card"{" open" if is_open else ""}><summary>{body}</summary>{detail_html}</details>'


def _small_map(view: KernelView, field: Field, output: str) -> str:
    summed = lag_sum(view.kernel(field, output))
    small = thinned(summed, -(-max(summed.shape) // MAX_SIDE))
    address = data_address(frame_png(small, diverging_scale(limit_of(small), field.label)))
    return f'<img src="{address}" alt="{escape(f"Influence of {field.label} on {output}, summed over lag")}">'


def _small_curves(view: KernelView, output: str) -> str:
    """Each field's lag curve as a share of its own largest value, from the newest lag on."""
    across = np.linspace(0, WIDTH, len(view.lags[0]))
    kept = spread(len(across), MAX_POINTS)
    lines = ""
    for field, stroke in zip(view.fields, field_strokes(view).values(), strict=True):
        curve = lag_curve(view.kernel(field, output))
        heights = HEIGHT / 2 - (HEIGHT / 2 - MARGIN) * curve / (np.abs(curve).max() or 1.0)
        path = "L".join(f"{x:.0f} {y:.0f}" for x, y in zip(across[kept], heights[kept], strict=True))
        lines += f'<path class="{stroke.style} small-line" d="M{path}"/>'
    ground = f'<path class="grid" d="M0 {HEIGHT // 2}H{WIDTH}"/>'
    label = escape(f"Lag curves of {output}")
    box = f'viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none"'
    return f'<svg class="small-curves" role="img" aria-label="{label}" {box}>{ground}{lines}</svg>'
