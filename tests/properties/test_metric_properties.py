"""Properties of metrics and losses over random fields, masks and splits."""

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fieldcast.losses import LossConfig, counts, weighted_loss
from fieldcast.metrics import METRICS, Yardstick, structural_similarity, valid_windows

few = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**31)
# Small fields with few missing pixels; ensembles and rivers have properties of their own.
UNFIT = ("ms-ssim", "psnr-batch")
names = st.sampled_from(sorted(name for name, one in METRICS.items() if one.takes == "fields" and name not in UNFIT))
# Where a unit means nothing: entropies take [0, 1] alone, and events stay where their thresholds are.
SCALED = {
    "mse": 2, "mae": 1, "rmse": 1, "bias": 1, "gdl": 1, "psnr": 0, "psnr-frame": 0, "ssim": 0, "ssim-uniform": 0,
    "correlation": 0, "b-mse": 2, "b-mae": 1, "csi": 0, "pod": 0, "far": 0, "gss": 0, "hss": 0, "fss": 0,
    "frequency-bias": 0, "num-events": 0, "spectrum": 2, "spectrum-ratio": 0, "sal-structure": 0, "sal-amplitude": 0,
    "sal-location": 0,
}  # fmt: skip
window_names = st.sampled_from(["gaussian", "uniform"])
sizes = st.integers(11, 24)


def fields(seed, num_samples, height, width, share_missing=0.005):
    generator = torch.Generator().manual_seed(seed)
    shape = (num_samples, 2, 1, height, width)
    predicted, observed = torch.rand(2, *shape, generator=generator, dtype=torch.float64)
    valid = torch.rand(shape, generator=generator) >= share_missing
    return predicted, observed.masked_fill(~valid, torch.nan), valid


def yardstick(shape, factor=1.0, name=""):
    thresholds = (0.25 * factor, 0.5 * factor)
    units = "1" if name == "cross-entropy" else "mm/h"
    return Yardstick(units, factor, shape, thresholds, (1.0, 2.0, 5.0), (1, 3))


def score(name, predicted, observed, valid, factor=1.0):
    measure = yardstick(tuple(predicted.shape[-2:]), factor, name)
    return METRICS[name].score(METRICS[name].sums(predicted, observed, valid, measure), measure)


@few
@given(seeds, names, st.integers(2, 5), st.data())
def test_any_split_of_the_samples_gives_the_same_sums(seed, name, num_samples, data):
    predicted, observed, valid = fields(seed, num_samples, 12, 13)
    at = data.draw(st.integers(1, num_samples - 1))
    sums, measure = METRICS[name].sums, yardstick((12, 13), name=name)
    parts = [sums(predicted[part], observed[part], valid[part], measure) for part in (slice(0, at), slice(at, None))]
    torch.testing.assert_close(parts[0] + parts[1], sums(predicted, observed, valid, measure), rtol=1e-10, atol=1e-10)


@few
@given(seeds, names, sizes, sizes, st.floats(-100, 100))
def test_what_lies_under_the_mask_does_not_matter(seed, name, height, width, filling):
    predicted, observed, valid = fields(seed, 1, height, width, share_missing=0.02)
    filled = observed.masked_fill(~valid, filling), valid
    sums, measure = METRICS[name].sums, yardstick((height, width), name=name)
    assert torch.equal(
        sums(predicted, observed, valid, measure), sums(predicted.masked_fill(~valid, -filling), *filled, measure)
    )


@few
@given(seeds, st.sampled_from(sorted(SCALED)), st.integers(-6, 6))
def test_units_of_the_field_scale_scores_as_they_say(seed, name, exponent):
    predicted, observed, valid = fields(seed, 1, 16, 16)
    factor = 2.0**exponent  # exact, so that no pixel passes a threshold by rounding
    once = score(name, predicted, observed, valid)
    scaled = score(name, predicted * factor, observed * factor, valid, factor)
    assume(once.isfinite().all())
    torch.testing.assert_close(scaled, once * factor ** SCALED[name], rtol=1e-8, atol=1e-12)


@few
@given(seeds, window_names, sizes, sizes)
def test_structural_similarity_is_symmetric_and_within_bounds(seed, window, height, width):
    predicted, observed = torch.rand(2, height, width, generator=torch.Generator().manual_seed(seed))
    similarity = structural_similarity(predicted, observed, 1.0, window)
    torch.testing.assert_close(structural_similarity(observed, predicted, 1.0, window), similarity)
    assert (similarity.abs() <= 1 + 1e-6).all()


@few
@given(seeds, window_names, sizes, sizes)
def test_structural_similarity_turns_with_the_frames(seed, window, height, width):
    frames = torch.rand(2, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    similarity = structural_similarity(*frames, 1.0, window)
    torch.testing.assert_close(structural_similarity(*frames.mT, 1.0, window), similarity.mT)
    torch.testing.assert_close(structural_similarity(*frames.flip(-1), 1.0, window), similarity.flip(-1))


@few
@given(seeds, window_names, st.integers(0, 80), st.integers(0, 80))
def test_one_missing_pixel_takes_the_windows_around_it(seed, window, row, column):
    height, width = 81, 84
    valid = torch.ones(height, width, dtype=torch.bool)
    valid[row, column] = False
    reach = {"gaussian": 11, "uniform": 7}[window]
    expected = torch.ones(height - reach + 1, width - reach + 1, dtype=torch.bool)
    expected[max(0, row - reach + 1) : row + 1, max(0, column - reach + 1) : column + 1] = False
    assert torch.equal(valid_windows(valid, window), expected)


@few
@given(seeds, st.integers(2, 4), st.data())
def test_shares_of_a_loss_add_for_any_split(seed, num_samples, data):
    predicted, target, valid = fields(seed, num_samples, 12, 13)
    weights = data.draw(st.lists(st.sampled_from([0.0, 0.05, 1.0]), min_size=4, max_size=4).filter(any))
    config = LossConfig(**dict(zip(LossConfig.model_fields, weights, strict=True)))
    at = data.draw(st.integers(1, num_samples - 1))
    number = counts(valid, config)
    whole, _ = weighted_loss(predicted, target, valid, config, number)
    shares = [
        weighted_loss(predicted[part], target[part], valid[part], config, number)[0]
        for part in (slice(0, at), slice(at, None))
    ]
    torch.testing.assert_close(shares[0] + shares[1], whole, rtol=1e-10, atol=1e-12)
