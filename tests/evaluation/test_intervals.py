"""Intervals: how often they hold the truth, which blocks they are made of, and what counts as a win."""

import sys

import numpy as np
import pytest
import torch
from scipy.stats import t as student

from fieldcast.data.source import NANOSECONDS
from fieldcast.evaluation.intervals import MIN_BLOCKS, decorrelation_time, make_resampling, student_quantile
from fieldcast.evaluation.spaces import Space
from fieldcast.evaluation.table import difference_rows, make_table, wins
from fieldcast.evaluation.tally import Stretch, Tally
from fieldcast.evaluation_settings import EvaluationSettings
from fieldcast.metrics import METRICS, Yardstick

HOUR = 3600 * NANOSECONDS
SPACE = Space("physical", 0, Yardstick("mm/h", 1.0, (4, 4)))


def tally_of(errors, times=None, sequences=None, in_time=True, span=0, observed=None):
    """A tally of models whose error sums are those of one pixel a stretch: name -> (U,) errors."""
    size = len(next(iter(errors.values())))
    times = np.arange(size) * HOUR if times is None else times
    sequences = np.zeros(size, int) if sequences is None else sequences
    stretches = [Stretch(int(s), int(t), (n,)) for n, (s, t) in enumerate(zip(sequences, times, strict=True))]
    tally = Tally([SPACE], stretches, [300.0], in_time, span)
    for name, values in errors.items():
        # One pixel a stretch, as if stretches were lead times.
        error = torch.as_tensor(values, dtype=torch.float64).view(1, -1, 1, 1, 1)
        sums = METRICS["mse"].sums(
            error, torch.zeros_like(error), torch.ones_like(error, dtype=torch.bool), SPACE.yardstick
        )
        tally.sums["physical", name, "error_sums"] = sums.T[..., None]
    series = next(iter(errors.values())) if observed is None else observed
    tally.observed = torch.stack(
        [torch.as_tensor(series, dtype=torch.float64), torch.ones(size, dtype=torch.float64)], 1
    )
    return tally


@pytest.fixture(autouse=True)
def only_pixels(monkeypatch):
    """These tests make sums by hand, of the metrics that share ``error_sums``."""
    kept = {name: METRICS[name] for name in ("mse", "mae", "bias")}
    for module in ("spaces", "table"):
        monkeypatch.setattr(sys.modules[f"fieldcast.evaluation.{module}"], "METRICS", kept)


def autoregressive(random, size, memory):
    """A series with mean 0, variance 1 and autocorrelation memory^lag."""
    series = np.empty(size)
    series[0] = random.standard_normal()
    for step in range(1, size):
        series[step] = memory * series[step - 1] + np.sqrt(1 - memory**2) * random.standard_normal()
    return series


def coverage(memory, size, repeats, in_time=True, **settings):
    """Share of the intervals of the mean error that hold its truth, 0."""
    random = np.random.default_rng(0)
    held = 0
    for _ in range(repeats):
        tally = tally_of({"net": autoregressive(random, size, memory)}, in_time=in_time)
        resampling = make_resampling(tally, EvaluationSettings(num_resamples=200, **settings))
        sums = tally.sums["physical", "net", "error_sums"]
        low, high = resampling.interval(METRICS["bias"].score(resampling.sums(sums), SPACE.yardstick)[:, 0]).tolist()
        held += low <= 0 <= high
    return held / repeats


def test_intervals_of_independent_errors_hold_the_truth_as_often_as_they_say():
    assert coverage(0.0, 100, 120, in_time=False) == pytest.approx(0.95, abs=0.05)


@pytest.mark.slow
def test_blocks_from_the_autocorrelation_make_intervals_of_dependent_errors_hold():
    in_blocks = coverage(0.8, 300, 80)
    assert in_blocks > 0.83
    naive = coverage(0.8, 300, 40, block_length="1 h")
    assert naive < 0.6


def test_intervals_of_few_blocks_are_wide_enough():
    assert coverage(0.0, 8, 200, in_time=False) > 0.88


def test_the_interval_is_that_of_normal_theory_for_a_mean():
    random = np.random.default_rng(1)
    errors = random.standard_normal(200)
    resampling = make_resampling(tally_of({"net": errors}), EvaluationSettings(block_length="1 h", num_resamples=20000))
    assert resampling.num_blocks == 200
    resampled = resampling.weights @ torch.as_tensor(errors) / 200
    low, high = resampling.interval(resampled).tolist()
    half = 1.96 * errors.std() / np.sqrt(200)
    assert high - low == pytest.approx(2 * half, rel=0.06)
    assert (low + high) / 2 == pytest.approx(errors.mean(), abs=0.1 * half)


@pytest.mark.parametrize(("share", "degrees"), [(0.975, 4), (0.95, 1), (0.995, 30), (0.75, 9)])
def test_quantiles_of_students_distribution_are_those_of_scipy(share, degrees):
    assert student_quantile(share, degrees) == pytest.approx(student.ppf(share, degrees), rel=1e-6)


def test_decorrelation_is_that_of_the_process():
    random = np.random.default_rng(2)
    found = []
    for _ in range(20):
        series = autoregressive(random, 2000, 0.9)
        found.append(decorrelation_time(np.arange(2000) * HOUR, np.zeros(2000, int), series) / HOUR)
    assert np.mean(found) == pytest.approx(-1 / np.log(0.9), rel=0.2)  # 9.5 steps


def test_nothing_that_varies_and_nothing_observed_decorrelate_at_once():
    times, sequences = np.arange(5) * HOUR, np.zeros(5, int)
    assert decorrelation_time(times, sequences, np.ones(5)) == 0
    assert decorrelation_time(times, sequences, np.full(5, np.nan)) == 0


