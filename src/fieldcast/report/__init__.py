"""The report of a run or of a benchmark: one HTML file that needs nothing else, and its figures as PNG files."""

from fieldcast.report.contents import Case, ReportContents, ReportPart
from fieldcast.report.page import write_report

__all__ = ["Case", "ReportContents", "ReportPart", "write_report"]
