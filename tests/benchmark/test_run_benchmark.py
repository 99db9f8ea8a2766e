"""Whole benchmarks: jobs that fail, stop, go on, are done already, or have changed."""

import json
import os
import signal
import threading
import time

import pytest

from fieldcast.benchmark import run_benchmark
from fieldcast.benchmark.launch import Outcome
from fieldcast.benchmark.run_benchmark import Benchmark, benchmark
from fieldcast.checkpoint import checkpoints
from fieldcast.cli import app
from fieldcast.errors import ConfigError, FieldcastError, TrainingStopped
from fieldcast.run import Run

FILES = ("measures.json", "scores.nc", "status.json")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("benchmark") / "small"


@pytest.fixture
def values(small_benchmark):
    """Two models and two seeds, of which every one of the second model fails."""
    values = small_benchmark()
    values["models"][1]["training"] = {"learning_rate": 1e30}
    return values


@pytest.fixture
def no_jobs(monkeypatch):
    """Nothing may be started."""
    monkeypatch.setattr(run_benchmark, "run_job", lambda order: pytest.fail(f"{order.folder} was started"))


def states(root) -> dict:
    return {job["job"]: job["state"] for job in json.loads((root / "benchmark.json").read_text())["jobs"]}


def written(root) -> dict:
    return {path: path.stat().st_mtime_ns for name in FILES for path in root.glob(f"convgru--*/{name}")}


def test_one_that_fails_does_not_keep_others_from_being_done(values, root, capfd):
    result = benchmark(values, root, workers=2)
    wanted = {f"{model}--seed{seed}": state for model, state in (("convgru", "finished"), ("trajgru", "failed"))
              for seed in (0, 1)}  # fmt: skip
    assert states(root) == {job["job"]: job["state"] for job in result.jobs} == wanted
    assert result.exit_code == 1
    assert {job["exit_code"] for job in result.jobs if job["state"] == "failed"} == {5}
    good, bad, *baselines = result.rows
    assert (good["done"], bad["done"]) == (2, 0)
    assert all(reason.startswith("loss ") and "learning_rate" in reason for reason in bad["failed"].values())
    assert good["scores"]["mse"]["spread"] > 0
    assert "persistence" in [row["model"] for row in baselines]
    for name in ("parameters", "multiply_adds", "step_seconds", "forecast_seconds", "training_seconds"):
        assert good[name] > 0, name
    assert 50e6 < good["peak_memory_bytes"] < 5e9
    assert len(written(root)) == 2 * len(FILES)
    assert not list(root.glob("*/lock.json"))
    assert json.loads((root / "table.json").read_text()) == result.rows
    assert "[4/4]" in capfd.readouterr().err


@pytest.mark.usefixtures("no_jobs")
def test_what_is_done_is_left_alone(values, root):
    before = written(root)
    result = benchmark(values, root, only="convgru*")
    assert written(root) == before
    assert result.exit_code == 1  # of the others, which failed the last time
    assert [row["done"] for row in result.rows[:2]] == [2, 0]
    assert len(result.rows[1]["failed"]) == 2


@pytest.mark.usefixtures("no_jobs")
def test_a_changed_job_is_refused(values, root):
    values["common"]["training"]["num_steps"] = 8
    values["models"][1]["model"]["num_links"] = 3
    with pytest.raises(ConfigError) as caught:
        benchmark(values, root)
    text = str(caught.value)
    assert "convgru--seed1 was begun with other settings: training.num_steps;" in text
    assert "trajgru--seed0 was begun with other settings: model.num_links, training.num_steps;" in text


@pytest.mark.usefixtures("no_jobs")
def test_options_that_do_not_fit(values, root):
    with pytest.raises(ConfigError, match=r"only 'convlstm\*' fits no job: convgru--seed0, convgru--seed1, "):
        benchmark(values, root, only="convlstm*")
    with pytest.raises(ConfigError, match="workers = 0: at least 1"):
        benchmark(values, root, workers=0)
    (root / "lock.json").write_text(json.dumps({"pid": os.getppid(), "host": os.uname().nodename}))
    with pytest.raises(ConfigError, match="is in use by another process"):
        benchmark(values, root)
    (root / "lock.json").unlink()


