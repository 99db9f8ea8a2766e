"""What becomes of a job's process, with small scripts in the place of Python."""

import json
import sys
import threading
import time

import pytest

from fieldcast.benchmark.launch import Order, dask_executor, run_job
from fieldcast.errors import ConfigError, MissingExtra

CASES = {
    "exit 0": ("finished", 0, ""),
    "echo 'error: no rain' >&2; exit 3": ("failed", 3, "no rain"),
    "echo 'error: saved' >&2; exit 75": ("stopped", 75, "saved"),
    "exit 9": ("failed", 9, "exit code 9: see "),
    "kill -9 $$": ("failed", -9, "killed by SIGKILL (out of memory?): see "),
    "kill -TERM $$": ("stopped", -15, "killed by SIGTERM: see "),
}


@pytest.fixture
def order(tmp_path, monkeypatch):
    """Makes the order of a job that is a shell script."""

    def make(script: str, threads=None) -> Order:
        program = tmp_path / "program"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))
        return Order(str(tmp_path / "job"), {"seed": 3}, "cpu", str(tmp_path), str(tmp_path / "stop"), threads)

    return make


@pytest.mark.parametrize("script", CASES)
def test_how_it_ended(script, order):
    outcome = run_job(order(script))
    state, code, reason = CASES[script]
    assert outcome[:2] == (state, code)
    assert outcome.reason.startswith(reason)
    assert bool(outcome.reason) == bool(reason)


def test_what_it_is_told(order, tmp_path):
    assert run_job(order('echo "$@" $OMP_NUM_THREADS $PWD', threads=3)).state == "finished"
    words = (tmp_path / "job" / "job.log").read_text().split()
    assert words == ["-m", "fieldcast.benchmark.job", str(tmp_path / "job"), "cpu", "3", str(tmp_path)]
    assert json.loads((tmp_path / "job" / "job.json").read_text()) == {"seed": 3}


def test_its_input_ends_when_it_is_to_stop(order, tmp_path):
    waits = order("touch begun; cat; exit 75")

    def stop() -> None:
        while not (tmp_path / "begun").exists():
            time.sleep(0.01)
        (tmp_path / "stop").touch()

    thread = threading.Thread(target=stop)
    thread.start()
    assert run_job(waits).state == "stopped"
    thread.join()


def test_nothing_starts_after_a_stop(order, tmp_path):
    (tmp_path / "stop").touch()
    assert run_job(order("exit 0")).state == "stopped"
    assert not (tmp_path / "job").exists()


def test_dask_that_is_not_there(monkeypatch):
    with pytest.raises(ConfigError, match="scheduler 'nonsense://here'"), dask_executor("nonsense://here"):
        pass
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingExtra, match="a Dask scheduler needs the 'dask' extra"), dask_executor("tcp://here:1"):
        pass
