"""What a model costs: weights, multiply-adds, time and memory.

Shapes: B batch, T input frames, S target frames, C channels, H rows, W columns.
"""

import math
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from fieldcast.data import Batch
from fieldcast.models import Forecaster, count_parameters
from fieldcast.processes import Processes, autocast, choose_device
from fieldcast.run import Run, write_json
from fieldcast.training.loop import load_batch, train_step
from fieldcast.training.session import open_session

MEASURES = "measures.json"
CORNERS = 4  # pixels that a bilinear sample is made of
NUM_TIMES = 7
SECONDS = 30.0  # after which no further time is taken


def measure(run: Run, device_name: str = "auto") -> dict[str, Any]:
    """Measure a finished run in this process, and save it as measures.json in the run.

    Returns:
        ``parameters``; ``multiply_adds`` of a forecast of one sample, whole map; ``step_seconds``, the median time of a
        training step at the run's batch size; ``forecast_seconds``, that of a forecast of one sample;
        ``peak_memory_bytes`` of the process so far, ``cuda_peak_memory_bytes`` of torch on the device (None without);
        ``training_seconds``; ``batch_size``, ``threads``, ``device``.
    """
    device = choose_device(device_name)
    precision = run.config.training.precision
    _, samples = run.samples()
    sample = samples["test"].batch([0]).to(device)
    model = run.model(device)
    cuda = device.type == "cuda"
    measures = {
        "parameters": count_parameters(model),
        "multiply_adds": multiply_adds(model, sample),
        "forecast_seconds": median_seconds(lambda: _forecast(model, sample, precision), device),
        "step_seconds": _step_seconds(run, device),
        "peak_memory_bytes": peak_memory(),
        "cuda_peak_memory_bytes": torch.cuda.max_memory_allocated(device) if cuda else None,
        "training_seconds": run.history()[-1]["seconds"],
        "batch_size": run.config.training.batch_size,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if cuda else "cpu",
    }
    write_json(run.folder / MEASURES, measures)
    return measures


@torch.inference_mode()
def _forecast(model: Forecaster, batch: Batch, precision: str) -> None:
    with autocast(batch.inputs.device, precision):
        model(batch.inputs, batch.input_times, batch.target_times)


def multiply_adds(model: Forecaster, batch: Batch) -> int:
    """Multiply-adds of one forecast of a batch, counted from the shapes of the operations it goes through.

    Counted: convolutions and transposed convolutions (taps on the padding too), matrix products and attention, each
    half of torch's count of floating point operations, and bilinear sampling with 4 an output value, which torch leaves
    out. Not counted: what works value by value (gates, activations, norms, losses), sums, pooling, Fourier transforms.
    A solver that chooses its own steps is counted with those it took for this batch. The model and the frames may lie
    on the meta device (times may not), where the model asks nothing of their values.
    """
    sampling = torch.ops.aten.grid_sampler_2d, torch.ops.aten.cudnn_grid_sampler
    counter = FlopCounterMode(display=False, custom_mapping=dict.fromkeys(sampling, _sampling_operations))
    with counter, torch.no_grad():
        model(batch.inputs, batch.input_times, batch.target_times)
    return counter.get_total_flops() // 2


def _sampling_operations(*shapes: Any, out_shape: tuple[int, ...], **options: Any) -> int:
    """Floating point operations of a bilinear sampling, in the form that torch's counter asks for."""
    return 2 * CORNERS * math.prod(out_shape)


def median_seconds(work: Callable[[], object], device: torch.device) -> float:
    """Median time of a piece of work after one that warms up."""
    work()
    times: list[float] = []
    while len(times) < NUM_TIMES and sum(times) < SECONDS:
        _wait_for(device)
        started = time.perf_counter()
        work()
        _wait_for(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _step_seconds(run: Run, device: torch.device) -> float:
    """Time of a training step on a batch that is read already, with weights that nobody saves."""
    session = open_session(run.config, run.folder, device, Processes())
    step = run.config.training.num_steps - 1
    batch = load_batch(session, step)
    return median_seconds(lambda: train_step(session, batch, step), device)


def peak_memory() -> int:
    """Largest memory in bytes that this process has held at once."""
    status = Path("/proc/self/status")
    if status.is_file():
        # What getrusage says of a process on Linux begins with the memory of the one that started it.
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        if "VmHWM" in lines:
            return int(lines["VmHWM"].split()[0]) * 1024
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024
