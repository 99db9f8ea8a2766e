import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from surrogate_fixtures import SHAPE, as_network, autograd_kernels, linear_network, random_sequences, smooth_network
from torch import nn

from fieldcast.errors import DataError
from fieldcast.explain.attribution import OcclusionSettings, integrated_gradients, kernel_contribution, occlusion
from fieldcast.explain.linear_kernels import linear_kernels

INPUTS, BASELINE = random_sequences(2, 3).split(1)


def difference_of(network):
    return (network(INPUTS) - network(BASELINE)).detach()[0]


def test_all_three_are_the_same_for_a_linear_network():
    network = linear_network()
    _, weights = autograd_kernels(network, BASELINE)
    expected = weights * (INPUTS - BASELINE)
    kernels = linear_kernels(network, random_sequences(1, 5))
    single = OcclusionSettings(size=1, stride=1)
    for found in (
        kernel_contribution(network, kernels, INPUTS, BASELINE),
        integrated_gradients(network, INPUTS, BASELINE, num_points=1),
        occlusion(network, INPUTS, BASELINE, single),
    ):
        torch.testing.assert_close(found.shares, expected, rtol=1e-9, atol=1e-13)
        torch.testing.assert_close(found.difference, difference_of(network), rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(found.gap, torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-12)


def test_integrated_gradients_are_those_of_a_fine_sum():
    network = smooth_network(strength=2.0)
    found = integrated_gradients(network, INPUTS, BASELINE)
    places = torch.linspace(0, 1, 201, dtype=torch.float64)
    kernels = [autograd_kernels(network, BASELINE + place * (INPUTS - BASELINE))[1] for place in places]
    simpson = torch.tensor([1.0] + [4.0, 2.0] * 99 + [4.0, 1.0], dtype=torch.float64) / 600
    expected = torch.tensordot(simpson, torch.stack(kernels), 1) * (INPUTS - BASELINE)
    torch.testing.assert_close(found.shares, expected, rtol=0, atol=1e-7 * expected.abs().max().item())


def test_integrated_gradients_are_complete():
    network = smooth_network(strength=2.0)
    gaps = [integrated_gradients(network, INPUTS, BASELINE, number).gap.abs().max().item() for number in (4, 8, 16, 32)]
    assert gaps[0] > 1e-6
    assert gaps[3] < 1e-9
    assert gaps == sorted(gaps, reverse=True)
    found = integrated_gradients(network, INPUTS, BASELINE)
    torch.testing.assert_close(found.shares.flatten(1).sum(1) - difference_of(network), found.gap)


def plain_occlusion(network, chosen):
    """Patch by patch, on its own."""
    shares, counts = torch.zeros(3, *SHAPE, dtype=torch.float64), torch.zeros(SHAPE)
    num_frames, num_fields, rows, columns = SHAPE

    def starts(length, size, stride):
        found = [0]
        while found[-1] + size < length:
            found.append(found[-1] + stride)
        return found

    for lag in starts(num_frames, chosen.num_lags, chosen.lag_stride):
        for field in range(num_fields):
            for row in starts(rows, chosen.size, chosen.stride):
                for column in starts(columns, chosen.size, chosen.stride):
                    mask = torch.zeros(SHAPE, dtype=torch.bool)
                    mask[lag : lag + chosen.num_lags, field, row : row + chosen.size, column : column + chosen.size] = 1
                    fall = (network(INPUTS) - network(torch.where(mask, BASELINE, INPUTS))).detach()[0]
                    shares[:, mask] += (fall / mask.sum())[:, None]
                    counts[mask] += 1
    return shares / counts


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4), st.integers(1, 4), st.integers(1, 40))
def test_occlusion_is_that_of_a_plain_loop(size, stride, num_lags, lag_stride, batch_size):
    network = smooth_network(strength=2.0)
    values = {"size": size, "stride": stride, "num_lags": num_lags, "lag_stride": lag_stride, "batch_size": batch_size}
    if stride > size or lag_stride > num_lags:
        with pytest.raises(ValidationError, match="leaves pixels out"):
            OcclusionSettings(**values)
        return
    chosen = OcclusionSettings(**values)
    torch.testing.assert_close(occlusion(network, INPUTS, BASELINE, chosen).shares, plain_occlusion(network, chosen))


def test_one_patch_over_a_field_is_the_fall_of_the_output():
    # Of one field everything is hidden: with a network of that field alone, the difference itself.
    network = as_network(First(), 1)
    found = occlusion(network, INPUTS, BASELINE, OcclusionSettings(size=9, stride=9, num_lags=9, lag_stride=9))
    assert found.gap.abs().max() < 1e-12
    assert (found.shares[:, :, 1] == 0).all()
    assert found.shares[:, :, 0].std() < 1e-15


class First(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.3))

    def forward(self, inputs):
        own = inputs[:, :, 0].flatten(1)
        return (self.weight * own).tanh().sum(1, keepdim=True) + own[:, :1]


def test_missing_inputs_are_what_the_network_sees():
    network = smooth_network()
    gappy = INPUTS.clone()
    gappy[0, 1, 0, 2] = torch.nan
    filled = torch.where(gappy.isnan(), 0, gappy)
    for take in (
        integrated_gradients,
        lambda *arguments: occlusion(*arguments, OcclusionSettings(size=2, stride=2)),
        lambda network, *sequences: kernel_contribution(network, linear_kernels(network, filled), *sequences),
    ):
        torch.testing.assert_close(take(network, gappy, BASELINE).shares, take(network, filled, BASELINE).shares)


def test_wrong_inputs_are_named():
    with pytest.raises(DataError, match="one sequence each, of the same shape"):
        integrated_gradients(smooth_network(), INPUTS, random_sequences(2))
