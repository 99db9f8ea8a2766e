"""Metrics of rivers against scores, numpy and plain loops on flows with NaN, and what they promise."""

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scores.continuous import kge, nse, pbias

from fieldcast.metrics.hydrology import RIVER_METRICS
from fieldcast.metrics.metric import DIMENSIONS, Yardstick

METRICS = {metric.name: metric for metric in RIVER_METRICS}
NUM_LEADS, NUM_STATIONS = 5, 3
DIMS = ("sample", "lead", "channel", "station")
YARDSTICK = Yardstick(units="m3 s-1", stations=("upper", "middle", "mouth"))
EFFICIENCIES = ("nse", "log-nse", "kge", "kge-2012")

each_metric = pytest.mark.parametrize("metric", RIVER_METRICS, ids=METRICS.keys())


def flows(num_samples=40, share_missing=0.05, seed=0):
    """Skewed flows of rivers of different size, some of them 0, with NaN in both where a value is missing."""
    generator = np.random.default_rng(seed)
    shape = (num_samples, NUM_LEADS, 1, NUM_STATIONS)
    observed = np.exp(generator.normal(size=shape)) * np.array([1, 30, 900])
    predicted = 1.1 * observed * np.exp(0.4 * generator.normal(size=shape))
    for series in (predicted, observed):
        series[generator.random(shape) < 0.03] = 0
    missing = generator.random(shape) < share_missing
    observed[missing] = np.nan
    predicted[missing & (generator.random(shape) < 0.5)] = np.nan
    predicted, observed = (torch.tensor(series.astype(np.float32)) for series in (predicted, observed))
    return predicted, observed, torch.tensor(~missing)


def score(name, predicted, observed, valid):
    metric = METRICS[name]
    return metric.score(metric.sums(predicted, observed, valid, YARDSTICK), YARDSTICK).numpy()


def labelled(predicted, observed, valid):
    return [
        xr.DataArray(series.masked_fill(~valid, torch.nan).double().numpy(), dims=DIMS)
        for series in (predicted, observed)
    ]


def series_of_one(predicted, observed):
    """One station's flows as that many samples of a single lead time, all valid."""
    predicted, observed = (
        torch.tensor(values, dtype=torch.float64).view(-1, 1, 1, 1) for values in (predicted, observed)
    )
    return predicted, observed, torch.ones_like(observed, dtype=torch.bool)


ORACLES = {
    "nse": lambda forecast, truth, keep: nse(forecast, truth, preserve_dims=keep),
    "kge": lambda forecast, truth, keep: kge(forecast, truth, preserve_dims=keep),
    "kge-2012": lambda forecast, truth, keep: kge(forecast, truth, preserve_dims=keep, method="2012"),
    "kge-correlation": lambda *series: parts(*series, "2009").rho,
    "kge-variability": lambda *series: parts(*series, "2009").alpha,
    "kge-variability-2012": lambda *series: parts(*series, "2012").gamma,
    "kge-bias": lambda *series: parts(*series, "2009").beta,
    "percent-bias": lambda forecast, truth, keep: pbias(forecast, truth, preserve_dims=keep),
}


def parts(forecast, truth, keep, method):
    return kge(forecast, truth, preserve_dims=keep, method=method, include_components=True)


@pytest.mark.parametrize("name", ORACLES)
def test_scores_are_those_of_scores(name):
    fields = flows()
    metric = METRICS[name]
    sums = metric.sums(*fields, YARDSTICK)
    by_lead = ORACLES[name](*labelled(*fields), ["station", "lead"])
    np.testing.assert_allclose(metric.score(sums, YARDSTICK), by_lead.transpose("station", "lead"), rtol=1e-12)
    of_all = ORACLES[name](*labelled(*fields), ["station"])
    np.testing.assert_allclose(metric.score(sums.sum(-1), YARDSTICK), of_all, rtol=1e-12)


