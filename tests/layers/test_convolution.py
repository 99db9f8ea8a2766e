"""Convolution and its adjoint against the lecture's numbers, SciPy, torch and autograd."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from fieldcast.errors import DataError
from fieldcast.layers.convolution import convolve, convolve_adjoint, correlate, correlate_adjoint

few = settings(max_examples=25, deadline=None)
ADJOINTS = {correlate: correlate_adjoint, convolve: convolve_adjoint}
SHAPES = {
    "line": ((9,), (4,)),
    "map": ((7, 8), (3, 4)),
    "lines": ((3, 9), (2, 3, 4)),
    "maps": ((3, 7, 8), (2, 3, 3, 4)),
    "batch of lines": ((5, 9), (4,)),
    "batch of maps": ((2, 5, 3, 7, 8), (2, 3, 3, 4)),
    "kernel of one": ((3, 4, 5), (2, 3, 1, 1)),
    "kernel as large as the map": ((3, 4, 5), (2, 3, 4, 5)),
}


def noise(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def double(*rows):
    return torch.tensor(rows, dtype=torch.float64)


class TestLecture:
    """FACTS C.12: the matrices of the slides, printed to four digits."""

    def test_valid_is_a_correlation(self):
        kernel = double([0.2348, 0.0154, 0.6491], [0.3532, 0.0430, 0.7317], [0.8212, 0.1690, 0.6477])
        x = double(
            [0.4509, 0.1890, 0.6256, 0.7757],
            [0.5470, 0.6868, 0.7802, 0.4868],
            [0.2963, 0.1835, 0.0811, 0.4359],
            [0.7447, 0.3685, 0.9294, 0.4468],
        )
        expected = double([1.6354, 1.6366], [2.0932, 1.6255])
        torch.testing.assert_close(correlate(x, kernel), expected, rtol=0, atol=1.5e-4)
        assert (convolve(x, kernel) - expected).abs().amax() > 0.1

    def test_full_is_a_true_convolution(self):
        """conv2(rand(3), rand(4)): by their product these are MATLAB's first 25 random numbers, column by column."""
        draws = np.random.RandomState(5489).random_sample(25)
        kernel, x = (
            torch.from_numpy(part.reshape(size, size).T.copy()) for part, size in ((draws[:9], 3), (draws[9:], 4))
        )
        expected = double(
            [0.7861, 1.2768, 1.4581, 1.0007, 0.2876, 0.0099],
            [1.0024, 1.8458, 3.0844, 2.5151, 1.5196, 0.2560],
            [1.0561, 1.9824, 3.5790, 3.9432, 2.9708, 0.7587],
            [1.6790, 2.0772, 3.0052, 3.7511, 2.7593, 1.5129],
            [0.9902, 1.1000, 2.4492, 1.6082, 1.7976, 1.2655],
            [0.1215, 0.1469, 1.0409, 0.5540, 0.6941, 0.6499],
        )
        torch.testing.assert_close(convolve(x, kernel, "full"), expected, rtol=0, atol=5.1e-5)

    def test_a_symmetric_kernel_is_the_same_either_way(self):
        x, kernel = torch.ones(4, 4, dtype=torch.float64), torch.full((3, 3), 1 / 9, dtype=torch.float64)
        for forward in (correlate, convolve):
            torch.testing.assert_close(forward(x, kernel), torch.ones(2, 2, dtype=torch.float64))

    def test_gradient_of_a_line_is_the_formula(self):
        """u[i] = sum_k a[tau - k + 1] v[i + k - 1], counted from 1; v[i] is of the sum that ends at x[i]."""
        a, v, length = noise(4), noise(6, seed=1), 9
        tau = len(a)
        by_end = {tau + place: float(value) for place, value in enumerate(v)}
        u = [
            sum(float(a[tau - k]) * by_end.get(i + k - 1, 0.0) for k in range(1, tau + 1)) for i in range(1, length + 1)
        ]
        torch.testing.assert_close(correlate_adjoint(v, a), double(*u))

    def test_gradient_of_a_map_is_the_formula(self):
        """u[i, j] = sum H(m, n) v[i - tau + m, j - tau + n], counted from 1, H the kernel turned."""
        kernel, v = torch.arange(1.0, 10.0).view(3, 3).double(), noise(8, 8)
        turned, tau = np.rot90(kernel.numpy(), 2), 3
        assert turned.tolist() == [[9, 8, 7], [6, 5, 4], [3, 2, 1]]
        u = np.zeros((10, 10))
        for i, j, m, n in np.ndindex(10, 10, 3, 3):
            row, column = i + 1 - tau + m + 1, j + 1 - tau + n + 1
            if 1 <= row <= 8 and 1 <= column <= 8:
                u[i, j] += turned[m, n] * v[row - 1, column - 1]
        torch.testing.assert_close(correlate_adjoint(v, kernel), torch.from_numpy(u))

    def test_which_sums_a_pixel_is_in(self):
        """Position x contributes through k(9 8 7; 6 5 4; 3 2 1)."""
        x, kernel = torch.zeros(10, 10), torch.arange(1.0, 10.0).view(3, 3)
        x[5, 6] = 1
        found = correlate(x, kernel)
        assert found.shape == (8, 8)
        assert found[3:6, 4:7].tolist() == [[9, 8, 7], [6, 5, 4], [3, 2, 1]]
        assert found.count_nonzero() == 9


