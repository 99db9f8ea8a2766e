"""Scores of a run against a plain loop over its samples, and what the table says about itself."""

import json
import math
import sys

import numpy as np
import pytest
import torch
import xarray as xr
from forecast_fixtures import NUM_COLUMNS, NUM_ROWS, NUM_TARGETS, make_rain, train_on
from skimage.metrics import structural_similarity

from fieldcast.data import Samples
from fieldcast.data.dataset import spread
from fieldcast.errors import ConfigError
from fieldcast.evaluation import (
    UNIT,
    evaluate,
    load_scores,
    make_table,
    plain_numbers,
    run_tally,
    score_rows,
    scores_document,
)
from fieldcast.evaluation.scoring import batches_of
from fieldcast.metrics import METRICS, Yardstick
from fieldcast.report.run_report import report
from fieldcast.run import Run, write_json


@pytest.fixture(scope="module")
def scores(shared_run):
    return evaluate(shared_run, device="cpu")


def forecasts(run):
    """For each test sample and model: forecast and observation (S, H, W) in both spaces, float64, by a plain loop."""
    source, splits = run.samples()
    samples, model, normalizer = splits["test"], run.model(), run.normalizer
    sequence = source.sequences("test", None)[0]
    for _, start in samples.starts:
        frames = torch.from_numpy(sequence.read(np.arange(start, start + 6)))[None]
        unit = normalizer.normalise(frames)
        past = torch.nan_to_num(unit[:, :3])
        with torch.inference_mode():
            own = model(past, torch.tensor([[-2.0, -1.0, 0.0]]), torch.tensor([[1.0, 2.0, 3.0]]))
        for name, predicted in (("convgru", own), ("persistence", past[:, -1:].expand(-1, 3, -1, -1, -1))):
            for space, pair in (
                ("physical", (normalizer.denormalise(predicted), frames[:, 3:])),
                (UNIT, (predicted, unit[:, 3:])),
            ):
                yield name, space, *(field[0, :, 0].double().numpy() for field in pair)


PLAIN = ("mse", "mae", "rmse", "bias", "psnr", "ssim", "ssim-uniform")
BASELINES = ["persistence", "climatology", "optical-flow"]
RAIN = Yardstick("mm/h", 1.0, (NUM_ROWS, NUM_COLUMNS), (1.0,), (1.0, 2.0), (1,))


def plain_score(metric, pairs, data_range):
    """A metric pooled over (forecast, observation) pairs (H, W), NaN where nothing was observed."""
    if metric.startswith("ssim"):
        options = {"win_size": 7} if metric == "ssim-uniform" else {"gaussian_weights": True, "win_size": 11}
        options |= {"use_sample_covariance": metric == "ssim-uniform", "data_range": data_range, "full": True}
        border = options["win_size"] // 2
        found = []
        for predicted, observed in pairs:
            seen = np.isfinite(observed)
            fields = [np.where(seen, field, 0) for field in (predicted, observed)]
            similarity = structural_similarity(*fields, **options)[1]
            for row in range(border, NUM_ROWS - border):
                for column in range(border, NUM_COLUMNS - border):
                    around = np.s_[row - border : row + border + 1, column - border : column + border + 1]
                    if seen[around].all():
                        found.append(similarity[row, column])
        return np.mean(found)
    errors = np.concatenate([(predicted - observed)[np.isfinite(observed)] for predicted, observed in pairs])
    return {
        "mse": np.mean(errors**2),
        "mae": np.mean(np.abs(errors)),
        "rmse": np.sqrt(np.mean(errors**2)),
        "bias": np.mean(errors),
        "psnr": 10 * np.log10(data_range**2 / np.mean(errors**2)),
    }[metric]


