"""Baselines of flow against plain loops over a made-up record."""

from dataclasses import replace
from types import SimpleNamespace

import cftime
import numpy as np
import pytest
import torch
from station_fixtures import DAY, make_rivers, samples_of

from fieldcast.data.flow import FlowNormalizerSettings
from fieldcast.errors import DataError
from fieldcast.models import ModelSettings, build
from fieldcast.models.baselines.flow import FlowClimatology, FlowPersistence
from fieldcast.models.baselines.ridge import Blocks, fit_ridge

LEADS = [(0, 1), (0, 3), (1, 1), (2, 2)]
every_lead = pytest.mark.parametrize(("first_lead", "num_targets"), LEADS)


def fitted(kind, rivers, **windows):
    samples = samples_of(rivers, **windows)
    model = kind(ModelSettings(), 2)
    model.fit(samples["train"])
    return model, samples


def forecast(model, samples):
    """Forecasts of all samples in physical units, and their batch."""
    batch = samples.batch(range(len(samples)))
    result = model.forward_batch(batch)
    assert result.shape == batch.targets.shape
    assert result.dtype == torch.float32
    return samples.target_normalizer.denormalise(result).numpy(), batch


def training_flow(samples):
    """What the targets of the training split hold, each time once: {time: (1, R)}."""
    train, record = samples["train"], samples["train"].sequences[0]
    times = {time for number in range(len(train)) for time in train.times(number)[train.windows.num_inputs :]}
    return {int(time): record.flow[np.flatnonzero(record.times == time)[0]] for time in times}


def ridge(**settings):
    return build("ridge-regression", num_channels=2, **settings)


def transformed(rivers):
    return replace(rivers, flow_settings=FlowNormalizerSettings(flow_transform="log"))


@every_lead
@pytest.mark.parametrize("split", ["train", "test"])
def test_persistence_is_the_last_flow_that_was_seen(first_lead, num_targets, split):
    rivers = transformed(make_rivers(gaps=0.4))
    rivers.record.flow[:9, 0, 1] = np.nan  # nothing was measured yet
    model, samples = fitted(FlowPersistence, rivers, first_lead=first_lead, num_targets=num_targets)
    result, batch = forecast(model, samples[split])
    record = rivers.record
    mean = np.nanmean(np.stack(list(training_flow(samples).values())).astype(np.float64), axis=0)
    for sample, station in np.ndindex(len(result), 3):
        origin = int(batch.origin[sample])
        last = origin - DAY if first_lead == 0 else origin
        seen = [
            record.flow[day, 0, station]
            for day in range(len(record.times))
            if record.times[day] <= last and not np.isnan(record.flow[day, 0, station])
        ]
        expected = seen[-1] if seen else mean[0, station]
        np.testing.assert_allclose(result[sample, :, 0, station], expected, rtol=1e-5)


@pytest.mark.parametrize("first_lead", [0, 1])
def test_no_flow_from_the_first_target_on_changes_persistence(first_lead):
    windows = {"first_lead": first_lead, "num_targets": 2}
    rivers = make_rivers(gaps=0.2)
    model, samples = fitted(FlowPersistence, rivers, **windows)
    before, batch = forecast(model, samples["test"])
    cut = int(batch.origin[5]) + (0 if first_lead == 0 else 1)
    rivers.record.flow[rivers.record.times >= cut] = 99
    model.fit(samples["train"])
    after, _ = forecast(model, samples["test"])
    assert np.array_equal(after[5], before[5])
    assert not np.array_equal(after[10:], before[10:])


