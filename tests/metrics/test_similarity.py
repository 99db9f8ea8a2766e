"""Structural similarity metrics against scikit-image and a plain float64 reading with scipy."""

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate
from skimage.metrics import structural_similarity

from fieldcast.metrics.metric import Yardstick
from fieldcast.metrics.similarity import SIMILARITY_METRICS

METRICS = {metric.name: metric for metric in SIMILARITY_METRICS}
DATA_RANGE = 2.5
# Frames of 12 x 11 pixels at the last of five scales; odd, so that they lose rows and columns between scales.
SHAPE = (195, 181)
GAUSSIAN = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
WINDOWS = {"ssim": (11, GAUSSIAN), "ssim-uniform": (7, {})}

metrics = pytest.mark.parametrize("metric", SIMILARITY_METRICS, ids=METRICS)
windows = pytest.mark.parametrize("name", WINDOWS)
yardstick = Yardstick(units="1", data_range=DATA_RANGE, shape=SHAPE)


def fields(num_samples=2, num_channels=2, shape=SHAPE, share_missing=2e-3, seed=0):
    """Forecasts that are half right, since those of noise have a similarity near 0; the first rows have gaps."""
    generator = np.random.default_rng(seed)
    predicted, observed = generator.random((2, num_samples, 2, num_channels, *shape)).astype(np.float32)
    predicted = (predicted + observed) / 2
    top = observed[..., :16, :]
    top[generator.random(top.shape) < share_missing] = np.nan
    return torch.tensor(predicted), torch.tensor(observed), torch.tensor(~np.isnan(observed))


def scores(metric, predicted, observed, valid):
    return metric.score(metric.sums(predicted, observed, valid, yardstick), yardstick)


def plain_similarities(predicted, observed, width, options):
    """SSIM at each window without NaN; the others see zeros, whatever they give is left out."""
    similarities = []
    for prediction, observation in zip(predicted.flatten(0, 1), observed.flatten(0, 1)):
        missing = observation.isnan().numpy()
        pair = [np.where(missing, 0, field.double().numpy()) for field in (prediction, observation)]
        full = structural_similarity(*pair, data_range=DATA_RANGE, full=True, **options)[1]
        for row in range(full.shape[0] - width + 1):
            for column in range(full.shape[1] - width + 1):
                if not missing[row : row + width, column : column + width].any():
                    similarities.append(full[row + width // 2, column + width // 2])
    return np.array(similarities)


def plain_factors(predicted, observed):
    """Maps of luminance and of contrast with structure, NaN at windows that meet a NaN."""
    distance = np.arange(-5, 6)
    window = np.exp(-(distance[:, None] ** 2 + distance**2) / (2 * 1.5**2))
    window /= window.sum()

    def mean(field):
        # A missing pixel reaches every window that it is in, through windows that count it.
        met = correlate(np.isnan(field).astype(float), np.ones((11, 11)), mode="constant") > 0.5
        return np.where(met, np.nan, correlate(np.nan_to_num(field), window, mode="constant"))[5:-5, 5:-5]

    # Scaled first, the reading does not share the constants of the tested code.
    p, o = predicted / DATA_RANGE, observed / DATA_RANGE
    mean_p, mean_o = mean(p + 0 * o), mean(o)
    variance_p, variance_o = mean(p**2 + 0 * o) - mean_p**2, mean(o**2) - mean_o**2
    covariance = mean(p * o) - mean_p * mean_o
    luminance = (2 * mean_p * mean_o + 1e-4) / (mean_p**2 + mean_o**2 + 1e-4)
    return luminance, (2 * covariance + 9e-4) / (variance_p + variance_o + 9e-4)


def plain_multi_scale(predicted, observed):
    """Similarity of one frame: NaN where a scale has no window."""
    similarity, weights = 1.0, [0.0448, 0.2856, 0.3001, 0.2363, 0.1333]
    for scale, weight in enumerate(weights):
        luminance, structure = plain_factors(predicted, observed)
        factor = luminance * structure if scale == 4 else structure
        if np.isnan(factor).all():
            return np.nan
        similarity *= max(np.nanmean(factor), 0) ** weight
        rows, columns = (size // 2 for size in predicted.shape)
        predicted, observed = (
            field[: 2 * rows, : 2 * columns].reshape(rows, 2, columns, 2).mean((1, 3))
            for field in (predicted, observed)
        )
    return similarity


def plain_multi_scale_frames(predicted, observed):
    frames = zip(predicted.flatten(0, 1).double().numpy(), observed.flatten(0, 1).double().numpy())
    return np.array([plain_multi_scale(*frame) for frame in frames])


@windows
def test_similarity_is_scikit_images_at_the_windows_without_nan(name):
    predicted, observed, valid = fields(3, shape=(16, 18), share_missing=0.02)
    expected = [plain_similarities(predicted[:, lead], observed[:, lead], *WINDOWS[name]).mean() for lead in (0, 1)]
    np.testing.assert_allclose(scores(METRICS[name], predicted, observed, valid), expected, atol=1e-6)


@windows
def test_similarity_of_whole_frames_is_the_mean_over_frames(name):
    predicted, observed, valid = fields(3, shape=(16, 18), share_missing=0)
    frames = zip(predicted[:, 0].flatten(0, 1).double().numpy(), observed[:, 0].flatten(0, 1).double().numpy())
    options = WINDOWS[name][1]
    expected = np.mean([structural_similarity(*frame, data_range=DATA_RANGE, **options) for frame in frames])
    assert scores(METRICS[name], predicted, observed, valid)[0].item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-11)])
