"""Contingency tables and their scores against the `scores` package, pysteps, plain loops and worked examples."""

import operator
from typing import NamedTuple

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from pysteps.verification.detcatscores import det_cat_fct
from scores.categorical import ThresholdEventOperator

from fieldcast.metrics.events import EVENT_METRICS, contingency_sums
from fieldcast.metrics.metric import Yardstick

METRICS = {metric.name: metric for metric in EVENT_METRICS}
THRESHOLDS = (0.1, 0.5, 2.0, 5.0, 10.0)
RAIN = Yardstick(units="mm/h", thresholds=THRESHOLDS)

every_metric = pytest.mark.parametrize("metric", EVENT_METRICS, ids=METRICS.keys())
both_events = pytest.mark.parametrize("event", ["at-or-above", "below"])
both_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


class Fields(NamedTuple):
    predicted: torch.Tensor
    observed: torch.Tensor
    valid: torch.Tensor


def rain(shape=(3, 2, 2, 15, 17), share_missing=0.1, seed=0, dtype=torch.float64):
    """Skewed values in steps of 0.1, so that many equal a threshold; NaN where missing."""
    generator = np.random.default_rng(seed)
    observed = np.round(generator.gamma(0.5, 4.0, shape), 1)
    predicted = np.round(np.abs(observed + generator.normal(0, 2, shape)), 1)
    observed[generator.random(shape) < share_missing] = np.nan
    predicted, observed = torch.tensor(predicted, dtype=dtype), torch.tensor(observed, dtype=dtype)
    return Fields(predicted, observed, ~observed.isnan())


def score(name, fields, yardstick=RAIN):
    return METRICS[name].score(contingency_sums(*fields, yardstick), yardstick)


def plain_table(fields, lead_time, threshold, happens):
    """Hits, misses, false alarms and correct negatives, pixel by pixel."""
    table = {(True, True): 0, (False, True): 0, (True, False): 0, (False, False): 0}
    for prediction, observation, valid in zip(
        *(field[:, lead_time].flatten().tolist() for field in fields), strict=True
    ):
        if valid:
            table[happens(prediction, threshold), happens(observation, threshold)] += 1
    return list(table.values())


def constant(dtype):
    """Thresholds as numbers of a dtype."""
    return torch.tensor(THRESHOLDS, dtype=dtype).tolist()


@both_dtypes
@both_events
def test_sums_are_those_of_plain_loops(event, dtype):
    fields = rain(dtype=dtype)
    happens = {"at-or-above": operator.ge, "below": operator.lt}[event]
    sums = contingency_sums(*fields, RAIN._replace(event=event))
    assert sums.dtype == torch.float64
    assert sums.shape == (4, 5, 2)
    for lead_time in range(2):
        for number, threshold in enumerate(constant(dtype)):
            assert sums[:, number, lead_time].tolist() == plain_table(fields, lead_time, threshold, happens)


NAMES_IN_SCORES = {
    "pod": "probability_of_detection",
    "far": "false_alarm_ratio",
    "csi": "critical_success_index",
    "gss": "gilberts_skill_score",
    "hss": "heidke_skill_score",
    "frequency-bias": "frequency_bias",
}


@both_dtypes
@both_events
def test_scores_are_those_of_the_scores_package_which_leaves_out_nan(event, dtype):
    fields = rain(dtype=dtype)
    compare = {"at-or-above": operator.ge, "below": operator.lt}[event]
    results = {name: score(name, fields, RAIN._replace(event=event)) for name in NAMES_IN_SCORES}
    for lead_time in range(2):
        predicted, observed = (xr.DataArray(field[:, lead_time].numpy()) for field in fields[:2])
        for number, threshold in enumerate(constant(dtype)):
            manager = ThresholdEventOperator().make_contingency_manager(
                predicted, observed, event_threshold=threshold, op_fn=compare
            )
            table = manager.transform()
            expected = {name: getattr(table, other)().item() for name, other in NAMES_IN_SCORES.items()}
            here = {name: result[number, lead_time].item() for name, result in results.items()}
            assert here == pytest.approx(expected, abs=1e-14)


NAMES_IN_PYSTEPS = {"pod": "POD", "far": "FAR", "csi": "CSI", "gss": "GSS", "hss": "HSS", "frequency-bias": "BIAS"}


@pytest.mark.parametrize("name", NAMES_IN_PYSTEPS)
def test_scores_are_those_of_pysteps_where_nothing_is_missing_and_nothing_equals_a_threshold(name):
    fields = rain(share_missing=0)
    fields = fields._replace(predicted=fields.predicted + 0.05, observed=fields.observed + 0.05)
    result = score(name, fields)
    for number, threshold in enumerate(THRESHOLDS):
        pair = (field[:, 1].numpy() for field in fields[:2])
        expected = det_cat_fct(*pair, threshold, NAMES_IN_PYSTEPS[name])[NAMES_IN_PYSTEPS[name]]
        assert result[number, 1].item() == pytest.approx(expected, abs=1e-13)


