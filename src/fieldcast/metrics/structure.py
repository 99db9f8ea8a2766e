"""Metrics of what a field is made of: its power by wavenumber, and its rain objects (SAL).

Shapes: B batch, S lead times, C channels, H rows, W columns; a frame is one channel of one sample at one lead
time, F = B C frames of a lead time; R rings of wavenumbers.
"""

import importlib.util
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fieldcast.errors import MissingExtra
from fieldcast.metrics.events import lacks_thresholds
from fieldcast.metrics.metric import Metric, Yardstick, num_wavenumbers

FAMILY = "structure"

# Rain objects begin at this share of this quantile of a frame's rain.
OBJECT_SHARE = 1 / 15
OBJECT_QUANTILE = 0.95

Array = NDArray[np.floating]


def spectrum_sums(predicted: Tensor, observed: Tensor, valid: Tensor, yardstick: Yardstick) -> Tensor:
    """Sums over frames of the power of predicted and of observed, and the number of frames: (3, R, S).

        P(k) = mean of |FFT2|^2 / (H W) over the frequencies f with k - 1/2 <= L |f| < k + 1/2,  L = max(H, W)

    in (units)^2, with f = (f_y, f_x) in cycles per pixel, so that a ring is a circle on oblong frames too. Missing
    pixels are set to the mean of the frame's valid observed pixels in both fields; frames without a valid pixel
    are left out.

    Source: Ruzanski and Chandrasekar (2011), IEEE Trans. Geosci. Remote Sens. 49. On square frames it is
    ``pysteps.utils.spectral.rapsd``, which leaves out the last ring where L is even.
    """
    powers, num_frames = [], []
    # One lead time after another: what is made of all of them at once would leave the cache.
    for fields in zip(predicted.unbind(1), observed.unbind(1), valid.unbind(1), strict=True):
        prediction, observation, counted = (field.flatten(0, 1) for field in fields)
        number = counted.sum((-2, -1), keepdim=True)
        total = torch.where(counted, observation, 0).sum((-2, -1), keepdim=True, dtype=torch.float64)
        mean = total / number.clamp(min=1)
        deviations = (torch.where(counted, field - mean, 0) for field in (prediction, observation))
        powers.append(torch.stack([_power(deviation, mean) for deviation in deviations]))
        num_frames.append((number > 0).sum().double())
    by_ring = _ring_means(torch.stack(powers, 1), predicted.shape[-1])
    return torch.stack([*by_ring, torch.stack(num_frames)[:, None].expand_as(by_ring[0])]).mT


