"""Sums by stretches of time: which samples belong together, files, several processes, several seeds."""

import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
import xarray as xr

from fieldcast.data.dataset import spread
from fieldcast.errors import DataError
from fieldcast.evaluation import evaluate, load_scores, run_tally
from fieldcast.evaluation.tally import MAX_STRETCHES, make_stretches, merge, rename


@pytest.fixture(scope="module")
def tally(shared_run):
    evaluate(shared_run, device="cpu")
    return run_tally(shared_run)


NAMED = ["convgru", "persistence", "climatology", "optical-flow"]


def test_every_sample_is_in_one_stretch_in_order(shared_run):
    samples = shared_run.samples()[1]["test"]
    numbers = spread(len(samples), None)
    stretches = make_stretches(samples, numbers)
    assert [number for stretch in stretches for number in stretch.numbers] == numbers
    assert all(len(stretch.numbers) == 1 for stretch in stretches)
    times = [stretch.time for stretch in stretches]
    assert times == sorted(times)
    which, start = samples.starts[0]
    assert times[0] == samples.sequences[which].times[start + 2]


def test_many_samples_share_stretches(shared_run):
    samples = shared_run.samples()[1]["test"]
    many = [0] * (3 * MAX_STRETCHES)
    stretches = make_stretches(samples, many)
    assert len(stretches) == MAX_STRETCHES
    assert {len(stretch.numbers) for stretch in stretches} == {3}


def test_sums_of_stretches_add_to_the_scores(shared_run, tally):
    scores = load_scores(shared_run)
    per_stretch = tally.scores("mse", "physical", "persistence")
    assert per_stretch.shape == (len(tally.stretches),)
    # No pixel is missing unevenly here, so that the mean of means is the mean.
    assert per_stretch.mean().item() == pytest.approx(
        float(scores.mse_overall.sel(space="physical", model="persistence")), rel=1e-9
    )
    assert tally.scores("csi", "physical", "persistence").shape[1] == scores.sizes["threshold"]


def test_a_file_gives_back_the_tally(shared_run, tally):
    again = run_tally(shared_run)
    assert again.spaces == tally.spaces
    assert again.stretches == tally.stretches
    assert again.models == NAMED
    for key, value in tally.sums.items():
        torch.testing.assert_close(again.sums[key], value, rtol=0, atol=0, equal_nan=True)


def test_models_of_several_runs_share_a_table_only_over_the_same_samples(tally):
    other = rename(tally, {"convgru": "another"})
    joint = merge([tally, other])
    assert joint.models == [*tally.models, "another"]
    key = ("physical", "another", "error_sums")
    assert torch.equal(joint.sums[key], tally.sums["physical", "convgru", "error_sums"])
    fewer = rename(tally, {"convgru": "another"})
    fewer.stretches = tally.stretches[1:]
    with pytest.raises(DataError, match="scored on different samples"):
        merge([tally, fewer])


@pytest.mark.whole
def test_two_processes_give_the_scores_of_one(tiny_run):
    alone = evaluate(tiny_run, device="cpu")
    (tiny_run.folder / "scores.nc").unlink()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = f"from fieldcast.run import Run; import fieldcast; fieldcast.evaluate(Run({str(tiny_run.folder)!r}))"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            env=os.environ
            | {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=200)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], errors
    together = load_scores(tiny_run)
    xr.testing.assert_allclose(together, alone, rtol=1e-9)
    np.testing.assert_array_equal(together["num-events"], alone["num-events"])
