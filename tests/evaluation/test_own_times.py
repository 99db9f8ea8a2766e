"""Scores of samples that each have their own target times, between inputs too, and of ensembles of draws."""

import sys
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from forecast_fixtures import make_rain, run_values, train_on

from fieldcast.config import read_config
from fieldcast.data import Batch
from fieldcast.errors import ConfigError, DataError
from fieldcast.evaluation import (
    UNIT,
    evaluate,
    lead_rows,
    load_scores,
    make_table,
    merge,
    rename,
    run_tally,
    score_rows,
)
from fieldcast.evaluation.forecasts import draw_members
from fieldcast.evaluation.spaces import describe_spaces
from fieldcast.evaluation_settings import EvaluationSettings
from fieldcast.models import MODELS, ModelRow, ModelSettings
from fieldcast.models.base import Forecaster
from fieldcast.processes import Processes
from fieldcast.report.run_report import report
from fieldcast.run import Run, write_json
from fieldcast.training.loop import train

PLAIN = {
    "mse": lambda errors: np.mean(errors**2),
    "mae": lambda errors: np.mean(np.abs(errors)),
    "bias": np.mean,
}


EVALUATION = {"baselines": ["persistence"], "num_resamples": 20}


def thinned(num_frames=130, seed=0):
    """Rain of which a fifth of the frames is missing and the rest comes up to two minutes late."""
    random = np.random.default_rng(seed)
    data = make_rain(num_frames)
    late = (random.random(num_frames) * 120e9).astype("timedelta64[ns]")
    data = data.assign_coords(time=data.time.values + late)
    return data.isel(time=np.flatnonzero(random.random(num_frames) > 0.2))


@pytest.fixture(scope="module")
def late_run(tmp_path_factory):
    changes = {"windows.max_gap": "15 min", "model.ignore_times": True, "training.num_steps": 1}
    changes |= {f"evaluation.{key}": value for key, value in EVALUATION.items()}
    return train_on(thinned(), tmp_path_factory.mktemp("late"), **changes)


@pytest.fixture(scope="module")
def late_scores(late_run):
    return evaluate(late_run, device="cpu", batch_size=5)


def own_forecasts(run):
    """For each test sample, target and model: its cadences after the last input, forecast minus observation (H, W)."""
    source, splits = run.samples()
    samples, model, normalizer = splits["test"], run.model(), run.normalizer
    sequence = source.sequences("test", None)[0]
    for _, start in samples.starts:
        times = sequence.times[start : start + 6]
        frames = torch.from_numpy(sequence.read(np.arange(start, start + 6)))[None]
        unit = normalizer.normalise(frames)
        past = torch.nan_to_num(unit[:, :3])
        steps = (torch.tensor([[-2.0, -1.0, 0.0]]), torch.tensor([[1.0, 2.0, 3.0]]))
        with torch.inference_mode():
            own = model(past, *steps)
        for name, predicted in ((run.model_name, own), ("persistence", past[:, -1:].expand(-1, 3, -1, -1, -1))):
            error = (normalizer.denormalise(predicted) - frames[:, 3:])[0, :, 0].double().numpy()
            for place in range(3):
                yield name, (times[3 + place] - times[2]) / source.cadence, error[place]


class TestScores:
    def test_they_are_those_of_a_plain_loop_over_targets(self, late_run, late_scores):
        scores = late_scores
        assert scores.lead_time.attrs["long_name"] == "lead time, rounded to the cadence"
        found = list(own_forecasts(late_run))
        # No target is half way between.
        steps = sorted({round(cadences) for _, cadences, _ in found})
        cadence = np.timedelta64(late_run.samples()[0].cadence, "ns")
        assert (scores.lead_time.values == np.array(steps) * cadence).all()
        assert len(steps) > 4
        for model in (late_run.model_name, "persistence"):
            for metric, plain in PLAIN.items():
                at = {"space": "physical", "model": model}
                for place, step in enumerate(steps):
                    errors = np.concatenate([e.ravel() for m, t, e in found if m == model and round(t) == step])
                    came = float(scores[metric].sel(at)[place])
                    assert came == pytest.approx(plain(errors[np.isfinite(errors)]), rel=1e-4, abs=1e-6), (metric, step)
                errors = np.concatenate([e.ravel() for m, _, e in found if m == model])
                overall = float(scores[f"{metric}_overall"].sel(at))
                assert overall == pytest.approx(plain(errors[np.isfinite(errors)]), rel=1e-4, abs=1e-6), metric

    def test_the_batch_size_does_not_matter(self, late_run, late_scores):
        one = evaluate(late_run, device="cpu", batch_size=1)
        dependent = [name for name in one if name.startswith("psnr-batch")]
        xr.testing.assert_allclose(one.drop_vars(dependent), late_scores.drop_vars(dependent), rtol=1e-3, atol=1e-3)

    def test_files_table_and_report_say_that_lead_times_are_rounded(self, late_run):
        written = load_scores(late_run)
        tally = run_tally(late_run)
        assert tally.rounded and len(tally.seconds) == written.sizes["lead_time"]
        xr.testing.assert_identical(make_table(tally, late_run.config.evaluation).mse, written.mse)
        assert "lead time, rounded to the cadence" in lead_rows(written)[0]
        page = report(late_run).read_text()
        assert "lead time, rounded to the cadence (min)" in page
        assert "convgru (times ignored)" in page
        assert '<th scope="col">convgru</th>' not in page

    def test_sums_of_a_sequence_are_over_its_targets(self, late_scores):
        scores = late_scores
        assert scores.attrs["num_targets"] == 3 != scores.sizes["lead_time"]
        overall = float(scores["cross-entropy_overall"].sel(space=UNIT, model="persistence"))
        (row,) = score_rows(scores, "shi")
        assert row["persistence"] == pytest.approx(overall * scores.attrs["frame_pixels"] * 3)