def test_logarithms_are_of_what_flows():
    fields = flows()
    forecast, truth = labelled(*fields)
    wet = (forecast > 0) & (truth > 0)
    with np.errstate(divide="ignore"):
        expected = nse(np.log(forecast).where(wet), np.log(truth).where(wet), preserve_dims=["station", "lead"])
    np.testing.assert_allclose(score("log-nse", *fields), expected.transpose("station", "lead"), rtol=1e-12)
    share = wet.sum(["sample", "channel"]) / truth.notnull().sum(["sample", "channel"])
    np.testing.assert_allclose(score("log-nse-share", *fields), share.transpose("station", "lead"), rtol=1e-14)
    assert 0.5 < share.min() < share.max() < 1


def test_a_forecast_of_nan_makes_its_lead_time_undefined():
    predicted, observed, _ = flows(share_missing=0)
    valid = torch.ones_like(observed, dtype=torch.bool)
    for name in METRICS.keys() - {"log-nse-share"}:
        expected = score(name, predicted, observed, valid)
        place = int(observed[:, 2, 0, 1].argmax())
        assert observed[place, 2, 0, 1] == observed[place, :, 0, 1].max()
        spoilt = predicted.clone()
        spoilt[place, 2, 0, 1] = torch.nan
        expected[1, 2] = np.nan
        np.testing.assert_array_equal(score(name, spoilt, observed, valid), expected, err_msg=name)


def plain_peak_timing(predicted, observed, station):
    """Steps between the peaks of each sample, put at the lead time of the observed one."""
    steps = [[] for _ in range(NUM_LEADS)]
    for forecast, truth in zip(predicted[:, :, 0, station].tolist(), observed[:, :, 0, station].tolist(), strict=True):
        if not np.isnan(truth).any() and max(truth) not in (truth[0], truth[-1]):
            peak = truth.index(max(truth))
            steps[peak].append(abs(forecast.index(max(forecast)) - peak))
    return steps


def test_peak_timing_is_that_of_plain_loops():
    predicted, observed, valid = flows()
    expected = [plain_peak_timing(predicted, observed, station) for station in range(NUM_STATIONS)]
    assert all(len(station[lead]) > 1 for station in expected for lead in range(1, NUM_LEADS - 1))
    by_lead = [[np.mean(steps) if steps else np.nan for steps in station] for station in expected]
    np.testing.assert_allclose(score("peak-timing", predicted, observed, valid), by_lead, rtol=1e-14)
    sums = METRICS["peak-timing"].sums(predicted, observed, valid, YARDSTICK).sum(-1)
    of_all = [np.mean([step for steps in station for step in steps]) for station in expected]
    np.testing.assert_allclose(METRICS["peak-timing"].score(sums, YARDSTICK), of_all, rtol=1e-14)


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        ([1, 2, 9, 3, 1], [np.nan, np.nan, 2, np.nan, np.nan]),
        ([1, 9, 9, 3, 1], [np.nan, 3, np.nan, np.nan, np.nan]),
        ([9, 2, 4, 3, 1], [np.nan] * 5),
        ([1, 2, 4, 3, 9], [np.nan] * 5),
        ([1, 2, 9, 9, 9], [np.nan] * 5),
        ([3, 3, 3, 3, 3], [np.nan] * 5),
        ([1, 2, 9, np.nan, 1], [np.nan] * 5),
    ],
    ids=["peak", "first of two", "falling", "rising", "still high", "constant", "missing"],
)
def test_what_is_a_peak(observed, expected):
    observed = torch.tensor(observed, dtype=torch.float32).view(1, 5, 1, 1)
    predicted = torch.tensor([1.0, 2, 3, 4, 8]).view(1, 5, 1, 1)
    np.testing.assert_array_equal(score("peak-timing", predicted, observed, ~observed.isnan())[0], expected)


