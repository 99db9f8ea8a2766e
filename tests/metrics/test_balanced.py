"""Balanced errors against plain loops and the worked weights of HKO-7."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldcast.metrics.balanced import BALANCED_METRICS, balanced_error_sums
from fieldcast.metrics.metric import Yardstick
from fieldcast.metrics.pixels import PIXEL_METRICS

METRICS = {metric.name: metric for metric in (*BALANCED_METRICS, *PIXEL_METRICS)}
HKO7 = Yardstick(thresholds=(0.5, 2.0, 5.0, 10.0, 30.0), weights=(1.0, 1.0, 2.0, 5.0, 10.0, 30.0))
POWERS = {"b-mse": 2, "b-mae": 1}

balanced = pytest.mark.parametrize("name", POWERS)


def rain(dtype=torch.float32, seed=0, share_missing=0.1):
    generator = np.random.default_rng(seed)
    shape = (3, 2, 2, 15, 17)
    observed = np.round(generator.gamma(0.5, 14.0, shape), 1)
    predicted = np.abs(observed + generator.normal(0, 2, shape))
    observed[generator.random(shape) < share_missing] = np.nan
    predicted, observed = torch.tensor(predicted, dtype=dtype), torch.tensor(observed, dtype=dtype)
    return predicted, observed, ~observed.isnan()


def score(name, fields, yardstick=HKO7):
    return METRICS[name].score(METRICS[name].sums(*fields, yardstick), yardstick)


def weight_of_hko7(rate):
    """As the article's equation has it."""
    if rate < 2:
        return 1
    if rate < 5:
        return 2
    if rate < 10:
        return 5
    return 10 if rate < 30 else 30


@balanced
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scores_are_those_of_plain_loops(name, dtype):
    fields = rain(dtype)
    result = score(name, fields)
    for lead_time in range(2):
        terms = [
            weight_of_hko7(observation) * abs(prediction - observation) ** POWERS[name]
            for prediction, observation in zip(*(field[:, lead_time].flatten().tolist() for field in fields[:2]))
            if not math.isnan(observation)
        ]
        assert result[lead_time].item() == pytest.approx(math.fsum(terms) / len(terms), rel=1e-13)


def test_the_first_threshold_of_hko7_changes_no_weight():
    without = Yardstick(thresholds=HKO7.thresholds[1:], weights=HKO7.weights[1:])
    fields = rain()
    assert torch.equal(balanced_error_sums(*fields, HKO7), balanced_error_sums(*fields, without))


def test_a_worked_example_weighs_by_the_observed_value_from_its_threshold_on():
    observed = torch.tensor([0.0, 2.0, 4.9, 5.0, 10.0, 30.0, 80.0, 7.0]).view(1, 1, 1, 1, 8)
    predicted = observed + torch.tensor([40.0, -2.0, 1.0, 1.0, 1.0, -1.0, 2.0, 9.0]).view_as(observed)
    valid = torch.tensor([True] * 7 + [False]).view_as(observed)
    squares = 1 * 1600 + 2 * 4 + 2 * 1 + 5 * 1 + 10 * 1 + 30 * 1 + 30 * 4
    sizes = 1 * 40 + 2 * 2 + 2 * 1 + 5 * 1 + 10 * 1 + 30 * 1 + 30 * 2
    assert score("b-mse", (predicted, observed, valid)).item() == pytest.approx(squares / 7, rel=1e-6)
    assert score("b-mae", (predicted, observed, valid)).item() == pytest.approx(sizes / 7, rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(weight=st.floats(0.01, 100.0), seed=st.integers(0, 99))
def test_one_weight_for_all_gives_that_multiple_of_the_plain_errors(weight, seed):
    fields = rain(seed=seed)
    yardstick = Yardstick(thresholds=(3.0, 7.0), weights=(weight,) * 3)
    for name, plain in (("b-mse", "mse"), ("b-mae", "mae")):
        torch.testing.assert_close(
            score(name, fields, yardstick), weight * score(plain, fields, yardstick), rtol=1e-12, atol=0
        )


def test_thresholds_are_rounded_to_the_dtype_of_the_field():
    observed = torch.tensor([0.1, 0.1], dtype=torch.float32).view(1, 1, 1, 1, 2)
    yardstick = Yardstick(thresholds=(0.1,), weights=(1.0, 7.0))
    valid = torch.ones_like(observed, dtype=torch.bool)
    assert score("b-mae", (observed + 1, observed, valid), yardstick).item() == pytest.approx(7, rel=1e-6)


@balanced
def test_a_value_that_is_not_a_number_shows_at_its_lead_time_alone(name):
    for field in (0, 1):
        fields = rain(share_missing=0)
        expected = score(name, fields)
        fields[field][0, 0, 0, 3, 4] = torch.nan
        result = score(name, fields)
        assert result[0].isnan()
        assert result[1] == expected[1]


@pytest.mark.parametrize("filler", [torch.nan, torch.inf, 1e30])
def test_missing_pixels_do_not_matter(filler):
    predicted, observed, valid = rain()
    filled = (torch.where(valid, field, filler) for field in (predicted, observed))
    expected = balanced_error_sums(predicted, observed, valid, HKO7)
    assert expected.isfinite().all()
    assert torch.equal(balanced_error_sums(*filled, valid, HKO7), expected)


@balanced
def test_nothing_valid_is_undefined(name):
    predicted, observed, valid = rain()
    assert score(name, (predicted, observed, torch.zeros_like(valid))).isnan().all()


def test_sums_add_and_inputs_stay_as_they_are():
    fields = rain(share_missing=0)
    before = [field.clone() for field in fields]
    whole = balanced_error_sums(*fields, HKO7)
    assert all(torch.equal(*pair) for pair in zip(fields, before, strict=True))
    parts = sum(balanced_error_sums(*(field[part : part + 1] for field in fields), HKO7) for part in range(3))
    torch.testing.assert_close(parts, whole, rtol=1e-13, atol=0)


def test_metrics_say_what_they_are():
    assert METRICS["b-mse"].units.format(units="mm/h") == "(mm/h)^2"
    for metric in BALANCED_METRICS:
        assert metric.family == "pixels"
        assert metric.orientation == "smaller"
        assert metric.sums is balanced_error_sums
        assert metric.lacks(HKO7) is None
        assert metric.lacks(Yardstick(thresholds=(1.0,))) == "weights"