class Share(Processes):
    """One of two processes that never hears of the other."""

    def gather(self, value):
        return []

    def wait(self):
        pass


def test_shares_of_two_processes_add_up_to_the_whole(late_run, monkeypatch):
    scoring, tallies = sys.modules["fieldcast.evaluation.scoring"], []
    monkeypatch.setattr(scoring, "make_table", lambda tally, rest: tallies.append(tally) or make_table(tally, rest))
    monkeypatch.setattr(scoring, "save_scores", lambda *rest: None)
    for processes in (Processes(), Share(0, 2), Share(1, 2)):
        monkeypatch.setattr(scoring, "join_processes", lambda device, own=processes: nullcontext(own))
        evaluate(late_run, device="cpu", num_samples=4)
    whole, one, other = tallies
    assert one.seconds == other.seconds == whole.seconds
    one.include((other.sums, other.observed))
    assert torch.equal(one.observed, whole.observed)
    for key, sums in whole.sums.items():
        torch.testing.assert_close(one.sums[key], sums, rtol=1e-12, atol=0, equal_nan=True)


class Line(Forecaster):
    """Half way between the first and the last input, moved by a number that training finds."""

    irregular_inputs = irregular_targets = interpolates = True

    def __init__(self, settings, num_channels):
        super().__init__()
        self.offset = torch.nn.Parameter(torch.zeros(()))

    def forward(self, inputs, input_times, target_times):
        middle = (inputs[:, :1] + inputs[:, -1:]) / 2 + self.offset
        return middle.expand(-1, target_times.shape[1], -1, -1, -1)


def test_times_between_inputs(monkeypatch, tmp_path):
    monkeypatch.setitem(MODELS, "line", ModelRow(Line, ModelSettings, {}, "a line"))
    run = short_run(tmp_path, {"key": "line"}, sampling={"task": "interpolate", "input_interval": [1, 9]})
    scores = evaluate(run, device="cpu")
    assert list(scores.model.values[:3]) == ["line", "persistence", "linear-interpolation"]
    assert "optical-flow does not interpolate" in scores.attrs["left_out"]
    assert (scores.lead_time.values < np.timedelta64(0)).all()
    assert list(scores.baseline.values[:2]) == ["persistence", "linear-interpolation"]
    page = report(run).read_text()
    assert "filled in between 2018-05-10" in page
    assert "-35 min" in page and "linear-interpolation" in page and ", input" in page


def short_run(folder, model, **tables):
    """A run of one step on rain."""
    make_rain(120).to_netcdf(folder / "data.nc", engine="h5netcdf")
    values = run_values(folder / "data.nc", **{"training.num_steps": 1})
    return train(read_config(values | {"model": model} | tables), folder / "run", "cpu")


class Coin(Forecaster):
    """The last frame, with one number added to all of it: 0 in the forecast, at random in a draw."""

    irregular_inputs = irregular_targets = interpolates = draws = True

    def __init__(self, settings, num_channels):
        super().__init__()
        self.offset = torch.nn.Parameter(torch.zeros(()))

    def forward(self, inputs, input_times, target_times):
        return inputs[:, -1:].expand(-1, target_times.shape[1], -1, -1, -1) + self.offset

    def draw(self, inputs, input_times, target_times):
        noise = 0.1 * torch.randn(len(inputs), 1, 1, 1, 1)
        return self(inputs, input_times, target_times) + noise


@pytest.fixture
def coin(monkeypatch):
    monkeypatch.setitem(MODELS, "coin", ModelRow(Coin, ModelSettings, {}, "a coin"))


