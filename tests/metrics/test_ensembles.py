"""Metrics of ensembles against scores, pysteps and plain loops over numpy arrays with NaN, and what they promise."""

import operator

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from pysteps.verification import ensscores, probscores
from scores.probability import brier_score_for_ensemble, crps_for_ensemble, rank_histogram

from fieldcast.metrics.ensembles import ENSEMBLE_METRICS
from fieldcast.metrics.metric import DIMENSIONS, Yardstick

METRICS = {metric.name: metric for metric in ENSEMBLE_METRICS}
THRESHOLDS = (0.1, 0.5, 1.2)
NUM_LEADS = 3
DIMS = ("member", "sample", "lead", "channel", "row", "column")
SCALARS = ("crps", "crps-fair", "rank-histogram", "spread", "ensemble-rmse", "spread-skill")

each_metric = pytest.mark.parametrize("metric", ENSEMBLE_METRICS, ids=METRICS.keys())
each_field = pytest.mark.parametrize("ties", [False, True], ids=["continuous", "ties"])


def ensemble(num_members=5, ties=False, share_missing=0.05, seed=0):
    """Members and observation with NaN in both; ``ties``: rain, mostly 0 and else in steps of a tenth."""
    generator = np.random.default_rng(seed)
    signal = generator.normal(size=(1, 4, NUM_LEADS, 2, 6, 7))
    fields = signal + generator.normal(size=(num_members + 1, *signal.shape[1:]))
    fields = (np.maximum(fields, 0).round(1) if ties else fields).astype(np.float32)
    missing = generator.random(signal.shape[1:]) < share_missing
    fields[-1][missing] = np.nan
    fields[0][missing & (generator.random(missing.shape) < 0.5)] = np.nan
    return torch.tensor(fields[:-1]), torch.tensor(fields[-1]), torch.tensor(~missing)


def yardstick(num_members=5, event="at-or-above"):
    return Yardstick(thresholds=THRESHOLDS, num_members=num_members, event=event)


def score(name, members, observed, valid, event="at-or-above"):
    metric, measure = METRICS[name], yardstick(len(members), event)
    return metric.score(metric.sums(members, observed, valid, measure), measure).numpy()


def labelled(members, observed, valid):
    return (
        xr.DataArray(members.double().numpy(), dims=DIMS),
        xr.DataArray(observed.masked_fill(~valid, torch.nan).double().numpy(), dims=DIMS[1:]),
    )


def columns(members, observed, valid, lead):
    """The valid pixels of one lead time in float64: members (M, N) and observations (N,)."""
    counted = valid[:, lead]
    return members[:, :, lead][:, counted].double().numpy(), observed[:, lead][counted].double().numpy()


@each_field
@pytest.mark.parametrize(("name", "method"), [("crps", "ecdf"), ("crps-fair", "fair")])
def test_crps_is_that_of_scores_and_of_all_pairs(name, method, ties):
    fields = ensemble(ties=ties)
    forecast, truth = labelled(*fields)
    expected = crps_for_ensemble(forecast, truth, "member", method=method, preserve_dims="lead")
    np.testing.assert_allclose(score(name, *fields), expected, rtol=1e-13)
    for lead in range(NUM_LEADS):
        members, observed = columns(*fields, lead)
        pairs = 5 * 5 if method == "ecdf" else 5 * 4
        apart = sum(np.abs(one - other) for one in members for other in members) / (2 * pairs)
        plain = np.mean(np.abs(members - observed).mean(0) - apart)
        np.testing.assert_allclose(score(name, *fields)[lead], plain, rtol=1e-13)


def test_crps_is_that_of_pysteps_where_nothing_is_tied():
    fields = ensemble(num_members=7)
    for lead in range(NUM_LEADS):
        expected = probscores.CRPS(*columns(*fields, lead))
        np.testing.assert_allclose(score("crps", *fields)[lead], expected, rtol=1e-13)


