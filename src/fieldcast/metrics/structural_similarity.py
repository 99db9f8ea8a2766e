"""Structural similarity of frames, batched and differentiable.

Shapes: H rows, W columns of a frame; w width of the window, so a map has (H - w + 1, W - w + 1) positions.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fieldcast.errors import ConfigError, DataError
from fieldcast.settings import look_up

WindowName = Literal["gaussian", "uniform"]


class Window(NamedTuple):
    """A separable window: its weights along one axis (they add to 1), and the factor on its variances."""

    weights: tuple[float, ...]
    variance_factor: float


def _gaussian(width: int, sigma: float) -> Window:
    weights = [math.exp(-0.5 * ((position - width // 2) / sigma) ** 2) for position in range(width)]
    return Window(tuple(weight / sum(weights) for weight in weights), 1.0)


def _uniform(width: int) -> Window:
    return Window((1 / width,) * width, width**2 / (width**2 - 1))


WINDOWS: dict[str, Window] = {"gaussian": _gaussian(11, 1.5), "uniform": _uniform(7)}

# A banded product costs as much per pixel as the frame is wide, so wide frames are cut into overlapping tiles.
_TILE = 64


def structural_similarity(
    predicted: Tensor, observed: Tensor, data_range: float, window: WindowName = "gaussian"
) -> Tensor:
    """Map of the structural similarity of two sets of frames, at the positions where the window fits.

        SSIM = (2 m_p m_o + C1) (2 v_po + C2) / ((m_p^2 + m_o^2 + C1) (v_p + v_o + C2)),
        C1 = (0.01 data_range)^2, C2 = (0.03 data_range)^2,

    with means m, variances v and covariance v_po under the window: 11 x 11 Gaussian of sigma 1.5, or 7 x 7
    uniform with sample variances, N / (N - 1). Computed from the sum and the difference of the frames,

        SSIM = (1 - 2 m_-^2 / (m_+^2 + m_-^2 + 2 C1)) (1 - 2 v_- / (v_+ + v_- + 2 C2)),

    which is the same and loses no digits where the frames agree. In float32 the map's mean is within about
    1e-6 of that in float64, 2e-5 where large flat areas differ by the whole data range.

    Source: Wang et al. (2004), IEEE Trans. Image Process. 13(4), eq. (13); the map's mean is scikit-image's
    ``structural_similarity``.

    Args:
        predicted: (..., H, W), any units, finite: set masked pixels equal in both beforehand.
        observed: (..., H, W), in the same units.
        data_range: largest minus smallest value the data can take, in the same units.
        window: "gaussian" or "uniform".

    Returns:
        (..., H - w + 1, W - w + 1), w = 11 or 7, in float32, or float64 where a frame has it.

    Raises:
        ConfigError: for an unknown window, or a data range that is not above 0.
        DataError: for shapes that differ, or frames smaller than the window.
    """
    maps = _tiled_maps(predicted, observed, data_range, window)
    return maps.join(maps.luminance * maps.structure)


def luminance_and_structure(
    predicted: Tensor, observed: Tensor, data_range: float, window: WindowName = "gaussian"
) -> tuple[Tensor, Tensor]:
    """Maps of the two factors of the structural similarity: luminance, and contrast with structure.

        l = (2 m_p m_o + C1) / (m_p^2 + m_o^2 + C1),    c s = (2 v_po + C2) / (v_p + v_o + C2)

    Source: Wang et al. (2004), eqs. (6), (9), (10) with C3 = C2 / 2. Arguments, shapes, and what is raised are
    those of ``structural_similarity``, whose map is their product.
    """
    maps = _tiled_maps(predicted, observed, data_range, window)
    return maps.join(maps.luminance), maps.join(maps.structure)


def valid_windows(valid: Tensor, window: WindowName = "gaussian") -> Tensor:
    """Positions of the window at which all of its pixels are valid.

    Args:
        valid: (..., H, W), bool.
        window: "gaussian" or "uniform".

    Returns:
        (..., H - w + 1, W - w + 1), bool.

    Raises:
        ConfigError: for an unknown window.
        DataError: for frames smaller than the window.
    """
    chosen = look_up(WINDOWS, window, "window")
    num_rows, num_columns = _num_positions(valid, chosen)
    # The weights are above 0, so a sum of exactly 0 is a window without a missing pixel in any precision.
    missing = _tiles((~valid).float(), chosen)
    return _join(_window_mean(missing, _bands(missing, chosen)) == 0, num_rows, num_columns)


class _TiledMaps(NamedTuple):
    """The factors of the similarity in tiles, and what puts tiles together."""

    luminance: Tensor
    structure: Tensor
    num_positions: tuple[int, int]
    dtype: torch.dtype

    def join(self, tiles: Tensor) -> Tensor:
        return _join(tiles, *self.num_positions).to(self.dtype)


def _tiled_maps(predicted: Tensor, observed: Tensor, data_range: float, window: WindowName) -> _TiledMaps:
    if not data_range > 0:
        raise ConfigError(f"data_range = {data_range}: structural similarity needs a range above 0")
    if predicted.shape != observed.shape:
        raise DataError(f"frames to compare have shapes {tuple(predicted.shape)} and {tuple(observed.shape)}")
    chosen = look_up(WINDOWS, window, "window")
    num_positions = _num_positions(predicted, chosen)
    dtype = torch.promote_types(torch.promote_types(predicted.dtype, observed.dtype), torch.float32)
    working = _working_dtype(dtype, predicted.is_cuda)
    predicted, observed = (_tiles(frames.to(working), chosen) for frames in (predicted, observed))
    bands = _bands(predicted, chosen)
    # Variances do not see a shift, and about the tiles' own means E[x^2] - E[x]^2 cancels least.
    centres = [tiles.detach().mean((-2, -1), keepdim=True) for tiles in (predicted, observed)]
    predicted, observed = predicted - centres[0], observed - centres[1]
    mean_sum, variance_sum = _moments(predicted + observed, bands, chosen.variance_factor)
    mean_difference, variance_difference = _moments(predicted - observed, bands, chosen.variance_factor)
    mean_sum, mean_difference = mean_sum + (centres[0] + centres[1]), mean_difference + (centres[0] - centres[1])
    power_sum, power_difference = mean_sum.square(), mean_difference.square()
    luminance = 1 - 2 * power_difference / (power_sum + power_difference + 2 * (0.01 * data_range) ** 2)
    structure = 1 - 2 * variance_difference / (variance_sum + variance_difference + 2 * (0.03 * data_range) ** 2)
    return _TiledMaps(luminance, structure, num_positions, dtype)


def _num_positions(frames: Tensor, window: Window) -> tuple[int, int]:
    width = len(window.weights)
    height_and_width = tuple(frames.shape[-2:])
    if len(height_and_width) < 2 or min(height_and_width) < width:
        raise DataError(
            f"structural similarity got frames of shape {height_and_width}: its window needs at least "
            f"{width} x {width} pixels; use larger frames or leave it out"
        )
    return height_and_width[0] - width + 1, height_and_width[1] - width + 1


def _working_dtype(dtype: torch.dtype, is_cuda: bool) -> torch.dtype:
    backend = torch.backends.cuda if is_cuda else torch.backends.mkldnn
    # TF32 or bfloat16 products leave a variance, a small difference of large numbers, without a true digit.
    return torch.float64 if backend.matmul.fp32_precision in ("tf32", "bf16") else dtype


def _tiles(frames: Tensor, window: Window) -> Tensor:
    """Cut (..., H, W) into tiles that overlap by w - 1: (..., tile rows, tile columns, height, width)."""
    overlap = len(window.weights) - 1
    num_positions = [size - overlap for size in frames.shape[-2:]]
    height, width = (math.ceil(number / math.ceil(number / _TILE)) for number in num_positions)
    frames = torch.nn.functional.pad(frames, (0, -num_positions[1] % width, 0, -num_positions[0] % height))
    # Each unfold puts its new axis last, so the columns are next to last when their turn comes.
    return frames.unfold(-2, height + overlap, height).unfold(-2, width + overlap, width).contiguous()


def _join(tiles: Tensor, num_rows: int, num_columns: int) -> Tensor:
    """Put maps of tiles (..., tile rows, tile columns, height, width) together, without the padding."""
    return tiles.transpose(-3, -2).flatten(-4, -3).flatten(-2, -1)[..., :num_rows, :num_columns]


def _moments(fields: Tensor, bands: tuple[Tensor, Tensor], variance_factor: float) -> tuple[Tensor, Tensor]:
    """Mean and variance under the window at each position where it fits."""
    mean = _window_mean(fields, bands)
    return mean, (_window_mean(fields.square(), bands) - mean.square()) * variance_factor


def _window_mean(fields: Tensor, bands: tuple[Tensor, Tensor]) -> Tensor:
    rows, columns = bands
    with torch.autocast(fields.device.type, enabled=False):
        return rows @ (fields @ columns.mT)


def _bands(tiles: Tensor, window: Window) -> tuple[Tensor, Tensor]:
    """The window as a banded matrix for the rows and one for the columns of a tile."""
    weights = tiles.new_tensor(window.weights)
    # Rounded weights must still add to 1, or E[x^2] - E[x]^2 of a flat frame is off by their excess.
    weights[len(weights) // 2] -= weights.double().sum() - 1
    return _band(weights, tiles.shape[-2]), _band(weights, tiles.shape[-1])


def _band(weights: Tensor, size: int) -> Tensor:
    """(size - w + 1, size), where row i has the weights from column i on."""
    num_positions = size - len(weights) + 1
    row = torch.nn.functional.pad(weights, (0, size + 1 - len(weights)))
    return row.repeat(num_positions)[: num_positions * size].view(num_positions, size)