class TestScores:
    def test_they_are_those_of_a_plain_loop(self, shared_run, scores):
        found = list(forecasts(shared_run))
        assert len(found) == 4 * scores.attrs["num_samples"]
        ranges = {"physical": float(shared_run.normalizer.data_range()), UNIT: 1.0}
        for metric in PLAIN:
            for model in ("convgru", "persistence"):
                for space, data_range in ranges.items():
                    pairs = [row[2:] for row in found if row[:2] == (model, space)]
                    for lead in range(NUM_TARGETS):
                        wanted = plain_score(metric, [(p[lead], o[lead]) for p, o in pairs], data_range)
                        came = float(scores[metric].sel(model=model, space=space)[lead])
                        assert came == pytest.approx(wanted, rel=1e-4, abs=1e-6), (metric, model, space, lead)
                    flat = [(p[lead], o[lead]) for p, o in pairs for lead in range(NUM_TARGETS)]
                    came = float(scores[f"{metric}_overall"].sel(model=model, space=space))
                    assert came == pytest.approx(plain_score(metric, flat, data_range), rel=1e-4, abs=1e-6), metric

    @pytest.mark.parametrize("batch_size", [1, 5, 100])
    def test_the_batch_size_does_not_matter(self, tiny_run, scores, batch_size):
        other = evaluate(tiny_run, device="cpu", batch_size=batch_size)
        # It is the mean over batches, as its convention says.
        dependent = [name for name in scores if name.startswith("psnr-batch")]
        # A forecast batch by batch differs in its last digits, and a pixel may pass a threshold.
        tolerance = {"rtol": 1e-3, "atol": 1e-3}
        xr.testing.assert_allclose(other.drop_vars(dependent), scores.drop_vars(dependent), **tolerance)

    def test_lead_times_and_labels(self, scores):
        assert scores.mse.dims == ("space", "model", "lead_time")
        assert scores.mse_overall.dims == ("space", "model")
        assert list(scores.model.values) == ["convgru", *BASELINES]
        assert list(scores.baseline.values) == BASELINES
        assert scores.csi.dims == ("space", "model", "threshold", "lead_time")
        assert scores.mse_difference_interval.dims == ("bound", "space", "baseline", "model", "lead_time")
        assert list(scores.space.values) == ["physical", UNIT]
        assert (scores.lead_time.values == np.array([5, 10, 15]) * np.timedelta64(1, "m")).all()
        for name, metric in METRICS.items():
            if metric.takes != "fields" or (metric.lacks(RAIN) and metric.lacks(Yardstick(shape=RAIN.shape))):
                assert name not in scores
                continue
            attributes = scores[name].attrs
            assert attributes["convention"] == metric.convention
            assert attributes["orientation"] == metric.orientation
        assert scores.mae.attrs["units_physical"] == "mm/h"
        assert scores.mse.attrs["units_unit"] == "1"
        assert scores.attrs["split"] == "test"
        assert scores.attrs["precision"] == "float32"
        assert scores.attrs["frame_pixels"] == NUM_ROWS * NUM_COLUMNS
        assert "mm/h" in scores.attrs["data_range"]

    @pytest.mark.parametrize("number", [1, 3])
    def test_some_of_the_samples(self, tiny_run, number):
        assert evaluate(tiny_run, num_samples=number, device="cpu").attrs["num_samples"] == number

    def test_memory_holds_one_batch(self, tiny_run, monkeypatch):
        sizes = []
        read = Samples.batch_and_truth
        monkeypatch.setattr(
            Samples, "batch_and_truth", lambda self, numbers, *rest: sizes.append(len(numbers)) or read(self, numbers)
        )
        evaluate(tiny_run, device="cpu", batch_size=3)
        assert max(sizes) <= 3
        assert sum(sizes) == len(tiny_run.samples()[1]["test"])

    def test_another_split(self, tiny_run, scores):
        other = evaluate(tiny_run, "validation", device="cpu")
        assert other.attrs["split"] == "validation"
        assert not np.allclose(other.mse, scores.mse)

    def test_an_unknown_split_is_named(self, shared_run):
        with pytest.raises(ConfigError, match=r"unknown split 'tset': did you mean 'test'.*test, train, validation"):
            evaluate(shared_run, "tset", device="cpu")

    def test_no_samples_are_refused(self, shared_run):
        with pytest.raises(ConfigError, match="num_samples = 0"):
            evaluate(shared_run, num_samples=0, device="cpu")

    def test_splits_share_no_frame(self, shared_run):
        _, splits = shared_run.samples()
        frames = {
            name: {start + step for _, start in part.starts for step in range(part.windows.num_frames)}
            for name, part in splits.items()
        }
        assert not frames["validation"] & frames["test"]
        assert not frames["train"] & (frames["validation"] | frames["test"])


def test_spread_is_even_and_has_both_ends():
    assert spread(10, None) == list(range(10))
    assert spread(10, 3) == [0, 4, 9]
    assert spread(3, 10) == [0, 1, 2]


