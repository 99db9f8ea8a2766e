"""The kernels of a forecaster as a section of the report, or as a page of their own."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
import xarray as xr

from fieldcast.files import write_atomic
from fieldcast.report.chart import key_html
from fieldcast.report.document import document_html
from fieldcast.report.elements import Section
from fieldcast.report.kernels.detail import detail_html
from fieldcast.report.kernels.fidelity import summary_html, verdict_of
from fieldcast.report.kernels.gallery import MAX_SMALL_MAPS, card_html, field_strokes
from fieldcast.report.kernels.maps import INSIDE, LEVELS
from fieldcast.report.kernels.view import KernelView
from fieldcast.report.wording import number_label

MAX_DETAILS = 12
MAX_PIXELS = 2_000_000  # of all details together, so that the page stays below 5 MB
READING_NOTE = (
    "A kernel says by how much the output changes for one unit more of a field, at a place and some time ago. Summed "
    "over the map it is a lag curve: for rain, the unit hydrograph of the network. Red raises the output, blue "
    f"lowers it. Colours end where smaller values hold {INSIDE:.0%} of a map's sum of squares, at the same value for "
    f"all lags of a field of an output; values under the pointer are rounded to 1/{LEVELS} of that end. The curves of "
    "a card are each drawn to its own largest value. R² leaves a constant error of the surrogate out, NSE does not."
)


def write_kernels_page(kernels: xr.Dataset, path: Path, details: Sequence[str] = ()) -> Path:
    """Write a page of kernels alone, one file that asks nothing of a network.

    Args:
        kernels: as `kernels_html` takes them.
        path: of the page.
        details: as `kernels_html` takes them.
    """
    title = str(kernels.attrs.get("title", "Linear kernels"))
    page = document_html(title, "", [Section("Kernels", kernels_html(kernels, details))])
    return write_atomic(path, page.encode("utf-8"))


def kernels_html(kernels: xr.Dataset, details: Sequence[str] = ()) -> str:
    """A gallery of all outputs, sorted by name, of which some open to all that is known of them.

    Args:
        kernels: ``kernel_FIELD`` (output, lag, row, column) in units of the output per unit of the field, and beside
            it ``lag_curve_error_FIELD`` (output, lag), ``contribution_FIELD``, ``integrated_gradients_FIELD``,
            ``occlusion_FIELD`` of the kernel's dimensions, ``r2`` and ``nse`` (surrogate, against, output),
            ``r2_by_CLASS`` (surrogate, against, class, output), where they are known. Attributes: ``surrogate``, the
            one whose kernel this is, ``method``, ``num_sequences``, and ``threshold``, the R2 against the network
            below which a kernel counts as failed.
        details: names of the outputs that open; the first 12 by default.

    Raises:
        DataError: for kernels that do not look like this, or an output that is not there.
    """
    view = KernelView(kernels)
    opened = outputs_in_detail(kernels, details)
    cards = [
        card_html(
            view,
            output,
            detail_html(view, output, MAX_PIXELS // len(opened)) if output in opened else "",
            is_open=output == opened[0],
        )
        for output in view.outputs
    ]
    key = key_html(field_strokes(view))
    return f'{_introduction(view, len(opened))}{summary_html(view)}{key}<div class="cards">{"".join(cards)}</div>'


def outputs_in_detail(kernels: xr.Dataset, details: Sequence[str] = ()) -> list[str]:
    """The outputs that open in the gallery: those that were asked for, or the first by name.

    Raises:
        DataError: for one that is not there.
    """
    view = KernelView(kernels)
    for output in details:
        view.number(output)
    return [output for output in view.outputs if output in details] or view.outputs[:MAX_DETAILS]


def _introduction(view: KernelView, num_details: int) -> str:
    """How to read the pictures, what the kernel is, and for how many outputs its surrogate fails."""
    attributes = view.kernels.attrs
    known = {"surrogate": "Surrogate", "method": "method", "num_sequences": "sequences"}
    said = "; ".join(f"{word}: {attributes[name]}" for name, word in known.items() if attributes.get(name) is not None)
    verdicts = [verdict_of(view, output) for output in view.outputs]
    tested = [verdict.r2 for verdict in verdicts if np.isfinite(verdict.r2)]
    failed, threshold = sum(r2 < verdicts[0].threshold for r2 in tested), number_label(verdicts[0].threshold)
    claim = "No surrogate was tested against the network on held-out sequences."
    if tested:
        median = number_label(float(np.median(tested)), 2)
        claim = f"R² of the surrogates against the network on held-out sequences: {median} in the median; "
        claim += f"{failed} of {len(verdicts)} fail, with less than {threshold}."
        claim += f" {len(verdicts) - len(tested)} were not tested." if len(tested) < len(verdicts) else ""
    fewer = f" {num_details} of {len(verdicts)} cards open to a detail." if num_details < len(verdicts) else ""
    if len(view.fields) > MAX_SMALL_MAPS:
        fewer += f" Small maps are of the first {MAX_SMALL_MAPS} fields."
    ends = f"{said}. " if said else ""
    return (
        f"<p><strong>{escape(claim)}</strong></p>"
        f'<p class="note">{escape(ends + READING_NOTE)} A card opens to its detail.{fewer}</p>'
    )