def test_pysteps_forgets_what_lies_beside_a_tie():
    """Why it isn't asked about rain: the intervals next to a member that equals the observation count for nothing."""
    members, observed = torch.tensor([0.0, 1.0, 3.0]).view(3, 1, 1, 1, 1, 1), torch.ones(1, 1, 1, 1, 1)
    assert probscores.CRPS(members.view(3, 1).numpy(), observed.view(1).numpy()) == 0
    # (1 + 0 + 2) / 3 from the observation, less (1 + 2 + 3) / 9 apart; as areas, 1 (1/3)^2 + 2 (1/3)^2.
    np.testing.assert_allclose(score("crps", members, observed, observed > 0), 1 / 3)


@each_field
@pytest.mark.parametrize("event", ["at-or-above", "below"])
def test_brier_is_that_of_scores(ties, event):
    fields = ensemble(ties=ties)
    # The steps of the field are float32 and so is the rule; scores works in float64 and needs thresholds just so.
    thresholds = [float(np.float32(threshold)) for threshold in THRESHOLDS]
    expected = brier_score_for_ensemble(
        *labelled(*fields),
        "member",
        thresholds,
        preserve_dims="lead",
        fair_correction=False,
        event_threshold_operator=operator.lt if event == "below" else operator.ge,
    )
    np.testing.assert_allclose(score("brier", *fields, event), expected.transpose("threshold", "lead"), rtol=1e-13)


@each_field
def test_reliability_and_sharpness_are_those_of_pysteps(ties):
    fields = ensemble(ties=ties)
    observed_share, forecast_share = score("reliability", *fields), score("sharpness", *fields)
    assert observed_share.shape == forecast_share.shape == (len(THRESHOLDS), 6, NUM_LEADS)
    for place, threshold in enumerate(np.float32(THRESHOLDS)):
        for lead in range(NUM_LEADS):
            members, observed = columns(*fields, lead)
            # pysteps' bins of equal width hold one of the possible probabilities each.
            diagram = probscores.reldiag_init(threshold, n_bins=6, min_count=1)
            probscores.reldiag_accum(diagram, (members >= threshold).mean(0), observed)
            with np.errstate(invalid="ignore"):
                probability, frequency = probscores.reldiag_compute(diagram)
            np.testing.assert_allclose(observed_share[place, :, lead], frequency, rtol=1e-13)
            np.testing.assert_allclose(forecast_share[place, :, lead], diagram["sample_size"] / len(observed))
            filled = ~np.isnan(probability)
            np.testing.assert_allclose(
                probability[filled], np.array(DIMENSIONS["probability"][1](yardstick()))[filled], atol=1e-13
            )


@each_field
@pytest.mark.filterwarnings("ignore:Encountered a NaN")
def test_rank_histogram_is_that_of_scores(ties):
    fields = ensemble(ties=ties)
    expected = rank_histogram(*labelled(*fields), "member", preserve_dims="lead").transpose("rank", "lead")
    np.testing.assert_allclose(score("rank-histogram", *fields), expected, rtol=1e-13)
    assert expected.sizes["rank"] == len(DIMENSIONS["rank"][1](yardstick()))


def test_rank_histogram_is_that_of_pysteps_where_nothing_is_tied():
    fields = ensemble(num_members=7)
    for lead in range(NUM_LEADS):
        expected = ensscores.rankhist(*columns(*fields, lead))
        np.testing.assert_allclose(score("rank-histogram", *fields)[:, lead], expected, rtol=1e-13)


@each_field
def test_spread_and_error_are_those_of_numpy(ties):
    fields = ensemble(ties=ties)
    for lead in range(NUM_LEADS):
        members, observed = columns(*fields, lead)
        spread = np.sqrt(np.mean(members.var(0, ddof=1)) * 6 / 5)
        error = np.sqrt(np.mean((members.mean(0) - observed) ** 2))
        np.testing.assert_allclose(score("spread", *fields)[lead], spread, rtol=1e-13)
        np.testing.assert_allclose(score("ensemble-rmse", *fields)[lead], error, rtol=1e-13)
        np.testing.assert_allclose(score("spread-skill", *fields)[lead], spread / error, rtol=1e-13)


