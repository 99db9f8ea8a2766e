"""conv1d against a plain reading by the reference convolution, and against least squares where it is linear."""

import pytest
import torch
from models.test_whole_models import make, times
from oracles import conv1d as oracle

from fieldcast.data import Batch
from fieldcast.data.mackey_glass import Equation, integrate
from fieldcast.errors import ConfigError, DataError
from fieldcast.models import build, count_parameters

ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu}
CASES = {
    "one step at a time": {},
    "14 at a time": {"steps_at_once": 14, "activation": "relu"},
    "3 at a time, nonlinear": {"steps_at_once": 3, "head": "nonlinear", "head_width": 4},
    "many layers": {"window": 9, "widths": [3, 2, 4], "kernels": [4, 1, 3], "steps_at_once": 2},
    "kernels over the window": {"window": 4, "widths": [5], "kernels": [4]},
    "linear autoregression": {"widths": [], "kernels": []},
    "perceptron": {"widths": [], "kernels": [], "head": "nonlinear", "window": 3},
}


@pytest.mark.parametrize("case", CASES)
def test_the_model_is_its_equations(case):
    model, weights = make("conv1d", num_channels=2, **CASES[case])
    inputs = torch.rand(1, 9, 2, 2, 3, dtype=torch.float64)
    with torch.no_grad():
        result = model(inputs, *times(9, 5))
    chosen = model.settings
    expected = oracle.forecast(
        {name: torch.from_numpy(value) for name, value in weights.items()},
        inputs[0],
        5,
        window=chosen.window,
        steps_at_once=chosen.steps_at_once,
        activation=ACTIVATIONS[chosen.activation],
    )
    torch.testing.assert_close(result[0], expected, rtol=0, atol=1e-12)


def test_frames_before_the_window_are_not_read():
    model, _ = make("conv1d")
    inputs = torch.rand(2, 8, 1, 3, 4, dtype=torch.float64)
    every_time, last = times(8, 4), times(5, 4)
    with torch.no_grad():
        whole = model(inputs, *(part.expand(2, -1) for part in every_time))
        torch.testing.assert_close(whole, model(inputs[:, 3:], *(part.expand(2, -1) for part in last)))


def test_numbers_of_weights():
    default = build("conv1d")
    assert count_parameters(default) == (1 * 16 * 3 + 16) + (16 * 16 * 2 + 16) + (16 * 2 * 1 + 1)
    wide = build("conv1d", num_channels=2, steps_at_once=14, head="nonlinear")
    assert count_parameters(wide) == (2 * 16 * 3 + 16) + (16 * 16 * 2 + 16) + (16 * 2 * 32 + 32) + (32 * 28 + 28)
    assert count_parameters(build("conv1d", window=7, widths=[], kernels=[])) == 7 + 1


def test_without_layers_it_fits_as_least_squares_do():
    """A linear autoregression of a chaotic series, two steps at once: trained to the minimum, its weights are exact."""
    series = torch.from_numpy(integrate(Equation(), 1.2, 900.0)(torch.arange(0, 900, 6).numpy()))
    window, at_once = 4, 2
    stretches = series.unfold(0, window + at_once, 1)
    past, future = stretches[:, :window], stretches[:, window:]
    design = torch.cat([past, torch.ones(len(past), 1, dtype=torch.float64)], dim=1)
    expected = torch.linalg.lstsq(design, future).solution.T
    model = build("conv1d", window=window, widths=[], kernels=[], steps_at_once=at_once).double()
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=200, tolerance_grad=1e-13, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def loss():
        optimizer.zero_grad()
        frames = model(past[:, :, None, None, None], *(part.expand(len(past), -1) for part in times(window, at_once)))
        error = (frames[:, :, 0, 0, 0] - future).square().mean()
        error.backward()
        return error

    optimizer.step(loss)
    found = torch.cat([model.output.weight, model.output.bias[:, None]], dim=1).detach()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_fewer_inputs_than_the_window_are_refused():
    with pytest.raises(DataError, match="reads the last 5 inputs, but 4 came: give more"):
        build("conv1d")(torch.rand(1, 4, 1, 2, 2), *times(4, 1))


def test_steps_that_no_target_teaches_are_refused():
    frames, (input_times, target_times) = torch.rand(1, 8, 1, 2, 2), times(5, 3)
    batch = Batch(frames[:, :5], input_times, frames[:, 5:], target_times, torch.ones(1, 3, 1, 2, 2).bool(),
                  torch.zeros(1, dtype=torch.int64))  # fmt: skip
    with pytest.raises(DataError, match=r"steps_at_once = 14, but the targets .* end at step 3: .*steps_at_once = 3"):
        build("conv1d", steps_at_once=14).forward_train(batch)
    assert build("conv1d", steps_at_once=3).forward_train(batch)[0].shape == (1, 3, 1, 2, 2)


@pytest.mark.parametrize(("settings", "said"), [
    ({"widths": [4]}, "1 widths and 2 kernels came"),
    ({"window": 3, "kernels": [3, 2]}, r"kernels \[3, 2\] reach over 4 frames, more than window = 3"),
    ({"head_width": 8}, "head_width is for head = \"nonlinear\""),
    ({"head": "logistic"}, "'model.head' = 'logistic'"),
    ({"steps_at_once": 0}, "'model.steps_at_once' = 0"),
    ({"kernels": [3, 0]}, "'model.kernels.1' = 0"),
])  # fmt: skip
def test_settings_that_do_not_fit(settings, said):
    with pytest.raises(ConfigError, match=said):
        build("conv1d", **settings)
