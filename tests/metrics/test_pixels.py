"""Pixel metrics against plain readings in numpy with NaN, and what the sums promise."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldcast.metrics.metric import Yardstick
from fieldcast.metrics.pixels import PIXEL_METRICS

METRICS = {metric.name: metric for metric in PIXEL_METRICS}
YARDSTICK = Yardstick(units="1", data_range=2.5, shape=(16, 18))

metrics = pytest.mark.parametrize("metric", PIXEL_METRICS, ids=METRICS)
few = settings(max_examples=25, deadline=None)


def fields(num_samples=3, shape=(2, 2, 16, 18), share_missing=0.02, seed=0):
    generator = np.random.default_rng(seed)
    predicted, observed = generator.random((2, num_samples, *shape)).astype(np.float32)
    observed[generator.random(observed.shape) < share_missing] = np.nan
    return torch.tensor(predicted), torch.tensor(observed), torch.tensor(~np.isnan(observed))


def scores(metric, predicted, observed, valid, yardstick=YARDSTICK):
    return metric.score(metric.sums(predicted, observed, valid, yardstick), yardstick)


def plain_pairs(predicted, observed):
    """Values of both fields, of whatever shape, where something was observed."""
    return np.array(
        [
            (prediction, observation)
            for prediction, observation in zip(predicted.flatten().tolist(), observed.flatten().tolist(), strict=True)
            if not math.isnan(observation)
        ]
    )


def plain_errors(predicted, observed):
    return np.subtract(*plain_pairs(predicted, observed).T)


def plain_psnr(predicted, observed):
    return 20 * np.log10(YARDSTICK.data_range / np.sqrt(np.mean(plain_errors(predicted, observed) ** 2)))


def plain_cross_entropy(predicted, observed):
    predicted, observed = plain_pairs(predicted, observed).T
    probability = np.clip(predicted, 1e-6, 1 - 1e-6)
    return -np.mean(observed * np.log(probability) + (1 - observed) * np.log(1 - probability))


def plain_gradient_difference(predicted, observed):
    """NaN goes through differences, so that a pair with a missing pixel is NaN."""
    predicted, observed = (field.double().numpy() for field in (predicted, observed))
    differences = [
        np.abs(np.abs(np.diff(observed, axis=axis)) - np.abs(np.diff(predicted, axis=axis))).ravel()
        for axis in (-2, -1)
    ]
    return np.nanmean(np.concatenate(differences))


# Each takes what was predicted and observed at one lead time, (B, C, H, W).
ORACLES = {
    "mse": lambda *fields: np.mean(plain_errors(*fields) ** 2),
    "mae": lambda *fields: np.mean(np.abs(plain_errors(*fields))),
    "rmse": lambda *fields: np.sqrt(np.mean(plain_errors(*fields) ** 2)),
    "bias": lambda *fields: np.mean(plain_errors(*fields)),
    "psnr": plain_psnr,
    "psnr-frame": lambda predicted, observed: np.mean([plain_psnr(*frames) for frames in zip(predicted, observed)]),
    "psnr-batch": plain_psnr,
    "correlation": lambda *fields: np.corrcoef(plain_pairs(*fields).T)[0, 1],
    "cross-entropy": plain_cross_entropy,
    "gdl": plain_gradient_difference,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@metrics
def test_scores_are_those_of_a_plain_reading(metric, dtype):
    predicted, observed, valid = fields()
    result = scores(metric, predicted.to(dtype), observed.to(dtype), valid)
    expected = [ORACLES[metric.name](predicted[:, lead], observed[:, lead]) for lead in range(2)]
    in_float32 = dtype == torch.float32 and metric.name in ("cross-entropy", "gdl")
    assert result.dtype == torch.float64
    np.testing.assert_allclose(result, expected, atol=0, rtol=2e-8 if in_float32 else 1e-12)


@pytest.mark.parametrize("metric", [m for m in PIXEL_METRICS if m.name != "psnr-batch"], ids=lambda m: m.name)
def test_sums_of_batches_add_to_the_sums_of_the_whole_in_any_order(metric):
    predicted, observed, valid = fields(num_samples=5)
    whole = metric.sums(predicted, observed, valid, YARDSTICK)
    parts = [
        metric.sums(predicted[part], observed[part], valid[part], YARDSTICK)
        for part in (slice(0, 1), slice(1, 4), slice(4, 5))
    ]
    for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        torch.testing.assert_close(sum(parts[i] for i in order), whole, rtol=1e-12, atol=1e-12)


@metrics
def test_lead_times_are_kept_apart(metric):
    predicted, observed, valid = fields()
    sums = metric.sums(predicted, observed, valid, YARDSTICK)
    assert sums.shape == (len(sums), 2)
    assert sums.dtype == torch.float64
    alone = metric.sums(predicted[:, 1:], observed[:, 1:], valid[:, 1:], YARDSTICK)
    torch.testing.assert_close(alone[:, 0], sums[:, 1], rtol=1e-12, atol=0)


@pytest.mark.parametrize("metric", [m for m in PIXEL_METRICS if m.name != "psnr-batch"], ids=lambda m: m.name)
def test_lead_times_may_be_added(metric):
    predicted, observed, valid = fields()
    as_one = (field.transpose(0, 1).flatten(0, 1).unsqueeze(1) for field in (predicted, observed, valid))
    overall = metric.score(metric.sums(predicted, observed, valid, YARDSTICK).sum(1), YARDSTICK)
    assert overall.shape == ()
    torch.testing.assert_close(overall, scores(metric, *as_one)[0], rtol=1e-12, atol=0)


@metrics
def test_scores_are_elementwise_over_resamples(metric):
    predicted, observed, valid = fields()
    sums = metric.sums(predicted, observed, valid, YARDSTICK)
    resampled = torch.stack([sums, 3 * sums], 1)
    torch.testing.assert_close(metric.score(resampled, YARDSTICK), metric.score(sums, YARDSTICK).expand(2, 2))


@metrics
def test_nothing_valid_gives_nan_and_spoils_no_other_lead_time(metric):
    predicted, observed, valid = fields(share_missing=0)
    expected = scores(metric, predicted, observed, valid)
    observed[:, 0], predicted[:, 0], valid[:, 0] = torch.nan, torch.inf, False
    result = scores(metric, predicted, observed, valid)
    assert result[0].isnan()
    assert result[1] == expected[1]


@few
@given(st.sampled_from(PIXEL_METRICS), st.integers(0, 2**31), st.floats(width=32))
def test_what_lies_under_the_mask_does_not_matter(metric, seed, filling):
    predicted, observed, valid = fields(1, (1, 2, 6, 5), share_missing=0.3, seed=seed)
    covered = (predicted.masked_fill(~valid, filling), observed.masked_fill(~valid, -filling))
    expected = metric.sums(predicted.masked_fill(~valid, 0), observed.masked_fill(~valid, 0), valid, YARDSTICK)
    torch.testing.assert_close(metric.sums(*covered, valid, YARDSTICK), expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", [name for name in METRICS if name != "cross-entropy"])
def test_perfect_forecasts_have_the_best_score(name):
    _, observed, valid = fields()
    best = dict.fromkeys(("psnr", "psnr-frame", "psnr-batch"), math.inf) | {"correlation": 1}
    assert (scores(METRICS[name], observed, observed, valid) == best.get(name, 0)).all()


@metrics
def test_a_forecast_that_is_not_finite_shows(metric):
    predicted, observed, valid = fields(share_missing=0)
    predicted[0, 0, 0, 8, 8] = torch.nan
    assert scores(metric, predicted, observed, valid).isnan().tolist() == [True, False]


def test_float64_sums_do_not_lose_small_errors():
    predicted = torch.zeros(1, 1, 1, 64, 64)
    predicted[..., 0, 0] = 1e4
    predicted[..., 1:, :] = 1e-2
    valid = torch.ones_like(predicted, dtype=torch.bool)
    sums = METRICS["mse"].sums(predicted, torch.zeros_like(predicted), valid, YARDSTICK)
    assert sums[0, 0].item() == pytest.approx(1e8 + 63 * 64 * float(np.float32(1e-2)) ** 2, rel=1e-15)


@pytest.mark.parametrize("name", [name for name in METRICS if name != "gdl"])
def test_pixel_metrics_take_stations_in_place_of_a_map(name):
    predicted, observed, valid = (field.flatten(3) for field in fields())
    torch.testing.assert_close(scores(METRICS[name], predicted, observed, valid), scores(METRICS[name], *fields()))


def test_psnr_of_frames_leaves_out_frames_without_a_valid_pixel():
    predicted, observed, valid = fields(share_missing=0)
    expected = scores(METRICS["psnr-frame"], predicted[1:], observed[1:], valid[1:])
    valid[0] = False
    torch.testing.assert_close(scores(METRICS["psnr-frame"], predicted, observed, valid), expected)


def test_psnr_of_batches_is_the_mean_over_calls():
    metric, (predicted, observed, valid) = METRICS["psnr-batch"], fields()
    calls = [slice(0, 2), slice(2, 3)]
    sums = sum(metric.sums(predicted[call], observed[call], valid[call], YARDSTICK) for call in calls)
    expected = [np.mean([plain_psnr(predicted[call, lead], observed[call, lead]) for call in calls]) for lead in (0, 1)]
    np.testing.assert_allclose(metric.score(sums, YARDSTICK), expected, rtol=1e-12)
    whole = metric.score(metric.sums(predicted, observed, valid, YARDSTICK), YARDSTICK)
    assert (whole - metric.score(sums, YARDSTICK)).abs().min() > 1e-4


@pytest.mark.parametrize("value", [0.0, 0.1, 280.0])
def test_correlation_of_a_constant_field_is_not_defined(value):
    predicted, observed, valid = fields(share_missing=0)
    constant = torch.full_like(predicted, value)
    assert scores(METRICS["correlation"], constant, observed, valid).isnan().all()
    assert scores(METRICS["correlation"], predicted, constant, valid).isnan().all()


def test_correlation_holds_far_from_zero():
    predicted, observed, valid = fields(share_missing=0)
    predicted, observed = 280 + predicted.double(), 280 + observed.double()
    expected = [np.corrcoef(predicted[:, lead].ravel(), observed[:, lead].ravel())[0, 1] for lead in (0, 1)]
    np.testing.assert_allclose(scores(METRICS["correlation"], predicted, observed, valid), expected, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cross_entropy_of_certain_forecasts_is_bounded(dtype):
    predicted = torch.tensor([0.0, 1.0, -0.2, 1.2], dtype=dtype).reshape(1, 4, 1, 1, 1)
    observed = torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=dtype).reshape(1, 4, 1, 1, 1)
    result = scores(METRICS["cross-entropy"], predicted, observed, torch.ones_like(predicted, dtype=torch.bool))
    wrong, right = -math.log(1e-6), -math.log1p(-1e-6)
    np.testing.assert_allclose(result, [wrong, wrong, right, right], rtol=1e-7)


def test_cross_entropy_is_not_defined_for_observations_outside_0_to_1():
    predicted, observed, valid = fields(share_missing=0)
    observed[0, 0, 0, 0, :2] = torch.tensor([1.1, -0.1])
    observed[0, 1, 0, 0, :2] = torch.tensor([1 + 2e-7, -2e-7])
    assert scores(METRICS["cross-entropy"], predicted, observed, valid).isnan().tolist() == [True, False]
    valid[0, 0, 0, 0, :2] = False
    assert scores(METRICS["cross-entropy"], predicted, observed, valid).isfinite().all()


def test_gradient_difference_of_a_worked_frame():
    """Steps observed 1 and 2 in the row, 3 down; predicted -1 and 4 in the row, 0 down, so (0 + 2 + 3) / 3."""
    observed = torch.tensor([[0.0, 1.0, 3.0], [3.0, torch.nan, torch.nan]]).reshape(1, 1, 1, 2, 3)
    predicted = torch.tensor([[1.0, 0.0, 4.0], [1.0, 7.0, 7.0]]).reshape(1, 1, 1, 2, 3)
    assert scores(METRICS["gdl"], predicted, observed, ~observed.isnan()).item() == pytest.approx(5 / 3)


def test_fields_that_can_not_have_a_score_are_told_why():
    lacks = METRICS["cross-entropy"].lacks
    assert lacks(Yardstick(units="1", data_range=1.0)) is None
    assert lacks(Yardstick(units="mm/h", data_range=1.0)) == "values in [0, 1]"
    assert lacks(Yardstick(units="1", data_range=2.0)) == "values in [0, 1]"
    assert METRICS["gdl"].lacks(Yardstick(shape=(1, 1))) == "frames of more than one pixel"
    assert METRICS["gdl"].lacks(Yardstick(shape=(1, 2))) is None


def test_units_follow_the_field():
    assert METRICS["mse"].units.format(units="mm/h") == "(mm/h)^2"
    assert METRICS["mae"].units.format(units="mm/h") == "mm/h"
    assert METRICS["psnr"].units.format(units="mm/h") == "dB"
