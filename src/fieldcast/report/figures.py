"""The report's figures, drawn with matplotlib's objects and no global state.

P panels, L lead times.
"""

import io
import math
from dataclasses import dataclass

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure

from fieldcast.lead_times import lead_labels, lead_unit
from fieldcast.report.contents import BASELINES, ReportContents, row_zero_is_bottom, units_label
from fieldcast.report.scale import ColourScale

# After Okabe and Ito: colours that the colour-blind can tell apart and that hold on light and dark ground.
MODEL_COLOURS = ("#1f83c7", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = "osD^vP"
BASELINE_COLOUR = "#808080"
BASELINE_STYLES = {"persistence": "--", "climatology": ":", "optical-flow": "-."}
MAX_SHEET_COLUMNS = 6
MAP_WIDTH = 1.9  # inches
RESOLUTION = 160  # dots per inch


@dataclass(frozen=True)
class Theme:
    """Ground and ink of a figure."""

    ground: str
    ink: str
    grid: str


LIGHT = Theme("#ffffff", "#1c2127", "#d9dde2")
DARK = Theme("#171b21", "#e4e8ed", "#3a424d")


def png(figure: Figure) -> bytes:
    """The figure as a PNG file, without date or version so that equal contents give equal bytes."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def score_figure(contents: ReportContents, names: list[str], theme: Theme = LIGHT) -> Figure:
    """Curves of the named metrics against lead time, one panel a metric, one line a model."""
    figure = Figure(figsize=(4.6 * len(names), 3.5), dpi=RESOLUTION, layout="constrained", facecolor=theme.ground)
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        _draw_score(axes, contents, name)
        _apply_theme(axes, theme)
    return figure


def _draw_score(axes: Axes, contents: ReportContents, name: str) -> None:
    space = contents.spaces[0]
    score = contents.scores[name].sel(space=space)
    unit, size = lead_unit(score.lead_time.values)
    leads = score.lead_time.values / np.timedelta64(size, "s")
    for number, model in enumerate(contents.models):
        axes.plot(
            leads, score.sel(model=model).values, label=_plain(model), markersize=3.5, **_line_style(model, number)
        )
    if not np.isfinite(score.values).any():
        axes.text(0.5, 0.5, "undefined everywhere", ha="center", va="center", transform=axes.transAxes)
    axes.set_title(_plain(score.attrs.get("long_name", name)), fontsize="medium")
    axes.set_ylabel(_plain(f"{name.upper()}{units_label(str(score.attrs.get(f'units_{space}', '')))}"))
    axes.set_xlabel(f"lead time ({unit})")
    axes.legend(frameon=False, fontsize="small", handlelength=3)


def _line_style(model: str, number: int) -> dict:
    if model in BASELINES:
        return {"color": BASELINE_COLOUR, "linestyle": BASELINE_STYLES[model], "marker": "."}
    return {"color": MODEL_COLOURS[number % len(MODEL_COLOURS)], "marker": MARKERS[number % len(MARKERS)]}


def training_figure(history: list[dict], theme: Theme = LIGHT) -> Figure:
    """Loss of training and validation over the steps, and the learning rate below."""
    figure = Figure(figsize=(6.4, 4.2), dpi=RESOLUTION, layout="constrained", facecolor=theme.ground)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    for key, label, colour in (("train_loss", "training", 0), ("validation_loss", "validation", 1)):
        steps, values = _column(history, key)
        marker = MARKERS[colour] if len(steps) <= 60 else None
        upper.plot(steps, values, color=MODEL_COLOURS[colour], marker=marker, markersize=3, label=label)
    _use_log_scale(upper, [value for key in ("train_loss", "validation_loss") for value in _column(history, key)[1]])
    lower.plot(*_column(history, "learning_rate"), color=BASELINE_COLOUR)
    lower.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    upper.set_ylabel("loss")
    lower.set_ylabel("learning rate")
    lower.set_xlabel("step")
    upper.legend(frameon=False, fontsize="small")
    for axes in (upper, lower):
        _apply_theme(axes, theme)
    return figure


def _column(history: list[dict], key: str) -> tuple[list[float], list[float]]:
    """Steps and values of the rows that have a finite value under ``key``."""
    rows = [(row["step"], row[key]) for row in history if row.get(key) is not None and math.isfinite(row[key])]
    return [step for step, _ in rows], [value for _, value in rows]


def _use_log_scale(axes: Axes, values: list[float]) -> None:
    if values and min(values) > 0 and max(values) > 10 * min(values):
        axes.set_yscale("log")


def forecast_figure(case: xr.DataArray, scale: ColourScale) -> Figure:
    """A contact sheet: one row a panel, up to six lead times as columns, and the colour bar with units."""
    case = _sheet_columns(case)
    num_rows, num_columns, height, width = case.shape
    map_height = MAP_WIDTH * min(max(height / width, 0.25), 4)
    # Fixed margins: matplotlib's own layout takes seconds for this many maps.
    left, right, top, bottom = 0.4, 1.3, 0.35, 0.15
    size = (left + num_columns * MAP_WIDTH + right, top + num_rows * map_height + bottom)
    figure = Figure(figsize=size, dpi=RESOLUTION, facecolor=LIGHT.ground)
    edges = {"left": left / size[0], "right": 1 - right / size[0], "top": 1 - top / size[1], "bottom": bottom / size[1]}
    cells = figure.subplots(num_rows, num_columns, squeeze=False, gridspec_kw={**edges, "wspace": 0.05, "hspace": 0.05})
    _draw_maps(cells, case, scale)
    bar_height = min(0.8 * (edges["top"] - edges["bottom"]), 4 / size[1])
    bar_bottom = (edges["top"] + edges["bottom"] - bar_height) / 2
    _draw_colour_bar(figure.add_axes((1 - 1.15 / size[0], bar_bottom, 0.2 / size[0], bar_height)), scale)
    return figure


def _draw_maps(cells: np.ndarray, case: xr.DataArray, scale: ColourScale) -> None:
    origin = "lower" if row_zero_is_bottom(case) else "upper"
    for position, axes in np.ndenumerate(cells):
        axes.imshow(scale.image(case.values[position]), origin=origin, interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_color(LIGHT.grid)
    for axes, label in zip(cells[0], lead_labels(case.lead_time.values), strict=True):
        axes.set_title(label, fontsize="medium")
    for axes, panel in zip(cells[:, 0], case.panel.values, strict=True):
        axes.set_ylabel(_plain(panel))


def _sheet_columns(case: xr.DataArray) -> xr.DataArray:
    """The forecast's lead times, thinned evenly to what fits on a sheet; all of them where none is a forecast."""
    ahead = np.flatnonzero(case.lead_time.values > np.timedelta64(0, "ns"))
    ahead = ahead if ahead.size else np.arange(case.sizes["lead_time"])
    chosen = np.unique(np.linspace(0, len(ahead) - 1, min(len(ahead), MAX_SHEET_COLUMNS)).round().astype(int))
    return case.isel(lead_time=ahead[chosen])


def _draw_colour_bar(axes: Axes, scale: ColourScale) -> None:
    boundaries = np.asarray(scale.boundaries)
    inner = ListedColormap(scale.colours[1:-1]).with_extremes(under=scale.colours[0], over=scale.colours[-1])
    norm = BoundaryNorm(boundaries, len(boundaries) - 1)
    bar = axes.figure.colorbar(
        ScalarMappable(norm, inner),
        cax=axes,
        extend="both",
        spacing="uniform" if scale.discrete else "proportional",
        ticks=boundaries if scale.discrete else np.linspace(boundaries[0], boundaries[-1], 6),
        format="%g" if scale.discrete else "%.3g",
        label=_plain(scale.label),
    )
    bar.outline.set_visible(False)
    bar.minorticks_off()


def _apply_theme(axes: Axes, theme: Theme) -> None:
    axes.set_facecolor(theme.ground)
    axes.grid(color=theme.grid, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=theme.ink, which="both", labelsize="small")
    axes.spines[:].set_color(theme.grid)
    axes.spines[["top", "right"]].set_visible(False)
    texts = [axes.title, axes.xaxis.label, axes.yaxis.label, axes.yaxis.get_offset_text(), *axes.texts]
    legend = axes.get_legend()
    texts += legend.get_texts() if legend else []
    for text in texts:
        text.set_color(theme.ink)


def _plain(text) -> str:
    """Text that matplotlib draws as it is, since a dollar sign would start a formula."""
    return str(text).replace("$", r"\$")
