"""Which samples a report shows, and that their maps are those that were observed and forecast."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from forecast_fixtures import NUM_COLUMNS, NUM_INPUTS, NUM_ROWS, NUM_TARGETS, shared_run  # noqa: F401

from fieldcast.data import make_samples
from fieldcast.data.sampling import SamplingSettings
from fieldcast.evaluation import evaluate, run_tally, with_baselines
from fieldcast.evaluation.forecasts import draw_members
from fieldcast.evaluation.tally import rename
from fieldcast.models import build
from fieldcast.models.base import Forecaster
from fieldcast.report.cases import Choice, Ensemble, choose_cases, ensembles_of, make_cases


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
    assert frames.is_input.values.tolist() == [True] * 3 + [False] * 3


def samples_between(run, **sampling):
    """Training samples whose targets lie between their inputs, each at times of its own."""
    source, _ = run.samples()
    settings = SamplingSettings(task="interpolate", input_interval=(1, 9), **sampling)
    config = run.config
    return make_samples(source, config.windows, config.splits, run.normalizer, settings, seed=1)["train"]


def test_frames_between_inputs_stand_in_order_of_time(shared_run):  # noqa: F811
    samples = samples_between(shared_run)
    cases = make_cases({"persistence": build("persistence")}, samples, [Choice(0, "one"), Choice(1, "other")])
    for number, case in enumerate(cases):
        frames, times = case.frames, samples.times(number)
        assert (np.diff(frames.lead_time.values) > np.timedelta64(0)).all()
        assert (frames.valid_time.values == np.sort(times).astype("datetime64[ns]")).all()
        assert set(frames.valid_time.values[frames.is_input.values]) == set(times[:3].astype("datetime64[ns]"))
        assert frames.is_input.values[[0, -1]].all()
        observed, held = frames.values
        newest = None
        for place, given in enumerate(frames.is_input.values):
            newest = observed[place] if given else newest
            expected = np.nan_to_num(newest) if not given else np.full_like(newest, np.nan)
            np.testing.assert_allclose(held[place], expected, atol=1e-4)
    leads = [tuple(case.frames.lead_time.values) for case in cases]
    assert leads[0] != leads[1], "each case has its own times"


def test_times_that_are_no_dates_are_told_from_the_first_frame(shared_run, monkeypatch):  # noqa: F811
    samples = shared_run.samples()[1]["test"]
    monkeypatch.setattr(samples.source, "real_times", False, raising=False)
    (case,) = make_cases({}, samples, [Choice(0, "one")])
    assert all(str(label).endswith((" min", " d", " h", " s")) for label in case.frames.valid_time.values)


class Wandering(Forecaster):
    """Forecasts a constant: 0.5, or any between 0 and 1 when drawn."""

    draws = True

    def forward(self, inputs, input_times, target_times):
        shape = (*target_times.shape, *inputs.shape[2:])
        return torch.full(shape, 0.5)

    def draw(self, inputs, input_times, target_times):
        shape = (*target_times.shape, *inputs.shape[2:])
        return torch.rand(len(inputs))[:, None, None, None, None].expand(shape)


def test_an_ensemble_is_shown_by_the_mean_of_the_members_that_are_scored(shared_run):  # noqa: F811
    samples, cpu = shared_run.samples()[1]["test"], torch.device("cpu")
    models = {"wandering": Wandering(), "persistence": build("persistence")}
    choices = [Choice(2, "one"), Choice(5, "other")]
    cases = make_cases(models, samples, choices, "float32", {"wandering": Ensemble(seed=3, num_members=11)})
    plain = make_cases(models, samples, choices)
    drawn = draw_members(models["wandering"], samples.batch([5, 2]), [(3, 5), (3, 2)], 11, cpu)
    means = samples.normalizer.denormalise(drawn).double().mean(0)[:, :, 0].numpy()
    for case, single, mean in zip(cases, plain, means[::-1], strict=True):
        assert case.frames.panel.values.tolist() == ["observed", "wandering, ensemble mean", "persistence"]
        np.testing.assert_allclose(case.frames.values[1, NUM_INPUTS:], mean, rtol=1e-5)
        np.testing.assert_array_equal(case.frames.values[[0, 2]], single.frames.values[[0, 2]])
        assert single.frames.panel.values.tolist() == ["observed", "wandering", "persistence"]
        assert not np.allclose(single.frames.values[1, NUM_INPUTS:], mean, rtol=1e-2)


def test_which_runs_are_ensembles(shared_run):  # noqa: F811
    config = shared_run.config
    several = replace(config, evaluation=config.evaluation.model_copy(update={"num_members": 4}))
    runs = {"single": shared_run, "several": SimpleNamespace(config=several)}
    assert ensembles_of(runs) == {"several": Ensemble(config.seed, 4)}
