"""The kernel of one output as a PNG figure.

Shapes: T lags, H rows, W columns.
"""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure

from fieldcast.data.dataset import spread
from fieldcast.report.figures import GROUND, INK, RESOLUTION, dress, plain
from fieldcast.report.kernels.fidelity import verdict_of
from fieldcast.report.kernels.gallery import field_strokes
from fieldcast.report.kernels.maps import COLOURS, diverging_scale, limit_of
from fieldcast.report.kernels.travel import Ground, centres, ground_of, place_of
from fieldcast.report.kernels.view import Field, KernelView, in_groups, lag_curve, lag_sum

MAX_TICKS = 4
PANEL_WIDTH = 3.6  # inches
CURVE_HEIGHT = 2.3
MAP_MARGIN = 0.9  # title, ticks and colours of a map
STAMP_COLOUR = "#8f2d00"
STAMP_BOX = {"facecolor": STAMP_COLOUR, "alpha": 0.9, "edgecolor": "none"}


def kernel_figure(kernels: xr.Dataset, output: str) -> Figure:
    """Each field's influence summed over lag, with the path of its centre of mass, above its lag curve.

    Raises:
        DataError: for kernels that `kernels_html` does not take, or an output that is not there.
    """
    view = KernelView(kernels)
    height, width = view.kernel(view.fields[0], output).shape[1:]
    map_height = min(max(PANEL_WIDTH * height / width, 1.0), 5.0) + MAP_MARGIN
    size = (PANEL_WIDTH * len(view.fields), map_height + CURVE_HEIGHT + 0.3)
    figure = Figure(figsize=size, dpi=RESOLUTION, layout="constrained", facecolor=GROUND)
    cells = figure.subplots(2, len(view.fields), squeeze=False, height_ratios=(map_height, CURVE_HEIGHT))
    for number, field in enumerate(view.fields):
        _draw_map(cells[0, number], view, field, output)
        _draw_curve(cells[1, number], view, field, output)
    verdict = verdict_of(view, output)
    figure.suptitle(plain(f"{view.heading(output)}; surrogate: {verdict.words}"), fontsize="medium", color=INK)
    return figure


def _draw_map(axes: Axes, view: KernelView, field: Field, output: str) -> None:
    kernel, ground = view.kernel(field, output), ground_of(view)
    summed = lag_sum(kernel)
    limit = limit_of(summed)
    axes.imshow(diverging_scale(limit, "").image(summed), interpolation="nearest", aspect="equal")
    path = centres(in_groups(kernel, view.lag_groups.starts))
    path = path[np.isfinite(path).all(axis=1)]
    for colour, line_width in (("white", 3.0), ("black", 1.2)):
        axes.plot(path[:, 1], path[:, 0], color=colour, linewidth=line_width)
    axes.plot(path[:1, 1], path[:1, 0], "ok", markersize=4, markeredgecolor="white")
    coordinates = place_of(view, output)
    place = None if coordinates is None else ground.position(*coordinates)
    if place is not None:
        row, column = place
        for colour, line_width in (("white", 3.0), ("black", 1.3)):
            axes.plot(column, row, "o", ms=9, mfc="none", markeredgecolor=colour, markeredgewidth=line_width)
    if stamp := verdict_of(view, output).stamp:
        where: dict[str, Any] = {"ha": "center", "va": "top", "transform": axes.transAxes}
        axes.text(0.5, 0.97, stamp, color="white", fontweight="bold", bbox=STAMP_BOX, **where)
    _name_ticks(axes, view, ground)
    axes.set_title(plain(f"{field.label}, summed over lag"), fontsize="medium", color=INK)
    colours = ScalarMappable(Normalize(-limit, limit), ListedColormap(COLOURS))
    bar = axes.figure.colorbar(colours, ax=axes, extend="both", orientation="horizontal", aspect=30, pad=0.02)
    bar.set_label(plain(field.units), fontsize="small")
    bar.ax.locator_params(nbins=5)
    bar.ax.tick_params(labelsize="small")
    bar.outline.set_visible(False)


def _name_ticks(axes: Axes, view: KernelView, ground: Ground) -> None:
    """Coordinates at some rows and columns."""
    for axis, values, name in ((axes.yaxis, ground.rows, view.axes[0]), (axes.xaxis, ground.columns, view.axes[1])):
        places = spread(len(values), MAX_TICKS)
        axis.set_ticks(places, [f"{values[place]:g}" for place in places])
        axis.set_label_text(plain(name), fontsize="small")
    axes.tick_params(labelsize="small", colors=INK)


def _draw_curve(axes: Axes, view: KernelView, field: Field, output: str) -> None:
    curve, error = lag_curve(view.kernel(field, output)), view.curve_error(field, output)
    lags, unit = view.lags
    colour = field_strokes(view)[field.label].colour
    axes.axhline(0, color=INK, linewidth=0.6)
    axes.plot(lags, curve, color=colour, marker=".", markersize=4)
    if error is not None:
        axes.fill_between(lags, curve - error, curve + error, color=colour, alpha=0.2, linewidth=0)
    axes.set_title("lag curve, summed over the map", fontsize="small", color=INK)
    axes.set_xlabel(f"lag ({unit})", fontsize="small")
    axes.set_ylabel(plain(field.units), fontsize="small")
    dress(axes)
