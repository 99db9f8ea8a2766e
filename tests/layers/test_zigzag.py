"""Short cuts between top and bottom."""

import pytest
import torch

from fieldcast.layers.zigzag import DecoderZigzag, EncoderZigzag


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_sizes_fit(factor):
    top, bottom = torch.rand(2, 5, 3, 4), torch.rand(2, 3, 3 * factor, 4 * factor)
    assert EncoderZigzag(3, 5, factor)(top, bottom).shape == bottom.shape
    decoder = DecoderZigzag(5, 3, 2, factor=factor, image_factor=2 * factor, ode=True)
    assert decoder.seed(bottom).shape == top.shape
    image = torch.rand(2, 2, 6 * factor, 8 * factor)
    assert decoder(decoder.drop(image), top, top).shape == top.shape


def test_a_closed_gate_leaves_the_top_as_it_is():
    decoder = DecoderZigzag(5, 3, 2, factor=2, image_factor=2, ode=False)
    torch.nn.init.constant_(decoder.state_gates.bias, -1e4)
    top = torch.rand(2, 5, 3, 4)
    assert torch.equal(decoder(torch.rand(2, 5, 3, 4), top, None), top)


def test_counts_are_the_published_ones():
    def count(*modules):
        return sum(weight.numel() for module in modules for weight in module.parameters())

    small = EncoderZigzag(64, 128, 4), DecoderZigzag(128, 64, 32, factor=4, image_factor=4, ode=False)
    large = EncoderZigzag(96, 128, 4), DecoderZigzag(128, 96, 64, factor=4, image_factor=4, ode=False)
    assert (count(*small), count(*large)) == (770_880, 1_151_968)
