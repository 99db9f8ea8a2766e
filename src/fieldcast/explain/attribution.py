"""Which inputs made one forecast differ from that of a baseline: three ways, in units of the output.

Shapes: N sequences, T input frames, C fields, H rows, W columns, Q outputs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from pydantic import model_validator
from torch import Tensor

from fieldcast.errors import DataError
from fieldcast.explain.linear_kernels import LinearKernels, linear_kernels
from fieldcast.explain.network import Network
from fieldcast.settings import Count, Settings


@dataclass(frozen=True)
class Attribution:
    """Shares of each input number in M_q(X) - M_q(baseline).

    Attributes:
        shares: (Q, T, C, H, W) in units of the output.
        difference: M_q(X) - M_q(baseline), (Q,) float64.
    """

    shares: Tensor
    difference: Tensor

    @property
    def gap(self) -> Tensor:
        """The sum of the shares less the difference, (Q,): 0 where the attribution is complete."""
        return self.shares.double().flatten(1).sum(1) - self.difference


class OcclusionSettings(Settings):
    """What is hidden at a time: ``size`` pixels each way and ``num_lags`` frames of one field.

    The next patch begins ``stride`` pixels and ``lag_stride`` frames on. What is hidden several times has the mean.
    """

    size: Count = 8
    stride: Count = 8
    num_lags: Count = 1
    lag_stride: Count = 1
    batch_size: Count = 32

    @model_validator(mode="after")
    def _no_gaps(self) -> "OcclusionSettings":
        if self.stride > self.size or self.lag_stride > self.num_lags:
            raise ValueError(
                f"stride = {self.stride} of size = {self.size}, lag_stride = {self.lag_stride} of num_lags = "
                f"{self.num_lags}: a stride longer than the patch leaves pixels out"
            )
        return self


def kernel_contribution(network: Network, kernels: LinearKernels, inputs: Tensor, baseline: Tensor) -> Attribution:
    """What the linear surrogate says: omega_q (X - baseline), number by number.

    Args:
        network: whose difference is to be explained.
        kernels: of the same outputs.
        inputs: X, (1, T, C, H, W) in physical units; NaN is as in training.
        baseline: of the same shape.

    Raises:
        DataError: for sequences of different shapes.
    """
    inputs, baseline, difference = _compare(network, inputs, baseline)
    return Attribution(kernels.weights * (inputs - baseline).to(kernels.weights), difference)


def integrated_gradients(network: Network, inputs: Tensor, baseline: Tensor, num_points: int = 32) -> Attribution:
    """Kernels averaged along the straight way from the baseline to the inputs, times what lies between.

    (X - B) integral_0^1 d M_q / d X (B + s (X - B)) ds;   Sundararajan, Taly and Yan 2017, equation 1.

    By Gauss-Legendre points, which are exact for polynomials of s up to degree 2 n - 1. Its shares add up to
    M_q(X) - M_q(B) but for the error of the integral, the ``gap``: it falls fast for smooth networks, and slowly for
    those with kinks (ReLU).

    Args:
        network: whose difference is to be explained.
        inputs: X, (1, T, C, H, W) in physical units; NaN is as in training.
        baseline: B, of the same shape, such as the mean sequence.
        num_points: n; the cost is n sets of kernels.

    Raises:
        DataError: for sequences of different shapes.
    """
    inputs, baseline, difference = _compare(network, inputs, baseline)
    between = inputs - baseline
    points, lengths = np.polynomial.legendre.leggauss(num_points)
    mean = torch.zeros(len(network.outputs), *inputs.shape[1:], dtype=torch.float64, device=inputs.device)
    for place, length in zip((points + 1) / 2, lengths / 2, strict=True):
        mean += length * linear_kernels(network, baseline + place * between).weights
    return Attribution((mean * between).to(inputs.dtype), difference)


def occlusion(network: Network, inputs: Tensor, baseline: Tensor, settings: OcclusionSettings) -> Attribution:
    """By how much the outputs fall where a patch of the inputs is replaced by the baseline.

    M_q(X) - M_q(X with the baseline in the patch);   Zeiler and Fergus 2014, section 4.2.

    The difference is spread evenly over the numbers of the patch, so that it stands in the units of the other
    attributions, the output's for each number; for a linear network it is the mean of theirs over the patch. Patches at
    the edge of the map and of the sequence are cut off.

    Args:
        network: whose difference is to be explained.
        inputs: X, (1, T, C, H, W) in physical units; NaN is as in training.
        baseline: of the same shape.
        settings: of the patches.

    Raises:
        DataError: for sequences of different shapes.
    """
    inputs, baseline, difference = _compare(network, inputs, baseline)
    shares = torch.zeros(len(network.outputs), *inputs.shape[1:], dtype=torch.float64, device=inputs.device)
    counts = torch.zeros(inputs.shape[1:], dtype=torch.float64, device=inputs.device)
    patches = list(_patches(inputs.shape[1:], settings))
    whole = _outputs(network, inputs)[0]
    for start in range(0, len(patches), settings.batch_size):
        chosen = patches[start : start + settings.batch_size]
        hidden = inputs.repeat(len(chosen), 1, 1, 1, 1)
        for copy, patch in zip(hidden, chosen, strict=True):
            copy[patch] = baseline[0][patch]
        for patch, left in zip(chosen, _outputs(network, hidden), strict=True):
            every = shares[(slice(None), *patch)]
            every += ((whole - left) / counts[patch].numel())[:, None, None, None, None]
            counts[patch] += 1
    return Attribution((shares / counts).to(inputs.dtype), difference)


def _patches(shape: tuple[int, ...], settings: OcclusionSettings) -> Iterator[tuple[slice, ...]]:
    num_frames, num_fields, rows, columns = shape
    frames = _windows(num_frames, settings.num_lags, settings.lag_stride)
    fields = [slice(field, field + 1) for field in range(num_fields)]
    across = [_windows(length, settings.size, settings.stride) for length in (rows, columns)]
    return product(frames, fields, *across)


def _windows(length: int, size: int, stride: int) -> list[slice]:
    """Windows that cover a length; the last is cut off at its end."""
    starts = range(0, max(1, length - size + stride), stride)
    return [slice(start, min(start + size, length)) for start in starts]


def _compare(network: Network, inputs: Tensor, baseline: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Both sequences as the model takes them, and how their outputs differ."""
    if inputs.shape[0] != 1 or inputs.shape != baseline.shape:
        raise DataError(
            f"inputs of shape {tuple(inputs.shape)}, a baseline of {tuple(baseline.shape)}: "
            "one sequence each, of the same shape, can be compared"
        )
    inputs, baseline = (network.filled(one.detach().to(network.dtype)) for one in (inputs, baseline))
    return inputs, baseline, _outputs(network, inputs)[0] - _outputs(network, baseline)[0]


def _outputs(network: Network, inputs: Tensor) -> Tensor:
    with network.at_rest(), torch.no_grad():
        return network(inputs).double()
