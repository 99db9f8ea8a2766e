import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as distributed
from hypothesis import given, settings
from hypothesis import strategies as st
from surrogate_fixtures import as_network, autograd_kernels, random_sequences, smooth_network
from torch import nn

from fieldcast.errors import CheckpointError, ConfigError, DataError
from fieldcast.explain import averaging
from fieldcast.explain.averaging import AveragingSettings, average_kernels, draw_blocks
from fieldcast.processes import Processes

SEQUENCES = random_sequences(24)


def read(number):
    return SEQUENCES[number : number + 1]


def average(network, folder=None, reader=read, **changes):
    chosen = AveragingSettings(**{"num_blocks": 6, **changes})
    return average_kernels(network, reader, range(len(SEQUENCES)), chosen, folder)


def assert_same(one, other, **tolerance):
    for name in ("value", "offset", "weights"):
        torch.testing.assert_close(getattr(one.kernels, name), getattr(other.kernels, name), **tolerance)
    for name in ("offset_error", "weights_error", "curve_error", "prediction_error", "num_sequences", "num_blocks"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), **tolerance)


def test_averages_and_errors_are_those_of_a_loop_over_all():
    network = smooth_network()
    kernels = [autograd_kernels(network, read(number)) for number in range(24)]
    offsets, weights = (torch.stack(parts) for parts in zip(*kernels, strict=True))
    result = average(network)
    torch.testing.assert_close(result.kernels.offset, offsets.mean(0), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(result.kernels.weights, weights.mean(0), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(result.kernels.value, network(SEQUENCES).mean(0).detach(), rtol=1e-12, atol=1e-13)
    blocks = weights.view(6, 4, *weights.shape[1:]).mean(1)
    torch.testing.assert_close(result.weights_error, blocks.std(0) / 6**0.5, rtol=1e-10, atol=1e-13)
    curves = blocks.sum((-2, -1))
    torch.testing.assert_close(result.curve_error, curves.std(0) / 6**0.5, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(
        result.offset_error, offsets.view(6, 4, 3).mean(1).std(0) / 6**0.5, rtol=1e-10, atol=1e-13
    )
    assert result.num_sequences.tolist() == [24] * 3
    assert result.num_blocks.tolist() == [6] * 3


def test_the_mean_is_that_of_all_even_where_blocks_differ_in_length():
    network = smooth_network()
    weights = torch.stack([autograd_kernels(network, read(number))[1] for number in range(24)])
    torch.testing.assert_close(average(network, num_blocks=7).kernels.weights, weights.mean(0), rtol=1e-12, atol=1e-13)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 40), st.integers(2, 12), st.data())
def test_blocks_share_what_is_drawn(total, num_blocks, data):
    wanted = data.draw(st.one_of(st.none(), st.integers(1, total)))
    chosen = AveragingSettings(num_sequences=wanted, num_blocks=num_blocks, seed=data.draw(st.integers(0, 9)))
    numbers = range(100, 100 + total)
    if (wanted or total) < num_blocks:
        with pytest.raises(ConfigError, match="make no"):
            draw_blocks(numbers, chosen)
        return
    blocks = draw_blocks(numbers, chosen)
    drawn = sorted(blocks)
    assert len(blocks) == num_blocks
    assert max(map(len, blocks)) - min(map(len, blocks)) <= 1
    together = [number for block in drawn for number in block]
    assert together == sorted(set(together)) and set(together) <= set(numbers)  # none twice, no block across another
    assert len(together) == (wanted or total)


class Half(nn.Module):
    """Half the sum of squares: its kernel at x is x."""

    def forward(self, inputs):
        return inputs.square().flatten(1).sum(1, keepdim=True) / 2


def test_errors_hold_where_neighbours_are_alike():
    # A first-order autoregression remembers (1 + 0.8) / (1 - 0.8) = 9 steps: errors as of independent draws would be
    # 3 times too small. Its mean is 0, and each of the 2000 pixels is a record of its own.
    random = np.random.default_rng(0)
    record = np.zeros((600, 2000))
    record[0] = random.standard_normal(2000) / 0.6
    for step in range(1, 600):
        record[step] = 0.8 * record[step - 1] + random.standard_normal(2000)
    frames = torch.from_numpy(record).view(600, 1, 1, 1, 1, 2000)
    network = as_network(Half(), 1, (1, 1, 1, 2000))
    for wanted in (None, 100):
        chosen = AveragingSettings(num_sequences=wanted, num_blocks=10)
        result = average_kernels(network, frames.__getitem__, range(600), chosen)
        ratio = result.weights_error.square().mean() / result.kernels.weights.square().mean()
        assert 0.8 < ratio.sqrt() < 1.05


@pytest.mark.parametrize("memory", [1024, 0.004])
def test_chunks_of_outputs_give_the_same(memory):
    network = smooth_network()
    torch.testing.assert_close(
        average(network, memory_megabytes=memory).kernels.weights, average(network).kernels.weights
    )


def stop_at(count, number):
    if count[0] == 0:
        raise KeyboardInterrupt
    count[0] -= 1
    return read(number)


@pytest.mark.parametrize(("memory", "rounds"), [(1024, 1), (0.004, 3)])
def test_a_killed_run_ends_with_the_same_bits(monkeypatch, tmp_path, memory, rounds):
    monkeypatch.setattr(averaging, "SAVE_EVERY", 0)
    network = smooth_network()
    with pytest.raises(KeyboardInterrupt):
        average(network, tmp_path, partial(stop_at, [16 + 14]), memory_megabytes=memory)  # 16 probes come first
    assert list(tmp_path.iterdir())
    taken = []
    result = average(network, tmp_path, lambda number: taken.append(number) or read(number), memory_megabytes=memory)
    assert len(taken) == 16 + rounds * 24 - 12  # of 14 sequences, 3 blocks of 4 were kept
    whole = average(network, memory_megabytes=memory)
    assert_same(result, whole, rtol=0, atol=0)
    assert_same(average(network, tmp_path, memory_megabytes=memory), whole, rtol=0, atol=0)  # nothing left to do


def test_a_state_of_something_else_is_refused(tmp_path):
    network = smooth_network()
    average(network, tmp_path)
    with pytest.raises(CheckpointError, match="another network"):
        average(smooth_network(seed=7), tmp_path)
    with pytest.raises(CheckpointError, match="other sequences"):
        average(network, tmp_path, lambda number: read(number) + 1)
    with pytest.raises(CheckpointError, match="other settings"):
        average(network, tmp_path, seed=1)
    next(tmp_path.iterdir()).write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="no state of an average"):
        average(network, tmp_path)


