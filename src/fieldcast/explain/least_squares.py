"""What any linear surrogate can reach: the bound from ordinary least squares, and ridge regression for held-out time.

Shapes: N sequences, T input frames, C fields, H rows, W columns, Q outputs.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fieldcast.explain.linear_kernels import LinearKernels
from fieldcast.explain.optimal_reference import NUMBERS_AT_ONCE, Series, field_scale, squares_about_mean
from fieldcast.models.baselines.ridge import Blocks, centred_products, fit_dual, inner_products

RANK_SHARE = 1e-12  # of the greatest eigenvalue of the inner products; what is below is rounding


@dataclass(frozen=True)
class LeastSquaresBound:
    """What no reference and no average of kernels can fall below on the sequences it was taken of.

    Attributes:
        loss: least share of each output's variance that a linear function leaves unexplained, (Q,); 0 where the rank
            is one less than the number of sequences, for then some linear function goes through them all; NaN where
            the output is constant or known nowhere.
        ranks: dimensions that the sequences span about their mean, (Q,), over those at which the output is known.
        informative: whether that is less than their number less one, (Q,).
    """

    loss: Tensor
    ranks: Tensor
    informative: Tensor


def least_squares_bound(series: Series) -> LeastSquaresBound:
    """The residual of ordinary least squares with an intercept.

    min over a, w of sum_t (R_t - a - <w, X^t>)^2 <= J of any surrogate a + <w, X^t>, as the averaged kernels of the
    runoff note, equation 80, and those of a single reference, equation 81, are.

    Args:
        series: sequences and what each output is there; NaN is left out.
    """
    products = _inner_products(series.inputs)
    losses, ranks, informative = [], [], []
    for target, total in zip(series.targets.double().T, squares_about_mean(series.targets), strict=True):
        known = ~target.isnan()
        if total == 0:
            losses.append(torch.nan)
            ranks.append(0)
            informative.append(False)
            continue
        values, vectors = torch.linalg.eigh(centred_products(products[known][:, known]))
        spanned = vectors[:, values > RANK_SHARE * values[-1]]
        about_mean = target[known] - target[known].mean()
        left = about_mean - spanned @ (spanned.T @ about_mean)
        free = spanned.shape[1] < int(known.sum()) - 1
        losses.append(float(left.square().sum() / total) if free else 0.0)
        ranks.append(spanned.shape[1])
        informative.append(free)
    return LeastSquaresBound(torch.tensor(losses, dtype=torch.float64), torch.tensor(ranks), torch.tensor(informative))


def ridge_surrogate(series: Series, num_folds: int) -> LinearKernels:
    """The linear function that ridge regression finds, fields in units of their standard deviation.

    Where there are fewer sequences than numbers in one, ordinary least squares explains them all and nothing else: the
    penalty of each output is chosen by cross-validation over blocks of time, without the sequences that share a frame
    with the block; what the surrogate is worth shows on others still. Its ``value`` is what it gives at the mean
    sequence.

    Args:
        series: in order of time.
        num_folds: blocks of sequences that are held out in turn.
    """
    inputs, targets = series
    known = ~targets.isnan()
    blocks = Blocks(num_folds, num_overlapping(inputs))
    dual = fit_dual(_inner_products(inputs), targets.nan_to_num(nan=0.0), known, blocks=blocks)
    mean, scale = inputs.mean(0, dtype=torch.float64), field_scale(inputs)
    weights = torch.zeros(targets.shape[1], *inputs.shape[1:], dtype=torch.float64, device=inputs.device)
    size, start = max(1, NUMBERS_AT_ONCE // mean.numel()), 0
    for part in inputs.split(size):
        rows = ((part.double() - mean) / scale).flatten(1)
        weights += (dual.coefficients[start : start + len(part)].T @ rows).view_as(weights)
        start += len(part)
    weights /= scale
    offset = dual.intercepts - (weights * mean).flatten(1).sum(1)
    return LinearKernels(dual.intercepts, offset, weights.to(inputs.dtype))


def num_overlapping(inputs: Tensor) -> int:
    """How many of the sequences that follow the first one still hold its last frame."""
    count = 0
    for later in inputs[1:]:
        if not (later == inputs[0, -1]).flatten(1).all(1).any():
            break
        count += 1
    return count


def _inner_products(inputs: Tensor) -> Tensor:
    """Of the sequences about their mean, fields in units of their standard deviation, (N, N) in float64."""
    mean, scale = inputs.mean(0, dtype=torch.float64), field_scale(inputs)
    # One lag at a time: windows overlap, and in float64 all of them may not fit into memory.
    lags = (inner_products(((inputs[:, lag] - mean[lag]) / scale).flatten(1)) for lag in range(inputs.shape[1]))
    return sum(lags, torch.zeros((), dtype=torch.float64, device=inputs.device))
