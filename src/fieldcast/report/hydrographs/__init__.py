"""Observed and forecast flow of rivers over a split."""

from fieldcast.report.hydrographs.figure import hydrograph_figure
from fieldcast.report.hydrographs.section import hydrographs_html

__all__ = ["hydrograph_figure", "hydrographs_html"]
