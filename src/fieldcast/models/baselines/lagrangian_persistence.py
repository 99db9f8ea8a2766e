"""Lagrangian persistence: nothing changes but its place, all by one motion.

Shapes: B batch, C channels, H rows, W columns.
"""

from typing import ClassVar

import torch
from torch import Tensor

from fieldcast.layers.advection import advect
from fieldcast.models.base import Forecaster, ModelSettings, widen

# Of the strongest wavenumber; what is far weaker is rounding, which has a phase too.
WEAKEST = 1e-6
PEAK_WIDTH = 1.0  # pixels, standard deviation
EDGE_SHARE = 0.25  # of each side, over which frames fade: a window that is round all over would hold the shift back


class LagrangianPersistence(Forecaster):
    """The last input frame, carried along one motion of the whole map.

    X^(t, x) = X(0, x - t v), Germann and Zawadzki 2002, doi 10.1175/1520-0493(2002)130<2859:SDOTPO>2.0.CO;2, with
    one v for all pixels and channels, by ``phase_correlation`` of the last two inputs. Where the map would show what
    comes from outside, the last frame stays.
    """

    irregular_inputs = True
    irregular_targets = True
    trained: ClassVar[bool] = False

    def __init__(self, settings: ModelSettings, num_channels: int) -> None:
        super().__init__()
        self.settings = settings

    def forward(self, inputs: Tensor, input_times: Tensor, target_times: Tensor) -> Tensor:
        """See ``Forecaster.forward``."""
        input_times, target_times = self.seen_times(input_times, target_times)
        last = widen(inputs[:, -1])
        velocity = target_times.new_zeros(len(inputs), 2)
        if inputs.shape[1] > 1:
            interval = input_times[:, -1:] - input_times[:, -2:-1]
            velocity = phase_correlation(inputs[:, -2], inputs[:, -1]).to(interval) / interval
        motion = velocity[:, :, None, None].expand(-1, -1, *last.shape[-2:])
        return advect(last, motion, target_times, last)


def phase_correlation(before: Tensor, after: Tensor) -> Tensor:
    """The shift that takes one map to the next, found where their phase correlation peaks.

    R(k) = G(k) sum_c A_c(k) B_c(k)* / |sum_c A_c(k) B_c(k)*|, with A and B the spectra after and before and G a
    Gaussian one pixel wide, gives a surface that peaks at the shift, to parts of a pixel by a parabola through the
    peak and its neighbours. Kuglin and Hines 1975, The phase correlation image alignment method. Frames fade
    towards the edges, where opposite ones do not join.

    Args:
        before: (B, C, H, W).
        after: (B, C, H, W).

    Returns:
        (B, 2), columns first, in pixels, float64; 0 where either is constant.
    """
    height, width = before.shape[-2:]
    window = _fade(height, before)[:, None] * _fade(width, before)
    spectra = [
        torch.fft.rfft2((frames.double() - frames.double().mean((-2, -1), keepdim=True)) * window)
        for frames in (before, after)
    ]
    cross = (spectra[1] * spectra[0].conj()).sum(1)
    strength = cross.abs()
    least = (WEAKEST * strength.amax((-2, -1), keepdim=True)).clamp(min=torch.finfo(strength.dtype).tiny)
    rows, columns = torch.fft.fftfreq(height).to(strength), torch.fft.rfftfreq(width).to(strength)
    smooth = torch.exp(-2 * (torch.pi * PEAK_WIDTH) ** 2 * (rows[:, None] ** 2 + columns**2))
    surface = torch.fft.irfft2(cross / (strength + least) * smooth, s=(height, width))
    peak = surface.flatten(1).argmax(1)
    samples, row, column = torch.arange(len(peak), device=peak.device), peak // width, peak % width
    return torch.stack([_shift(surface[samples, row], column), _shift(surface[samples, :, column], row)], dim=1)


def _fade(size: int, like: Tensor) -> Tensor:
    """A window (size,) that rises from each end by a sine squared, above 0 also on the smallest map."""
    place = (torch.arange(size, dtype=torch.float64, device=like.device) + 0.5) / size
    from_edge = torch.minimum(place, 1 - place)
    return torch.sin(torch.pi / 2 * (from_edge / EDGE_SHARE).clamp(max=1)) ** 2


def _shift(line: Tensor, peak: Tensor) -> Tensor:
    """Where lines (B, n), which are periodic, peak near their largest value: from -n/2 to n/2."""
    size = line.shape[1]
    left, middle, right = (line.gather(1, (peak[:, None] + step) % size)[:, 0] for step in (-1, 0, 1))
    bend = left - 2 * middle + right
    offset = torch.where(bend < 0, 0.5 * (left - right) / bend, torch.zeros_like(bend))
    return (peak + size // 2) % size - size // 2 + offset
