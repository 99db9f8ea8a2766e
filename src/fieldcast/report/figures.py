"""The report's figures, drawn with matplotlib's objects and no global state.

P panels, L lead times.
"""

import io
import math

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fieldcast.lead_times import lead_labels, lead_unit
from fieldcast.report.contents import ReportPart, lead_name, row_zero_is_bottom, spread_forecasts, units_label
from fieldcast.report.scale import ColourScale
from fieldcast.report.series import BASELINE_COLOUR, MODEL_COLOURS, Stroke, strokes
from fieldcast.report.training_curves import column, spans_decades

MARKERS = "osD^vP"
MAX_CURVES_IN_ROW = 3
MAX_SHEET_COLUMNS = 6
MAX_MODELS_IN_LEGEND = 3
MAX_CURVES_IN_COLUMN = 9
MAP_WIDTH = 1.9  # inches
GAP = 0.015  # around a map, as a share of its cell
RESOLUTION = 160  # dots per inch
GROUND, INK, GRID = "#ffffff", "#1c2127", "#d9dde2"


def png(figure: Figure) -> bytes:
    """The figure as a PNG file, without date or version so that equal contents give equal bytes."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def score_figure(part: ReportPart, names: list[str]) -> Figure:
    """Curves of the named metrics against lead time, one panel a metric, one line a model, its interval as a band."""
    num_columns = min(len(names), MAX_CURVES_IN_ROW)
    num_rows = math.ceil(len(names) / num_columns)
    size = (4.6 * num_columns, 3.5 * num_rows)
    figure = Figure(figsize=size, dpi=RESOLUTION, layout="constrained", facecolor=GROUND)
    cells = figure.subplots(num_rows, num_columns, squeeze=False).ravel()
    for axes, name in zip(cells, names, strict=False):
        _draw_score(axes, part, name)
        dress(axes)
    for axes in cells[len(names) :]:
        axes.set_axis_off()
    return figure


def _draw_score(axes: Axes, part: ReportPart, name: str) -> None:
    space = part.shown_spaces[0]
    score = part.scores[name].sel(space=space)
    bounds = part.interval(name, space)
    unit, size = lead_unit(score.lead_time.values)
    leads = score.lead_time.values / np.timedelta64(size, "s")
    for model, stroke in strokes(part.trained, part.baselines).items():
        axes.plot(leads, score.sel(model=model).values, label=plain(model), markersize=3, marker=".", **look(stroke))
        if bounds is not None:
            low, high = bounds.sel(model=model).transpose("bound", ...).values
            axes.fill_between(leads, low, high, color=stroke.colour, alpha=0.15, linewidth=0)
    if not np.isfinite(score.values).any():
        axes.text(0.5, 0.5, "undefined everywhere", ha="center", va="center", transform=axes.transAxes)
    axes.set_title(plain(score.attrs.get("long_name", name)), fontsize="medium")
    axes.set_ylabel(plain(f"{name.upper()}{units_label(str(score.attrs.get(f'units_{space}', '')))}"))
    axes.set_xlabel(f"{lead_name(part)} ({unit})")
    axes.legend(frameon=False, fontsize="small", handlelength=3)


def look(stroke: Stroke) -> dict:
    """Colour and dashes of a line as matplotlib takes them."""
    dashes = [float(length) for length in stroke.dashes.split()]
    return {"color": stroke.colour, "linestyle": (0, dashes) if dashes else "solid"}


def training_figure(histories: dict[str, list[dict]]) -> Figure:
    """Loss of training and validation over the steps of each model, and the learning rate below."""
    figure = Figure(figsize=(6.4, 4.2), dpi=RESOLUTION, layout="constrained", facecolor=GROUND)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    shown = []
    for number, (model, history) in enumerate(histories.items()):
        colour, marker = MODEL_COLOURS[number % len(MODEL_COLOURS)], MARKERS[number % len(MARKERS)]
        training, validation = column(history, "train_loss"), column(history, "validation_loss")
        upper.plot(*training, color=colour, linewidth=1, label=plain(f"{model}, training"))
        dots = {"marker": marker, "markersize": 3, "linestyle": "--"}
        upper.plot(*validation, color=colour, label=plain(f"{model}, validation"), **dots)
        lower.plot(*column(history, "learning_rate"), color=colour if len(histories) > 1 else BASELINE_COLOUR)
        shown += [training[1], validation[1]]
    if spans_decades(np.concatenate(shown)):
        upper.set_yscale("log")
    lower.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    upper.set_ylabel("loss")
    lower.set_ylabel("learning rate")
    lower.set_xlabel("step")
    if len(histories) <= MAX_MODELS_IN_LEGEND:
        upper.legend(frameon=False, fontsize="small")
    else:
        # Many names leave no room for the curves: they stand beside them.
        num_columns = math.ceil(len(histories) / MAX_CURVES_IN_COLUMN)
        figure.set_figwidth(figure.get_figwidth() + 2.4 * num_columns)
        figure.legend(loc="outside right upper", frameon=False, fontsize="small", ncols=num_columns)
    for axes in (upper, lower):
        dress(axes)
    return figure


def forecast_figure(case: xr.DataArray, scale: ColourScale) -> Figure:
    """A contact sheet: one row a panel, up to six lead times as columns, and the colour bar with units."""
    case = case.isel(lead_time=spread_forecasts(case, MAX_SHEET_COLUMNS))
    num_rows, num_columns, height, width = case.shape
    map_height = MAP_WIDTH * min(max(height / width, 0.25), 4)
    # Fixed margins: matplotlib's own layout takes seconds for this many maps.
    left, right, top, bottom = 0.4, 1.3, 0.35, 0.15
    size = (left + num_columns * MAP_WIDTH + right, top + num_rows * map_height + bottom)
    figure = Figure(figsize=size, dpi=RESOLUTION, facecolor=GROUND)
    inner = (num_columns * MAP_WIDTH / size[0], num_rows * map_height / size[1])
    _draw_maps(figure.add_axes((left / size[0], bottom / size[1], *inner)), case, scale)
    bar_height = min(0.8 * inner[1], 4 / size[1])
    bar_bottom = bottom / size[1] + (inner[1] - bar_height) / 2
    _draw_colour_bar(figure.add_axes((1 - 1.15 / size[0], bar_bottom, 0.2 / size[0], bar_height)), scale)
    return figure


def _draw_maps(axes: Axes, case: xr.DataArray, scale: ColourScale) -> None:
    """All maps in one pair of axes, a cell each: axes of their own would take seconds."""
    num_rows, num_columns = case.shape[:2]
    values = case.values[:, :, ::-1] if row_zero_is_bottom(case) else case.values
    for row, place in np.ndindex(num_rows, num_columns):
        extent = (place + GAP, place + 1 - GAP, row + 1 - GAP, row + GAP)
        axes.imshow(scale.image(values[row, place]), extent=extent, interpolation="nearest", aspect="auto")
        axes.add_patch(Rectangle((extent[0], extent[3]), 1 - 2 * GAP, 1 - 2 * GAP, fill=False, edgecolor=GRID))
    axes.set(xlim=(0, num_columns), ylim=(num_rows, 0))
    axes.set_xticks(np.arange(num_columns) + 0.5, lead_labels(case.lead_time.values))
    panels = [plain(panel) for panel in case.panel.values]
    axes.set_yticks(np.arange(num_rows) + 0.5, panels, rotation="vertical", va="center")
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)


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
        label=plain(scale.label),
    )
    bar.outline.set_visible(False)
    bar.minorticks_off()


def dress(axes: Axes) -> None:
    """Grid, colours and spines as all figures have them."""
    axes.set_facecolor(GROUND)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, which="both", labelsize="small")
    axes.spines[:].set_color(GRID)
    axes.spines[["top", "right"]].set_visible(False)


def plain(text) -> str:
    """Text that matplotlib draws as it is, since a dollar sign would start a formula."""
    return str(text).replace("$", r"\$")
