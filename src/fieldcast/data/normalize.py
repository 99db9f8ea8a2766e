"""From physical units to numbers near [0, 1] and back, with statistics of the training split alone."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fieldcast.data.source import Variable
from fieldcast.errors import DataError
from fieldcast.settings import Settings, TupleOf

TransformName = Literal["identity", "scale", "log-rate", "dbz"]
DRY_RATE = 0.1  # mm/h; no more than this is no rain to the dbz transform
FLOOR_MARGIN = 1e-3  # dBZ, above the rounding of float32, so that no rain comes back as none


class NormalizerSettings(Settings):
    """Which transform each variable goes through, and Z = a R^b for dbz."""

    transform: TransformName | TupleOf[TransformName] = "scale"
    reflectivity: TupleOf[float] = (200.0, 1.6)


@dataclass(frozen=True)
class Transform:
    """One variable's way to [0, 1]: normalised = (t(x) - low) / (high - low).

    identity: the value itself, low = 0, high = 1. scale: t(x) = x. log-rate: t(x) = log(1 + x).
    dbz: t(x) = 10 log10(a x^b) with rates under 0.1 mm/h at the floor (Marshall and Palmer 1948: a 200, b 1.6).
    ``low`` and ``high`` are the extremes of t(x) over the training split.
    """

    name: TransformName
    low: float = 0.0
    high: float = 1.0
    reflectivity: tuple[float, float] = (200.0, 1.6)

    def forward(self, values: Tensor) -> Tensor:
        """Physical to normalised, NaN kept."""
        return (self._transform(values) - self.low) / (self.high - self.low)

    def inverse(self, values: Tensor) -> Tensor:
        """Normalised to physical; rates below zero become zero."""
        values = values * (self.high - self.low) + self.low
        if self.name == "log-rate":
            return torch.expm1(values.clamp(min=0))
        if self.name == "dbz":
            a, b = self.reflectivity
            rate = (10 ** (values / 10) / a) ** (1 / b)
            return torch.where(values > self.floor + FLOOR_MARGIN, rate, torch.zeros_like(rate))
        return values

    @property
    def floor(self) -> float:
        """Reflectivity of the least rain that counts, dBZ."""
        a, b = self.reflectivity
        return 10 * math.log10(a * DRY_RATE**b)

    def _transform(self, values: Tensor) -> Tensor:
        if self.name == "log-rate":
            return torch.log1p(values)
        if self.name == "dbz":
            a, b = self.reflectivity
            return 10 * (math.log10(a) + b * torch.log10(values.clamp(min=DRY_RATE)))
        return values


@dataclass(frozen=True)
class Normalizer:
    """One transform for each channel."""

    transforms: tuple[Transform, ...]

    @property
    def name(self) -> str:
        """The names of the transforms."""
        return ", ".join(transform.name for transform in self.transforms)

    def normalise(self, frames: Tensor) -> Tensor:
        """(..., C, H, W) physical -> normalised, NaN kept."""
        parts = [transform.forward(frames[..., k, :, :]) for k, transform in enumerate(self.transforms)]
        return torch.stack(parts, dim=-3)

    def denormalise(self, frames: Tensor) -> Tensor:
        """(..., C, H, W) normalised -> physical."""
        parts = [transform.inverse(frames[..., k, :, :]) for k, transform in enumerate(self.transforms)]
        return torch.stack(parts, dim=-3)

    def data_range(self) -> Tensor:
        """Physical extent of [0, 1] for each channel, (C, 1, 1): the range that scores in physical units use."""
        ends = torch.tensor([0.0, 1.0])
        extents = [transform.inverse(ends).diff() for transform in self.transforms]
        return torch.stack(extents)[:, :, None].abs()

    def to_plain(self) -> list[dict]:
        """Plain types for a checkpoint."""
        return [asdict(transform) for transform in self.transforms]

    @staticmethod
    def from_plain(values: list[dict]) -> "Normalizer":
        """Undo ``to_plain``."""
        return Normalizer(tuple(Transform(**{**item, "reflectivity": tuple(item["reflectivity"])}) for item in values))


def fit_normalizer(
    settings: NormalizerSettings,
    variables: tuple[Variable, ...],
    frames: Iterable[np.ndarray],
) -> Normalizer:
    """Find each variable's extremes.

    Args:
        settings: names of the transforms.
        variables: what the channels are.
        frames: pieces of the training split, (n, C, H, W) physical, NaN where missing.

    Raises:
        DataError: for a variable that is constant, all missing, or negative where a rate is needed.
    """
    names = settings.transform if isinstance(settings.transform, tuple) else (settings.transform,) * len(variables)
    if len(names) != len(variables):
        raise DataError(f"source.transform has {len(names)} names for {len(variables)} variables")
    blank = [Transform(name, reflectivity=(settings.reflectivity[0], settings.reflectivity[1])) for name in names]
    low, high = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    if any(name != "identity" for name in names):
        for piece in frames:
            for k in range(len(names)):
                # Unlike nanmin, fmin says nothing where all is missing.
                low[k] = np.fmin.reduce(piece[:, k], axis=None, initial=low[k])
                high[k] = np.fmax.reduce(piece[:, k], axis=None, initial=high[k])
    return Normalizer(tuple(_fitted(*row) for row in zip(blank, variables, low, high, strict=True)))


def _fitted(transform: Transform, variable: Variable, low: float, high: float) -> Transform:
    """The transform with its ends, from the physical extremes; every transform grows with its argument."""
    if transform.name == "identity":
        return transform
    where = f"variable '{variable.name}'"
    if high < low:
        raise DataError(f"{where} is missing everywhere in the training split: it can't be normalised")
    if transform.name in ("log-rate", "dbz") and low < 0:
        raise DataError(f"{where} has values below zero ({low:g}), which {transform.name} can't take: use scale")
    if transform.name == "dbz" and variable.units not in ("mm/h", "mm h-1"):
        raise DataError(
            f"the transform dbz takes a rain rate in mm/h, '{variable.name}' is in '{variable.units}': "
            'set units = "mm/h" in [source], or use scale'
        )
    ends = transform._transform(torch.tensor([low, high], dtype=torch.float64)).tolist()
    ends[0] = {"log-rate": 0.0, "dbz": transform.floor}.get(transform.name, ends[0])
    if not np.isfinite(ends).all() or ends[1] <= ends[0]:
        raise DataError(
            f"{where} is constant ({high:g} {variable.units}) in the training split: it can't be normalised"
            if low == high
            else f"{where} reaches from {low:g} to {high:g} {variable.units} in the training split, which "
            f"{transform.name} can't tell apart: it can't be normalised"
        )
    return Transform(transform.name, float(ends[0]), float(ends[1]), transform.reflectivity)
