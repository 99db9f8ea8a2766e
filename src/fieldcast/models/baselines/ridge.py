"""Ridge regression with an intercept for few samples of many features, its penalty by cross-validation over blocks.

Shapes: N samples in order of time, F features, Q outputs, n samples at which an output is known, m left out.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

FEATURES_AT_ONCE = 2**16  # in float64
# Candidate penalties, greatest first, so that of equals the simplest is taken.
SHARES = tuple(10.0 ** (power / 2) for power in range(8, -9, -1))


@dataclass(frozen=True)
class Blocks:
    """How samples are held out: in ``num_blocks`` contiguous blocks, with ``gap`` samples on either side of one unused.

    Neighbouring samples are windows that overlap: they share most of their inputs, and their flows are nearly alike.
    A sample held out alone would be guessed from its neighbours, which rewards too small a penalty.
    """

    num_blocks: int = 5
    gap: int = 0

    def of(self, samples: Tensor, num_samples: int) -> Iterator[tuple[Tensor, Tensor]]:
        """For each block, which of the ``samples`` (n,) out of ``num_samples`` are left out of the fit, as places
        (m,), and which of these are scored, (m,) bool."""
        for number in range(self.num_blocks):
            first, stop = (num_samples * end // self.num_blocks for end in (number, number + 1))
            left_out = ((samples >= first - self.gap) & (samples < stop + self.gap)).nonzero()[:, 0]
            scored = (samples[left_out] >= first) & (samples[left_out] < stop)
            if scored.any() and len(left_out) < len(samples):
                yield left_out, scored


class Ridge(NamedTuple):
    """y_q(x) = <weights[:, q], x> + intercepts[q], float64: weights (F, Q), intercepts (Q,), penalties (Q,)."""

    weights: Tensor
    intercepts: Tensor
    penalties: Tensor


class DualRidge(NamedTuple):
    """y_q(x) = sum_n coefficients[n, q] <x_n, x> + intercepts[q], float64: (N, Q), (Q,), penalties (Q,)."""

    coefficients: Tensor
    intercepts: Tensor
    penalties: Tensor


def fit_ridge(
    features: Tensor,
    targets: Tensor,
    valid: Tensor | None = None,
    shares: tuple[float, ...] = SHARES,
    blocks: Blocks = Blocks(),
) -> Ridge:
    """Ridge regression of each output on all features, over the samples at which the output is known.

    min over w, b of sum_n (y_n - <w, x_n> - b)^2 + penalty |w|^2; Hoerl and Kennard 1970, Technometrics 12, 55,
    with the features centred. See ``fit_dual`` for how the penalty is chosen.

    Args:
        features: (N, F), in order of time.
        targets: (N, Q).
        valid: (N, Q) bool, where the target is known; None: everywhere.
        shares: candidates for the penalty, as multiples of the mean squared length of a centred sample.
        blocks: which samples are held out together to choose among them.
    """
    parts = features.split(FEATURES_AT_ONCE, dim=1)
    known = torch.ones_like(targets, dtype=torch.bool) if valid is None else valid
    dual = fit_dual(inner_products(features), targets, known, shares, blocks)
    weights = torch.cat([part.double().T @ dual.coefficients for part in parts])
    return Ridge(weights, dual.intercepts, dual.penalties)


def inner_products(features: Tensor) -> Tensor:
    """(N, F) -> (N, N), in float64."""
    gram = features.new_zeros(len(features), len(features), dtype=torch.float64)
    for part in features.split(FEATURES_AT_ONCE, dim=1):
        gram.addmm_(part.double(), part.double().T)
    return gram


def centred_products(gram: Tensor) -> Tensor:
    """Inner products (N, N) of the samples about their mean, from those of the samples."""
    return gram - gram.mean(dim=0) - gram.mean(dim=1, keepdim=True) + gram.mean()


def fit_dual(
    gram: Tensor,
    targets: Tensor,
    valid: Tensor,
    shares: tuple[float, ...] = SHARES,
    blocks: Blocks = Blocks(),
) -> DualRidge:
    """Ridge regression from the inner products of the samples alone, for N far below F.

    With the centred products K = V diag(s) V', the coefficients are V diag(1 / (s + penalty)) V' y (Saunders,
    Gammerman and Vovk 1998, ICML, page 515). Each output has the penalty of the least squared error of held-out blocks;
    outputs that are known at the same samples are solved together. An output known at one sample is that value
    everywhere, one known at none is 0. With F below N use penalties well above rounding, since directions without
    variance are divided by the penalty alone.

    Args:
        gram: (N, N), see ``inner_products``.
        targets: (N, Q), anything finite where not valid.
        valid: (N, Q) bool.
        shares: see ``fit_ridge``.
        blocks: see ``fit_ridge``.
    """
    targets = targets.double()
    coefficients = torch.zeros_like(targets)
    intercepts, penalties = targets.new_zeros(2, targets.shape[1])
    patterns, kinds = torch.unique(valid, dim=1, return_inverse=True)
    for kind, pattern in enumerate(patterns.T):
        samples, outputs = pattern.nonzero()[:, 0], (kinds == kind).nonzero()[:, 0]
        if len(samples) == 0:
            continue
        own, values = gram[samples][:, samples], targets[samples][:, outputs]
        spectrum = _spectrum(own)
        held_out = list(blocks.of(samples, len(targets))) if len(shares) > 1 else []
        chosen = _choose(spectrum, values, shares, held_out)
        found = spectrum.solve(values, chosen)
        coefficients[samples[:, None], outputs] = found
        intercepts[outputs] = (values - own @ found).mean(dim=0)
        penalties[outputs] = chosen
    return DualRidge(coefficients, intercepts, penalties)


class _Spectrum(NamedTuple):
    """Eigenvalues (n - 1,) and -vectors (n, n - 1) of centred inner products, without the constant vector."""

    values: Tensor
    vectors: Tensor
    scale: float  # mean squared length of a centred sample

    def solve(self, targets: Tensor, penalties: Tensor) -> Tensor:
        """Coefficients (n, Q) of targets (n, Q) under penalties (Q,)."""
        return self.vectors @ (self.vectors.T @ targets / (self.values[:, None] + penalties))


def _spectrum(gram: Tensor) -> _Spectrum:
    centred = centred_products(gram)
    trace = float(centred.trace()) or 1.0
    # The constant vector becomes the one of the greatest eigenvalue, to be told from others without variance.
    values, vectors = torch.linalg.eigh(centred + 2 * trace / len(gram))
    return _Spectrum(values[:-1].clamp(min=0), vectors[:, :-1], trace / len(gram))


def _choose(
    spectrum: _Spectrum, targets: Tensor, shares: tuple[float, ...], held_out: list[tuple[Tensor, Tensor]]
) -> Tensor:
    """The penalty of the least squared error for each output, (Q,).

    The errors of a fit without some samples L follow from the fit with them: (C_LL)^-1 alpha_L, with the inverse C of
    the penalised products and the coefficients alpha (An, Liu and Venkatesh 2007, Pattern Recognition 40, 2154).
    """
    candidates = targets.new_tensor(shares) * spectrum.scale
    errors = targets.new_zeros(len(shares), targets.shape[1])
    for row, penalty in enumerate(candidates):
        coefficients = spectrum.solve(targets, penalty)
        for left_out, scored in held_out:
            vectors = spectrum.vectors[left_out]
            inverse = (vectors / (spectrum.values + penalty)) @ vectors.T
            missed = torch.linalg.solve(inverse, coefficients[left_out])
            errors[row] += missed[scored].square().sum(dim=0)
    return candidates[errors.argmin(dim=0)]
