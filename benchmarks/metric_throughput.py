"""Stream synthetic frames of 64 x 64 through every pixel, window and event metric: frames a second, peak memory.

Seconds are those of the processor, all threads together, so that a busy machine counts for nothing.

    python benchmarks/metric_throughput.py [--frames 1000000]
"""

import argparse
import resource
import time
from collections.abc import Iterator

import torch
from torch import Tensor

from fieldcast.evaluation.spaces import Space
from fieldcast.evaluation.tally import Stretch, Tally
from fieldcast.evaluation_settings import RAIN_THRESHOLDS, RAIN_WEIGHTS, EvaluationSettings
from fieldcast.metrics import Yardstick

FAMILIES = ("pixels", "similarity", "events")
SIZE, LEAD_TIMES, BATCH = 64, 10, 32


def rain(num_frames: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Forecast, observation and validity (B, S, 1, H, W): smooth showers in mm/h, two in a hundred pixels missing."""
    generator = torch.Generator().manual_seed(0)
    shape = (BATCH, LEAD_TIMES, 1, SIZE, SIZE)
    for _ in range(-(-num_frames // (BATCH * LEAD_TIMES))):
        coarse = torch.rand(2, BATCH * LEAD_TIMES, SIZE // 8, SIZE // 8, generator=generator)
        fine = torch.nn.functional.interpolate(coarse, size=(SIZE, SIZE), mode="bilinear").pow_(4).mul_(40)
        predicted, observed = fine.view(2, *shape)
        valid = torch.rand(shape, generator=generator) >= 0.02
        yield predicted, observed.masked_fill(~valid, torch.nan), valid


def peak_memory() -> float:
    """The largest memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=1_000_000)
    num_frames = parser.parse_args().frames
    scales = EvaluationSettings().scales
    yardstick = Yardstick("mm/h", 40.0, (SIZE, SIZE), RAIN_THRESHOLDS, RAIN_WEIGHTS, scales)
    space = Space("physical", 0, yardstick)
    metrics = {name: metric for name, metric in space.metrics().items() if metric.family in FAMILIES}
    functions = {metric.sums.__name__: metric.sums for metric in metrics.values()}
    seconds = dict.fromkeys(functions, 0.0)
    tally = Tally([space], [Stretch(0, 0, (0,))], [0.0] * LEAD_TIMES, True, 0)
    done, early = 0, None
    for fields in rain(num_frames):
        for name, function in functions.items():
            started = time.process_time()
            sums = function(*fields, yardstick)
            seconds[name] += time.process_time() - started
            key = ("physical", "forecast", name)
            tally.sums[key] = tally.sums.get(key, torch.zeros_like(sums)[None]) + sums
        done += BATCH * LEAD_TIMES
        early = early or (peak_memory() if done >= 10_000 else None)
    total = sum(seconds.values())
    print(f"{len(metrics)} metrics of {len(functions)} functions of sums, {torch.get_num_threads()} threads")
    for name, spent in sorted(seconds.items(), key=lambda item: -item[1]):
        print(f"  {name:32} {done / spent:12,.0f} frames a second")
    print(f"{done:,} frames in {total:.0f} s of processor time: {done / total:,.0f} frames a second")
    print(f"peak memory {peak_memory():.0f} MiB; after the first 10,000 frames {early or peak_memory():.0f} MiB")
    for name in ("mse", "ssim", "csi", "fss"):
        score = metrics[name].score(
            tally.sums["physical", "forecast", metrics[name].sums.__name__][0].sum(-1), yardstick
        )
        print(f"  {name}: {[round(value, 4) for value in score.flatten().tolist()]}")


if __name__ == "__main__":
    main()