def blocks_of(tally, **settings):
    weights = make_resampling(tally, EvaluationSettings(num_resamples=300, **settings)).weights
    together = (weights[:, 1:] == weights[:, :-1]).all(0).tolist()
    return np.concatenate([[0], np.cumsum([not same for same in together])]).tolist()


def test_blocks_have_the_length_that_was_named_and_cross_no_gap_between_sequences():
    times = np.array([0, 1, 2, 3, 10, 11, 0, 1]) * HOUR
    sequences = [0, 0, 0, 0, 0, 0, 1, 1]
    tally = tally_of({"net": np.arange(8.0)}, times, sequences)
    assert blocks_of(tally, block_length="2 h") == [0, 0, 1, 1, 2, 2, 3, 3]


def test_blocks_are_never_shorter_than_a_sample():
    random = np.random.default_rng(3)
    tally = tally_of({"net": random.standard_normal(40)}, span=4 * HOUR)
    resampling = make_resampling(tally, EvaluationSettings())
    assert resampling.num_blocks <= 10


def test_draws_of_a_generator_are_independent():
    resampling = make_resampling(tally_of({"net": np.arange(12.0)}, in_time=False), EvaluationSettings())
    assert resampling.num_blocks == 12
    assert resampling.length == "1 sequence"


def test_too_few_blocks_give_no_interval_and_no_win():
    tally = tally_of(
        {"convgru": np.full(MIN_BLOCKS - 1, 0.1), "persistence": np.full(MIN_BLOCKS - 1, 9.0)}, in_time=False
    )
    table = make_table(tally, EvaluationSettings())
    assert table.mse_overall.notnull().all()
    assert table.mse_overall_interval.isnull().all()
    assert (wins(table, "mse_overall_difference") == 0).all()


def test_a_difference_that_is_small_beside_what_both_share_is_found():
    random = np.random.default_rng(4)
    hard = 5 * random.standard_normal(100)
    tally = tally_of({"convgru": hard, "persistence": 1.05 * hard}, in_time=False)
    table = make_table(tally, EvaluationSettings())
    interval = table.mse_overall_interval.sel(space="physical")
    assert interval.sel(model="convgru", bound="high") > interval.sel(model="persistence", bound="low")
    won = wins(table, "mse_overall_difference").sel(space="physical", baseline="persistence")
    assert int(won.sel(model="convgru")) == 1
    assert int(won.sel(model="persistence")) == 0
    worse = tally_of({"convgru": 1.05 * hard, "persistence": hard}, in_time=False)
    lost = wins(make_table(worse, EvaluationSettings()), "mse_overall_difference")
    assert int(lost.sel(space="physical", baseline="persistence", model="convgru")) == -1


def test_rows_say_what_may_be_claimed():
    random = np.random.default_rng(7)
    hard = 5 * random.standard_normal(100)
    errors = {"convgru": hard, "persistence": 1.05 * hard, "climatology": 0.9 * hard, "optical-flow": hard[::-1].copy()}
    rows = difference_rows(make_table(tally_of(errors, in_time=False), EvaluationSettings(num_resamples=400)))
    assert [(row["model"], row["against"], row["outcome"]) for row in rows] == [
        ("convgru", "persistence", "win"),
        ("convgru", "climatology", "loss"),
        ("convgru", "optical-flow", "open"),
    ]
    assert rows[0]["interval"][0] < rows[0]["mse difference"] < rows[0]["interval"][1] < 0
    few = tally_of({name: values[:4] for name, values in errors.items()}, in_time=False)
    assert {row["outcome"] for row in difference_rows(make_table(few, EvaluationSettings()))} == {"unknown"}


def test_equal_models_never_win():
    random = np.random.default_rng(5)
    won = 0
    for _ in range(30):
        errors = {"convgru": random.standard_normal(40), "persistence": random.standard_normal(40)}
        table = make_table(tally_of(errors, in_time=False), EvaluationSettings(num_resamples=400))
        won += int(wins(table, "mse_overall_difference").sel(model="convgru", baseline="persistence", space="physical"))
    assert abs(won) <= 4


def test_the_same_tally_gives_the_same_interval():
    tally = tally_of({"convgru": np.arange(20.0)}, in_time=False)
    first, second = (make_table(tally, EvaluationSettings()) for _ in range(2))
    assert first.identical(second)


def test_seeds_are_put_together_as_their_mean_and_spread():
    random = np.random.default_rng(6)
    runs = {f"convgru {seed}": random.standard_normal(30) for seed in range(3)}
    tally = tally_of({**runs, "persistence": 2 * random.standard_normal(30)}, in_time=False)
    seeds = {"convgru": list(runs), "persistence": ["persistence"]}
    table = make_table(tally, EvaluationSettings(num_resamples=300), seeds)
    assert table.model.values.tolist() == ["convgru", "persistence"]
    own = [np.mean(errors**2) for errors in runs.values()]
    at = {"space": "physical", "model": "convgru"}
    assert float(table.mse_overall.sel(at)) == pytest.approx(np.mean(own))
    assert float(table.mse_overall_spread.sel(at)) == pytest.approx(np.std(own, ddof=1))
    low, high = table.mse_overall_interval.sel(at).values
    assert low < np.mean(own) < high
    assert table.mse_overall_spread.sel(space="physical", model="persistence").isnull()
    assert int(wins(table, "mse_overall_difference").sel(baseline="persistence", **at)) == 1
    assert "mse_spread" not in make_table(tally, EvaluationSettings(num_resamples=300))
