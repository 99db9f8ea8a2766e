"""The table against plain numpy, from scores that are made up."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch

from fieldcast.benchmark.measure import MEASURES
from fieldcast.benchmark.plan import Job, read_plan
from fieldcast.benchmark.run_benchmark import Benchmark
from fieldcast.benchmark.table import (
    group_scores,
    printed_rows,
    restated_rows,
    save_table,
    spread_text,
    table_rows,
)
from fieldcast.errors import ConfigError
from fieldcast.evaluation import Tally, make_table, wins
from fieldcast.evaluation.files import save_scores
from fieldcast.evaluation.spaces import Space
from fieldcast.evaluation.tally import Compared, Stretch
from fieldcast.metrics import Yardstick
from fieldcast.printing import print_benchmark
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
                tally.add(number, space, model, Compared(dry + base**0.5, dry, dry == 0))
    return tally


@pytest.fixture(scope="module")
def scored_once(tmp_path_factory):
    """Where the folder that every test begins with is kept."""
    return tmp_path_factory.mktemp("scored") / "small"


@pytest.fixture
def scored(small_benchmark, scored_once, tmp_path):
    """A benchmark's folder and jobs: convgru twice, trajgru once, its other seed failed."""
    plan = read_plan(small_benchmark(), "here")
    if not scored_once.exists():
        for job in plan.jobs:
            if (base := SEED_SCORES.get((job.model, job.seed))) is not None:
                write_scored(scored_once / job.name, job, base)
    shutil.copytree(scored_once, tmp_path, dirs_exist_ok=True)
    states = {
        job.name: {"state": "finished", "reason": ""}
        if (job.model, job.seed) in SEED_SCORES
        else {"state": "failed", "reason": "exploded"}
        for job in plan.jobs
    }
    return tmp_path, plan.jobs, states


def write_scored(folder, job: Job, base: float) -> None:
    """Leave behind what a finished job leaves, of a model whose MSE is ``base``."""
    folder.mkdir(parents=True)
    write_json(folder / "config.json", job.config.resolved())
    run = Run(folder)
    tally = made_up_tally({run.model_name: base, "persistence": BASELINE_SCORE})
    scores = make_table(tally, job.config.evaluation).assign_attrs(frame_pixels=16, num_targets=1)
    save_scores(run, scores, tally)
    costs = {"parameters": 7, "multiply_adds": 2_500_000, "step_seconds": base, "forecast_seconds": 0.5}
    costs |= {"peak_memory_bytes": int(1e8 * base), "cuda_peak_memory_bytes": None, "training_seconds": base}
    write_json(folder / MEASURES, costs)


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
        scores = make_table(tally, run.config.evaluation).assign_attrs(frame_pixels=16, num_targets=1)
        save_scores(run, scores, tally)
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


THESIS_LABELS = ["MSE x 10^4", "MAE x 10^4", "SSIM x 10^2", "PSNR in dB"]


def by_name(row: dict) -> dict:
    return {label.partition(" (")[0]: cell for label, cell in row["scores"].items()}


def test_in_the_words_of_the_thesis(scored):
    rows = table_rows(*scored)
    first, second, baseline = restated_rows(rows, "thesis")
    assert list(by_name(first)) == THESIS_LABELS
    assert (first["model"], first["seeds"], first["done"], baseline["model"]) == ("convgru", 2, 2, "persistence")
    # The field is 0, the forecasts sqrt(2) and 2 everywhere: squared errors 2 and 4.
    cells = by_name(first)
    assert cells["MSE x 10^4"] == {"mean": pytest.approx(3e4), "spread": pytest.approx(1e4 * np.std([2, 4], ddof=1))}
    assert cells["MAE x 10^4"]["mean"] == pytest.approx(1e4 * (2 + 2**0.5) / 2)
    each = -10 * np.log10([2, 4])
    mean, spread = pytest.approx(each.mean()), pytest.approx(each.std(ddof=1))
    assert cells["PSNR in dB"] == {"mean": mean, "spread": spread}, "a mean of each seed's, not that of the mean error"
    assert cells["SSIM x 10^2"] == {"mean": None, "spread": None}, "frames of 4 x 4 are smaller than its window"
    assert by_name(second)["MSE x 10^4"] == {"mean": pytest.approx(8e4), "spread": None}
    assert by_name(baseline)["PSNR in dB"]["mean"] == pytest.approx(-10)
    assert by_name(restated_rows(rows, "openstl")[0])["MSE"]["mean"] == pytest.approx(3 * 16), "a sum over pixels"
    with pytest.raises(ConfigError, match="unknown convention 'thesys': did you mean 'thesis'"):
        restated_rows(rows, "thesys")


