"""Scores as other places print them.

The thesis and OpenSTL print scores of fields in [0, 1]; their conventions mean nothing for other ranges.
"""

from typing import NamedTuple

from fieldcast.metrics import METRICS
from fieldcast.settings import look_up


class Restatement(NamedTuple):
    """How a convention prints a metric: its factor, whether it adds over the pixels of a frame, its words."""

    label: str
    factor: float = 1.0
    sums_pixels: bool = False


CONVENTIONS: dict[str, dict[str, Restatement]] = {
    "fieldcast": {name: Restatement(f"{metric.long_name} ({metric.convention})") for name, metric in METRICS.items()},
    "thesis": {
        "mse": Restatement("MSE x 10^4 (mean over pixels, [0, 1])", factor=1e4),
        "mae": Restatement("MAE x 10^4 (mean over pixels, [0, 1])", factor=1e4),
        "ssim": Restatement("SSIM x 10^2 (11 x 11 Gaussian window, [0, 1])", factor=1e2),
        "psnr": Restatement("PSNR in dB (of the pooled MSE, [0, 1]; the thesis takes the mean over batches)"),
    },
    "openstl": {
        "mse": Restatement("MSE (sum over pixels per frame, [0, 1])", sums_pixels=True),
        "mae": Restatement("MAE (sum over pixels per frame, [0, 1])", sums_pixels=True),
        # Its call leaves the data range to scikit-image, whose default for floats was 2 (from -1 to 1), and clips
        # predictions to [0, 1] before.
        "ssim-uniform": Restatement(
            "SSIM (7 x 7 uniform window, [0, 1] with data range 1; OpenSTL's own call takes 2)"
        ),
    },
}


def restate(name: str, value: float, convention: str, num_pixels: int) -> tuple[float, str]:
    """A score in the words and the scale of a convention.

        value * factor, times num_pixels where the convention adds over the pixels of a frame

    Source: thesis, tables of chapter 5 (x 10^4, x 10^2); OpenSTL ``openstl/core/metrics.py`` (sums per frame).

    Args:
        name: key of ``METRICS``.
        value: the metric's score; for "thesis" and "openstl" of fields in [0, 1].
        convention: key of ``CONVENTIONS``.
        num_pixels: C * H * W of a frame.

    Returns:
        The restated value, and a label that says the convention.

    Raises:
        ConfigError: for an unknown convention, or a metric that the convention does not have.
    """
    restatements = look_up(CONVENTIONS, convention, "convention")
    restatement = look_up(restatements, name, f"metric of the convention '{convention}'")
    scale = num_pixels if restatement.sums_pixels else 1
    return value * restatement.factor * scale, restatement.label