@pytest.mark.parametrize("share_missing", [0, 2e-3])
def test_multi_scale_similarity_is_that_of_a_plain_reading(share_missing, dtype, tolerance):
    predicted, observed, valid = fields(share_missing=share_missing)
    frames = [plain_multi_scale_frames(predicted[:, lead], observed[:, lead]) for lead in (0, 1)]
    sums = METRICS["ms-ssim"].sums(predicted.to(dtype), observed.to(dtype), valid, yardstick)
    np.testing.assert_array_equal(sums[1], [np.isfinite(lead).sum() for lead in frames])
    assert (sums[1] == 4).all()
    np.testing.assert_allclose(sums[0] / sums[1], [np.nanmean(lead) for lead in frames], atol=tolerance)


def test_multi_scale_similarity_leaves_out_frames_without_a_window_at_some_scale():
    """A missing pixel in the middle is in every window of the last scale, whose frames are 11 x 11."""
    predicted, observed, valid = fields(share_missing=0)
    expected = METRICS["ms-ssim"].sums(predicted[:, :, :1], observed[:, :, :1], valid[:, :, :1], yardstick)
    valid[:, :, 1, 90, 90] = False
    torch.testing.assert_close(METRICS["ms-ssim"].sums(predicted, observed, valid, yardstick), expected)


def test_multi_scale_similarity_of_opposite_fields_is_0():
    _, observed, valid = fields(share_missing=0)
    assert (scores(METRICS["ms-ssim"], 1 - observed, observed, valid) == 0).all()


@metrics
def test_sums_of_batches_add_to_the_sums_of_the_whole(metric):
    predicted, observed, valid = fields(3, num_channels=1)
    whole = metric.sums(predicted, observed, valid, yardstick)
    parts = [metric.sums(predicted[i], observed[i], valid[i], yardstick) for i in (slice(0, 2), slice(2, 3))]
    torch.testing.assert_close(parts[0] + parts[1], whole, rtol=1e-12, atol=1e-12)
    assert whole.shape == (2, 2)
    assert whole.dtype == torch.float64


@metrics
def test_lead_times_are_kept_apart_and_may_be_added(metric):
    predicted, observed, valid = fields(1, num_channels=1)
    sums = metric.sums(predicted, observed, valid, yardstick)
    alone = metric.sums(predicted[:, 1:], observed[:, 1:], valid[:, 1:], yardstick)
    torch.testing.assert_close(alone[:, 0], sums[:, 1], rtol=1e-12, atol=0)
    as_one = (field.transpose(0, 1).flatten(0, 1).unsqueeze(1) for field in (predicted, observed, valid))
    overall = metric.score(sums.sum(1), yardstick)
    assert overall.shape == ()
    torch.testing.assert_close(overall, scores(metric, *as_one)[0], rtol=1e-12, atol=0)


@metrics
def test_nothing_valid_gives_nan_and_spoils_no_other_lead_time(metric):
    predicted, observed, valid = fields(1, num_channels=1, share_missing=0)
    expected = scores(metric, predicted, observed, valid)
    observed[:, 0], predicted[:, 0], valid[:, 0] = torch.nan, torch.inf, False
    result = scores(metric, predicted, observed, valid)
    assert result[0].isnan()
    assert result[1] == expected[1]


@metrics
def test_what_lies_under_the_mask_does_not_matter(metric):
    predicted, observed, valid = fields(1, num_channels=1)
    covered = predicted.masked_fill(~valid, torch.inf), observed.masked_fill(~valid, 7), valid
    assert torch.equal(metric.sums(*covered, yardstick), metric.sums(predicted, observed, valid, yardstick))


@metrics
def test_perfect_forecasts_have_the_best_score(metric):
    _, observed, valid = fields(1, num_channels=1)
    assert (scores(metric, observed, observed, valid) == 1).all()


@metrics
def test_a_forecast_that_is_not_finite_shows(metric):
    predicted, observed, valid = fields(1, num_channels=1, share_missing=0)
    predicted[0, 0, 0, 8, 8] = torch.nan
    assert scores(metric, predicted, observed, valid).isnan().tolist() == [True, False]


@pytest.mark.parametrize(("name", "extent"), [("ssim", 11), ("ssim-uniform", 7), ("ms-ssim", 176)])
def test_frames_without_room_are_told_what_is_needed(name, extent):
    lacks = METRICS[name].lacks
    assert lacks(Yardstick(shape=(extent, extent))) is None
    assert lacks(Yardstick(shape=(extent - 1, extent))) == f"frames of {extent} x {extent} pixels"
    assert lacks(Yardstick(shape=(extent, extent - 1))) == f"frames of {extent} x {extent} pixels"