@every_lead
def test_climatology_is_the_mean_of_the_same_ten_days_of_other_years(first_lead, num_targets):
    rivers = make_rivers(num_days=1100, gaps=0.3)
    model, samples = fitted(FlowClimatology, rivers, first_lead=first_lead, num_targets=num_targets)
    result, batch = forecast(model, samples["test"])

    def of(time):
        return (cftime.num2date(time // 10**9, "seconds since 1970-01-01").dayofyr - 1) // 10

    flow = training_flow(samples)
    bins = np.array([of(time) for time in flow])
    values = np.stack(list(flow.values()))
    for sample in range(0, len(result), 9):
        for target in range(num_targets):
            time = int(batch.origin[sample]) + DAY * (first_lead + target)
            expected = np.nanmean(values[bins == of(time)].astype(np.float64), axis=0)
            np.testing.assert_allclose(result[sample, target], expected, rtol=1e-4)


def test_climatology_is_the_sources_own_where_it_knows_what_is_usual():
    rivers = transformed(make_rivers(num_days=150))
    usual = np.random.default_rng(3).random(rivers.record.flow.shape).astype(np.float32) + 1
    usual[140:, 0, 2] = np.nan
    rivers.record.usual = usual
    model, samples = fitted(FlowClimatology, rivers, num_targets=2)
    result, batch = forecast(model, samples["test"])
    days = (batch.origin.numpy() - rivers.record.times[0])[:, None] // DAY + np.arange(2)
    known = ~np.isnan(usual[days])
    np.testing.assert_allclose(result[known], usual[days][known], rtol=1e-4)
    rivers.record.usual = None
    model.fit(samples["train"])
    np.testing.assert_allclose(result[~known], forecast(model, samples["test"])[0][~known], rtol=1e-6)
    assert 0 < (~known).sum() < known.sum()


def test_climatology_after_the_record_is_the_mean_of_the_season():
    rivers = make_rivers(num_days=800)
    rivers.record.usual = np.full_like(rivers.record.flow, 5)
    model, samples = fitted(FlowClimatology, rivers)
    batch = samples["test"].batch([len(samples["test"]) - 1])
    later = model.forward_batch(replace(batch, origin=batch.origin + 100 * DAY))
    rivers.record.usual = None
    model.fit(samples["train"])
    assert torch.equal(later, model.forward_batch(replace(batch, origin=batch.origin + 100 * DAY)))


@pytest.mark.parametrize("kind", [FlowPersistence, FlowClimatology])
class TestBoth:
    def test_without_a_calendar_it_is_the_mean_of_training(self, kind):
        model, samples = fitted(kind, make_rivers(gaps=0.2), num_targets=2)
        batch = samples["test"].batch([0, 1])
        result = model(batch.inputs, batch.input_times, batch.target_times)
        expected = np.nanmean(np.stack(list(training_flow(samples).values())).astype(np.float64), axis=0)
        physical = samples["test"].target_normalizer.denormalise(result).numpy()
        np.testing.assert_allclose(physical, np.broadcast_to(expected, physical.shape), rtol=1e-5)

    def test_times_between_cadences_are_taken(self, kind):
        model, samples = fitted(kind, make_rivers(), num_targets=2)
        batch = samples["test"].batch([0, 1])
        odd = replace(batch, target_times=batch.target_times + 0.5, input_times=batch.input_times * 1.5)
        assert model.forward_batch(odd).isfinite().all()

    def test_before_it_is_fitted(self, kind):
        batch = samples_of(make_rivers())["train"].batch([0])
        with pytest.raises(DataError, match="has seen no flow"):
            kind(ModelSettings(), 2).forward_batch(batch)

    def test_it_is_no_trained_model_and_of_stations(self, kind):
        assert (kind.trained, kind.forecasts_stations) == (False, True)


class TestRidgeRegression:
    @pytest.mark.parametrize(("num_inputs", "gap"), [(3, 3), (20, 7)])
    def test_it_is_ridge_on_all_pixels_of_the_window(self, num_inputs, gap):
        """Samples overlap as many that follow as the first is long, but no more than a tenth are left out."""
        rivers = transformed(make_rivers(num_days=150, gaps=0.2))
        rivers.record.weather[20:26, 0, 1, 1] = np.nan
        samples = samples_of(rivers, num_inputs=num_inputs, num_targets=2)
        assert num_inputs == 3 or len(samples["train"]) // 10 == gap < num_inputs
        model = ridge()
        model.fit(samples["train"])
        train = samples["train"].batch(range(len(samples["train"])))
        whole = fit_ridge(
            train.inputs.flatten(1), train.targets.flatten(1), train.valid.flatten(1), blocks=Blocks(5, gap)
        )
        torch.testing.assert_close(model.penalties.flatten().double(), whole.penalties, rtol=1e-5, atol=0)
        batch = samples["test"].batch(range(len(samples["test"])))
        expected = batch.inputs.flatten(1).double() @ whole.weights + whole.intercepts
        torch.testing.assert_close(model.forward_batch(batch).flatten(1).double(), expected, rtol=0, atol=1e-4)

    def test_rivers_that_are_linear_in_the_rain_are_forecast(self):
        rivers = make_rivers(num_days=900, size=(3, 3), noise=0.3, gaps=0.1)
        samples = samples_of(rivers, num_inputs=3)
        model = ridge()
        model.fit(samples["train"])
        result, batch = forecast(model, samples["test"])
        truth = samples["test"].target_normalizer.denormalise(batch.targets).numpy()
        known = batch.valid.numpy()
        assert np.std((result - truth)[known]) < 0.36
        # Rain of today, yesterday and the day before at the river's own pixel weighs 5, 3 and 1.
        weights = model.weights.detach().numpy()
        scale = np.array(samples["test"].target_normalizer.deviations)
        for station in range(3):
            own = weights[station, ::-1, 0].reshape(3, -1)[:, station + 1] * scale[station]
            np.testing.assert_allclose(own, [5, 3, 1], atol=0.25)

    def test_the_precision_of_its_rivals_changes_nothing(self):
        samples = samples_of(make_rivers())
        model = ridge()
        model.fit(samples["train"])
        expected, _ = forecast(model, samples["test"])
        with torch.autocast("cpu", torch.bfloat16):
            assert np.array_equal(forecast(model, samples["test"])[0], expected)

    def test_few_of_many_samples_are_enough(self):
        samples = samples_of(make_rivers(), num_inputs=3)
        model = ridge(num_samples=10)
        model.fit(samples["train"])
        assert forecast(model, samples["test"])[0].std() > 0

    def test_before_it_is_fitted(self):
        batch = samples_of(make_rivers())["train"].batch([0])
        with pytest.raises(DataError, match="has seen no samples"):
            ridge().forward_batch(batch)

    def test_lead_times_that_differ_by_sample(self):
        samples = samples_of(make_rivers(), num_inputs=3)["train"]

        class Odd:
            def __getattr__(self, name):
                return getattr(samples, name)

            def __len__(self):
                return len(samples)

            def times(self, number):
                return samples.times(number) + np.array([0, 0, 0, DAY * (number % 2)])

        with pytest.raises(DataError, match="the same lead times in every training sample"):
            ridge().fit(Odd())


class TestSources:
    def test_one_without_stations(self):
        samples = samples_of(make_rivers())["train"]
        record = samples.sequences[0]
        maps = replace(samples, sequences=[SimpleNamespace(name="maps", times=record.times, read=record.read)])
        for model in (*(kind(ModelSettings(), 2) for kind in (FlowPersistence, FlowClimatology)), ridge()):
            with pytest.raises(DataError, match="the source has none"):
                model.fit(maps)

    def test_one_of_several_records(self):
        samples = samples_of(make_rivers())["train"]
        several = replace(samples, sequences=[*samples.sequences] * 2)
        with pytest.raises(DataError, match="take one record, the source has 2"):
            FlowPersistence(ModelSettings(), 2).fit(several)