@each_field
def test_brier_terms_are_those_of_plain_loops(ties):
    fields = ensemble(ties=ties)
    for place, threshold in enumerate(np.float32(THRESHOLDS)):
        members, observed = columns(*fields, 1)
        forecast, event = (members >= threshold).mean(0), (observed >= threshold).astype(float)
        climate = event.mean()
        reliability = resolution = 0.0
        for probability in np.unique(forecast):
            inside = event[forecast == probability]
            reliability += len(inside) * (probability - inside.mean()) ** 2 / len(event)
            resolution += len(inside) * (inside.mean() - climate) ** 2 / len(event)
        skill = 1 - np.mean((forecast - event) ** 2) / np.mean((climate - event) ** 2)
        terms = {"reliability": reliability, "resolution": resolution, "uncertainty": climate * (1 - climate)}
        for name, expected in {**terms, "skill": skill}.items():
            np.testing.assert_allclose(score(f"brier-{name}", *fields)[place, 1], expected, rtol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.booleans(), st.integers(0, 1000), st.sampled_from(["at-or-above", "below"]))
def test_brier_is_reliability_less_resolution_plus_uncertainty(num_members, ties, seed, event):
    fields = ensemble(num_members, ties, seed=seed)
    reliability, resolution, uncertainty = (
        score(f"brier-{term}", *fields, event) for term in ("reliability", "resolution", "uncertainty")
    )
    np.testing.assert_allclose(reliability - resolution + uncertainty, score("brier", *fields, event), atol=1e-15)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(-50, 50), st.integers(0, 1000))
def test_a_constant_shifts_nothing(num_members, constant, seed):
    members, observed, valid = ensemble(num_members, ties=True, seed=seed)
    # Whole numbers, of which float64 holds every sum.
    members, observed = (10 * members.double()).round(), (10 * observed.double()).round()
    for name in SCALARS:
        np.testing.assert_allclose(
            score(name, members + constant, observed + constant, valid),
            score(name, members, observed, valid),
            rtol=1e-12,
        )


def test_one_member_is_a_forecast_without_spread():
    members, observed, valid = ensemble(num_members=1)
    error = (members[0] - observed).double()
    mean_absolute = [float(error[:, lead][valid[:, lead]].abs().mean()) for lead in range(NUM_LEADS)]
    np.testing.assert_allclose(score("crps", members, observed, valid), mean_absolute, rtol=1e-6)
    for name, metric in METRICS.items():
        lacking = metric.lacks(Yardstick(thresholds=THRESHOLDS, num_members=1))
        undefined = np.isnan(score(name, members, observed, valid)).all()
        assert undefined == (name in ("crps-fair", "spread", "spread-skill"))
        assert lacking == ("2 or more members" if undefined else None)


def test_equal_members_do_not_differ():
    members, observed, valid = ensemble()
    alike = members[:1].expand(5, -1, -1, -1, -1, -1)
    np.testing.assert_array_equal(score("spread", alike, observed, valid), 0)
    np.testing.assert_allclose(
        score("crps", alike, observed, valid), score("crps", members[:1], observed, valid), rtol=1e-14
    )


def test_an_observation_like_one_more_member_is_what_an_ensemble_promises():
    members = torch.tensor(np.random.default_rng(0).normal(size=(5, 64, 1, 1, 40, 40)))
    fields = (members[:4], members[4], torch.ones(64, 1, 1, 40, 40, dtype=torch.bool))
    np.testing.assert_allclose(score("spread-skill", *fields), 1, atol=0.01)
    np.testing.assert_allclose(score("rank-histogram", *fields), 1 / 5, atol=0.005)
    np.testing.assert_allclose(score("crps-fair", *fields), 1 / np.sqrt(np.pi), atol=0.01)