def predicted_power(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """Mean power of the forecast."""
    return sums[0] / sums[2]


def observed_power(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """Mean power of what was observed."""
    return sums[1] / sums[2]


def power_ratio(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """Power of the forecast divided by that of what was observed: below 1 where the forecast is too smooth."""
    return sums[0] / sums[1]


def object_sums(predicted: Tensor, observed: Tensor, valid: Tensor, yardstick: Yardstick) -> Tensor:
    """Sum over frames of the structure S, and the number of frames that have it; likewise A and L: (6, S).

        S = 2 (V_p - V_o) / (V_p + V_o),  A = 2 (D_p - D_o) / (D_p + D_o),
        L = |x_p - x_o| / d + 2 |r_p - r_o| / d

    with the sum D and the centre of mass x of the rain; V = sum of R_n^2 / max_n over sum of R_n, with the rain R_n
    and the largest value max_n of object n; r the mean distance, weighted by R_n, of the objects' centres of mass
    from x; d = sqrt(H^2 + W^2), all in pixels. Objects are regions of pixels that touch at sides or corners, at or
    above 1/15 of the 95 % quantile of the frame's values at or above the lowest threshold; each field has its own.
    Missing pixels have no rain in either field. A needs rain in one of the fields, S objects in one of them, and L
    objects in both. A forecast below 0 counts as 0; an observation below 0 makes its lead time NaN, since these
    scores are of fields that are not negative.

    Source: Wernli et al. (2008), Mon. Wea. Rev. 136, section 2, doi 10.1175/2008MWR2415.1; for the threshold
    Wernli, Hofmann and Zimmer (2009), Wea. Forecasting 24, eq. (1).

    Raises:
        MissingExtra: where scipy is not installed.
    """
    sums = []
    for fields in zip(predicted.unbind(1), observed.unbind(1), valid.unbind(1), strict=True):
        counted = fields[2]
        prediction = torch.where(counted, fields[0].clamp(min=0), 0)
        observation = torch.where(counted, fields[1], 0)
        frames = [field.flatten(0, 1).cpu().numpy() for field in (prediction, observation)]
        sums.append(_object_sums_of_lead_time(frames[0], frames[1], yardstick.thresholds[0]))
    return torch.from_numpy(np.stack(sums, -1)).to(predicted.device)


def mean_structure(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """Sum of S divided by the number of frames that have it."""
    return sums[0] / sums[1]


def mean_amplitude(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """Sum of A divided by the number of frames that have it."""
    return sums[2] / sums[3]


def mean_location(sums: Tensor, yardstick: Yardstick) -> Tensor:
    """Sum of L divided by the number of frames that have it."""
    return sums[4] / sums[5]


def _power(deviations: Tensor, mean: Tensor) -> Tensor:
    """|FFT2|^2 / (H W) of mean + deviations (F, H, W), added over frames: (H, W // 2 + 1)."""
    num_pixels = deviations[0].numel()
    coefficients = torch.fft.rfft2(deviations)
    # The mean comes in here: before the transform its rounding would cover what is far smaller.
    coefficients[:, 0, 0] += mean.flatten() * num_pixels
    return (coefficients.real.square() + coefficients.imag.square()).sum(0) / num_pixels


def _ring_means(power: Tensor, num_columns: int) -> Tensor:
    """Mean over rings of the power of real transforms, (..., H, W // 2 + 1) to (..., R)."""
    shape = (power.shape[-2], num_columns)
    rings, share = _rings(shape, power.device)
    means = power.new_zeros(*power.shape[:-2], num_wavenumbers(shape) + 1)
    return means.index_add_(-1, rings.flatten(), (power * share).flatten(-2))[..., :-1]


def _rings(shape: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Ring of each frequency of a real transform, and its share in the mean over the ring: (H, W // 2 + 1) both.

    Frequencies beyond the last ring, in the corners, share one more.
    """
    num_rows, num_columns = shape
    rows = torch.arange(num_rows, device=device)
    rows = torch.minimum(rows, num_rows - rows)
    columns = torch.arange(num_columns // 2 + 1, device=device)
    y, x = rows.double() * max(shape) / num_rows, columns.double() * max(shape) / num_columns
    rings = (torch.hypot(y[:, None], x) + 0.5).long().clamp(max=num_wavenumbers(shape))
    # A real transform leaves out the mirror image of each column but the first and, of an even width, the last.
    twice = (columns > 0) & (2 * columns < num_columns)
    multiplicity = (1 + twice.double()).expand_as(rings)
    size = torch.bincount(rings.flatten(), multiplicity.flatten())
    return rings, multiplicity / size[rings]


class _Rain(NamedTuple):
    """Of each frame (F,): sum, centre of mass, scaled volume V, distance r of objects from the centre."""

    total: Array
    row: Array
    column: Array
    volume: Array
    distance: Array


def _object_sums_of_lead_time(predicted: Array, observed: Array, lowest: float) -> Array:
    """The sums (6,) of frames (F, H, W)."""
    # What is not defined comes out as 0 / 0.
    with np.errstate(invalid="ignore", divide="ignore"):
        p, o = _rain(predicted, lowest), _rain(observed, lowest)
        diagonal = np.hypot(*predicted.shape[1:])
        structure = 2 * (p.volume - o.volume) / (p.volume + o.volume)
        amplitude = 2 * (p.total - o.total) / (p.total + o.total)
        shift = np.hypot(p.row - o.row, p.column - o.column)
        location = (shift + 2 * np.abs(p.distance - o.distance)) / diagonal
    sums = [(np.nansum(part), np.isfinite(part).sum()) for part in (structure, amplitude, location)]
    spoilt = (observed < 0).any() or not np.isfinite(p.total + o.total).all()
    return np.full(6, np.nan) if spoilt else np.array(sums, np.float64).flatten()


def _rain(frames: Array, lowest: float) -> _Rain:
    num_frames, num_rows, num_columns = frames.shape
    total = frames.sum((1, 2), dtype=np.float64)
    row = frames.sum(2, dtype=np.float64) @ np.arange(num_rows) / total
    column = frames.sum(1, dtype=np.float64) @ np.arange(num_columns) / total
    inside = frames >= _object_thresholds(frames, lowest)[:, None, None]
    names, num_objects = _label(inside)
    frame_of, *place = np.nonzero(inside)
    name, value = names[inside] - 1, frames[inside].astype(np.float64)

    rain = np.bincount(name, value, num_objects)
    centre = [np.bincount(name, value * along, num_objects) / rain for along in place]
    largest = np.zeros(num_objects)
    np.maximum.at(largest, name, value)
    frame = np.zeros(num_objects, np.intp)
    frame[name] = frame_of
    away = np.hypot(centre[0] - row[frame], centre[1] - column[frame])

    objects_rain = np.bincount(frame, rain, num_frames)
    volume = np.bincount(frame, rain**2 / largest, num_frames) / objects_rain
    distance = np.bincount(frame, rain * away, num_frames) / objects_rain
    return _Rain(total, row, column, np.where(objects_rain > 0, volume, 0), distance)


def _object_thresholds(frames: Array, lowest: float) -> Array:
    """Value at which the objects of each frame begin: (F,); infinite in a frame without rain."""
    wet = (frames >= lowest) & (frames > 0)
    number = wet.sum((1, 2))
    ascending = np.sort(np.where(wet, frames, np.inf).reshape(len(frames), -1))
    position = OBJECT_QUANTILE * np.maximum(number - 1, 0)
    before = position.astype(np.intp)
    after = np.minimum(before + 1, np.maximum(number - 1, 0))
    lower, upper = (ascending[np.arange(len(frames)), at].astype(np.float64) for at in (before, after))
    quantile = lower + (position - before) * np.where(after > before, upper - lower, 0)
    return np.where(number > 0, OBJECT_SHARE * quantile, np.inf)


def _label(inside: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    """Number the regions of all frames (F, H, W) from 1 on, 0 outside."""
    try:
        from scipy import ndimage
    except ImportError:
        raise MissingExtra("SAL", "verify") from None
    neighbours = np.zeros((3, 3, 3), bool)
    neighbours[1] = True
    names, num_objects = ndimage.label(inside, neighbours)
    return names, num_objects


def _lacks_rain_objects(yardstick: Yardstick) -> str | None:
    return lacks_thresholds(yardstick) or (None if importlib.util.find_spec("scipy") else "scipy (extra 'verify')")


STRUCTURE_METRICS = (
    Metric(
        "spectrum",
        "power of the forecast by wavenumber",
        FAMILY,
        "|FFT|^2 / number of pixels, mean over rings of wavenumbers and over frames",
        "none",
        "({units})^2",
        spectrum_sums,
        predicted_power,
        ("wavenumber",),
    ),
    Metric(
        "spectrum-observed",
        "power of the observations by wavenumber",
        FAMILY,
        "|FFT|^2 / number of pixels, mean over rings of wavenumbers and over frames",
        "none",
        "({units})^2",
        spectrum_sums,
        observed_power,
        ("wavenumber",),
    ),
    Metric(
        "spectrum-ratio",
        "power of the forecast relative to the observations",
        FAMILY,
        "predicted / observed power by wavenumber, each added over frames",
        "one",
        "1",
        spectrum_sums,
        power_ratio,
        ("wavenumber",),
    ),
    Metric(
        "sal-structure",
        "structure of SAL",
        FAMILY,
        "objects from 1/15 of the 95 % quantile of rain, mean over frames; above 0 where objects are too large or flat",
        "zero",
        "1",
        object_sums,
        mean_structure,
        lacks=_lacks_rain_objects,
    ),
    Metric(
        "sal-amplitude",
        "amplitude of SAL",
        FAMILY,
        "relative difference of the frames' sums, mean over frames; above 0 where there is too much rain",
        "zero",
        "1",
        object_sums,
        mean_amplitude,
        lacks=_lacks_rain_objects,
    ),
    Metric(
        "sal-location",
        "location of SAL",
        FAMILY,
        "shift of the centre of mass and of the objects around it, as shares of the diagonal, mean over frames",
        "smaller",
        "1",
        object_sums,
        mean_location,
        lacks=_lacks_rain_objects,
    ),
)
