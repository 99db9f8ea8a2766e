"""Pixel metrics against plain loops over numpy arrays with NaN, and what the sums promise."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from fieldcast.metrics import METRICS
from fieldcast.metrics.conventions import CONVENTIONS, restate

DATA_RANGE = 2.5
GAUSSIAN = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}

metrics = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS.keys())


def fields(num_samples=3, shape=(2, 2, 16, 18), share_missing=0.02, seed=0):
    generator = np.random.default_rng(seed)
    predicted, observed = generator.random((2, num_samples, *shape)).astype(np.float32)
    observed[generator.random(observed.shape) < share_missing] = np.nan
    return torch.tensor(predicted), torch.tensor(observed), torch.tensor(~np.isnan(observed))


def scores(metric, predicted, observed, valid):
    return metric.score(metric.sums(predicted, observed, valid, DATA_RANGE), DATA_RANGE)


def plain_errors(predicted, observed, lead_time):
    errors = []
    for prediction, observation in zip(
        predicted[:, lead_time].flatten().tolist(), observed[:, lead_time].flatten().tolist(), strict=True
    ):
        if not math.isnan(observation):
            errors.append(prediction - observation)
    return np.array(errors)


def plain_similarities(predicted, observed, lead_time, width, options):
    """SSIM at each window without NaN; the others see zeros, whatever they give is left out."""
    similarities = []
    missing = observed.isnan()
    pairs = torch.stack([predicted.masked_fill(missing, 0), observed.masked_fill(missing, 0)]).double().numpy()
    for sample in range(predicted.shape[0]):
        for channel in range(predicted.shape[2]):
            where = (sample, lead_time, channel)
            full = structural_similarity(*pairs[:, *where], data_range=DATA_RANGE, full=True, **options)[1]
            for row in range(full.shape[0] - width + 1):
                for column in range(full.shape[1] - width + 1):
                    if not missing[where][row : row + width, column : column + width].any():
                        similarities.append(full[row + width // 2, column + width // 2])
    return np.array(similarities)


ORACLES = {
    "mse": lambda *fields: np.mean(plain_errors(*fields) ** 2),
    "mae": lambda *fields: np.mean(np.abs(plain_errors(*fields))),
    "rmse": lambda *fields: np.sqrt(np.mean(plain_errors(*fields) ** 2)),
    "bias": lambda *fields: np.mean(plain_errors(*fields)),
    "psnr": lambda *fields: 20 * np.log10(DATA_RANGE / np.sqrt(np.mean(plain_errors(*fields) ** 2))),
    "ssim": lambda *fields: np.mean(plain_similarities(*fields, 11, GAUSSIAN)),
    "ssim-uniform": lambda *fields: np.mean(plain_similarities(*fields, 7, {})),
}


def tolerance(name):
    return 1e-6 if name.startswith("ssim") else 1e-12


@pytest.mark.parametrize("name", ORACLES)
def test_scores_are_those_of_plain_loops(name):
    predicted, observed, valid = fields()
    result = scores(METRICS[name], predicted, observed, valid)
    expected = [ORACLES[name](predicted, observed, lead_time) for lead_time in range(2)]
    assert result.dtype == torch.float64
    np.testing.assert_allclose(result, expected, atol=tolerance(name), rtol=0)


@pytest.mark.parametrize("name", ["ssim", "ssim-uniform"])
def test_similarity_of_whole_frames_is_the_mean_over_frames(name):
    predicted, observed, valid = fields(share_missing=0)
    options = GAUSSIAN if name == "ssim" else {}
    pairs = zip(
        predicted[:, 0].flatten(0, 1).double().numpy(), observed[:, 0].flatten(0, 1).double().numpy(), strict=True
    )
    expected = np.mean([structural_similarity(*pair, data_range=DATA_RANGE, **options) for pair in pairs])
    assert scores(METRICS[name], predicted, observed, valid)[0].item() == pytest.approx(expected, abs=1e-6)


@metrics
def test_sums_of_batches_add_to_the_sums_of_the_whole_in_any_order(metric):
    predicted, observed, valid = fields(num_samples=5)
    whole = metric.sums(predicted, observed, valid, DATA_RANGE)
    parts = [
        metric.sums(predicted[part], observed[part], valid[part], DATA_RANGE)
        for part in (slice(0, 1), slice(1, 4), slice(4, 5))
    ]
    for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        torch.testing.assert_close(sum(parts[i] for i in order), whole, rtol=1e-12, atol=1e-12)


@metrics
def test_lead_times_are_kept_apart_and_may_be_added(metric):
    predicted, observed, valid = fields()
    sums = metric.sums(predicted, observed, valid, DATA_RANGE)
    assert sums.shape == (len(sums), 2)
    assert sums.dtype == torch.float64
    torch.testing.assert_close(
        metric.sums(predicted[:, 1:], observed[:, 1:], valid[:, 1:], DATA_RANGE)[:, 0], sums[:, 1], rtol=1e-12, atol=0
    )
    as_one = (field.transpose(0, 1).flatten(0, 1).unsqueeze(1) for field in (predicted, observed, valid))
    overall = metric.score(sums.sum(1), DATA_RANGE)
    assert overall.shape == ()
    torch.testing.assert_close(overall, scores(metric, *as_one)[0], rtol=1e-12, atol=0)


@metrics
def test_nothing_valid_gives_nan_and_spoils_no_other_lead_time(metric):
    predicted, observed, valid = fields(share_missing=0)
    expected = scores(metric, predicted, observed, valid)
    observed[:, 0], predicted[:, 0], valid[:, 0] = torch.nan, torch.inf, False
    result = scores(metric, predicted, observed, valid)
    assert result[0].isnan()
    assert result[1] == expected[1]


@metrics
def test_perfect_forecasts_have_the_best_score(metric):
    _, observed, valid = fields()
    best = {"mse": 0, "mae": 0, "rmse": 0, "bias": 0, "psnr": math.inf, "ssim": 1, "ssim-uniform": 1}
    assert (scores(metric, observed, observed, valid) == best[metric.name]).all()


@metrics
def test_a_forecast_that_is_not_finite_shows(metric):
    predicted, observed, valid = fields(share_missing=0)
    predicted[0, 0, 0, 8, 8] = torch.nan
    assert scores(metric, predicted, observed, valid).isnan().tolist() == [True, False]


def test_float64_sums_do_not_lose_small_errors():
    predicted = torch.zeros(1, 1, 1, 64, 64)
    predicted[..., 0, 0] = 1e4
    predicted[..., 1:, :] = 1e-2
    sums = METRICS["mse"].sums(
        predicted, torch.zeros_like(predicted), torch.ones_like(predicted, dtype=torch.bool), 1.0
    )
    assert sums[0, 0].item() == pytest.approx(1e8 + 63 * 64 * float(np.float32(1e-2)) ** 2, rel=1e-15)


@pytest.mark.parametrize("name", ["mse", "mae", "rmse", "bias", "psnr"])
def test_pixel_metrics_take_stations_in_place_of_a_map(name):
    predicted, observed, valid = (field.flatten(3) for field in fields())
    maps = fields()
    torch.testing.assert_close(scores(METRICS[name], predicted, observed, valid), scores(METRICS[name], *maps))


@metrics
def test_metrics_say_what_they_are(metric):
    assert METRICS[metric.name] is metric
    assert metric.orientation in ("smaller", "larger", "zero")
    assert metric.long_name
    assert metric.convention
    assert "{" not in metric.units.format(units="mm/h")


def test_units_follow_the_field():
    assert METRICS["mse"].units.format(units="mm/h") == "(mm/h)^2"
    assert METRICS["mae"].units.format(units="mm/h") == "mm/h"
    assert METRICS["psnr"].units.format(units="mm/h") == "dB"


def test_conventions_restate_scores():
    assert restate("mse", 0.0039621, "thesis", 4096) == (pytest.approx(39.621), "MSE x 10^4 (mean over pixels, [0, 1])")
    assert restate("ssim", 0.96059, "thesis", 4096)[0] == pytest.approx(96.059)
    value, label = restate("mae", 0.01, "openstl", 4096)
    assert value == pytest.approx(40.96)
    assert label == "MAE (sum over pixels per frame, [0, 1])"
    for name, metric in METRICS.items():
        value, label = restate(name, 1.5, "fieldcast", 4096)
        assert value == 1.5
        assert metric.convention in label


def test_openstl_sums_are_those_of_its_own_formula():
    predicted, observed, valid = fields(share_missing=0)
    expected = np.mean((predicted.double().numpy() - observed.double().numpy()) ** 2, axis=(0, 1)).sum()
    sums = METRICS["mse"].sums(predicted, observed, valid, 1.0).sum(1)
    value, _ = restate("mse", METRICS["mse"].score(sums, 1.0).item(), "openstl", predicted[0, 0].numel())
    assert value == pytest.approx(expected, rel=1e-12)


def test_unknown_conventions_and_metrics_are_refused():
    assert all(set(restatements) <= set(METRICS) for restatements in CONVENTIONS.values())
    with pytest.raises(ValueError, match="unknown convention 'tesis': did you mean 'thesis'"):
        restate("mse", 1.0, "tesis", 1)
    with pytest.raises(ValueError, match="unknown metric of the convention 'openstl' 'psnr'"):
        restate("psnr", 1.0, "openstl", 1)
