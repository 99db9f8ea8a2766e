"""Convolution and its adjoint by shifts and sums: the plain reference that faster code is checked against.

One map or stacks of them, over a line (1-D) or a map (2-D); which of them, the kernel's rank decides:

    kernel (K,)          x (..., N)           one line
    kernel (K, L)        x (..., H, W)        one map
    kernel (D, C, K)     x (..., C, N)        C lines to D
    kernel (D, C, K, L)  x (..., C, H, W)     C maps to D

Shapes: C input maps, D output maps, N points of a line, H rows, W columns, K and L extents of the kernel. Indices
count from 0. Sources: the lecture "Neural Organization: Convolution", whose indices count from 1.
"""

from itertools import product
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from fieldcast.errors import DataError

Mode = Literal["valid", "full"]
_OPPOSITE = {"valid": "full", "full": "valid"}


def correlate(x: Tensor, kernel: Tensor, mode: Mode = "valid") -> Tensor:
    """Cross-correlation, the kernel as it stands.

    valid: z_d[i, j] = sum_c sum_m sum_n K_dc[m, n] x_c[i + m, j + n], where the kernel lies within the map;
    full: z_d[i, j] = sum_c sum_m sum_n K_dc[m, n] x_c[i + m - K + 1, j + n - L + 1], x zero outside.
    In 1-D without j and n. The lecture's z[i, j] = sum_m sum_n K(m, n) x[i + m - 1, j + n - 1] is the valid one.

    Args:
        x: (..., N), (..., H, W), (..., C, N) or (..., C, H, W), as the kernel wants it.
        kernel: (K,), (K, L), (D, C, K) or (D, C, K, L).
        mode: which places of the kernel count.

    Returns:
        as ``x`` with D in place of C, each extent of space E shrunk to E - K + 1 (valid) or grown to E + K - 1 (full).

    Raises:
        DataError: for ranks, numbers of maps or a mode that do not fit, and a valid kernel larger than the map.
    """
    space = _check(x, kernel, mode, inputs=1)
    if mode == "full":
        x = _surround(x, kernel.shape[-space:])
    return _slide(x, kernel, space)


def correlate_adjoint(v: Tensor, kernel: Tensor, mode: Mode = "valid") -> Tensor:
    """Adjoint of ``correlate`` in x: <correlate(x), v> = <x, correlate_adjoint(v)>, the gradient passed back.

    Each x[i, j] is in K L of the sums z, and gets from each what the kernel gave it there. With the kernel turned by
    180 degrees, H_cd[m, n] = K_dc[K - 1 - m, L - 1 - n], and v = dy/dz zero outside,

    of valid: u_c[i, j] = sum_d sum_m sum_n H_cd[m, n] v_d[i + m - K + 1, j + n - L + 1];
    of full: u_c[i, j] = sum_d sum_m sum_n H_cd[m, n] v_d[i + m, j + n].

    The lecture's u[i, j] = sum_m sum_n H(m, n) v[i - tau + m, j - tau + n], and in 1-D, where it counts z from the
    right end of the kernel, u[i] = sum_k a[tau - k + 1] v[i + k - 1].

    Args:
        v: as what ``correlate`` returns.
        kernel: the one of ``correlate``.
        mode: the one of ``correlate``.

    Returns:
        as the ``x`` of ``correlate``.

    Raises:
        DataError: as ``correlate``; of full, for a ``v`` smaller than the kernel.
    """
    space = _check(v, kernel, _OPPOSITE.get(mode, mode), inputs=0)
    turned = _turn(kernel, space)
    if kernel.dim() > space:
        turned = turned.transpose(0, 1)
    if mode == "valid":
        v = _surround(v, kernel.shape[-space:])
    return _slide(v, turned, space)


def convolve(x: Tensor, kernel: Tensor, mode: Mode = "valid") -> Tensor:
    """True convolution: ``correlate`` with the kernel turned by 180 degrees.

    valid: z_d[i, j] = sum_c sum_m sum_n K_dc[m, n] x_c[i - m + K - 1, j - n + L - 1];
    full: z_d[i, j] = sum_c sum_m sum_n K_dc[m, n] x_c[i - m, j - n], x zero outside, MATLAB's conv and conv2.
    Arguments, result and errors as those of ``correlate``.
    """
    return correlate(x, _turn(kernel, _space(kernel)), mode)


