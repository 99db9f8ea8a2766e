"""What every forecaster of flow at stations in ``MODELS`` must do; a new one is tested because it is listed."""

import json
from dataclasses import replace
from functools import cache

import pytest
import station_fixtures
import torch

from fieldcast.cli import models as list_models
from fieldcast.data import Batch
from fieldcast.errors import DataError
from fieldcast.models import MODELS, build

OF_STATIONS = [key for key, row in MODELS.items() if row.forecaster.forecasts_stations]
SIZE, NUM_STATIONS, LEADS = (4, 5), 3, (0, 1, 2)
# Settings that make a model small, for the lead times 0, 1 and 2. Every kind of head is tested.
SMALL = {
    "ridge-regression": [{}],
    "runoff-convlstm": [
        {"map_size": SIZE, "num_stations": NUM_STATIONS, "hidden_width": 3, "kernel": 3, "leads": LEADS,
         "head": head, "head_widths": [8, 6], "bias": bias}
        for head, bias in (("dense", "pixel"), ("catchment", "channel"))
    ],
}  # fmt: skip
CASES = [(key, place) for key in SMALL for place in range(len(SMALL[key]))]
LEARNED = [(key, place) for key, place in CASES if MODELS[key].forecaster.trained]
every_case = pytest.mark.parametrize(("key", "place"), CASES)
every_learned_case = pytest.mark.parametrize(("key", "place"), LEARNED)


@cache
def training_samples():
    rivers = station_fixtures.make_rivers(num_stations=NUM_STATIONS, size=SIZE, gaps=0.1)
    return station_fixtures.samples_of(rivers, num_inputs=3, num_targets=len(LEADS))["train"]


@cache
def fitted_weights(key):
    model = build(key, num_channels=2)
    model.fit(training_samples())
    return model.state_dict()


def make(key, place=0, *, fitted=True, **settings):
    """A small model with weights of any sign, or fitted where it is a baseline."""
    torch.manual_seed(1)
    model = build(key, num_channels=2, **SMALL[key][place], **settings)
    if not fitted:
        return model.eval()
    if not model.trained:
        model.load_state_dict(fitted_weights(key))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(0.5 * torch.randn_like(parameter))
            if name.startswith("head."):
                parameter.abs_()  # or rectifiers are shut for every sample
    if SMALL[key][place].get("head") == "catchment":
        model.use_catchments(torch.rand(NUM_STATIONS, *SIZE))
    return model.eval()


def draw(batch=3, target_times=LEADS, dtype=torch.float32):
    generator = torch.Generator().manual_seed(2)
    inputs = torch.rand(batch, 3, 2, *SIZE, generator=generator)
    targets = torch.randn(batch, len(target_times), 1, NUM_STATIONS, generator=generator)
    return Batch(
        inputs=inputs.to(dtype),
        input_times=torch.arange(-2.0, 1).expand(batch, -1),
        targets=targets.to(dtype),
        target_times=torch.tensor(target_times, dtype=torch.float32).expand(batch, -1),
        valid=torch.ones(targets.shape, dtype=torch.bool),
        origin=torch.zeros(batch, dtype=torch.int64),
    )


@torch.no_grad()
def predict(model, batch):
    return model(batch.inputs, batch.input_times, batch.target_times)


def test_every_model_of_stations_is_described_here():
    assert set(SMALL) == set(OF_STATIONS), "add the new model's small settings to SMALL"


@every_case
def test_a_forecast_has_stations_in_place_of_the_map(key, place):
    batch = draw()
    result = predict(make(key, place), batch)
    assert result.shape == batch.targets.shape == (3, 3, 1, NUM_STATIONS)
    assert result.dtype == torch.float32
    assert result.isfinite().all()


@every_case
@pytest.mark.parametrize("target_times", [(0,), (1,), (0, 2)])
def test_any_lead_time_from_now_on_is_the_same_alone(key, place, target_times):
    model = make(key, place)
    every, some = predict(model, draw()), predict(model, draw(target_times=target_times))
    torch.testing.assert_close(some, every[:, list(target_times)], rtol=0, atol=1e-6)


@every_case
def test_each_station_and_lead_time_has_its_own_forecast(key, place):
    result = predict(make(key, place), draw())[0, :, 0]
    assert len(result.unique()) == result.numel()


