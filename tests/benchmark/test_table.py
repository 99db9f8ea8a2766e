"""The table against plain numpy, from scores that are made up."""

import csv
import json

import numpy as np
import pytest
import torch

from fieldcast.benchmark.measure import MEASURES
from fieldcast.benchmark.plan import read_plan
from fieldcast.benchmark.table import group_scores, printed_rows, save_table, table_rows
from fieldcast.evaluation import Tally, make_table, wins
from fieldcast.evaluation.files import save_scores
from fieldcast.evaluation.spaces import Space
from fieldcast.evaluation.tally import Stretch
from fieldcast.metrics import Yardstick
from fieldcast.run import Run, write_json

SEED_SCORES = {("convgru", 0): 2.0, ("convgru", 1): 4.0, ("trajgru", 0): 8.0}
BASELINE_SCORE = 10.0
PHYSICAL = Space("physical", 0, Yardstick("mm/h", 10.0, (4, 4), (0.5, 2.0)))
UNIT_SPACE = Space("unit", None, Yardstick(shape=(4, 4)))
FEW_BLOCKS, ENOUGH_BLOCKS = 4, 6


def made_up_tally(models: dict[str, float], num_stretches: int = FEW_BLOCKS) -> Tally:
    """It never rains, and a model whose MSE shall be b always says that it rains sqrt(b) mm/h."""
    stretches = [Stretch(0, number, (number,)) for number in range(num_stretches)]
    tally = Tally([PHYSICAL, UNIT_SPACE], stretches, [300.0], False, 0)
    dry = torch.zeros(1, 1, 1, 4, 4, dtype=torch.float64)
    for model, base in models.items():
        for number in range(num_stretches):
            for space in tally.spaces:
                tally.add(number, space, model, dry + base**0.5, dry, dry == 0)
    return tally


@pytest.fixture
def scored(small_benchmark, tmp_path):
    """A benchmark's folder and jobs: convgru twice, trajgru once, its other seed failed."""
    plan = read_plan(small_benchmark(), "here")
    states = {job.name: {"state": "failed", "reason": "exploded"} for job in plan.jobs}
    for job in plan.jobs:
        if (base := SEED_SCORES.get((job.model, job.seed))) is None:
            continue
        folder = tmp_path / job.name
        folder.mkdir()
        write_json(folder / "config.json", job.config.resolved())
        tally = made_up_tally({job.model: base, "persistence": BASELINE_SCORE})
        save_scores(Run(folder), make_table(tally, job.config.evaluation), tally)
        costs = {"parameters": 7, "multiply_adds": 2_500_000, "step_seconds": base, "forecast_seconds": 0.5}
        costs |= {"peak_memory_bytes": int(1e8 * base), "cuda_peak_memory_bytes": None, "training_seconds": base}
        write_json(folder / MEASURES, costs)
        states[job.name] = {"state": "finished", "reason": ""}
    return tmp_path, plan.jobs, states


def test_mean_and_spread_over_seeds(scored):
    root, jobs, _ = scored
    runs = {"convgru": [Run(root / job.name) for job in jobs[:2]], "trajgru": [Run(root / jobs[2].name)]}
    scores = group_scores(runs)
    assert scores.model.values.tolist() == ["convgru", "trajgru", "persistence"]
    assert scores.baseline.values.tolist() == ["persistence"]
    two = np.array([2.0, 4.0])
    for space in ("physical", "unit"):
        at = scores.sel(space=space)
        assert at.mse_overall.values == pytest.approx([two.mean(), 8.0, 10.0])
        assert float(at.mae_overall_spread.sel(model="convgru")) == pytest.approx(np.std(two**0.5, ddof=1))
        assert float(at.mae_overall_spread.sel(model="persistence")) == 0
        assert np.isnan(at.mae_overall_spread.sel(model="trajgru"))
        difference = at.mse_overall_difference.sel(model="convgru", baseline="persistence")
        assert float(difference) == pytest.approx(two.mean() - 10)
    # Events are forecast and none is observed; one seed of convgru says 1.4 mm/h, which is no event at 2.
    assert scores.csi_overall.sel(space="physical", threshold=0.5).values.tolist() == [0, 0, 0]
    assert np.isnan(scores.csi_overall.sel(space="physical", threshold=2.0, model="convgru"))
    assert scores.mse_overall_interval.isnull().all(), "four blocks are too few"