def one_row(sampling: str, model: str, done: int | None, **scores: tuple[float, float | None]) -> dict:
    """A row as ``table_rows`` makes it, as far as a convention looks at it; scores are mean and spread."""
    head = {"source": "", "sampling": sampling, "model": model, "baseline": done is None}
    counts = {} if done is None else {"seeds": 2, "done": done}
    cells = {name.replace("_", "-"): {"mean": mean, "spread": spread} for name, (mean, spread) in scores.items()}
    return {**head, **counts, "unit": {"num_pixels": 16, "num_frames": 6, "scores": cells} if scores else {}}


def test_printed_as_the_thesis_prints_it(tmp_path, capsys):
    rows = [
        one_row("regular", "convgru", 2, mse=(80.724e-4, 2e-5), mae=(178.22e-4, 0.0), ssim=(0.92383, None)),
        one_row("regular", "persistence", None, mse=(0.1, None), psnr_batch=(10.0, None)),
        one_row("irregular-inputs", "trajgru (times ignored)", 0),
    ]
    print_benchmark(Benchmark(tmp_path, [], rows), "thesis", False)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    head = ["Model", "Seeds", *" ".join(THESIS_LABELS).split()]
    assert lines[:9] == [
        ["Sampling", "assumption:", "regular"],
        head,
        ["convgru", "2/2", "80.724", "±", "0.2", "178.22", "92.383"],
        ["persistence", "1000.0", "10.000"],
        [],
        ["Sampling", "assumption:", "irregular-inputs"],
        head,
        ["trajgru", "(times", "ignored)", "0/2"],
        [],
    ]
    assert " ".join(lines[-1]) == "PSNR in dB: mean over batches, [0, 1]"
    with (tmp_path / "table-thesis.csv").open(newline="") as file:
        flat = list(csv.DictReader(file))
    assert [row["model"] for row in flat] == [row["model"] for row in rows]
    assert float(flat[1]["PSNR in dB (mean over batches, [0, 1]) mean"]) == pytest.approx(10)
    print_benchmark(Benchmark(tmp_path, [], rows), "thesis", True)
    assert json.loads(capsys.readouterr().out) == restated_rows(rows, "thesis")


def test_seeds_of_a_model_that_ignores_times_are_one_row(small_benchmark, tmp_path):
    values = small_benchmark()
    values["models"] = [{**values["models"][1]}]
    values["models"][0]["model"]["ignore_times"] = True
    jobs = read_plan(values, "here").jobs
    for job in jobs:
        write_scored(tmp_path / job.name, job, 2.0)
    rows = table_rows(tmp_path, jobs, {job.name: {"state": "finished", "reason": ""} for job in jobs})
    assert [(row["model"], row.get("done")) for row in rows] == [("trajgru (times ignored)", 2), ("persistence", None)]
    assert rows[0]["scores"]["mse"]["mean"] == pytest.approx(2)
    assert [row["model"] for row in restated_rows(rows, "thesis")] == ["trajgru (times ignored)", "persistence"]


@pytest.mark.parametrize(
    ("spread", "text"), [(0.0123, "0.012"), (7.04, "7"), (99.4, "99"), (99.6, "100"), (183.2, "183")]
)
def test_a_spread_has_two_digits_and_no_exponent(spread, text):
    assert spread_text(spread) == text
