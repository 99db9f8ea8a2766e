"""Numbers of a forecast that are explained: a station, a pixel, the mean of a region, each at its lead time.

Shapes: Q outputs, N forecasts, S targets, C fields, H rows, W columns, R stations.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fieldcast.errors import ConfigError


@dataclass(frozen=True)
class Outputs:
    """Linear numbers of a forecast, <weights_q, forecast>.

    ``weights`` is (Q, S, C, H, W) for maps, (Q, S, C, R) for stations; ``names`` are Q.
    """

    names: tuple[str, ...]
    weights: Tensor

    def __post_init__(self) -> None:
        assert len(self.names) == len(self.weights), "each output has one name"

    def __len__(self) -> int:
        return len(self.names)

    def of(self, forecast: Tensor) -> Tensor:
        """The numbers (N, Q) of forecasts (N, S, C, ...)."""
        assert forecast.shape[1:] == self.weights.shape[1:], "outputs are of forecasts of another shape"
        return forecast.flatten(1) @ self.weights.to(forecast).flatten(1).T


def join_outputs(parts: Sequence[Outputs]) -> Outputs:
    """All outputs of the parts, in their order."""
    return Outputs(sum((part.names for part in parts), ()), torch.cat([part.weights for part in parts]))


def station_outputs(
    names: Sequence[str], numbers: Sequence[int], num_stations: int, leads: Sequence[float] = (0,)
) -> Outputs:
    """The value at each station and each lead time.

    Args:
        names: of the stations.
        numbers: places of the stations among all R.
        num_stations: R.
        leads: the S lead times in cadences, as they are asked of the model; where there are more than one, an output
            is named "NAME +LEAD".

    Returns:
        one output for each station and lead time, the lead times of a station together; weights (Q, S, 1, R).

    Raises:
        ConfigError: for a station that isn't there.
    """
    assert len(names) == len(numbers), "each station has one name"
    for number in numbers:
        if not 0 <= number < num_stations:
            raise ConfigError(f"station {number}: there are {num_stations}, counted from 0")
    weights = torch.zeros(len(names), len(leads), len(leads), 1, num_stations)
    for place, number in enumerate(numbers):
        weights[place, :, :, 0, number] = torch.eye(len(leads))
    labels = [f" +{lead:g}" for lead in leads] if len(leads) > 1 else [""]
    return Outputs(tuple(name + label for name in names for label in labels), weights.flatten(0, 1))


def pixel_output(name: str, shape: tuple[int, int, int, int], place: tuple[int, int, int, int]) -> Outputs:
    """The value of one pixel.

    Args:
        name: of the output.
        shape: (S, C, H, W) of a forecast.
        place: target, field, row and column, counted from 0.

    Raises:
        ConfigError: for a place outside the forecast.
    """
    _check_place(shape, place)
    weights = torch.zeros(1, *shape)
    weights[(0, *place)] = 1
    return Outputs((name,), weights)


def region_output(name: str, shape: tuple[int, int, int, int], target: int, field: int, region: Tensor) -> Outputs:
    """The mean over a region, weighted where the region is not of zeros and ones.

    Args:
        name: of the output.
        shape: (S, C, H, W) of a forecast.
        target: which target, counted from 0.
        field: which field, counted from 0.
        region: (H, W), a mask or the share of each pixel that belongs to it.

    Raises:
        ConfigError: for a region of another map, without a pixel or with shares below zero.
    """
    _check_place(shape, (target, field, 0, 0))
    if region.shape != shape[2:]:
        raise ConfigError(f"region of {tuple(region.shape)} pixels: the forecast has {tuple(shape[2:])}")
    share = region.double()
    if not ((share >= 0).all() and 0 < share.sum() < torch.inf):
        raise ConfigError("region: shares of pixels are not below zero, and one of them at least is above")
    weights = torch.zeros(1, *shape, dtype=torch.float64)
    weights[0, target, field] = share / share.sum()
    return Outputs((name,), weights)


def _check_place(shape: tuple[int, ...], place: tuple[int, ...]) -> None:
    for what, number, size in zip(("target", "field", "row", "column"), place, shape, strict=True):
        if not 0 <= number < size:
            raise ConfigError(f"{what} {number}: the forecast has {size}, counted from 0")
