"""What every metric in the table does: best for a perfect forecast, sums that add, no look at masked pixels."""

import pytest
import torch

from fieldcast.metrics import METRICS
from fieldcast.metrics.conventions import CONVENTIONS, restate

B, S, C, H, W = 3, 2, 2, 14, 13
RANGE = 2.0


@pytest.fixture(params=list(METRICS))
def metric(request):
    return METRICS[request.param]


@pytest.fixture
def fields():
    """A forecast near to what was observed, and a mask without one column and a few pixels."""
    generator = torch.Generator().manual_seed(1)
    observed = RANGE * torch.rand(B, S, C, H, W, generator=generator)
    predicted = observed + 0.1 * torch.randn(B, S, C, H, W, generator=generator)
    valid = torch.ones(B, S, C, H, W, dtype=torch.bool)
    valid[..., -1] = False
    valid[0, 0, 0, 0, :2] = False
    return predicted, observed, valid


def badness(metric, score):
    """Grows as the score gets worse."""
    return {"smaller": score, "larger": -score, "zero": abs(score)}[metric.orientation]


def test_labels(metric):
    assert METRICS[metric.name] is metric
    assert metric.long_name
    assert metric.convention
    assert metric.orientation in ("smaller", "larger", "zero")
    assert metric.units.format(units="mm/h")


def test_shapes(metric, fields):
    sums = metric.sums(*fields, RANGE)
    assert sums.dtype == torch.float64
    assert sums.ndim == 2
    assert sums.shape[1] == S
    assert metric.score(sums, RANGE).shape == (S,)
    assert metric.score(sums.sum(1), RANGE).shape == ()


def test_a_perfect_forecast_is_best_and_a_worse_one_is_worse(metric, fields):
    _, observed, valid = fields
    shifts = [0.0, 0.05, 0.2, 0.8]
    # A shift makes every score worse, that of the mean error too, which noise leaves near zero.
    scores = [
        float(metric.score(metric.sums(observed + shift, observed, valid, RANGE).sum(1), RANGE)) for shift in shifts
    ]
    badnesses = [badness(metric, score) for score in scores]
    assert badnesses == sorted(badnesses)
    assert len(set(badnesses)) == len(shifts)
    best = {"smaller": 0, "zero": 0}.get(metric.orientation, float("inf") if metric.units == "dB" else 1)
    assert scores[0] == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("filler", [float("nan"), float("inf"), 1e30, -7.0])
def test_masked_pixels_do_not_matter(metric, fields, filler):
    predicted, observed, valid = fields
    expected = metric.sums(predicted, observed, valid, RANGE)
    assert torch.isfinite(expected).all()
    for change in ((filler, 0.0), (0.0, filler), (filler, filler)):
        masked = [torch.where(valid, field, value) for field, value in zip((predicted, observed), change, strict=True)]
        torch.testing.assert_close(metric.sums(*masked, valid, RANGE), expected)


def test_every_valid_pixel_matters(metric, fields):
    predicted, observed, valid = fields
    expected = metric.sums(predicted, observed, valid, RANGE)
    for place in ((0, 0, 1, 3, 4), (2, 1, 0, 7, 7)):
        changed = predicted.clone()
        changed[place] += 1
        sums = metric.sums(changed, observed, valid, RANGE)
        assert not torch.equal(sums[:, place[1]], expected[:, place[1]])
        assert torch.equal(sums[:, 1 - place[1]], expected[:, 1 - place[1]])


def test_sums_add_over_samples_and_lead_times(metric, fields):
    whole = metric.sums(*fields, RANGE)
    samples = sum(metric.sums(*(field[number : number + 1] for field in fields), RANGE) for number in range(B))
    torch.testing.assert_close(samples, whole, rtol=1e-6, atol=1e-6)
    leads = torch.cat([metric.sums(*(field[:, k : k + 1] for field in fields), RANGE) for k in range(S)], dim=1)
    torch.testing.assert_close(leads, whole, rtol=1e-6, atol=1e-6)


def test_nothing_valid_is_undefined(metric, fields):
    predicted, observed, valid = fields
    assert metric.score(metric.sums(predicted, observed, torch.zeros_like(valid), RANGE), RANGE).isnan().all()


def test_the_inputs_stay_as_they_are(metric, fields):
    before = [field.clone() for field in fields]
    metric.sums(*fields, RANGE)
    assert all(torch.equal(field, kept) for field, kept in zip(fields, before, strict=True))


@pytest.mark.parametrize("convention", list(CONVENTIONS))
def test_conventions_say_what_they_are(convention):
    for name in CONVENTIONS[convention]:
        assert name in METRICS
        value, label = restate(name, 0.5, convention, 100)
        assert value > 0
        assert label
