"""What the kernels of every trained forecaster of ``MODELS`` must be; a new one is tested because it is listed."""

import pytest
import torch
from contracts import test_model_contracts as maps
from contracts import test_station_contracts as stations

from fieldcast.data import Normalizer
from fieldcast.data.normalize import Transform
from fieldcast.explain.linear_kernels import inner_products, linear_kernels
from fieldcast.explain.network import Network
from fieldcast.explain.outputs import join_outputs, pixel_output, region_output, station_outputs

OF_MAPS = maps.presets_slowly([case for case in maps.LEARNED if case[0] in maps.OF_MAPS])
SCALE = Normalizer((Transform("scale", -1.0, 3.0), Transform("log-rate", 0.0, 2.0)))
# A rate is not below zero, so that a forecast of none has no kernel.
TARGET_SCALE = Normalizer((Transform("scale", -1.0, 3.0), Transform("scale", 0.0, 2.0)))
SIZE = (9, 11)


def network_of_maps(key, preset):
    """A network of a pixel and a region two targets later, at irregular times where the model takes them."""
    model = maps.make(key, preset, size=SIZE).double()
    num_inputs = max(4, maps.LEAST_INPUTS.get(key, 0))
    input_times = torch.arange(1.0 - num_inputs, 1)
    if model.irregular_inputs:
        input_times[:-1] -= 0.3 * torch.arange(1.0, num_inputs)
    target_times = torch.tensor([0.75, 2.5]) if model.irregular_targets else torch.tensor([1.0, 3.0])
    shape = (2, 2, *SIZE)
    region = torch.zeros(SIZE)
    region[2:5, 3:9] = 1
    outputs = join_outputs([pixel_output("pixel", shape, (0, 1, 4, 5)), region_output("region", shape, 1, 0, region)])
    reference = torch.rand(1, num_inputs, 2, *SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    return Network(model, input_times[None], target_times[None], outputs, SCALE, TARGET_SCALE), reference


def network_of_stations(key, place):
    model = stations.make(key, place).double()
    with torch.no_grad():
        for layer in (model.head.first, model.head.second):
            layer.bias += 5  # or rectifiers are shut
    batch = stations.draw(batch=1, dtype=torch.float64)
    num_stations = batch.targets.shape[-1]
    names = [f"river {number}" for number in range(num_stations)]
    outputs = station_outputs(names, range(num_stations), num_stations, batch.target_times[0].tolist())
    return Network(model, batch.input_times, batch.target_times, outputs, SCALE), batch.inputs


def assert_are_derivatives(network, reference):
    """Complete at the reference, what central differences along random directions say, and the same in training."""
    state = {name: value.clone() for name, value in network.model.state_dict().items()}
    kernels = linear_kernels(network, reference)
    network.model.train()
    # Little memory, so that the other way back is taken, outputs one by one.
    one_by_one = linear_kernels(network, reference, "backward", memory_megabytes=1e-9)
    torch.testing.assert_close(one_by_one.weights, kernels.weights, rtol=0, atol=1e-10)
    assert all(module.training for module in network.model.modules())
    network.model.eval()
    with torch.no_grad():
        value = network(reference)[0]
    torch.testing.assert_close(kernels.predict(reference)[0], value, rtol=0, atol=1e-10)
    assert kernels.weights.flatten(1).any(dim=1).all()
    changes = 1e-6 * torch.randn(3, *reference.shape[1:], dtype=torch.float64, generator=torch.manual_seed(6))
    with torch.no_grad():
        # One by one: a solver that chooses its steps chooses them for all samples together.
        differences = torch.cat([(network(reference + one) - network(reference - one)) / 2 for one in changes])
    scale = differences.abs().amax()
    torch.testing.assert_close(inner_products(kernels.weights, changes) / scale, differences / scale, rtol=0, atol=1e-4)
    assert all(torch.equal(value, state[name]) for name, value in network.model.state_dict().items())
    assert all(one.grad is None and one.requires_grad for one in network.model.parameters())


@pytest.mark.parametrize(("key", "preset"), OF_MAPS)
def test_kernels_of_maps_are_complete_derivatives(key, preset):
    assert_are_derivatives(*network_of_maps(key, preset))


@pytest.mark.parametrize(("key", "place"), stations.LEARNED)
def test_kernels_of_stations_are_complete_derivatives(key, place):
    assert_are_derivatives(*network_of_stations(key, place))
