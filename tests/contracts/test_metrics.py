"""What every metric in the table does: best for a perfect forecast, sums that add, no look at masked pixels."""

import pytest
import torch

from fieldcast.metrics import DIMENSIONS, METRICS, Yardstick
from fieldcast.metrics.conventions import CONVENTIONS, restate

B, S, C, M = 3, 4, 2, 5
RANGE = 2.0
STATIONS = ("Rhine", "Elbe", "Oder")
# Multi-scale similarity needs frames that are large; everything else gets by with less.
LARGE, SMALL = (177, 180), (18, 17)
SPECIAL_UNITS = {"cross-entropy": ("1", 1.0)}
# A score of them can't be the best there is: what they measure is not how near a forecast is.
INDEPENDENT = ("brier-resolution", "brier-uncertainty", "brier-skill", "spread-skill")
# It is a mean over the calls of its sums, each of which is a batch.
BY_CALL = ("psnr-batch",)
# It compares lead times with one another.
ACROSS_LEADS = ("peak-timing",)
# A shift leaves them as they are; noise doesn't. More rain never misses an event.
SHIFT_BLIND = (
    "correlation",
    "gdl",
    "kge-correlation",
    "kge-variability",
    "sal-location",
    "sal-structure",
    "peak-timing",
)
BETTER_WITH_MORE = ("pod",)


@pytest.fixture(params=list(METRICS))
def metric(request):
    return METRICS[request.param]


@pytest.fixture
def yardstick(metric):
    units, extent = SPECIAL_UNITS.get(metric.name, ("mm/h", RANGE))
    shape = LARGE if metric.name == "ms-ssim" else SMALL
    return Yardstick(units, extent, shape, (0.4, 1.0), (1.0, 2.0, 5.0), (1, 5), num_members=M, stations=STATIONS)


@pytest.fixture
def fields(metric, yardstick):
    """A forecast near to what was observed, and a mask without one row and a few pixels."""
    generator = torch.Generator().manual_seed(1)
    place = (len(STATIONS),) if metric.takes == "stations" else yardstick.shape
    extent = yardstick.data_range
    observed = extent * torch.rand(B, S, C, *place, generator=generator)
    members = (M,) if metric.takes == "members" else ()
    noise = 0.05 * extent * torch.randn(*members, *observed.shape, generator=generator)
    valid = torch.ones(observed.shape, dtype=torch.bool)
    valid[0, 0, 0] = False
    if metric.takes != "stations":
        valid[:, :, :, -1] = False
        valid[0, 1, 0, 0, :2] = False
    return (observed + noise).clamp(0, extent), observed, valid


def badness(metric, score):
    """Grows as the score gets worse."""
    return {"smaller": score, "larger": -score, "zero": score.abs(), "one": (score - 1).abs()}[metric.orientation]


def test_labels(metric, yardstick):
    assert METRICS[metric.name] is metric
    assert metric.long_name
    assert metric.family
    assert metric.convention
    assert metric.orientation in ("smaller", "larger", "zero", "one", "none")
    assert metric.units.format(units="mm/h")
    assert set(metric.dimensions) <= set(DIMENSIONS)
    assert metric.lacks(yardstick) is None
    assert metric.sums.__name__ != "<lambda>"


def test_sums_of_one_name_are_one_function():
    functions = {metric.sums.__name__: metric.sums for metric in METRICS.values()}
    assert all(functions[metric.sums.__name__] is metric.sums for metric in METRICS.values())


def test_shapes(metric, yardstick, fields):
    sums = metric.sums(*fields, yardstick)
    further = tuple(len(DIMENSIONS[name][1](yardstick)) for name in metric.dimensions)
    assert sums.dtype == torch.float64
    assert sums.shape[1:] == (*further, S)
    assert metric.score(sums, yardstick).shape == (*further, S)
    assert metric.score(sums.sum(-1), yardstick).shape == further
    resampled = torch.stack([sums, 2 * sums], dim=1)
    scores = metric.score(resampled, yardstick)
    assert scores.shape == (2, *further, S)
    torch.testing.assert_close(scores[0], metric.score(sums, yardstick), equal_nan=True)


def test_a_perfect_forecast_is_best_and_a_worse_one_is_worse(metric, yardstick, fields):
    if metric.orientation == "none" or metric.name in INDEPENDENT:
        pytest.skip("describes something else than how near a forecast is")
    _, observed, valid = fields
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(observed.shape, generator=generator)
    badnesses = []
    for share in (0.0, 0.05, 0.8):
        # A shift makes the mean error worse, which noise leaves near zero; noise what a shift leaves.
        error = noise if metric.name in SHIFT_BLIND else -0.6 if metric.name in BETTER_WITH_MORE else 0.6
        wrong = observed + share * yardstick.data_range * error
        wrong = wrong.clamp(0, 1) if metric.name == "cross-entropy" else wrong
        if metric.takes == "members":
            wrong = wrong.expand(M, *wrong.shape)
        score = metric.score(metric.sums(wrong, observed, valid, yardstick).sum(-1), yardstick)
        # Where a harmless one is not defined, a rate of false alarms for instance, it has no place in the order.
        badnesses.append(badness(metric, score).nan_to_num(0.0).sum().item())
    assert badnesses[0] < badnesses[2]
    assert badnesses[0] <= badnesses[1] + 1e-9


@pytest.mark.parametrize("filler", [float("nan"), float("inf"), 1e30, -7.0])
def test_masked_pixels_do_not_matter(metric, yardstick, fields, filler):
    predicted, observed, valid = fields
    expected = metric.sums(predicted, observed, valid, yardstick)
    assert torch.isfinite(expected).all()
    for change in ((filler, 0.0), (0.0, filler), (filler, filler)):
        masked = [torch.where(valid, field, value) for field, value in zip((predicted, observed), change, strict=True)]
        torch.testing.assert_close(metric.sums(*masked, valid, yardstick), expected)


def test_sums_add_over_samples_and_lead_times(metric, yardstick, fields):
    predicted, observed, valid = fields
    sample_axis = 1 if metric.takes == "members" else 0
    close = {"rtol": 1e-6, "atol": 1e-6}
    whole = metric.sums(*fields, yardstick)
    if metric.name not in BY_CALL:
        samples = sum(
            metric.sums(predicted.narrow(sample_axis, n, 1), observed[n : n + 1], valid[n : n + 1], yardstick)
            for n in range(B)
        )
        torch.testing.assert_close(samples, whole, **close)
    if metric.name not in ACROSS_LEADS:
        leads = [
            metric.sums(predicted.narrow(sample_axis + 1, k, 1), observed[:, k : k + 1], valid[:, k : k + 1], yardstick)
            for k in range(S)
        ]
        torch.testing.assert_close(torch.cat(leads, dim=-1), whole, **close)


def test_nothing_valid_is_undefined(metric, yardstick, fields):
    predicted, observed, valid = fields
    sums = metric.sums(predicted, observed, torch.zeros_like(valid), yardstick)
    assert metric.score(sums, yardstick).isnan().all()


def test_the_inputs_stay_as_they_are(metric, yardstick, fields):
    before = [field.clone() for field in fields]
    metric.sums(*fields, yardstick)
    assert all(torch.equal(field, kept) for field, kept in zip(fields, before, strict=True))


@pytest.mark.parametrize("convention", list(CONVENTIONS))
def test_conventions_say_what_they_are(convention):
    for name in CONVENTIONS[convention]:
        assert name in METRICS
        value, label = restate(name, 0.5, convention, 100, 10)
        assert value > 0
        assert label
