"""From the flow of rivers to numbers near 0 and back, station by station, with statistics of the training split alone.

Shapes: C = 1 variable, R stations, n times of a piece.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fieldcast.errors import DataError
from fieldcast.settings import Settings

_log = logging.getLogger(__name__)
FlowTransform = Literal["identity", "log", "box-cox"]


class FlowNormalizerSettings(Settings):
    """Which transform flow goes through before it is standardised.

    ``offset_share`` of a station's mean training flow is added first, so that the log of no flow is finite;
    ``box_cox_power`` is the power of box-cox: 1 is linear, towards 0 it becomes the log. ``flow_scale``: each station
    has a mean and a deviation of its own, or all have the same ones, which suits flow that is comparable as it is, such
    as multiples of a long record's deviation: in a short training split a creek may all but stand still.
    """

    flow_transform: FlowTransform = "log"
    flow_scale: Literal["station", "common"] = "station"
    offset_share: float = Field(default=0.01, gt=0, le=1)
    box_cox_power: float = Field(default=0.25, gt=0, le=1)


class Named(Protocol):
    """Anything with the names of stations."""

    @property
    def names(self) -> tuple[str, ...]:
        """One name for each of the R stations."""


@dataclass(frozen=True)
class FlowNormalizer:
    """Each station's way to numbers of mean 0 and standard deviation 1 over the training split, or that of all of them.

    normalised = (t(q) - mean_r) / deviation_r, with t(q) = q (identity), log(q + c_r) (log), or
    ((q + c_r)^p - 1) / p (box-cox; Box and Cox 1964, eq. 2). Each tuple has one number for each of the R stations:
    the offset c_r, mean and standard deviation of t(q), and the least and greatest flow of the training split.
    """

    name: FlowTransform
    power: float
    offsets: tuple[float, ...]
    means: tuple[float, ...]
    deviations: tuple[float, ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...]

    def normalise(self, flow: Tensor) -> Tensor:
        """(..., 1, R) physical -> normalised, NaN kept."""
        values = transformed(flow, self.name, flow.new_tensor(self.offsets), self.power)
        return (values - flow.new_tensor(self.means)) / flow.new_tensor(self.deviations)

    def denormalise(self, values: Tensor) -> Tensor:
        """(..., 1, R) normalised -> physical, NaN kept; log and box-cox give no flow below zero."""
        values = values * values.new_tensor(self.deviations) + values.new_tensor(self.means)
        if self.name == "identity":
            return values
        offsets = values.new_tensor(self.offsets)
        if self.name == "log":
            return (values.exp() - offsets).clamp(min=0)
        return ((self.power * values + 1).clamp(min=0) ** (1 / self.power) - offsets).clamp(min=0)

    def data_range(self) -> Tensor:
        """Greatest less least flow of each station in the training split, (1, R), physical."""
        return torch.tensor([self.highs]) - torch.tensor([self.lows])

    def to_plain(self) -> dict:
        """Plain types for a checkpoint."""
        return {key: list(item) if isinstance(item, tuple) else item for key, item in asdict(self).items()}

    @staticmethod
    def from_plain(values: dict) -> "FlowNormalizer":
        """Undo ``to_plain``."""
        plain: dict[str, Any] = {key: tuple(item) if isinstance(item, list) else item for key, item in values.items()}
        return FlowNormalizer(**plain)


def transformed(flow: Tensor, name: FlowTransform, offsets: Tensor, power: float) -> Tensor:
    """t(q) of `FlowNormalizer`, not yet standardised: (..., R) -> (..., R)."""
    if name == "identity":
        return flow
    if name == "log":
        return torch.log(flow + offsets)
    return ((flow + offsets) ** power - 1) / power


def fit_flow_normalizer(
    settings: FlowNormalizerSettings, stations: Named, pieces: Iterable[np.ndarray]
) -> FlowNormalizer:
    """Find each station's statistics; a station whose flow never changes has the deviation 1, with a warning.

    Args:
        settings: name and numbers of the transform.
        stations: the R stations.
        pieces: flow of the training split, (n, 1, R) physical, NaN where missing.

    Raises:
        DataError: for a station without a value, or with flow below zero where the transform takes none.
    """
    names = stations.names
    flow = np.concatenate([np.empty((0, len(names))), *(piece[:, 0].astype(np.float64) for piece in pieces)])
    empty = [name for name, known in zip(names, np.isfinite(flow).any(axis=0), strict=True) if not known]
    if empty:
        raise DataError(
            f"no flow in the training split at {_listed(empty)}: leave these stations out of 'stations', "
            "or train on other times"
        )
    refuse_negative(settings, names, flow)
    means = np.nanmean(flow, axis=0)
    # A river that is always dry has no scale of its own.
    offsets = settings.offset_share * np.where(means > 0, means, 1.0)
    name, power = settings.flow_transform, settings.box_cox_power
    values = transformed(torch.from_numpy(flow), name, torch.from_numpy(offsets), power).numpy()
    means, deviations = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
    if settings.flow_scale == "common":
        means, deviations = np.full_like(means, np.nanmean(values)), np.full_like(deviations, np.nanstd(values))
    lows, highs = np.nanmin(flow, axis=0), np.nanmax(flow, axis=0)
    constant = deviations == 0 if settings.flow_scale == "common" else (lows == highs) | (deviations == 0)
    if constant.any():
        still = [station for station, is_constant in zip(names, constant, strict=True) if is_constant]
        _log.warning("flow is constant in the training split at %s: only its mean is taken off", _listed(still))
    columns = (offsets, means, np.where(constant, 1.0, deviations), lows, highs)
    return FlowNormalizer(name, power, *(tuple(map(float, column)) for column in columns))


def refuse_negative(settings: FlowNormalizerSettings, names: Sequence[str], flow: np.ndarray) -> None:
    """Refuse flow (..., R) below zero where the transform is of flow that is not.

    Raises:
        DataError: that names the station, its least flow and the transform to use.
    """
    if settings.flow_transform == "identity":
        return
    lows = np.fmin.reduce(flow.reshape(-1, len(names)), axis=0, initial=np.inf)
    if (lows < 0).any():
        worst = int(np.argmin(lows))
        raise DataError(
            f"station '{names[worst]}' has flow below zero ({lows[worst]:g}), which the transform "
            f"'{settings.flow_transform}' can't take: use flow_transform = \"identity\""
        )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"station{'s' if len(names) > 1 else ''} {', '.join(names[:5])}{more}"
