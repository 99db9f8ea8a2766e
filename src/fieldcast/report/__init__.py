"""The report of a run: one HTML file that needs nothing else, and its figures as PNG files."""

from fieldcast.report.contents import ReportContents
from fieldcast.report.page import write_report

__all__ = ["ReportContents", "write_report"]
