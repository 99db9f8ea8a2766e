"""Scores as other places print them.

All but our own are of fields in [0, 1]; they mean nothing for other ranges.
"""

from typing import NamedTuple

from fieldcast.metrics import METRICS
from fieldcast.settings import look_up


class Restatement(NamedTuple):
    """How a convention prints a metric: its factor, what it adds up where ours is a mean over pixels, its words."""

    label: str
    factor: float = 1.0
    adds: tuple[str, ...] = ()  # "pixels" of a frame, "frames" of a sequence


CONVENTIONS: dict[str, dict[str, Restatement]] = {
    "fieldcast": {name: Restatement(f"{metric.long_name} ({metric.convention})") for name, metric in METRICS.items()},
    "thesis": {
        "mse": Restatement("MSE x 10^4 (mean over pixels, [0, 1])", factor=1e4),
        "mae": Restatement("MAE x 10^4 (mean over pixels, [0, 1])", factor=1e4),
        "ssim": Restatement("SSIM x 10^2 (11 x 11 Gaussian window, [0, 1])", factor=1e2),
        "psnr-batch": Restatement("PSNR in dB (mean over batches, [0, 1])"),
    },
    "openstl": {
        "mse": Restatement("MSE (sum over pixels per frame, [0, 1])", adds=("pixels",)),
        "mae": Restatement("MAE (sum over pixels per frame, [0, 1])", adds=("pixels",)),
        # Its call leaves the data range to scikit-image, whose default for floats was 2 (from -1 to 1), and clips
        # predictions to [0, 1] before.
        "ssim-uniform": Restatement(
            "SSIM (7 x 7 uniform window, [0, 1] with data range 1; OpenSTL's own call takes 2)"
        ),
        "psnr-frame": Restatement("PSNR in dB (mean over frames, [0, 1])"),
    },
    "hko7": {
        "b-mse": Restatement("B-MSE (weighted, sum over pixels per frame, [0, 1])", adds=("pixels",)),
        "b-mae": Restatement("B-MAE (weighted, sum over pixels per frame, [0, 1])", adds=("pixels",)),
        "mse": Restatement("MSE (sum over pixels per frame, [0, 1])", adds=("pixels",)),
        "mae": Restatement("MAE (sum over pixels per frame, [0, 1])", adds=("pixels",)),
    },
    "srivastava": {
        "cross-entropy": Restatement("cross entropy in nats (sum over pixels per frame)", adds=("pixels",)),
    },
    "shi": {
        "cross-entropy": Restatement(
            "cross entropy in nats (sum over pixels and frames per sequence)", adds=("pixels", "frames")
        ),
    },
}


def restate(name: str, value: float, convention: str, num_pixels: int, num_frames: int = 1) -> tuple[float, str]:
    """A score in the words and the scale of a convention.

        value * factor, times num_pixels and num_frames where the convention adds over these

    Source: thesis, tables of chapter 5 (x 10^4, x 10^2); OpenSTL ``openstl/core/metrics.py`` (sums per frame);
    Shi et al. 2017 (B-MSE); Srivastava et al. 2015, table 1; Shi et al. 2015, table 1.

    Args:
        name: key of ``METRICS``.
        value: the metric's score; for every convention but ours of fields in [0, 1].
        convention: key of ``CONVENTIONS``.
        num_pixels: C * H * W of a frame.
        num_frames: S, the frames of a forecast.

    Returns:
        The restated value, and a label that says the convention.

    Raises:
        ConfigError: for an unknown convention, or a metric that the convention does not have.
    """
    restatements = look_up(CONVENTIONS, convention, "convention")
    restatement = look_up(restatements, name, f"metric of the convention '{convention}'")
    sizes = {"pixels": num_pixels, "frames": num_frames}
    scale = 1
    for what in restatement.adds:
        scale *= sizes[what]
    return value * restatement.factor * scale, restatement.label
