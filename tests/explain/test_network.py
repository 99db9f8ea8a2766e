import pytest
import torch

from fieldcast.data import Normalizer
from fieldcast.data.normalize import Transform
from fieldcast.explain.network import Network
from fieldcast.explain.outputs import join_outputs, pixel_output
from fieldcast.models import build

SHAPE = (2, 1, 6, 7)
SCALE = Normalizer((Transform("log-rate", 0.0, 3.0),))


def make_network(*scales):
    torch.manual_seed(0)
    model = build("convlstm", widths=[4, 3], patch=1, input_kernel=3, state_kernel=3).eval()
    outputs = join_outputs([pixel_output("a", SHAPE, (0, 0, 2, 3)), pixel_output("b", SHAPE, (1, 0, 5, 5))])
    return Network(model, torch.tensor([[-2.0, -1.0, 0.0]]), torch.tensor([[1.0, 4.0]]), outputs, *scales)


def test_outputs_are_those_of_the_forecast_in_physical_units():
    network = make_network(SCALE, SCALE)
    rain = 5 * torch.rand(3, 3, 1, 6, 7)
    times = network.input_times.expand(3, -1), network.target_times.expand(3, -1)
    forecast = SCALE.denormalise(network.model(SCALE.normalise(rain), *times))
    expected = torch.stack([forecast[:, 0, 0, 2, 3], forecast[:, 1, 0, 5, 5]], dim=1)
    torch.testing.assert_close(network(rain), expected)


def test_without_scales_all_is_as_the_model_has_it():
    network = make_network()
    frames = torch.rand(1, 3, 1, 6, 7)
    forecast = network.model(frames, network.input_times, network.target_times)
    torch.testing.assert_close(network(frames)[0, 0], forecast[0, 0, 0, 2, 3])


@pytest.mark.parametrize("scales", [(), (Normalizer((Transform("scale", -4.0, 2.0),)),)])
def test_missing_inputs_are_zeros_to_the_model(scales):
    network = make_network(*scales)
    inputs = torch.rand(2, 3, 1, 6, 7)
    inputs[1, 1, 0, 2:4] = torch.nan
    filled = network.filled(inputs)
    assert (filled[1, 1, 0, 2:4] == (-4 if scales else 0)).all()
    assert torch.equal(filled[0], inputs[0])
    torch.testing.assert_close(network(inputs), network(filled))
    assert (network.normalised(inputs)[1, 1, 0, 2:4] == 0).all()


def test_a_model_at_rest_is_as_it_was_afterwards_even_after_a_fault():
    network = make_network()
    network.model.train()
    first, *rest = network.model.parameters()
    first.requires_grad_(False)
    with network.at_rest():
        assert not any(module.training for module in network.model.modules())
        assert not any(one.requires_grad for one in network.model.parameters())
    with pytest.raises(ValueError, match="a fault"), network.at_rest():
        raise ValueError("a fault")
    assert all(module.training for module in network.model.modules())
    assert not first.requires_grad and all(one.requires_grad for one in rest)
    assert network.dtype == torch.float32