def one_row(predicted, observed, dtype=torch.float32):
    observed = torch.tensor(observed, dtype=dtype).view(1, 1, 1, 1, -1)
    return Fields(torch.tensor(predicted, dtype=dtype).view(1, 1, 1, 1, -1), observed, ~observed.isnan())


def test_a_value_equal_to_the_threshold_is_an_event_which_pysteps_denies():
    fields = one_row([2.0, 2.0, 0.0, 3.0], [2.0, 3.0, 0.0, 0.0])
    yardstick = Yardstick(thresholds=(2.0,))
    assert contingency_sums(*fields, yardstick).flatten().tolist() == [2, 0, 1, 1]
    pysteps = det_cat_fct(fields.predicted.numpy(), fields.observed.numpy(), 2.0, "csi")["CSI"]
    assert pysteps == 0
    assert score("csi", fields, yardstick).item() == pytest.approx(2 / 3)


def test_missing_pixels_are_left_out_which_pysteps_counts_as_no_event():
    fields = one_row([3.0, 3.0, 0.0, 3.0], [3.0, np.nan, np.nan, 3.0])
    yardstick = Yardstick(thresholds=(2.0,))
    assert contingency_sums(*fields, yardstick).flatten().tolist() == [2, 0, 0, 0]
    assert score("far", fields, yardstick).item() == 0
    pysteps = det_cat_fct(fields.predicted.numpy(), fields.observed.numpy(), 2.0, "far")["FAR"]
    assert pysteps == pytest.approx(1 / 3)


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.7, 1e-8, 16777217.0])
def test_thresholds_are_rounded_to_the_dtype_of_the_field(threshold):
    at, below = np.float32(threshold), np.nextafter(np.float32(threshold), np.float32(-np.inf))
    yardstick = Yardstick(thresholds=(threshold,))
    assert contingency_sums(*one_row([at, below], [below, at]), yardstick).flatten().tolist() == [0, 1, 1, 0]
    # The float32 forecast has the event by its own rounding, the float64 observation by its own.
    predicted, observed = one_row([at, below], [0, 0]).predicted, one_row([0, 0], [threshold, 0], torch.float64)
    mixed = Fields(predicted, observed.observed, observed.valid)
    assert contingency_sums(*mixed, yardstick).flatten().tolist() == [1, 0, 0, 1]


def test_the_tornado_forecasts_of_finley():
    """28 hits, 23 misses, 72 false alarms, 2680 correct negatives of 1884, in every textbook of verification."""
    sums = torch.tensor([28.0, 23.0, 72.0, 2680.0], dtype=torch.float64)
    chance = 51 * 100 / 2803
    expected = {
        "pod": 28 / 51,
        "far": 0.72,
        "csi": 28 / 123,
        "gss": (28 - chance) / (123 - chance),
        "hss": 2 * (28 * 2680 - 23 * 72) / (51 * 2703 + 100 * 2752),
        "frequency-bias": 100 / 51,
        "num-events": 51,
    }
    assert {name: METRICS[name].score(sums, RAIN).item() for name in METRICS} == pytest.approx(expected, rel=1e-14)
    rounded = {"pod": 0.549, "csi": 0.228, "gss": 0.216, "hss": 0.355, "frequency-bias": 1.961}
    assert {name: round(METRICS[name].score(sums, RAIN).item(), 3) for name in rounded} == rounded


NAN = float("nan")
UNDEFINED = {
    # hits, misses, false alarms, correct negatives: pod, far, csi, gss, hss, frequency bias, number of events
    "nothing valid": ((0, 0, 0, 0), (NAN, NAN, NAN, NAN, NAN, NAN, NAN)),
    "all dry": ((0, 0, 0, 7), (NAN, NAN, NAN, NAN, NAN, NAN, 0)),
    "all wet": ((7, 0, 0, 0), (1, 0, 1, NAN, NAN, 1, 7)),
    "none observed": ((0, 0, 3, 4), (NAN, 1, 0, 0, 0, NAN, 0)),
    "none forecast": ((0, 3, 0, 4), (0, NAN, 0, 0, 0, 0, 3)),
    "only false alarms": ((0, 0, 7, 0), (NAN, 1, 0, 0, 0, NAN, 0)),
    "only misses": ((0, 7, 0, 0), (0, NAN, 0, 0, 0, 0, 7)),
    "perfect": ((3, 0, 0, 4), (1, 0, 1, 1, 1, 1, 3)),
    "all wrong": ((0, 3, 4, 0), (0, 1, 0, -12 / 37, -24 / 25, 4 / 3, 3)),
    "many all wet": ((123456789123, 0, 0, 0), (1, 0, 1, NAN, NAN, 1, 123456789123)),
}


@pytest.mark.parametrize("case", UNDEFINED)
def test_scores_without_events_are_undefined_and_never_invented(case):
    table, expected = UNDEFINED[case]
    sums = torch.tensor(table, dtype=torch.float64)
    scores = [metric.score(sums, RAIN).item() for metric in EVENT_METRICS]
    assert scores == pytest.approx(expected, nan_ok=True, rel=1e-14)