def test_every_number_is_in_one_batch_in_order():
    assert [list(some) for some in batches_of(range(7), 3)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(batches_of((), 3)) == []


class TestFiles:
    def test_scores_nc_round_trip(self, tiny_run):
        written = evaluate(tiny_run, device="cpu")
        xr.testing.assert_identical(load_scores(tiny_run), written)
        with xr.open_dataset(tiny_run.folder / "scores.nc", engine="h5netcdf", decode_timedelta=True) as opened:
            assert opened.lead_time.dtype.kind == "m"

    def test_scores_json_is_the_same_as_strict_json(self, tiny_run):
        def refuse(constant):
            raise AssertionError(f"{constant} is no JSON")

        written = evaluate(tiny_run, device="cpu")
        document = json.loads((tiny_run.folder / "scores.json").read_text(), parse_constant=refuse)
        assert document["lead_time_seconds"] == [300, 600, 900]
        for name in (*PLAIN, "csi", "fss"):
            for space in document["scores"][name]:
                for model in ("convgru", "persistence"):
                    entry = document["scores"][name][space][model]
                    at = {"space": space, "model": model}
                    assert entry["overall"] == plain_numbers(written[f"{name}_overall"].sel(at).values.tolist())
                    assert entry["by_lead_time"] == plain_numbers(written[name].sel(at).values.tolist())
        assert set(document["scores"]["csi"]) == {"physical"}
        assert set(document["scores"]["mse"]) == {"physical", UNIT}

    def test_what_is_not_finite_is_none_in_json(self):
        document = {"a": [1.0, math.nan, {"b": math.inf}], "c": "nan", "d": 3}
        assert plain_numbers(document) == {"a": [1.0, None, {"b": None}], "c": "nan", "d": 3}

    def test_nothing_is_there_before(self, shared_run, tmp_path):
        (tmp_path / "config.json").write_bytes((shared_run.folder / "config.json").read_bytes())
        assert load_scores(Run(tmp_path)) is None


class TestConventions:
    def value(self, scores, name, model="convgru", space=UNIT):
        return float(scores[f"{name}_overall"].sel(space=space, model=model))

    def row(self, scores, convention, word):
        found = [row for row in score_rows(scores, convention) if row["metric"].startswith(word)]
        assert len(found) == 1
        return found[0]

    def test_the_thesis(self, scores):
        assert {row["space"] for row in score_rows(scores, "thesis")} == {UNIT}
        assert self.row(scores, "thesis", "MSE")["convgru"] == pytest.approx(1e4 * self.value(scores, "mse"))
        assert self.row(scores, "thesis", "MAE")["convgru"] == pytest.approx(1e4 * self.value(scores, "mae"))
        assert self.row(scores, "thesis", "SSIM")["convgru"] == pytest.approx(1e2 * self.value(scores, "ssim"))
        assert "10^4" in self.row(scores, "thesis", "MSE")["metric"]

    def test_openstl(self, scores):
        pixels = NUM_ROWS * NUM_COLUMNS
        for model in ("convgru", "persistence"):
            row = self.row(scores, "openstl", "MSE")
            assert row[model] == pytest.approx(pixels * self.value(scores, "mse", model))
        assert "sum over pixels" in self.row(scores, "openstl", "MAE")["metric"]
        ssim = self.row(scores, "openstl", "SSIM")["convgru"]
        assert ssim == pytest.approx(self.value(scores, "ssim-uniform"))

    def test_our_own_has_every_metric_in_every_space(self, scores):
        rows = score_rows(scores)
        for name in PLAIN:
            found = [row["space"] for row in rows if row["metric"] == METRICS[name].long_name]
            assert found == ["physical", UNIT], name
        assert len([row for row in rows if ", >= 2" in row["metric"]]) >= 3
        assert rows[0]["convgru"] == pytest.approx(self.value(scores, "mse", space="physical"))

    def test_an_unknown_one_is_named(self, scores):
        with pytest.raises(ConfigError, match="did you mean 'thesis'"):
            score_rows(scores, "thesys")


def test_each_variable_has_its_own_physical_space(tmp_path):
    data = make_rain()
    data["temperature"] = (280 + 5 * data.rain.fillna(0)).assign_attrs(units="K")
    changes = {"source.transform": ["log-rate", "scale"], "training.num_steps": 1}
    run = train_on(data, tmp_path, ("rain", "temperature"), **changes)
    scores = evaluate(run, device="cpu")
    assert list(scores.space.values) == ["physical rain", "physical temperature", UNIT]
    assert scores.rmse.attrs["units_physical rain"] == "mm/h"
    assert scores.rmse.attrs["units_physical temperature"] == "K"
    xr.testing.assert_identical(load_scores(run), scores)
    persistence = scores.mae.sel(model="persistence")
    # Temperature is 5 K per mm/h; the column where rain is missing is the same 280 K in every frame.
    expected = 5 * persistence.sel(space="physical rain") * (NUM_COLUMNS - 1) / NUM_COLUMNS
    np.testing.assert_allclose(persistence.sel(space="physical temperature"), expected, rtol=1e-4)
    assert scores_document(scores)["scores"]["mae"]["physical rain"]["persistence"]["overall"] > 0


class TestIntervals:
    def test_the_table_is_made_of_the_sums_that_were_saved(self, tiny_run):
        written = evaluate(tiny_run, device="cpu")
        again = make_table(run_tally(tiny_run), tiny_run.config.evaluation)
        xr.testing.assert_identical(again.assign_attrs(written.attrs), written)

    def test_differences_are_those_of_the_scores(self, scores):
        difference = scores.mse.sel(model="convgru") - scores.mse.sel(model="persistence")
        came = scores.mse_difference.sel(model="convgru", baseline="persistence")
        np.testing.assert_allclose(came, difference, rtol=1e-12)
        assert (scores.mse_difference.sel(model="persistence", baseline="persistence", space="unit") == 0).all()

    @pytest.mark.whole
    def test_blocks_are_as_long_as_they_are_named(self, tmp_path):
        changes = {"training.num_steps": 1, "evaluation.block_length": "2 h", "evaluation.num_resamples": 50}
        run = train_on(make_rain(200), tmp_path, **changes)
        scores = evaluate(run, device="cpu")
        assert scores.attrs["block_length"] == "2 h"
        assert scores.attrs["num_resamples"] == 50
        # A fifth of 200 frames, 5 minutes apart.
        assert 1 <= scores.attrs["num_blocks"] <= 3
        assert scores.mse_interval.isnull().all()


def test_baselines_that_the_config_names_are_in_the_table(tmp_path):
    changes = {"training.num_steps": 1, "evaluation.baselines": ["lagrangian-persistence"]}
    run = train_on(make_rain(), tmp_path, **changes)
    # Persistence is in every table.
    assert list(evaluate(run, device="cpu").model.values) == ["convgru", "persistence", "lagrangian-persistence"]


def test_optical_flow_is_left_out_where_it_can_not_run(tiny_run, monkeypatch):
    monkeypatch.setattr(sys.modules["fieldcast.evaluation.baselines"], "has_optical_flow", lambda: False)
    scores = evaluate(tiny_run, device="cpu")
    assert list(scores.model.values) == ["convgru", "persistence", "climatology"]
    assert "optical-flow needs the extra 'nowcast'" in scores.attrs["left_out"]


def test_a_forecast_sees_no_target(shared_run):
    samples = shared_run.samples()[1]["test"]
    batch = samples.batch([0])
    blind = batch.without_targets()
    assert blind.targets.shape == batch.targets.shape
    assert blind.targets.isnan().all()
    assert not blind.valid.any()
    assert torch.equal(blind.target_times, batch.target_times)
    assert torch.equal(blind.inputs, batch.inputs)


def test_nothing_observed_is_undefined_in_scores_and_report(tmp_path):
    data = make_rain()
    data.rain[50:] = np.nan
    run = train_on(data, tmp_path, **{"training.num_steps": 1})
    assert np.isnan(evaluate(run, device="cpu").mse).all()
    document = json.loads((run.folder / "scores.json").read_text())
    assert document["scores"]["mse"]["physical"]["persistence"]["overall"] is None
    assert report(run).is_file()


def test_a_table_marks_a_model_that_ignores_times(tiny_run):
    values = tiny_run.config.resolved()
    values["model"]["ignore_times"] = True
    write_json(tiny_run.folder / "config.json", values)
    run = Run(tiny_run.folder)
    assert evaluate(run, "validation", num_samples=1, device="cpu").model.values.tolist() == [
        "convgru (times ignored)",
        *BASELINES,
    ]