@every_case
def test_samples_do_not_mix(key, place):
    model, batch = make(key, place), draw()
    together = predict(model, batch)
    for sample in range(3):
        only = slice(sample, sample + 1)
        torch.testing.assert_close(together[only], predict(model, batch[only]), rtol=0, atol=1e-5)


@every_case
def test_a_missing_frame_and_a_missing_pixel_are_zeros(key, place):
    model, batch = make(key, place), draw()
    batch.inputs[0, 1], batch.inputs[1, :, 0, 2, 3] = 0, 0
    assert predict(model, batch).isfinite().all()
    assert predict(model, replace(batch, inputs=torch.zeros_like(batch.inputs))).isfinite().all()


@every_case
def test_every_input_frame_and_field_matters(key, place):
    model, batch = make(key, place), draw()
    result = predict(model, batch)
    for time in range(3):
        for channel in range(2):
            changed = batch.inputs.clone()
            changed[:, time, channel] = 1 - changed[:, time, channel]
            assert (predict(model, replace(batch, inputs=changed)) != result).any()


@every_case
def test_the_door_with_the_calendar_and_that_of_training_forecast_the_same(key, place):
    model, batch = make(key, place), draw()
    frames, penalties = model.forward_train(batch)
    assert torch.equal(frames, predict(model, batch))
    assert torch.equal(model.forward_batch(batch), frames)
    assert not penalties


@every_case
def test_a_map_of_another_size_is_refused(key, place):
    model, batch = make(key, place), draw()
    with pytest.raises(DataError, match="4 x 5"):
        predict(model, replace(batch, inputs=torch.zeros(3, 3, 2, 6, 7)))


@every_case
@pytest.mark.parametrize(("target_times", "words"), [
    ((0, 5), r"gives the lead times \[0, 1, 2\].*targets are at \[5\]"),
    ((0.5, 1), "whole multiples"),
    ((-1, 0), "whole multiples"),
])  # fmt: skip
def test_times_that_it_does_not_know_are_refused(key, place, target_times, words):
    with pytest.raises(DataError, match=words):
        predict(make(key, place), draw(target_times=target_times))


@every_case
def test_ignored_times_are_frames_one_cadence_apart(key, place):
    model, batch = make(key, place, ignore_times=True), draw()
    odd = replace(batch, input_times=batch.input_times * 1.7, target_times=batch.target_times + 0.2)
    torch.testing.assert_close(predict(model, odd), predict(make(key, place), batch), rtol=0, atol=1e-6)


@every_case
def test_float64_and_bfloat16_go_through_to_the_output(key, place):
    narrow = predict(make(key, place), draw())
    wide = predict(make(key, place).double(), draw(dtype=torch.float64))
    assert wide.dtype == torch.float64
    torch.testing.assert_close(narrow.double(), wide, rtol=0, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = predict(make(key, place), draw())
    assert rounded.dtype == torch.float32
    assert (rounded - narrow).square().mean().sqrt() < 0.03 * max(narrow.abs().amax().item(), 1)


@every_case
def test_state_round_trip(key, place):
    model, other, batch = make(key, place), make(key, place, fitted=False), draw()
    other.load_state_dict(model.state_dict())
    assert torch.equal(predict(model, batch), predict(other, batch))


@every_case
def test_it_is_trained_where_it_has_weights(key, place):
    model = make(key, place)
    assert model.trained == any(True for _ in model.parameters())


@every_learned_case
def test_every_weight_receives_a_gradient(key, place):
    model = make(key, place).double().train()
    forecast, _ = model.forward_train(draw(batch=24, dtype=torch.float64))
    forecast.square().sum().backward()
    for name, parameter in model.named_parameters():
        # A rectifier can be shut for all samples of a batch.
        assert parameter.grad.count_nonzero() > 0.3 * parameter.numel(), f"{name} holds dead weights"


@every_learned_case
def test_it_learns_from_its_own_start(key, place):
    torch.manual_seed(1)
    model, batch = build(key, num_channels=2, **SMALL[key][place]), draw()
    if SMALL[key][place].get("head") == "catchment":
        model.use_catchments(torch.rand(NUM_STATIONS, *SIZE))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        losses.append((model.forward_train(batch)[0] - batch.targets).square().mean())
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]


def test_they_are_listed_as_those_of_stations(capsys):
    list_models(as_json=True)
    rows = json.loads(capsys.readouterr().out)
    assert {row["model"] for row in rows if row["forecasts"] == "stations"} == set(OF_STATIONS)
    assert {row["forecasts"] for row in rows} == {"stations", "maps"}