def test_worked_by_hand():
    members = torch.tensor([0.0, 0.0, 2.0]).view(3, 1, 1, 1, 1, 1)
    observed, valid = torch.zeros(1, 1, 1, 1, 1), torch.ones(1, 1, 1, 1, 1, dtype=torch.bool)
    expected = {
        "crps": [2 / 3 - 8 / 18],
        "crps-fair": [2 / 3 - 8 / 12],
        # The observation ties with two members: ranks 0, 1 and 2 have a third each.
        "rank-histogram": [[1 / 3], [1 / 3], [1 / 3], [0]],
        "spread": [np.sqrt(4 / 3 * 4 / 3)],
        "ensemble-rmse": [2 / 3],
        "spread-skill": [2],
        "brier": [[1 / 9]] * 3,
        "brier-reliability": [[1 / 9]] * 3,
        "brier-resolution": [[0]] * 3,
        "brier-uncertainty": [[0]] * 3,
        "brier-skill": [[np.nan]] * 3,
        "reliability": [[[np.nan], [0], [np.nan], [np.nan]]] * 3,
        "sharpness": [[[0], [1], [0], [0]]] * 3,
    }
    assert expected.keys() == METRICS.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(score(name, members, observed, valid), value, atol=1e-15, err_msg=name)


def test_events_begin_at_the_threshold_in_float32():
    observed = torch.full((1, 1, 1, 1, 1), 0.1)
    fields = (observed[None], observed, torch.ones_like(observed, dtype=torch.bool))
    np.testing.assert_array_equal(score("sharpness", *fields)[:, :, 0], [[0, 1], [1, 0], [1, 0]])
    np.testing.assert_array_equal(score("sharpness", *fields, "below")[:, :, 0], [[1, 0], [0, 1], [0, 1]])


@each_metric
def test_sums_add_over_samples_and_lead_times(metric):
    members, observed, valid = ensemble()
    whole = metric.sums(members, observed, valid, yardstick())
    assert whole.dtype == torch.float64
    samples = [
        metric.sums(members[:, part], observed[part], valid[part], yardstick()) for part in (slice(0, 1), slice(1, 4))
    ]
    torch.testing.assert_close(sum(samples), whole, rtol=1e-13, atol=0)
    leads = [
        metric.sums(members[:, :, lead], observed[:, lead], valid[:, lead], yardstick())
        for lead in (slice(0, 1), slice(1, NUM_LEADS))
    ]
    torch.testing.assert_close(torch.cat(leads, -1), whole, rtol=1e-13, atol=0)


@each_metric
@pytest.mark.parametrize("filler", [float("nan"), float("inf"), -7.0])
def test_masked_pixels_do_not_matter(metric, filler):
    members, observed, valid = ensemble()
    expected = metric.sums(members, observed, valid, yardstick())
    assert torch.isfinite(expected).all()
    filled = (torch.where(valid, field, filler) for field in (members, observed))
    assert torch.equal(metric.sums(*filled, valid, yardstick()), expected)


@each_metric
def test_scores_are_elementwise_over_whatever_follows_the_sums(metric):
    sums = metric.sums(*ensemble(), yardstick())
    expected = metric.score(sums, yardstick())
    sizes = [len(DIMENSIONS[name][1](yardstick())) for name in metric.dimensions]
    assert list(expected.shape) == [*sizes, NUM_LEADS]
    resampled = torch.stack([sums, 2 * sums], 1)
    for part in metric.score(resampled, yardstick()):
        torch.testing.assert_close(part, expected, equal_nan=True)
    torch.testing.assert_close(metric.score(sums[..., 0], yardstick()), expected[..., 0], equal_nan=True)


@each_metric
@pytest.mark.parametrize("spoilt", ["member", "observation"])
def test_nan_at_a_valid_pixel_makes_its_lead_time_undefined(metric, spoilt):
    members, observed, valid = ensemble(share_missing=0)
    expected = metric.score(metric.sums(members, observed, valid, yardstick()), yardstick())
    expected[..., 1] = torch.nan
    field = members[2] if spoilt == "member" else observed
    field[0, 1, 0, 3, 4] = torch.nan
    if metric.name != "spread" or spoilt == "member":
        result = metric.score(metric.sums(members, observed, valid, yardstick()), yardstick())
        torch.testing.assert_close(result, expected, equal_nan=True)


@each_metric
def test_nothing_valid_is_undefined(metric):
    members, observed, valid = ensemble()
    sums = metric.sums(members, observed, torch.zeros_like(valid), yardstick())
    assert metric.score(sums, yardstick()).isnan().all()


@each_metric
def test_what_a_field_lacks(metric):
    lacking = metric.lacks(Yardstick(num_members=5))
    assert lacking == ("thresholds" if "threshold" in metric.dimensions else None)
