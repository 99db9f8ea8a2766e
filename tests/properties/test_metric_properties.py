"""Properties of metrics and losses over random fields, masks and splits."""

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fieldcast.losses import LossConfig, counts, weighted_loss
from fieldcast.metrics import METRICS, structural_similarity, valid_windows

few = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**31)
names = st.sampled_from(sorted(METRICS))
window_names = st.sampled_from(["gaussian", "uniform"])
sizes = st.integers(11, 24)


def fields(seed, num_samples, height, width, share_missing=0.005):
    generator = torch.Generator().manual_seed(seed)
    shape = (num_samples, 2, 1, height, width)
    predicted, observed = torch.rand(2, *shape, generator=generator, dtype=torch.float64)
    valid = torch.rand(shape, generator=generator) >= share_missing
    return predicted, observed.masked_fill(~valid, torch.nan), valid


def score(metric, predicted, observed, valid, data_range=1.0):
    return metric.score(metric.sums(predicted, observed, valid, data_range), data_range)


@few
@given(seeds, names, st.integers(2, 5), st.data())
def test_any_split_of_the_samples_gives_the_same_sums(seed, name, num_samples, data):
    predicted, observed, valid = fields(seed, num_samples, 12, 13)
    at = data.draw(st.integers(1, num_samples - 1))
    sums = METRICS[name].sums
    parts = [sums(predicted[part], observed[part], valid[part], 1.0) for part in (slice(0, at), slice(at, None))]
    torch.testing.assert_close(parts[0] + parts[1], sums(predicted, observed, valid, 1.0), rtol=1e-10, atol=1e-10)


@few
@given(seeds, names, sizes, sizes, st.floats(-100, 100))
def test_what_lies_under_the_mask_does_not_matter(seed, name, height, width, filling):
    predicted, observed, valid = fields(seed, 1, height, width, share_missing=0.02)
    filled = observed.masked_fill(~valid, filling), valid
    sums = METRICS[name].sums
    assert torch.equal(
        sums(predicted, observed, valid, 1.0), sums(predicted.masked_fill(~valid, -filling), *filled, 1.0)
    )


@few
@given(seeds, names, st.floats(0.01, 100))
def test_units_of_the_field_scale_scores_as_they_say(seed, name, factor):
    predicted, observed, valid = fields(seed, 1, 16, 16)
    power = {"mse": 2, "mae": 1, "rmse": 1, "bias": 1}.get(name, 0)
    once = score(METRICS[name], predicted, observed, valid)
    scaled = score(METRICS[name], predicted * factor, observed * factor, valid, data_range=factor)
    assume(once.isfinite().all())
    torch.testing.assert_close(scaled, once * factor**power, rtol=1e-8, atol=1e-12)


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
