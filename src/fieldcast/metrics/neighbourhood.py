"""Metrics that compare events in neighbourhoods: the fractions skill score.

Shapes: B batch, S lead times, C channels, H rows, W columns; K sums of a metric; N thresholds, L scales.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from fieldcast.metrics.events import FAMILY, events_of, lacks_thresholds
from fieldcast.metrics.metric import Metric, Yardstick

# Pixels that are worked on at once: more leave the processor's cache, fewer cost more in calls than in sums.
_CHUNK = 2**16


def fractions_sums(predicted: Tensor, observed: Tensor, valid: Tensor, yardstick: Yardstick) -> Tensor:
    """Sums of (P_f - P_o)^2 and of P_f^2 + P_o^2 over windows centred on valid pixels: (2, N, L, S).

    P_f and P_o are the fractions of a square window, ``yardstick.scales`` pixels wide, where an event was forecast
    and observed. Missing pixels and those outside the map have no event in either. An event is what it is in
    ``contingency_sums``, and here too a valid pixel that is NaN in either field makes its lead time NaN.

    Counts are int32, so they are exact for frames of up to 2^30 pixels.
    """
    assert all(scale % 2 for scale in yardstick.scales), "windows are centred on a pixel"
    num_leads = max(1, _CHUNK // max(1, valid[:, :1].numel()))
    chunks = [field.split(num_leads, dim=1) for field in (predicted, observed, valid)]
    parts = [_sums_of_chunk(forecast, event, mask, yardstick) for forecast, event, mask in zip(*chunks, strict=True)]
    return torch.cat(parts, dim=-1)


def _sums_of_chunk(predicted: Tensor, observed: Tensor, valid: Tensor, yardstick: Yardstick) -> Tensor:
    """What ``fractions_sums`` gives, all lead times at once."""
    # NaN reaches no threshold and is below none.
    predicted, observed = (field.masked_fill(~valid, torch.nan) for field in (predicted, observed))
    undefined = (valid & (predicted.isnan() | observed.isnan())).transpose(0, 1).flatten(1).any(1)
    centres = valid.int()
    squares = []
    for threshold in yardstick.thresholds:
        forecast, event = (events_of(field, threshold, yardstick) for field in (predicted, observed))
        # The squares of difference and total add to twice those of the two fields themselves.
        integral = _integral_image(torch.stack([forecast - event, forecast + event]))
        squares.append(torch.stack([_mean_square_sums(integral, scale, centres) for scale in yardstick.scales]))
    of_difference, of_total = torch.stack(squares).unbind(2)
    return torch.stack([of_difference, (of_difference + of_total) / 2]).masked_fill(undefined, torch.nan)


def _integral_image(field: Tensor) -> Tensor:
    """Sums over all rows and columns before each: (..., H, W) -> (..., H+1, W+1) int32."""
    return pad(field.cumsum(-1, dtype=torch.int32).cumsum(-2, dtype=torch.int32), (1, 0, 1, 0))


def _mean_square_sums(integral: Tensor, width: int, centres: Tensor) -> Tensor:
    """Sums of the squared means of windows around the centres: (2, B, S, C, H+1, W+1) -> (2, S) float64."""
    counts = _window_sums(_window_sums(integral, width, -2), width, -1).mul_(centres)
    return counts.double().square_().sum((1, 3, 4, 5)) / width**4


def _window_sums(cumulative: Tensor, width: int, axis: int) -> Tensor:
    """Sums of windows cut off at both ends of an axis, of its size + 1 sums over all that lies before."""
    size = cumulative.shape[axis] - 1
    # All windows that reach over both ends are alike.
    reach = min(width // 2, size - 1)
    beyond = cumulative.narrow(axis, size, 1).repeat_interleave(reach, dim=axis)
    sums = torch.cat([cumulative.narrow(axis, reach + 1, size - reach), beyond], dim=axis)
    num_inside = size - reach - 1
    sums.narrow(axis, reach + 1, num_inside).sub_(cumulative.narrow(axis, 1, num_inside))
    return sums


def fractions_skill_score(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """Agreement of the fractions of neighbourhoods with events.

        FSS = 1 - sum (P_f - P_o)^2 / (sum P_f^2 + sum P_o^2),

    1 for equal fractions, 0 where no event was both forecast and observed within a neighbourhood; NaN with neither
    observed nor forecast events.

    Source: Roberts and Lean (2008), Mon. Weather Rev. 136, eq. (5) to (7), sums over samples before the quotient.
    """
    return 1 - sums[0] / sums[1]


def _lacks(yardstick: Yardstick) -> str | None:
    return lacks_thresholds(yardstick) or (None if yardstick.scales else "scales")


NEIGHBOURHOOD_METRICS = (
    Metric(
        "fss",
        "fractions skill score",
        FAMILY,
        "square windows around valid pixels; no event outside the map or where a pixel is missing; sums over all "
        "samples before the quotient",
        "larger",
        "1",
        fractions_sums,
        fractions_skill_score,
        dimensions=("threshold", "scale"),
        lacks=_lacks,
    ),
)