def convolve_adjoint(v: Tensor, kernel: Tensor, mode: Mode = "valid") -> Tensor:
    """Adjoint of ``convolve`` in x: the kernel, turned twice, stands as it is.

    of valid: u_c[i, j] = sum_d sum_m sum_n K_dc[m, n] v_d[i + m - K + 1, j + n - L + 1], v zero outside;
    of full: u_c[i, j] = sum_d sum_m sum_n K_dc[m, n] v_d[i + m, j + n].
    Arguments, result and errors as those of ``correlate_adjoint``.
    """
    return correlate_adjoint(v, _turn(kernel, _space(kernel)), mode)


def _space(kernel: Tensor) -> int:
    """How many dimensions of space a kernel has."""
    if kernel.dim() not in (1, 2, 3, 4) or 0 in kernel.shape:
        raise DataError(
            f"a kernel of shape {tuple(kernel.shape)} came: give (K,) or (K, L), or for stacks (D, C, K) or "
            "(D, C, K, L), none of them 0"
        )
    return kernel.dim() if kernel.dim() <= 2 else kernel.dim() - 2


def _check(x: Tensor, kernel: Tensor, mode: str, inputs: int) -> int:
    """Refuse what does not fit; ``inputs`` is the dimension of a stack's kernel that counts the maps of ``x``."""
    space = _space(kernel)
    if mode not in _OPPOSITE:
        raise DataError(f"mode = {mode!r}: 'valid' or 'full'")
    stacked = kernel.dim() > space
    if x.dim() < space + stacked:
        wanted = ("C, " if stacked else "") + ("H, W" if space == 2 else "N")
        raise DataError(
            f"a kernel of shape {tuple(kernel.shape)} takes maps (..., {wanted}), but {tuple(x.shape)} came"
        )
    if stacked and x.shape[-space - 1] != kernel.shape[inputs]:
        raise DataError(
            f"a kernel of shape {tuple(kernel.shape)} takes {kernel.shape[inputs]} maps, but {x.shape[-space - 1]} came"
        )
    sizes, extents = tuple(kernel.shape[-space:]), tuple(x.shape[-space:])
    if mode == "valid" and any(size > extent for size, extent in zip(sizes, extents, strict=True)):
        raise DataError(f"a kernel of extent {sizes} does not fit into a map of {extents}: take a smaller one, or full")
    return space


def _turn(kernel: Tensor, space: int) -> Tensor:
    return kernel.flip(tuple(range(-space, 0)))


def _surround(x: Tensor, sizes: torch.Size) -> Tensor:
    """Zeros around the map, as many as a kernel of these sizes reaches out."""
    return functional.pad(x, [size - 1 for size in reversed(sizes) for _ in range(2)])


def _slide(x: Tensor, kernel: Tensor, space: int) -> Tensor:
    """Valid correlation: one shifted copy of the map for each place of the kernel, weighted and summed."""
    dtype = torch.promote_types(x.dtype, kernel.dtype)
    x, kernel = x.to(dtype), kernel.to(dtype)
    single = kernel.dim() == space
    if single:
        x, kernel = x.unsqueeze(-space - 1), kernel[None, None]
    sizes = kernel.shape[2:]
    extents = [extent - size + 1 for size, extent in zip(sizes, x.shape[-space:], strict=True)]
    total = x.new_zeros(*x.shape[: -space - 1], len(kernel), *extents)
    for offset in product(*map(range, sizes)):
        part, weights = x, kernel
        for place, (first, extent) in enumerate(zip(offset, extents, strict=True)):
            part = part.narrow(place - space, first, extent)
            weights = weights.narrow(place - space, first, 1)
        total = total + (weights * part.unsqueeze(-space - 2)).sum(-space - 1, dtype=dtype)
    return total.squeeze(-space - 1) if single else total
