"""Linear kernels on a page: which field, where and how long ago moves an output of a forecaster."""

from fieldcast.report.kernels.figure import kernel_figure
from fieldcast.report.kernels.section import kernels_html, outputs_in_detail, write_kernels_page

__all__ = ["kernel_figure", "kernels_html", "outputs_in_detail", "write_kernels_page"]
