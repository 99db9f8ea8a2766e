"""Multiply-adds against counts by hand and torch's own, and memory that is a process's own."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from fieldcast.benchmark.measure import multiply_adds, peak_memory
from fieldcast.data import Batch
from fieldcast.models import build

INPUTS, TARGETS, SIDE = 3, 2, 16
PYRAMID = {"widths": [4, 6], "strides": [1, 2], "head_width": 5}
SETTINGS = {
    "convgru": PYRAMID,
    "trajgru": {**PYRAMID, "num_links": 3, "flow_width": 2},
    "convlstm": {"widths": [4, 6], "input_kernel": 5, "state_kernel": 3},
    "convlstm-stack": {"widths": [4, 6], "kernel": 3},
}


def one_batch(device="cpu", size=1, side=SIDE) -> Batch:
    def frames(number):
        return torch.zeros(size, number, 1, side, side, device=device)

    def times(first, number):
        return torch.arange(float(first), first + number).expand(size, -1)

    targets, origin = frames(TARGETS), torch.zeros(size, dtype=torch.int64)
    return Batch(frames(INPUTS), times(1 - INPUTS, INPUTS), targets, times(1, TARGETS), targets == 0, origin)


def convolution(pixels, width_in, width_out, kernel):
    return pixels * width_in * width_out * kernel**2


def gru_pyramid(cell_with_input, cell_alone) -> int:
    """Two layers, 4 wide at 16 x 16 and 6 wide at 8 x 8; what lies between the cells is the same for all cells."""
    whole, half = 16 * 16, 8 * 8
    encoder = convolution(whole, 1, 4, 3) + cell_with_input(whole, 4, 4)
    encoder += convolution(half, 4, 6, 3) + cell_with_input(half, 6, 6)
    # A transposed convolution multiplies each pixel that it reads with every tap.
    forecaster = cell_alone(half, 6) + convolution(half, 6, 4, 4)
    forecaster += cell_with_input(whole, 4, 4) + convolution(whole, 4, 32, 3)
    head = convolution(whole, 32, 5, 3) + convolution(whole, 5, 1, 1)
    return INPUTS * encoder + TARGETS * (forecaster + head)


def conv_gru(pixels, below, width):
    return convolution(pixels, below, 3 * width, 3) + conv_gru_alone(pixels, width)


def conv_gru_alone(pixels, width):
    return convolution(pixels, width, 3 * width, 3)


def traj_gru(pixels, below, width):
    return convolution(pixels, below, 3 * width, 3) + convolution(pixels, below, 2, 3) + traj_gru_alone(pixels, width)


def traj_gru_alone(pixels, width, links=3, flow=2):
    flows = convolution(pixels, width, flow, 3) + convolution(pixels, flow, 2 * links, 3)
    return flows + 4 * links * width * pixels + convolution(pixels, links * width, 3 * width, 1)


def conv_lstm() -> int:
    """Frames of 16 x 16 are 16 channels of 4 x 4."""
    pixels = 4 * 4
    first_state, second_state = convolution(pixels, 4, 16, 3), convolution(pixels, 6, 24, 3)
    second_input = convolution(pixels, 4, 24, 5)
    encoder = convolution(pixels, 16, 16, 5) + first_state + second_input + second_state
    forecaster = first_state + second_input + second_state + convolution(pixels, 4 + 6, 16, 1)
    return INPUTS * encoder + TARGETS * forecaster


BY_HAND = {
    "convgru": gru_pyramid(conv_gru, conv_gru_alone),
    "trajgru": gru_pyramid(traj_gru, traj_gru_alone),
    "convlstm": conv_lstm(),
}


@pytest.mark.parametrize("key", BY_HAND)
def test_counts_by_hand(key):
    assert multiply_adds(build(key, **SETTINGS[key]), one_batch()) == BY_HAND[key]


@pytest.mark.parametrize("key", SETTINGS)
def test_shapes_alone_decide(key):
    on_cpu = multiply_adds(build(key, **SETTINGS[key]), one_batch())
    with torch.device("meta"):
        model = build(key, **SETTINGS[key])
    assert multiply_adds(model, one_batch("meta")) == on_cpu
    assert multiply_adds(model, one_batch("meta", size=3)) == 3 * on_cpu
    assert multiply_adds(model, one_batch("meta", side=2 * SIDE)) == 4 * on_cpu


@pytest.mark.parametrize("key", SETTINGS)
def test_torch_counts_the_same_but_for_sampling(key):
    model, batch = build(key, **SETTINGS[key]), one_batch()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(batch.inputs, batch.input_times, batch.target_times)
    sampled = (INPUTS + TARGETS) * 3 * 4 * (4 * 16 * 16 + 6 * 8 * 8) if key == "trajgru" else 0
    assert 2 * (multiply_adds(model, batch) - sampled) == counter.get_total_flops()


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="only Linux tells a process's own peak")
def test_peak_memory_is_not_that_of_the_parent():
    alone = peak_memory()
    held = np.ones(100_000_000)
    held = held[:1].copy()
    assert peak_memory() > alone + 100_000_000 or alone > 800_000_000, held
    script = "from fieldcast.benchmark.measure import peak_memory; print(peak_memory())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert 50_000_000 < int(done.stdout) < peak_memory()