def test_pysteps_takes_the_skill_of_false_alarms_alone_for_undefined_where_it_is_none():
    fields = one_row([3.0, 3.0, 0.0], [0.0, 0.0, 0.0])
    with np.errstate(invalid="ignore", divide="ignore"):
        pysteps = det_cat_fct(fields.predicted.numpy(), fields.observed.numpy(), 2.0, ["gss", "hss"])
    assert np.isnan(pysteps["GSS"])
    assert pysteps["HSS"] == 0
    assert [score(name, fields, Yardstick(thresholds=(2.0,))).item() for name in ("gss", "hss")] == [0, 0]


@every_metric
@both_events
def test_a_forecast_that_is_not_a_number_shows_at_its_lead_time_alone(metric, event):
    fields = rain(share_missing=0.1)
    yardstick = RAIN._replace(event=event)
    expected = metric.score(contingency_sums(*fields, yardstick), yardstick)
    fields.predicted[fields.observed.isnan()] = torch.nan
    torch.testing.assert_close(metric.score(contingency_sums(*fields, yardstick), yardstick), expected)
    fields.predicted[1, 0, 0].view(-1)[fields.valid[1, 0, 0].flatten().nonzero()[0]] = torch.nan
    result = metric.score(contingency_sums(*fields, yardstick), yardstick)
    assert result[:, 0].isnan().all()
    assert torch.equal(result[:, 1], expected[:, 1])


def test_infinite_forecasts_are_above_or_below_every_threshold():
    fields = one_row([np.inf, -np.inf], [20.0, 0.0])
    assert contingency_sums(*fields, RAIN)[..., 0].T.tolist() == [[1, 0, 0, 1]] * 5


@every_metric
@pytest.mark.parametrize("filler", [torch.nan, torch.inf, -torch.inf, 1e30, 3.0])
def test_missing_pixels_do_not_matter(metric, filler):
    predicted, observed, valid = rain()
    filled = (torch.where(valid, field, filler) for field in (predicted, observed))
    expected = metric.sums(predicted, observed, valid, RAIN)
    assert expected.isfinite().all()
    assert torch.equal(metric.sums(*filled, valid, RAIN), expected)


@every_metric
def test_scores_take_sums_of_any_further_shape(metric):
    sums = contingency_sums(*rain(), RAIN)
    resampled = torch.stack([sums, 2 * sums, 3 * sums], dim=1)
    scores = metric.score(resampled, RAIN)
    assert scores.shape == (3, 5, 2)
    torch.testing.assert_close(scores[0], metric.score(sums, RAIN))
    assert metric.score(sums.sum(-1), RAIN).shape == (5,)
    torch.testing.assert_close(metric.score(sums.sum(-1), RAIN)[2], metric.score(sums[:, 2].sum(-1), RAIN))


def test_series_of_stations_are_taken_as_well_and_inputs_stay_as_they_are():
    fields = rain()
    series = [field.flatten(3) for field in fields]
    before = [field.clone() for field in series]
    assert torch.equal(contingency_sums(*series, RAIN), contingency_sums(*fields, RAIN))
    assert all(torch.equal(*pair) or pair[0].isnan().any() for pair in zip(series, before, strict=True))
    assert torch.equal(series[0], before[0])


values = st.lists(st.tuples(*[st.sampled_from([0.0, 0.1, 0.4, 0.5, 2.0, 7.0, 10.0])] * 2, st.booleans()), min_size=2)


@settings(max_examples=25, deadline=None)
@given(values, st.data())
def test_sums_add_over_any_split_and_count_every_valid_pixel_once(pixels, data):
    columns = [torch.tensor(column).view(-1, 1, 1, 1, 1) for column in zip(*pixels, strict=True)]
    cut = data.draw(st.integers(1, len(pixels) - 1))
    whole = contingency_sums(*columns, RAIN)
    parts = contingency_sums(*(c[:cut] for c in columns), RAIN) + contingency_sums(*(c[cut:] for c in columns), RAIN)
    assert torch.equal(parts, whole)
    assert (whole.sum(0) == columns[2].sum()).all()
    assert (whole >= 0).all()
    # Fewer values reach a higher threshold.
    assert (METRICS["num-events"].score(whole, RAIN).diff(dim=0) <= 0).all() or not columns[2].any()
    # Forecast and observation in exchanged roles exchange misses and false alarms.
    exchanged = contingency_sums(columns[1], columns[0], columns[2], RAIN)
    assert torch.equal(exchanged, whole[[0, 2, 1, 3]])


def test_metrics_say_what_they_are():
    assert [metric.orientation for metric in EVENT_METRICS] == [
        *("larger", "smaller", "larger", "larger", "larger", "one", "none")
    ]
    for metric in EVENT_METRICS:
        assert metric.sums is contingency_sums
        assert metric.dimensions == ("threshold",)
        assert metric.lacks(RAIN) is None
        assert metric.lacks(Yardstick()) == "thresholds"