def test_a_tolerance_stops_early_and_is_kept():
    network = smooth_network(strength=2.0)
    sequences = random_sequences(400)
    reader = lambda number: sequences[number : number + 1]  # noqa: E731
    chosen = AveragingSettings(num_blocks=100, tolerance=0.3)
    result = average_kernels(network, reader, range(400), chosen)
    assert result.num_blocks[0] % 10 == 0 and result.num_blocks[0] < 100
    assert result.num_sequences[0] == 4 * result.num_blocks[0]
    whole = average_kernels(network, reader, range(400), AveragingSettings(num_blocks=100))
    error = (result.kernels.predict(sequences) - whole.kernels.predict(sequences)).square().mean(0).sqrt()
    scale = network(sequences).detach().std(0)
    assert (result.prediction_error <= 0.33 * scale).all()
    assert (error < 0.45 * scale).all()


def test_wrong_inputs_are_named():
    network = smooth_network()
    with pytest.raises(ConfigError, match="num_sequences = 30: there are 24"):
        average(network, num_sequences=30)
    with pytest.raises(DataError, match="kernels at sequence 5 are not finite"):
        average(network, reader=lambda number: read(number) * (torch.inf if number == 5 else 1))


class Threads(Processes):
    """Threads in place of processes, which add what each brings."""

    def share(self, meeting, brought):
        object.__setattr__(self, "meeting", meeting)
        object.__setattr__(self, "brought", brought)
        return self

    def add(self, values):
        self.brought[self.rank] = values
        self.meeting.wait()
        total = sum(self.brought[rank] for rank in range(self.count))
        self.meeting.wait()
        return values.copy_(total)


@pytest.mark.parametrize("count", [2, 4])
def test_many_processes_give_the_average_of_one(tmp_path, count):
    chosen = AveragingSettings(num_blocks=6)
    meeting, brought = threading.Barrier(count, timeout=60), {}
    networks = [smooth_network() for _ in range(count)]

    def work(rank):
        together = Threads(rank, count).share(meeting, brought)
        return average_kernels(networks[rank], read, range(24), chosen, tmp_path, together)

    with ThreadPoolExecutor(count) as pool:
        results = list(pool.map(work, range(count)))
    for result in results:
        assert_same(result, average(networks[0]), rtol=1e-11, atol=1e-14)


SCRIPT = """
import sys
sys.path[:0] = {paths!r}
import torch
from surrogate_fixtures import random_sequences, smooth_network
from fieldcast.explain.averaging import AveragingSettings, average_kernels
from fieldcast.processes import join_processes
from pathlib import Path
sequences = random_sequences(24)
with join_processes(torch.device("cpu")) as processes:
    result = average_kernels(
        smooth_network(), lambda number: sequences[number:number + 1], range(24),
        AveragingSettings(num_blocks=5), Path({folder!r}), processes,
    )
    torch.save(vars(result.kernels) | {{"error": result.weights_error}}, f"{folder}/result-{{processes.rank}}.pt")
"""


@pytest.mark.slow
@pytest.mark.skipif(not distributed.is_available(), reason="this torch has no torch.distributed")
def test_two_processes_give_the_average_of_one(tmp_path):
    script = SCRIPT.format(paths=[str(Path(__file__).parents[1])], folder=str(tmp_path))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            env=os.environ | group | {"RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=200)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], errors
    alone = average(smooth_network(), num_blocks=5)
    for rank in range(2):
        result = torch.load(tmp_path / f"result-{rank}.pt")
        torch.testing.assert_close(result["weights"], alone.kernels.weights, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(result["offset"], alone.kernels.offset, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(result["error"], alone.weights_error, rtol=1e-10, atol=1e-14)
