"""What is left to do of a job is done, and nothing else."""

from contextlib import contextmanager

import pytest

from fieldcast.benchmark import job
from fieldcast.benchmark.job import ORDER, do_job, is_done
from fieldcast.benchmark.plan import read_plan
from fieldcast.errors import TrainingStopped
from fieldcast.run import Run, write_json
from fieldcast.training import loop
from fieldcast.training.interrupts import StopRequest

FILES = ("measures.json", "scores.nc", "history.csv", "status.json")


@pytest.fixture
def folder(small_benchmark, tmp_path):
    """The folder of a job that was never begun."""
    write_json(tmp_path / ORDER, read_plan(small_benchmark(), "here").jobs[0].config.resolved())
    return tmp_path


def written(folder) -> dict:
    return {name: (folder / name).stat().st_mtime_ns for name in FILES}


def test_a_job_is_done_once(folder):
    assert not is_done(folder)
    do_job(folder, "cpu")
    assert is_done(folder)
    before = written(folder)
    do_job(folder, "cpu")
    assert written(folder) == before

    (folder / "measures.json").unlink()
    assert not is_done(folder)
    history = (folder / "history.csv").read_text()
    do_job(folder, "cpu")
    assert is_done(folder)
    assert written(folder)["scores.nc"] == before["scores.nc"]
    assert (folder / "history.csv").read_text() == history


def test_a_job_that_was_stopped_goes_on(folder, monkeypatch):
    @contextmanager
    def listen():
        yield StopRequest(made=True)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "listen", listen)
        with pytest.raises(TrainingStopped):
            do_job(folder, "cpu")
        assert Run(folder).status()["checkpoint"] == "step-00000001"
        assert not is_done(folder)
        patched.setattr(job, "train", lambda *_: pytest.fail("began again"))
    do_job(folder, "cpu")
    assert is_done(folder)
    assert [row["step"] for row in Run(folder).history()] == [2, 4, 6]