@pytest.mark.parametrize("mode", ["valid", "full"])
@pytest.mark.parametrize("shape", [((9,), (4,)), ((7, 8), (3, 4))])
def test_one_map_is_as_in_scipy(shape, mode):
    signal = pytest.importorskip("scipy.signal")
    x, kernel = (noise(*size, seed=seed) for seed, size in enumerate(shape))
    for forward, oracle in ((correlate, signal.correlate), (convolve, signal.convolve)):
        expected = oracle(x.numpy(), kernel.numpy(), mode, method="direct")
        np.testing.assert_allclose(forward(x, kernel, mode).numpy(), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("mode", ["valid", "full"])
@pytest.mark.parametrize("case", ["lines", "maps"])
def test_stacks_are_as_in_torch(case, mode):
    x, kernel = (noise(*size, seed=seed) for seed, size in enumerate(SHAPES[case]))
    space = kernel.dim() - 2
    conv = functional.conv1d if space == 1 else functional.conv2d
    padding = 0 if mode == "valid" else tuple(size - 1 for size in kernel.shape[2:])
    turned = kernel.flip(tuple(range(-space, 0)))
    torch.testing.assert_close(correlate(x, kernel, mode), conv(x[None], kernel, padding=padding)[0])
    torch.testing.assert_close(convolve(x, kernel, mode), conv(x[None], turned, padding=padding)[0])
    back = functional.conv_transpose1d if space == 1 else functional.conv_transpose2d
    v = correlate(x, kernel)
    torch.testing.assert_close(correlate_adjoint(v, kernel), back(v[None], kernel)[0])


@pytest.mark.parametrize("forward", ADJOINTS, ids=lambda forward: forward.__name__)
@pytest.mark.parametrize("mode", ["valid", "full"])
@pytest.mark.parametrize("case", SHAPES)
def test_the_adjoint_is_the_gradient(case, mode, forward):
    x, kernel = (noise(*size, seed=seed) for seed, size in enumerate(SHAPES[case]))
    x.requires_grad_()
    z = forward(x, kernel, mode)
    v = noise(*z.shape, seed=2)
    (gradient,) = torch.autograd.grad((z * v).sum(), x)
    torch.testing.assert_close(ADJOINTS[forward](v, kernel, mode), gradient, rtol=0, atol=1e-13)


@few
@given(st.data())
def test_inner_products_agree(data):
    """<Ax, y> = <x, A'y>, for any extents, ranks, numbers of maps, modes."""
    space, stacked = data.draw(st.sampled_from([1, 2])), data.draw(st.booleans())
    mode, forward = data.draw(st.sampled_from(["valid", "full"])), data.draw(st.sampled_from(list(ADJOINTS)))
    sizes = [data.draw(st.integers(1, 4)) for _ in range(space)]
    least = sizes if mode == "valid" else [1] * space
    extents = [data.draw(st.integers(low, 7)) for low in least]
    width, depth = (data.draw(st.integers(1, 3)) for _ in range(2))
    x = noise(2, *([depth] if stacked else []), *extents, seed=data.draw(st.integers(0, 99)))
    kernel = noise(*([width, depth] if stacked else []), *sizes, seed=3)
    ax = forward(x, kernel, mode)
    y = noise(*ax.shape, seed=4)
    back = ADJOINTS[forward](y, kernel, mode)
    assert back.shape == x.shape
    torch.testing.assert_close((ax * y).sum(), (x * back).sum(), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int32])
def test_the_dtype_is_kept(dtype):
    x, kernel = torch.arange(6).to(dtype), torch.tensor([1, 2]).to(dtype)
    assert correlate(x, kernel).dtype == dtype
    assert correlate(x, kernel).tolist() == [2, 5, 8, 11, 14]
    assert convolve(x, kernel, "full").tolist() == [0, 1, 4, 7, 10, 13, 10]
    assert correlate(x, kernel.double()).dtype == torch.float64


@pytest.mark.parametrize(("x", "kernel", "mode", "said"), [
    ((3,), (4,), "valid", r"extent \(4,\) does not fit into a map of \(3,\)"),
    ((5, 3), (2, 4), "valid", r"extent \(2, 4\) does not fit"),
    ((9,), (3, 3), "valid", r"takes maps \(\.\.\., H, W\), but \(9,\) came"),
    ((9,), (2, 3, 3), "full", r"takes maps \(\.\.\., C, N\)"),
    ((4, 9), (2, 3, 3), "valid", "takes 3 maps, but 4 came"),
    ((4, 9, 9), (2, 3, 3, 3), "full", "takes 3 maps, but 4 came"),
    ((9,), (), "valid", r"shape \(\) came"),
    ((9,), (0,), "valid", "none of them 0"),
    ((9,), (1,) * 5, "valid", "a kernel of shape"),
    ((9,), (3,), "same", "mode = 'same': 'valid' or 'full'"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(x, kernel, mode, said):
    for forward in ADJOINTS:
        with pytest.raises(DataError, match=said):
            forward(torch.ones(x), torch.ones(kernel), mode)


@pytest.mark.parametrize(("v", "kernel", "mode", "said"), [
    ((3,), (4,), "full", "does not fit"),
    ((3, 9), (2, 3, 3), "valid", "takes 2 maps, but 3 came"),
    ((9,), (3, 3), "full", "takes maps"),
    ((9,), (3,), "same", "mode = 'same'"),
])  # fmt: skip
def test_what_no_forward_pass_gives_is_refused(v, kernel, mode, said):
    for adjoint in ADJOINTS.values():
        with pytest.raises(DataError, match=said):
            adjoint(torch.ones(v), torch.ones(kernel), mode)
