"""Masked losses as sums and counts, so that gradients of parts of a batch add to the gradient of the whole.

Shapes: B batch, S target frames, C channels, H rows, W columns. Fields are normalised; SSIM takes them to have
the data range 1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from fieldcast.metrics.pixels import PROBABILITY_MARGIN
from fieldcast.metrics.structural_similarity import structural_similarity, valid_windows
from fieldcast.settings import Settings


@dataclass(frozen=True)
class Loss:
    """A loss as a sum and the number of what it sums.

    ``errors(predicted, target, valid)`` takes fields (B, S, C, H, W) and gives the scalar sum over valid
    elements, differentiable, in float32 under autocast too (float64 where a field has it). Targets may be NaN
    where ``valid`` is False.

    ``count(valid)`` gives how many elements or windows that sum goes over, from the validity alone.
    """

    errors: Callable[[Tensor, Tensor, Tensor], Tensor]
    count: Callable[[Tensor], Tensor]


class LossConfig(Settings):
    """Weights of the losses in the sum that is trained on; a loss of weight 0 is not computed."""

    mse: float = Field(default=0.0, ge=0)
    mae: float = Field(default=0.0, ge=0)
    ssim: float = Field(default=0.0, ge=0)
    cross_entropy: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _some_weight(self) -> Self:
        if not self.weights():
            raise ValueError(f"every weight is 0; set at least one of {', '.join(type(self).model_fields)} above 0")
        return self

    def weights(self) -> dict[str, float]:
        """The weights above 0, by key of ``LOSSES``."""
        return {name: weight for name in LOSSES if (weight := getattr(self, name.replace("-", "_"))) > 0}


def squared_errors(predicted: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Sum of (predicted - target)^2 over valid pixels."""
    predicted, target = _masked(predicted, target, valid)
    return (predicted - target).square().sum()


def absolute_errors(predicted: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Sum of |predicted - target| over valid pixels."""
    predicted, target = _masked(predicted, target, valid)
    return (predicted - target).abs().sum()


def structural_dissimilarities(predicted: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Sum of 1 - SSIM over the Gaussian windows whose pixels are all valid, for the data range 1.

    Raises:
        DataError: for frames smaller than the window.
    """
    predicted, target = _masked(predicted, target, valid)
    dissimilarity = 1 - structural_similarity(predicted, target, data_range=1.0)
    return torch.where(valid_windows(valid), dissimilarity, 0).sum()


def cross_entropies(predicted: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Sum of the Bernoulli cross-entropy over valid pixels.

        -(t log p + (1 - t) log(1 - p)), with p kept within [1e-6, 1 - 1e-6]

    Targets and predictions are in [0, 1]; a prediction beyond the bounds of p has no gradient.
    """
    predicted, target = _masked(predicted, target, valid)
    probability = predicted.clamp(PROBABILITY_MARGIN, 1 - PROBABILITY_MARGIN)
    entropy = -(target * probability.log() + (1 - target) * torch.log1p(-probability))
    return torch.where(valid, entropy, 0).sum()


def _masked(predicted: Tensor, target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    assert predicted.shape == target.shape == valid.shape, f"{predicted.shape}, {target.shape}, {valid.shape}"
    dtype = torch.promote_types(torch.promote_types(predicted.dtype, target.dtype), torch.float32)
    # NaN must go before any arithmetic: the gradient of a masked NaN is 0 * NaN.
    return torch.where(valid, predicted.to(dtype), 0), torch.where(valid, target.to(dtype), 0)


def _num_windows(valid: Tensor) -> Tensor:
    return valid_windows(valid).sum()


LOSSES: dict[str, Loss] = {
    "mse": Loss(squared_errors, torch.sum),
    "mae": Loss(absolute_errors, torch.sum),
    "ssim": Loss(structural_dissimilarities, _num_windows),
    "cross-entropy": Loss(cross_entropies, torch.sum),
}


def counts(valid: Tensor, config: LossConfig) -> dict[str, Tensor]:
    """How many elements or windows each loss of weight above 0 sums over, int64 scalars by key of ``LOSSES``.

    Add them over micro-batches and processes before they go to ``weighted_loss``.

    Raises:
        DataError: for SSIM with frames smaller than its window.
    """
    return {name: LOSSES[name].count(valid) for name in config.weights()}


def weighted_loss(
    predicted: Tensor, target: Tensor, valid: Tensor, config: LossConfig, counts: dict[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted sum of the mean losses, of which this batch gives its share.

        loss = sum_k weight_k errors_k(this batch) / counts_k(all batches)

    so that losses and gradients of micro-batches and processes add to those of the whole. Where nothing is
    valid anywhere, a loss is 0 and has no gradient. The thesis trains on mse = mae = 1, ssim = 0.05.

    Source: thesis, eq. (5.1), as means over every element, which is what its release computes.

    Args:
        predicted: (B, S, C, H, W), normalised, any floating dtype.
        target: (B, S, C, H, W), normalised; may be NaN where not valid.
        valid: (B, S, C, H, W), bool.
        config: the weights.
        counts: from ``counts``, added over everything that makes one step, in any dtype.

    Returns:
        The scalar loss; and its weighted parts, which add to it, detached, by key of ``LOSSES``.

    Raises:
        DataError: for SSIM with frames smaller than its window.
    """
    parts = {}
    for name, weight in config.weights().items():
        errors = LOSSES[name].errors(predicted, target, valid)
        parts[name] = weight * errors / counts[name].clamp(min=1).to(errors.dtype)
    return torch.stack(list(parts.values())).sum(), {name: part.detach() for name, part in parts.items()}
