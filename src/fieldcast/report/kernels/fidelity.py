"""Whether a kernel speaks for the network: how well the linear surrogate reproduces it, and what was observed."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from fieldcast.explain.fidelity import NETWORK, OBSERVED, THRESHOLD
from fieldcast.report.elements import row_heading, table_html
from fieldcast.report.kernels.view import KernelView
from fieldcast.report.wording import number_label

SCORES = {"r2": "R²", "nse": "NSE"}
TABLE_DIMENSIONS = ("surrogate", "against", "output")


class Verdict(NamedTuple):
    """R2 of a surrogate against the network on held-out sequences, NaN where unknown, and what it has to reach."""

    r2: float
    threshold: float

    @property
    def holds(self) -> bool:
        """Whether the kernel speaks for the network."""
        return bool(self.r2 >= self.threshold)

    @property
    def words(self) -> str:
        """The score in words."""
        return "R² unknown" if np.isnan(self.r2) else f"R² = {number_label(self.r2, 2)}"

    @property
    def stamp(self) -> str:
        """What stands across a picture of a kernel that fails, "" where it holds."""
        if self.holds:
            return ""
        return "surrogate not tested" if np.isnan(self.r2) else f"surrogate fails: {self.words}"


def verdict_of(view: KernelView, output: str) -> Verdict:
    """The verdict on the surrogate whose kernel is shown."""
    kernels = view.kernels
    threshold = float(kernels.attrs.get("threshold", THRESHOLD))
    name = kernels.attrs.get("surrogate")
    known = "r2" in kernels and NETWORK in kernels["against"].values and name in kernels["surrogate"].values
    r2 = float(kernels["r2"].sel(surrogate=name, against=NETWORK)[view.number(output)]) if known else np.nan
    return Verdict(r2, threshold)


def fidelity_html(view: KernelView, output: str) -> str:
    """Tables of one output: surrogates against network and observations, then by class of flow, season, ..."""
    chosen = view.kernels.isel(output=view.number(output))
    body = _overall(chosen, "How well the linear surrogates do on held-out sequences")
    classes = [name for name in map(str, chosen.data_vars) if name.partition("_by_")[0] in SCORES and "_by_" in name]
    for name in classes:
        if set(TABLE_DIMENSIONS[:2]) < set(map(str, chosen[name].dims)):
            body += "".join(_by_class(chosen, name, str(against)) for against in chosen["against"].values)
    return f'<div class="tables">{body}</div>' if body else ""


def summary_html(view: KernelView) -> str:
    """The table of medians over all outputs, where there are several."""
    known = [name for name in SCORES if name in view.kernels]
    if len(view.outputs) < 2 or not known:
        return ""
    medians = view.kernels[known].median("output", keep_attrs=True)
    return _overall(medians, f"Median of {len(view.outputs)} outputs, held-out sequences")


def _overall(chosen: xr.Dataset, caption: str) -> str:
    """Rows surrogates, columns scores against network and observed."""
    known = [name for name in SCORES if name in chosen]
    if not known:
        return ""
    columns = [(name, str(against)) for against in chosen["against"].values for name in known]
    columns = [(name, against) for name, against in columns if np.isfinite(chosen[name].sel(against=against)).any()]
    rows = [
        _row(chosen, surrogate, [float(chosen[name].sel(surrogate=surrogate, against=to)) for name, to in columns])
        for surrogate in chosen["surrogate"].values
    ]
    headings = [f"{SCORES[name]} against the {_noun(against)}" for name, against in columns]
    return table_html(["surrogate", *headings], rows, caption) if columns else ""


def _by_class(chosen: xr.Dataset, name: str, against: str) -> str:
    """Rows surrogates, columns classes."""
    values = chosen[name].sel(against=against)
    score, _, word = name.partition("_by_")
    along = next(str(dimension) for dimension in values.dims if dimension != "surrogate")
    if not np.isfinite(values).any():
        return ""
    rows = [
        _row(chosen, surrogate, values.sel(surrogate=surrogate).values.tolist())
        for surrogate in chosen["surrogate"].values
    ]
    labels = chosen[along].values if along in chosen.coords else np.arange(values.sizes[along])
    caption = f"{SCORES[score]} by {word.replace('_', ' ')}, against the {_noun(against)}"
    return table_html(["surrogate", *map(str, labels)], rows, caption)


def _row(chosen: xr.Dataset, surrogate: str, values: Sequence[float]) -> str:
    note = "its kernel is shown" if surrogate == chosen.attrs.get("surrogate") else ""
    cells = "".join(
        f"<td>{number_label(value, 3)}</td>" if np.isfinite(value) else '<td class="absent-value">unknown</td>'
        for value in values
    )
    return row_heading(str(surrogate), note) + cells


def _noun(against: str) -> str:
    return "observations" if against == OBSERVED else against
