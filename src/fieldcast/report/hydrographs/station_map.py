"""Stations on a map, coloured by how well their flow is forecast."""

from html import escape

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex

from fieldcast.report.elements import figure_html
from fieldcast.report.hydrographs.view import HydrographView, efficiency_label
from fieldcast.report.player import legend_svg
from fieldcast.report.scale import MISSING_COLOUR, ColourScale

WIDTH, MAX_HEIGHT, MARGIN, RADIUS = 560.0, 420.0, 14.0, 6.0
BOUNDARIES = (0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
COLOURS = tuple(to_hex(colour) for colour in colormaps["viridis"](np.linspace(0, 1, len(BOUNDARIES) + 1)))


def station_map(view: HydrographView, lead: int) -> str:
    """A point for each station with coordinates, coloured by the NSE of the first model; "" where none has them."""
    names = ("latitude", "longitude")
    if not all(name in view.hydrographs.coords for name in names):
        return ""
    latitudes, longitudes = (view.hydrographs[name].values.astype(np.float64) for name in names)
    known = np.flatnonzero(np.isfinite(latitudes) & np.isfinite(longitudes))
    if known.size < 2:
        return ""
    # A degree of longitude is as long on the map as on the ground at the middle latitude.
    shrink = np.cos(np.deg2rad(latitudes[known].mean()))
    across, up = longitudes[known] * shrink, latitudes[known]
    scale = min((WIDTH - 2 * MARGIN) / (np.ptp(across) or 1.0), (MAX_HEIGHT - 2 * MARGIN) / (np.ptp(up) or 1.0))
    x, y = MARGIN + scale * (across - across.min()), MARGIN + scale * (up.max() - up)
    title = f"NSE of {view.models[0]} at each station"
    colours = ColourScale(BOUNDARIES, COLOURS, title, discrete=True)
    scores = view.scores["nse"][0, lead]
    points = "".join(
        _point(view, int(station), float(scores[station]), place, colours)
        for station, place in zip(known, zip(x, y, strict=True), strict=True)
    )
    size = f"0 0 {WIDTH:.0f} {y.max() + MARGIN:.0f}"
    drawing = f'<svg class="stations" viewBox="{size}" role="img" aria-label="{escape(f"Map: {title}")}">{points}</svg>'
    return figure_html(f"{title}, lead time {view.leads[lead]}", drawing + legend_svg(colours))


def _point(view: HydrographView, station: int, score: float, place: tuple[float, float], colours: ColourScale) -> str:
    colour = (*COLOURS, MISSING_COLOUR)[int(colours.positions(np.array([score]))[0])]
    said = escape(f"{view.heading(station)}: NSE {efficiency_label(score)}")
    return (
        f'<circle cx="{place[0]:.1f}" cy="{place[1]:.1f}" r="{RADIUS}" fill="{colour}"><title>{said}</title></circle>'
    )
