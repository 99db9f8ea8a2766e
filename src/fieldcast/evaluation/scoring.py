"""Scores of a run's forecaster and of the baselines, as sums over a split.

Shapes: M members, B batch, S targets of a sample, C channels, H rows, W columns, R stations.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from fieldcast.data import Batch, Samples
from fieldcast.data.dataset import spread
from fieldcast.data.source import StationSource
from fieldcast.evaluation.baselines import leave_out, with_baselines
from fieldcast.evaluation.files import save_scores
from fieldcast.evaluation.forecasts import draw_members, predict
from fieldcast.evaluation.sample_times import SampleTimes, read_sample_times
from fieldcast.evaluation.spaces import UNIT, Space, describe_spaces
from fieldcast.evaluation.table import make_table
from fieldcast.evaluation.tally import Compared, Tally, make_stretches
from fieldcast.models import Forecaster
from fieldcast.processes import Processes, choose_device, join_processes
from fieldcast.run import Run
from fieldcast.settings import look_up


def evaluate(
    run: Run, split: str = "test", num_samples: int | None = None, device: str = "auto", batch_size: int | None = None
) -> xr.Dataset:
    """Score the run's best checkpoint and the baselines on a split.

    Where samples have target times of their own, a lead time of the table is a whole cadence and has the targets that
    are nearest to it; scores over all lead times are over all targets. Under torchrun every process scores its share,
    and the first one writes.

    Args:
        run: a trained run.
        split: "test", "validation" or "train".
        num_samples: this many, spread evenly over the split; None: all.
        device: "auto", "cpu", "cuda".
        batch_size: samples at a time; None: as many pixels as in training.

    Returns:
        the table that ``make_table`` describes. The space "physical" is in the source's units with the data range that
        the training split spans, "unit" is normalised to [0, 1] by the run's normaliser. Saved as scores.nc in the run,
        with the sums it was made of as sums.safetensors.

    Raises:
        ConfigError: for an unknown split, or members of a model that does not draw.
    """
    torch_device = choose_device(device)
    _, splits = run.samples()
    samples: Samples = look_up(splits, split, "split")
    numbers = spread(len(samples), num_samples)
    settings = run.config.evaluation
    with join_processes(torch_device) as processes:
        times = read_sample_times(samples, numbers)
        models, absent = with_baselines(run, splits["train"], torch_device)
        models, unable = leave_out(models, times)
        spaces = describe_spaces(samples, settings)
        size = batch_size or samples.whole_maps(run.config.training.batch_size)
        # Members of a batch are in memory together.
        size = max(1, size // (settings.num_members or 1))
        scoring = _Scoring(models, samples, times, spaces, torch_device, size, run)
        tally = scoring.tally(numbers, processes)
        scores = make_table(tally, settings)
        scores.attrs |= _description(run, samples, tally)
        scores.attrs |= {"split": split, "num_samples": len(numbers), "batch_size": size}
        scores.attrs["left_out"] = "; ".join(filter(None, [scores.attrs["left_out"], *absent, *unable]))
        if processes.first:
            save_scores(run, scores, tally)
        processes.wait()
    return scores


def _description(run: Run, samples: Samples, tally: Tally) -> dict[str, str | int]:
    """What a table of a run's scores says of itself, whatever the samples."""
    source = samples.source
    of_map = len(source.variables) * source.shape[0] * source.shape[1]
    return {
        "data_range": ", ".join(
            f"{s.name}: {s.yardstick.data_range:g} {s.yardstick.units}".removesuffix(" 1") for s in tally.spaces
        ),
        "unit_space": f"normalised by {samples.target_normalizer.name}",
        "precision": run.config.training.precision,
        "frame_pixels": len(source.stations) if isinstance(source, StationSource) else of_map,
        "num_targets": samples.windows.num_targets,
        "num_members": run.config.evaluation.num_members or 1,
        "step": run.best.state["progress"]["step"],
        "seed": run.config.seed,
    }


@dataclass(frozen=True)
class _Scoring:
    """What is scored on what, and how."""

    models: dict[str, Forecaster]
    samples: Samples
    times: SampleTimes
    spaces: list[Space]
    device: torch.device
    batch_size: int
    run: Run

    def tally(self, numbers: list[int], processes: Processes) -> Tally:
        """Sums over the samples with these numbers, of all processes."""
        stretches = make_stretches(self.samples, numbers)
        in_time = self.samples.source.kind != "generator"
        tally = Tally(
            self.spaces, stretches, self.times.seconds, in_time, self.samples.span, rounded=self.times.rounded
        )
        for position in range(processes.rank, len(stretches), processes.count):
            for some in batches_of(stretches[position].numbers, self.batch_size):
                self._add(tally, position, some)
        tally.gather(processes)
        return tally

    def _add(self, tally: Tally, stretch: int, numbers: Sequence[int]) -> None:
        batch, truth = self.samples.batch_and_truth(numbers)
        first = self.spaces[0].channels
        tally.observe(stretch, truth[:, :, first], batch.valid[:, :, first])
        groups = alike(self.times.rows(self.samples, numbers))
        for name in self.models:
            frames = self._forecast(name, batch, numbers)
            physical = self.samples.target_normalizer.denormalise(frames)
            for space in self.spaces:
                pair = (frames, batch.targets) if space.name == UNIT else (physical, truth)
                compared = Compared(*pair, batch.valid).channels(space.channels)
                for members, rows in groups:
                    tally.add(stretch, space, name, compared.of(members), rows)

    def _forecast(self, name: str, batch: Batch, numbers: Sequence[int]) -> Tensor:
        """Frames (B, S, C, H, W) or flow (B, S, 1, R); of the run's own model where it shall draw, (M, B, S, ...)."""
        config, model = self.run.config, self.models[name]
        precision, num_members = config.training.precision, config.evaluation.num_members
        if num_members is None or name != self.run.model_name:
            return predict(model, batch, self.device, precision)
        seeds = [(config.seed, number) for number in numbers]
        return draw_members(model, batch, seeds, num_members, self.device, precision)


def alike(rows: np.ndarray | None) -> list[tuple[Tensor | None, Tensor | None]]:
    """Which samples of a batch have the same rows (B, S) of the table, and these rows (S,); None: all, their own."""
    if rows is None:
        return [(None, None)]
    distinct, groups = np.unique(rows, axis=0, return_inverse=True)
    groups = groups.ravel()
    return [
        (torch.from_numpy(np.flatnonzero(groups == group)), torch.from_numpy(own)) for group, own in enumerate(distinct)
    ]


def batches_of(numbers: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """The numbers, so many at a time."""
    for first in range(0, len(numbers), size):
        yield numbers[first : first + size]
