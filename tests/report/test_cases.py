"""Which samples a report shows, and that their maps are those that were observed and forecast."""

import numpy as np
import pytest
import torch
from forecast_fixtures import NUM_COLUMNS, NUM_INPUTS, NUM_ROWS, NUM_TARGETS, shared_run  # noqa: F401

from fieldcast.evaluation import evaluate, run_tally, with_baselines
from fieldcast.evaluation.tally import rename
from fieldcast.report.cases import Choice, choose_cases, make_cases


@pytest.fixture(scope="module")
def tally(shared_run):  # noqa: F811
    evaluate(shared_run, device="cpu")
    return run_tally(shared_run)


def errors(tally, model):
    return tally.scores("mse", "physical", model).numpy()


def test_the_best_and_the_worst_against_persistence_are_shown(tally):
    found = choose_cases(tally, "convgru")
    gain = errors(tally, "persistence") - errors(tally, "convgru")
    best = next(choice for choice in found if "best of convgru against persistence" in choice.reason.lower())
    worst = next(choice for choice in found if "worst of convgru against persistence" in choice.reason.lower())
    assert tally.stretches[int(gain.argmax())].numbers == (best.number,)
    assert tally.stretches[int(gain.argmin())].numbers == (worst.number,)
    assert f"{errors(tally, 'convgru')[best.number]:.4g}"[:4] in best.reason
    assert len({choice.number for choice in found}) == len(found)


def test_without_persistence_there_is_no_best_against_it(tally):
    alone = rename(tally, {"convgru": "convgru"})
    reasons = " ".join(choice.reason for choice in choose_cases(alone, "convgru"))
    assert "against" not in reasons
    assert "argest error of convgru" in reasons


def test_nothing_observed_leaves_nothing_to_choose(tally):
    blank = rename(tally, {"convgru": "convgru"})
    blank.observed = torch.zeros_like(tally.observed)
    blank.sums = {key: torch.zeros_like(value) for key, value in blank.sums.items()}
    assert choose_cases(blank, "convgru") == []


def test_maps_are_what_was_observed_and_what_each_model_forecasts(shared_run):  # noqa: F811
    _, splits = shared_run.samples()
    samples = splits["test"]
    models, _ = with_baselines(shared_run, splits["train"], torch.device("cpu"))
    (case,) = make_cases(models, samples, [Choice(2, "because")])
    frames = case.frames
    assert case.heading == "because"
    assert frames.panel.values.tolist() == ["observed", *models]
    assert frames.shape[1:] == (NUM_INPUTS + NUM_TARGETS, NUM_ROWS, NUM_COLUMNS)
    observed = frames.sel(panel="observed").values
    np.testing.assert_array_equal(observed, samples.frames(2)[:, 0])
    assert np.isnan(observed[:, :, -1]).all(), "a pixel that was not seen is missing, in the past as well"
    assert frames.isel(panel=slice(1, None), lead_time=slice(None, NUM_INPUTS)).isnull().all()
    held = frames.sel(panel="persistence").values[NUM_INPUTS:]
    np.testing.assert_allclose(held[:, :, :-1], np.repeat(observed[None, NUM_INPUTS - 1, :, :-1], 3, 0), atol=1e-4)
    minutes = (frames.lead_time.values / np.timedelta64(1, "m")).tolist()
    assert minutes == [-10, -5, 0, 5, 10, 15]