def test_worked_by_hand():
    fields = series_of_one([2.0, 2.0, 8.0], [1.0, 2.0, 3.0])
    correlation, alpha = 6 / np.sqrt(24 * 2), np.sqrt(12)
    expected = {
        "nse": 1 - 26 / 2,
        "kge-correlation": correlation,
        "kge-variability": alpha,
        "kge-bias": 2,
        "kge-variability-2012": alpha / 2,
        "kge": 1 - np.sqrt((correlation - 1) ** 2 + (alpha - 1) ** 2 + 1),
        "kge-2012": 1 - np.sqrt((correlation - 1) ** 2 + (alpha / 2 - 1) ** 2 + 1),
        "percent-bias": 100,
        "log-nse-share": 1,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(score(name, *fields), [[value]], rtol=1e-14, err_msg=name)


def test_a_perfect_forecast_is_best():
    _, observed, valid = flows()
    perfect = (observed, observed, valid)
    for name in (*EFFICIENCIES, "kge-correlation", "kge-variability", "kge-variability-2012", "kge-bias"):
        np.testing.assert_allclose(score(name, *perfect), 1, atol=1e-15, err_msg=name)
    assert (score("percent-bias", *perfect) == 0).all()
    assert (score("peak-timing", *perfect)[:, 1:-1] == 0).all()


def test_the_mean_flow_has_no_efficiency():
    _, observed, valid = flows()
    mean = observed.double().nanmean(0, keepdim=True).expand_as(observed)
    np.testing.assert_allclose(score("nse", mean, observed.double(), valid), 0, atol=1e-13)
    assert (score("kge-variability", mean, observed, valid) == 0).all()
    assert np.isnan(score("kge-correlation", mean, observed, valid)).all()


@settings(max_examples=25, deadline=None)
@given(st.floats(1e-3, 1e3), st.integers(0, 1000))
def test_units_do_not_matter(factor, seed):
    predicted, observed, valid = flows(seed=seed)
    predicted, observed = predicted.double(), observed.double()
    for name in METRICS:
        expected = score(name, predicted, observed, valid)
        scaled = score(name, factor * predicted, factor * observed, valid)
        np.testing.assert_allclose(scaled, expected, rtol=1e-9, atol=1e-9, err_msg=name)


@settings(max_examples=25, deadline=None)
@given(st.floats(-100, 100), st.integers(0, 1000))
def test_a_constant_does_not_change_what_is_about_the_mean(constant, seed):
    predicted, observed, valid = flows(seed=seed)
    predicted, observed = predicted.double(), observed.double()
    for name in ("nse", "kge-correlation", "kge-variability", "peak-timing"):
        expected = score(name, predicted, observed, valid)
        shifted = score(name, predicted + constant, observed + constant, valid)
        np.testing.assert_allclose(shifted, expected, rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("constant", [0.0, 0.1, 5.0, 12345.678])
@pytest.mark.parametrize("number", [1, 2, 7, 1000])
def test_constant_observed_flow_has_no_efficiency(constant, number):
    generator = np.random.default_rng(0)
    fields = series_of_one(constant + 1 + generator.random(number), np.full(number, constant))
    for name in (*EFFICIENCIES, "kge-correlation", "kge-variability", "kge-variability-2012"):
        assert np.isnan(score(name, *fields)).all(), name
    assert np.isnan(score("percent-bias", *fields)).all() == (constant == 0)
    assert np.isnan(score("kge-bias", *fields)).all() == (constant == 0)


@pytest.mark.filterwarnings("ignore:\\s*NSE")
def test_scores_gives_numbers_where_the_flow_is_constant():
    """Why the oracle isn't asked there: -inf, or what rounding of the mean leaves, in place of undefined."""
    predicted, observed, valid = series_of_one([0.1, 1.1, 2.1, 3.1, 4.1, 5.1, 6.1], [0.1] * 7)
    assert nse(*labelled(predicted, observed, valid), preserve_dims="station").item() < -1e30
    assert nse(*labelled(predicted, observed + 0.9, valid), preserve_dims="station").item() == -np.inf
    assert kge(*labelled(predicted, observed, valid), preserve_dims="station").item() < -1e10
    assert np.isnan(score("nse", predicted, observed, valid)).all()


def test_little_is_lost_where_the_flow_hardly_varies():
    """A mean a thousand times the standard deviation leaves nine digits after as many batches as a long run has."""
    generator = np.random.default_rng(0)
    observed = 1000 + generator.normal(size=20_000)
    predicted = observed + 0.5 * generator.normal(size=20_000)
    metric = METRICS["kge"]
    batches = zip(*(np.split(series, 2000) for series in (predicted, observed)), strict=True)
    sums = sum(metric.sums(*series_of_one(*batch), YARDSTICK) for batch in batches)
    exact = {
        "nse": 1 - np.mean((predicted - observed) ** 2) / observed.var(),
        "kge-correlation": np.corrcoef(predicted, observed)[0, 1],
        "kge-variability": predicted.std() / observed.std(),
    }
    for name, value in exact.items():
        np.testing.assert_allclose(METRICS[name].score(sums, YARDSTICK), [[value]], rtol=1e-8, err_msg=name)


@each_metric
def test_sums_add_over_samples(metric):
    fields = flows()
    whole = metric.sums(*fields, YARDSTICK)
    assert whole.dtype == torch.float64
    assert whole.shape[1:] == (NUM_STATIONS, NUM_LEADS)
    split = [metric.sums(*(field[part] for field in fields), YARDSTICK) for part in (slice(0, 7), slice(7, None))]
    torch.testing.assert_close(sum(split), whole, rtol=1e-12, atol=0)


@pytest.mark.parametrize("metric", [METRICS[name] for name in METRICS if name != "peak-timing"], ids=lambda m: m.name)
def test_sums_of_a_lead_time_are_its_own(metric):
    fields = flows()
    leads = [metric.sums(*(field[:, part] for field in fields), YARDSTICK) for part in (slice(0, 2), slice(2, None))]
    torch.testing.assert_close(torch.cat(leads, -1), metric.sums(*fields, YARDSTICK), rtol=1e-12, atol=0)


@each_metric
def test_stations_and_channels(metric):
    fields = flows()
    whole = metric.sums(*fields, YARDSTICK)
    alone = metric.sums(*(field[..., 1:2] for field in fields), YARDSTICK)
    torch.testing.assert_close(alone, whole[:, 1:2], rtol=1e-12, atol=0)
    twice = metric.sums(*(torch.cat([field, field], 2) for field in fields), YARDSTICK)
    torch.testing.assert_close(twice, 2 * whole, rtol=1e-12, atol=0)


@each_metric
@pytest.mark.parametrize("filler", [float("nan"), float("inf"), -7.0])
def test_missing_values_do_not_matter(metric, filler):
    predicted, observed, valid = flows()
    expected = metric.sums(predicted, observed, valid, YARDSTICK)
    assert torch.isfinite(expected).all()
    filled = (torch.where(valid, series, filler) for series in (predicted, observed))
    assert torch.equal(metric.sums(*filled, valid, YARDSTICK), expected)


@each_metric
def test_scores_are_elementwise_over_whatever_follows_the_sums(metric):
    sums = metric.sums(*flows(), YARDSTICK)
    expected = metric.score(sums, YARDSTICK)
    assert list(expected.shape) == [len(DIMENSIONS["station"][1](YARDSTICK)), NUM_LEADS]
    for part in metric.score(torch.stack([sums, 2 * sums], 1), YARDSTICK):
        torch.testing.assert_close(part, expected, equal_nan=True)
    torch.testing.assert_close(metric.score(sums[..., 2], YARDSTICK), expected[..., 2], equal_nan=True)


@each_metric
def test_nothing_valid_is_undefined(metric):
    predicted, observed, valid = flows()
    assert metric.score(metric.sums(predicted, observed, torch.zeros_like(valid), YARDSTICK), YARDSTICK).isnan().all()


@each_metric
def test_labels(metric):
    assert metric.takes == "stations"
    assert metric.dimensions == ("station",)
    assert metric.lacks(YARDSTICK) is None
    assert DIMENSIONS["station"][1](YARDSTICK) == ["upper", "middle", "mouth"]