@pytest.mark.usefixtures("no_jobs")
def test_a_budget_has_a_folder_of_its_own(values, tmp_path, monkeypatch, capfd):
    values["budgets"] = {"quick": {"seeds": [0]}}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_benchmark, "run_job", lambda order: Outcome("stopped", 75, "", 0.0))
    result = benchmark(values, budget="quick")
    assert result.folder == tmp_path / "runs" / "small-quick"
    assert [job["job"] for job in result.jobs] == ["convgru--seed0", "trajgru--seed0"]
    assert "small-quick: 2 jobs, 2 to do" in capfd.readouterr().err


@pytest.mark.usefixtures("no_jobs")
def test_the_command_line(values, tmp_path, monkeypatch, capsys):
    (tmp_path / "plan.toml").write_text('name = "plan"\nmodels = [{ name = "a" }]\n[budgets.quick]\n')
    calls = []

    def stand_in(*arguments):
        calls.append(arguments)
        return Benchmark(tmp_path, [], [])

    def call(*words: str) -> None:
        app(["benchmark", str(tmp_path / "plan.toml"), *words], standalone_mode=False)

    monkeypatch.setattr(run_benchmark, "benchmark", stand_in)
    call("--budget", "quick", "--workers", "2", "--json")
    call("--scheduler", "tcp://here:1", "--set", "common.source.digits=mine.npz", "--only", "a*", "--json")
    assert calls[0] == (tmp_path / "plan.toml", None, 2, None, "auto", "quick")
    assert calls[1][0]["common"] == {"source": {"digits": "mine.npz"}}
    assert calls[1][1:] == (None, "tcp://here:1", "a*", "auto", None)
    with pytest.raises(ConfigError, match="unknown convention 'thesys': did you mean 'thesis'"):
        call("--convention", "thesys")
    assert len(calls) == 2


@pytest.mark.slow
def test_stopped_and_gone_on_with(small_benchmark, tmp_path):
    values = small_benchmark(**{"training.num_steps": 300, "training.validation.every": 20})
    values["models"].pop()
    folder = tmp_path / "convgru--seed0"

    def ask() -> None:
        deadline = time.monotonic() + 120
        while not checkpoints(folder / "checkpoints") and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=ask)
    thread.start()
    with pytest.raises(TrainingStopped, match="2 jobs are not finished"):
        benchmark(values, tmp_path)
    thread.join()
    assert list(states(tmp_path).values()) == ["stopped", "stopped"]
    assert not (tmp_path / "convgru--seed1").exists()
    status = Run(folder).status()
    assert (status["state"], status["exit_code"]) == ("stopped", 75)
    step = int(status["checkpoint"].removeprefix("step-"))
    assert 0 < step < 300

    result = benchmark(values, tmp_path, only="*seed0")
    assert f"; cpu; from step {step}\n" in (folder / "job.log").read_text()
    assert states(tmp_path) == {"convgru--seed0": "finished", "convgru--seed1": "stopped"}
    assert result.exit_code == 75
    assert Run(folder).history()[-1]["step"] == 300


def test_jobs_that_go_on_when_their_benchmark_fails_are_stopped(small_benchmark, tmp_path, monkeypatch):
    stops = []
    monkeypatch.setattr(run_benchmark, "run_job", lambda order: stops.append(order.stop) or pytest.fail("unreachable"))
    monkeypatch.setattr(run_benchmark, "_take", lambda result: (_ for _ in ()).throw(FieldcastError("disk full")))
    with pytest.raises(FieldcastError, match="disk full"):
        benchmark(small_benchmark(), tmp_path)
    assert (tmp_path / "stop").exists()
    assert set(stops) == {str(tmp_path / "stop")}
