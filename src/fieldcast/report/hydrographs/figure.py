"""Hydrographs of three rivers as a PNG figure."""

import xarray as xr
from matplotlib.figure import Figure

from fieldcast.report.contents import OBSERVED
from fieldcast.report.figures import GROUND, INK, RESOLUTION, dress, look, plain
from fieldcast.report.hydrographs.view import HydrographView

SIZE = (9.0, 2.2)  # inches, of one river


def hydrograph_figure(hydrographs: xr.Dataset, stations: tuple[str, ...] = (), lead: int = 0) -> Figure:
    """Observed and forecast flow of some stations at one lead time, one below the other.

    Args:
        hydrographs: as `hydrographs_html` takes them.
        stations: names; by default the best, the median and the worst by the NSE of the first model.
        lead: position of the lead time.

    Raises:
        DataError: for hydrographs that `hydrographs_html` does not take, or a station that is not there.
    """
    view = HydrographView(hydrographs)
    chosen = [view.number(name) for name in stations] or list(view.ranks(lead))
    figure = Figure(
        figsize=(SIZE[0], SIZE[1] * len(chosen) + 0.5), dpi=RESOLUTION, layout="constrained", facecolor=GROUND
    )
    rows = figure.subplots(len(chosen), 1, squeeze=False, sharex=True).ravel()
    for axes, station in zip(rows, chosen, strict=True):
        flow = view.flow(lead, station)
        axes.plot(view.times, flow[OBSERVED], color=INK, linewidth=2.2, alpha=0.75, label=OBSERVED)
        for model in view.models:
            axes.plot(view.times, flow[model], linewidth=1.1, label=plain(model), **look(view.strokes[model]))
        title = f"{view.heading(station)}: {view.scored(lead, station, view.models[0])} ({view.models[0]})"
        axes.set_title(plain(title), fontsize="medium", loc="left")
        axes.set_ylabel(plain(view.units))
        dress(axes)
    handles, labels = rows[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, ncols=len(labels), loc="outside upper left")
    return figure