def coin_batch(samples=4):
    times = torch.tensor([[-1.0, 0.0]]).expand(samples, -1), torch.tensor([[1.0, 2.0, 3.0]]).expand(samples, -1)
    frames = torch.rand(samples, 5, 1, 6, 7, generator=torch.Generator().manual_seed(0))
    valid = torch.ones(samples, 3, 1, 6, 7, dtype=torch.bool)
    return Batch(frames[:, :2], times[0], frames[:, 2:], times[1], valid, torch.zeros(samples, dtype=torch.int64))


class TestEnsembles:
    cpu = torch.device("cpu")

    def draw(self, batch, numbers, num_members=10, seed=1):
        return draw_members(Coin(None, 1), batch, [(seed, number) for number in numbers], num_members, self.cpu)

    def test_draws_are_a_function_of_seed_and_sample_alone(self):
        batch = coin_batch()
        before = torch.random.get_rng_state()
        members = self.draw(batch, [5, 6, 7, 8])
        assert torch.equal(torch.random.get_rng_state(), before)
        assert members.shape == (10, 4, 3, 1, 6, 7)
        assert torch.equal(self.draw(batch, [5, 6, 7, 8]), members)
        assert torch.equal(self.draw(batch[2:3], [7]), members[:, 2:3])
        offsets = (members - batch.inputs[:, -1:])[:, :, 0, 0, 0, 0]
        assert len(offsets.flatten().unique()) == 40
        assert not torch.equal(self.draw(batch, [5, 6, 7, 8], seed=2), members)

    def test_a_run_is_scored_as_an_ensemble(self, coin, tmp_path):
        run = short_run(tmp_path, {"key": "coin"}, evaluation=EVALUATION | {"num_members": 6})
        scores = evaluate(run, device="cpu")
        assert scores.attrs["num_members"] == 6
        samples = run.samples()[1]["test"]
        batch, truth = samples.batch_and_truth(range(len(samples)))
        seeds = [(run.config.seed, number) for number in range(len(samples))]
        members = run.normalizer.denormalise(draw_members(run.model(), batch, seeds, 6, self.cpu))
        valid = batch.valid.numpy()
        mean = members.double().mean(0).numpy()
        at = {"space": "physical", "model": "coin"}
        mse = np.mean(((mean - truth.numpy()) ** 2)[valid])
        assert float(scores.mse_overall.sel(at)) == pytest.approx(mse, rel=1e-5)
        assert float(scores["ensemble-rmse_overall"].sel(at)) == pytest.approx(mse**0.5, rel=1e-5)
        distance = np.abs(members.numpy() - truth.numpy()).mean(0)[valid].mean()
        pairs = (members[:, None].double() - members[None].double()).abs().mean((0, 1)).numpy()[valid].mean()
        assert float(scores.crps_overall.sel(at)) == pytest.approx(distance - pairs / 2, rel=1e-4)
        assert np.isnan(float(scores.crps_overall.sel(space="physical", model="persistence")))
        again = evaluate(run, device="cpu", batch_size=100)
        assert float(again.crps_overall.sel(at)) == pytest.approx(float(scores.crps_overall.sel(at)), rel=1e-6)
        page = report(run).read_text()
        assert 'id="ensemble"' in page and "rank histogram" in page

    def test_an_ensemble_stands_beside_single_forecasts(self, coin, tmp_path):
        run = short_run(tmp_path, {"key": "coin"}, evaluation=EVALUATION | {"num_members": 3})
        evaluate(run, device="cpu")
        ensemble = run_tally(run)
        values = run.config.resolved()
        values["evaluation"]["num_members"] = None
        write_json(run.folder / "config.json", values)
        evaluate(Run(run.folder), device="cpu")
        single = run_tally(run)
        joint = make_table(merge([single, rename(ensemble, {"coin": "ensemble"})]), run.config.evaluation)
        crps = joint.crps_overall.sel(space="physical")
        assert crps.sel(model="ensemble").notnull() and crps.sel(model="coin").isnull()
        with pytest.raises(DataError, match="numbers of members"):
            merge([ensemble, replace(ensemble, spaces=describe_spaces(*self.parts(run, 4)))])

    def parts(self, run, num_members):
        return run.samples()[1]["test"], EvaluationSettings(num_members=num_members)


def test_members_of_a_model_that_does_not_draw_are_refused(tiny_run):
    values = tiny_run.config.resolved()
    values["evaluation"]["num_members"] = 5
    write_json(tiny_run.folder / "config.json", values)
    said = "num_members' = 5: 'convgru' has one forecast; latent-ode, ode2vae draw others"
    with pytest.raises(ConfigError, match=said):
        evaluate(Run(tiny_run.folder), device="cpu")


def test_one_member_is_no_ensemble():
    with pytest.raises(ValueError, match="greater than or equal to 2"):
        EvaluationSettings(num_members=1)
