"""What every forecaster of maps in ``MODELS`` that takes any times must do; a new one is tested as it is listed."""

import numpy as np
import pytest
import torch
from contracts.test_model_contracts import CASES, LEARNED, MODELS, make, predict, presets_slowly, tolerance

from fieldcast.data import Batch
from fieldcast.data.dataset import relative_times
from fieldcast.models import build

MINUTE = 60 * 10**9
INPUT_TIMES = (-4.5, -2.0, -1.25, 0.0)
TARGET_TIMES = (0.75, 2.0, 3.25)


def has(flag, cases):
    with torch.device("meta"):
        return [case for case in cases if getattr(build(*case), flag)]


def parametrize(cases):
    return pytest.mark.parametrize(("key", "preset"), presets_slowly(cases))


ANY_INPUTS = parametrize(has("irregular_inputs", LEARNED))
ANY_TARGETS = parametrize(has("irregular_targets", LEARNED))
BOTH = parametrize([case for case in has("irregular_inputs", CASES) if case in has("irregular_targets", CASES)])
INTERPOLATING = parametrize(has("interpolates", CASES))


def draw(input_times=INPUT_TIMES, target_times=TARGET_TIMES, size=(13, 17)):
    """A sample of noise at these times."""
    generator = torch.Generator().manual_seed(4)
    inputs = torch.rand(1, len(input_times), 2, *size, generator=generator)
    targets = torch.rand(1, len(target_times), 2, *size, generator=generator)
    return Batch(
        inputs=inputs,
        input_times=torch.tensor([input_times]),
        targets=targets,
        target_times=torch.tensor([target_times]),
        valid=torch.ones_like(targets, dtype=torch.bool),
        origin=torch.zeros(1, dtype=torch.int64),
    )


@ANY_TARGETS
def test_lead_time_matters_at_real_times(key, preset):
    model, batch = make(key, preset), draw()
    early, late = predict(model, batch, [0.5]), predict(model, batch, [0.9])
    assert (early - late).abs().amax() > 1e-6


@ANY_INPUTS
@pytest.mark.parametrize("place", [1, 2])
def test_when_an_input_was_matters(key, preset, place):
    if key == "ode2vae" and place > 1:
        pytest.skip("it encodes the first frames only")
    model, batch = make(key, preset), draw()
    moved = batch.input_times.clone()
    moved[:, place] -= 0.5
    with torch.no_grad():
        other = model(batch.inputs, moved, batch.target_times)
    assert (other - predict(model, batch)).abs().amax() > 1e-7


@BOTH
def test_a_later_target_changes_no_earlier_one_at_real_times(key, preset):
    model, batch = make(key, preset), draw()
    few, many = predict(model, batch, TARGET_TIMES[:2]), predict(model, batch, TARGET_TIMES)
    torch.testing.assert_close(few, many[:, :2], rtol=0, atol=1e-5)


@BOTH
def test_samples_with_their_own_times_are_as_alone(key, preset):
    model = make(key, preset)
    generator = torch.Generator().manual_seed(5)
    inputs = torch.rand(3, 4, 2, 13, 17, generator=generator)
    input_times = torch.tensor([INPUT_TIMES, (-3.0, -2.0, -1.0, 0.0), (-9.0, -8.75, -0.5, 0.0)])
    target_times = torch.tensor([TARGET_TIMES, (1.0, 2.0, 3.0), (0.25, 6.5, 7.0)])
    with torch.no_grad():
        together = model(inputs, input_times, target_times)
        for number in range(3):
            own = slice(number, number + 1)
            alone = model(inputs[own], input_times[own], target_times[own])
            torch.testing.assert_close(together[own], alone, rtol=0, atol=tolerance(model))


@BOTH
@pytest.mark.parametrize("change", ["all times later", "a unit twice as long"])
def test_where_the_clock_starts_and_its_unit_change_nothing(key, preset, change):
    """Times go in as they do from any source: absolute, less the last input's, in cadences."""
    model, batch = make(key, preset), draw()
    minutes = np.array([*INPUT_TIMES, *TARGET_TIMES]) * 5
    cadence = 5 * MINUTE

    def forecast(times, cadence):
        relative = relative_times(times, int(times[3]), cadence)[None]
        with torch.no_grad():
            return model(batch.inputs, relative[:, :4], relative[:, 4:])

    times = (minutes * MINUTE).astype(np.int64)
    expected = forecast(times, cadence)
    assert torch.equal(expected, predict(model, batch))
    if change == "all times later":
        result = forecast(times + 48 * 365 * 24 * 60 * MINUTE + 12_345, cadence)
    else:
        halves = minutes / 2  # the same times counted in units of two minutes
        result = forecast((halves * 2 * MINUTE).astype(np.int64), int(2.5 * 2 * MINUTE))
    assert torch.equal(result, expected)


@INTERPOLATING
def test_a_target_between_inputs_is_taken(key, preset):
    model, batch = make(key, preset), draw(target_times=(-3.0, -1.5, -0.25))
    result = predict(model, batch)
    assert result.shape == batch.targets.shape
    assert result.isfinite().all()
    assert MODELS[key].forecaster.interpolates


@INTERPOLATING
def test_targets_between_and_after_inputs_go_together(key, preset):
    model, batch = make(key, preset), draw(target_times=(-1.5, 1.0, 2.5))
    mixed = predict(model, batch)
    torch.testing.assert_close(mixed[:, :1], predict(model, batch, (-1.5,)), rtol=0, atol=1e-5)
    assert mixed.isfinite().all()