def test_seeds_share_the_blocks_of_an_interval(scored):
    root, jobs, _ = scored
    runs = [Run(root / job.name) for job in jobs[:2]]
    for run, base in zip(runs, (2.0, 4.0), strict=True):
        tally = made_up_tally({"convgru": base, "persistence": 10.0}, ENOUGH_BLOCKS)
        save_scores(run, make_table(tally, run.config.evaluation), tally)
    scores = group_scores({"convgru": runs})
    at = {"space": "physical", "model": "convgru"}
    # Every block is alike, so that the seeds are all there is to vary, and intervals do not speak of these.
    assert scores.mse_overall_interval.sel(at).values == pytest.approx([3.0, 3.0])
    assert wins(scores, "mse_overall_difference").sel(baseline="persistence", **at) == 1


def test_rows(scored):
    rows = table_rows(*scored)
    assert [(row["model"], row["baseline"]) for row in rows] == [
        *(("convgru", False), ("trajgru", False), ("persistence", True))
    ]
    first, second, baseline = rows
    assert (first["seeds"], first["done"], first["failed"]) == (2, 2, {})
    assert (second["seeds"], second["done"], second["failed"]) == (2, 1, {"1": "exploded"})
    assert list(first["scores"]) == ["mse", "mae", "csi 0.5", "csi 2"]
    spread = pytest.approx(np.std([2**0.5, 2], ddof=1))
    assert first["scores"]["mae"] == {
        **{"mean": pytest.approx(1 + 0.5**0.5), "spread": spread, "low": None, "high": None, "units": "mm/h"}
    }
    assert second["scores"]["mse"]["spread"] is None
    assert baseline["scores"]["csi 2"]["mean"] == 0
    costs = {name: first[name] for name in ("step_seconds", "training_seconds", "peak_memory_bytes", "parameters")}
    assert costs == {"step_seconds": 3, "training_seconds": 3, "peak_memory_bytes": 4e8, "parameters": 7}
    assert first["cuda_peak_memory_bytes"] is None
    assert "parameters" not in baseline


def test_a_group_of_which_nothing_is_done(small_benchmark, tmp_path):
    jobs = read_plan(small_benchmark(), "here").jobs
    states = {job.name: {"state": "waiting", "reason": ""} for job in jobs}
    rows = table_rows(tmp_path, jobs, states)
    assert [(row["done"], row["scores"], row["parameters"]) for row in rows] == [(0, {}, None)] * 2
    assert [row["seeds"] for row in printed_rows(rows)] == ["0/2", "0/2"]
    save_table(tmp_path, rows)


def test_models_that_ignore_times_are_marked(small_benchmark, tmp_path):
    jobs = read_plan(small_benchmark(**{"windows.max_gap": "1 h"}), "here").jobs
    assert "ignored" not in str(table_rows(tmp_path, jobs, {job.name: {"state": "waiting"} for job in jobs}))
    values = small_benchmark()
    values["common"]["model"] = {"ignore_times": True}
    jobs = read_plan(values, "here").jobs
    rows = table_rows(tmp_path, jobs, {job.name: {"state": "waiting"} for job in jobs})
    assert [row["model"] for row in rows] == ["convgru (times ignored)", "trajgru (times ignored)"]


def test_files(scored):
    root, _, _ = scored
    rows = table_rows(*scored)
    save_table(root, rows)
    assert json.loads((root / "table.json").read_text()) == rows
    with (root / "table.csv").open(newline="") as file:
        flat = list(csv.DictReader(file))
    assert [row["model"] for row in flat] == ["convgru", "trajgru", "persistence"]
    assert float(flat[0]["csi 0.5 mean"]) == rows[0]["scores"]["csi 0.5"]["mean"]
    assert [row["mae spread"] for row in flat[1:]] == ["", "0.0"]
    assert flat[1]["failed"] == "seed 1: exploded"
    assert [row["multiply_adds"] for row in flat] == ["2500000", "2500000", ""]


def test_printed(scored):
    printed = printed_rows(table_rows(*scored))
    assert len({tuple(row) for row in printed}) == 1
    assert "source" not in printed[0]
    assert printed[0]["mse, (mm/h)^2"] == "3 ± 1.4"
    assert printed[1]["mse, (mm/h)^2"] == "8"
    assert printed[0]["10^6 multiply-adds"] == "2.5"
    assert printed[0]["step, ms"] == "3,000"
    assert printed[1]["failed"] == "seed 1: exploded"
    assert [row["seeds"] for row in printed] == ["2/2", "1/2", ""]


def test_printed_with_units_that_differ_and_intervals(scored):
    rows = table_rows(*scored)
    rows[1]["scores"]["mae"] |= {"units": "m", "low": 15.0, "high": 17.5}
    printed = printed_rows(rows)
    assert [row["mae"] for row in printed] == ["1.707 ± 0.41 mm/h", "2.828 [15, 17.5] m", "3.162 mm/h"]
