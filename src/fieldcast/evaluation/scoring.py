"""Scores of a run's forecaster and of the baselines, as sums over a split.

Shapes: B batch, S lead times, C channels, H rows, W columns.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import xarray as xr
from torch import Tensor

from fieldcast.data import Batch, Samples
from fieldcast.data.dataset import frames_and_times, spread
from fieldcast.data.source import NANOSECONDS
from fieldcast.errors import DataError
from fieldcast.evaluation.files import save_scores
from fieldcast.evaluation.spaces import UNIT, Space, describe_spaces
from fieldcast.evaluation.table import make_table
from fieldcast.evaluation.tally import Tally, make_stretches
from fieldcast.models import Forecaster, build
from fieldcast.models.baselines.climatology import Climatology
from fieldcast.models.baselines.optical_flow import has_optical_flow
from fieldcast.processes import Processes, autocast, choose_device, join_processes
from fieldcast.run import Run
from fieldcast.settings import look_up

ALWAYS = "persistence"  # a table without it says nothing
DRAWS_FOR_A_MEAN = 500


def evaluate(
    run: Run, split: str = "test", num_samples: int | None = None, device: str = "auto", batch_size: int | None = None
) -> xr.Dataset:
    """Score the run's best checkpoint and the baselines on a split.

    Under torchrun every process scores its share, and the first one writes.

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
    """
    torch_device = choose_device(device)
    source, splits = run.samples()
    samples: Samples = look_up(splits, split, "split")
    numbers = spread(len(samples), num_samples)
    with join_processes(torch_device) as processes:
        models, absent = with_baselines(run, splits["train"], torch_device)
        spaces = describe_spaces(source, samples.normalizer, run.config.evaluation)
        size = batch_size or samples.whole_maps(run.config.training.batch_size)
        scoring = _Scoring(models, samples, spaces, torch_device, run.config.training.precision, size)
        tally = scoring.tally(numbers, processes)
        scores = make_table(tally, run.config.evaluation)
        scores.attrs |= {
            "split": split,
            "num_samples": len(numbers),
            "data_range": ", ".join(
                f"{s.name}: {s.yardstick.data_range:g} {s.yardstick.units}".removesuffix(" 1") for s in tally.spaces
            ),
            "unit_space": "normalised by " + ", ".join(transform.name for transform in samples.normalizer.transforms),
            "precision": run.config.training.precision,
            "frame_pixels": len(source.variables) * source.shape[0] * source.shape[1],
            "batch_size": size,
            "step": run.best.state["progress"]["step"],
            "seed": run.config.seed,
        }
        scores.attrs["left_out"] = "; ".join(filter(None, [scores.attrs["left_out"], *absent]))
        if processes.first:
            save_scores(run, scores, tally)
        processes.wait()
    return scores


@dataclass(frozen=True)
class _Scoring:
    """What is scored on what, and how."""

    models: dict[str, Forecaster]
    samples: Samples
    spaces: list[Space]
    device: torch.device
    precision: str
    batch_size: int

    def tally(self, numbers: list[int], processes: Processes) -> Tally:
        """Sums over the samples with these numbers, of all processes."""
        source, tally = self.samples.source, None
        stretches = make_stretches(self.samples, numbers)
        lead_times: Tensor | None = None
        for position, stretch in enumerate(stretches):
            # The first stretch is everybody's, so that each process knows the lead times; only its owner counts it.
            own = position % processes.count == processes.rank
            if not own and position:
                continue
            for batch, truth in batches(self.samples, list(stretch.numbers), self.batch_size):
                lead_times = batch.target_times[:1] if lead_times is None else lead_times
                if (batch.target_times - lead_times).abs().amax() > 1e-3:
                    raise DataError("samples with different target times can't share a table by lead time")
                if tally is None:
                    seconds = (lead_times[0].double() * source.cadence / NANOSECONDS).tolist()
                    span = self.samples.windows.span(source.cadence)
                    tally = Tally(self.spaces, stretches, seconds, source.kind != "generator", span)
                if own:
                    self._add(tally, position, batch, truth)
        assert tally is not None
        tally.gather(processes)
        return tally

    def _add(self, tally: Tally, stretch: int, batch: Batch, truth: Tensor) -> None:
        first = self.spaces[0].channels
        tally.observe(stretch, truth[:, :, first], batch.valid[:, :, first])
        for name, model in self.models.items():
            frames = predict(model, batch, self.device, self.precision)
            physical = self.samples.normalizer.denormalise(frames)
            for space in self.spaces:
                pair = (frames, batch.targets) if space.name == UNIT else (physical, truth)
                predicted, observed, valid = (field[:, :, space.channels] for field in (*pair, batch.valid))
                tally.add(stretch, space, name, predicted, observed, valid)


def with_baselines(run: Run, train: Samples, device: torch.device) -> tuple[dict[str, Forecaster], list[str]]:
    """The run's forecaster and the baselines it is compared with, by the names that tables have.

    Returns:
        the models, and why a baseline is not among them.
    """
    num_channels = len(run.best.state["variables"])
    models: dict[str, Forecaster] = {run.model_name: run.model(device)}
    absent = []
    for key in dict.fromkeys((ALWAYS, *run.config.evaluation.baselines)):
        if key == "optical-flow" and not has_optical_flow():
            absent.append("optical-flow needs the extra 'nowcast'")
        elif key not in models:
            model = build(key, num_channels=num_channels)
            if isinstance(model, Climatology):
                model.fit(frames_and_times(_enough(train)), train.source, train.normalizer)
            models[key] = model.to(device)
    return models, absent


def _enough(train: Samples) -> Samples:
    """All samples of an archive; of a generator, which has no end of them, enough for a mean."""
    if train.source.kind != "generator":
        return train
    return replace(train, starts=[train.starts[number] for number in spread(len(train), DRAWS_FOR_A_MEAN)])


def batches(samples: Samples, numbers: list[int], size: int) -> Iterator[tuple[Batch, Tensor]]:
    """Batches of the samples with these numbers, and their targets in physical units."""
    for first in range(0, len(numbers), size):
        yield samples.batch_and_truth(numbers[first : first + size])


@torch.inference_mode()
def predict(model: Forecaster, batch: Batch, device: torch.device, precision: str = "float32") -> Tensor:
    """Forecast of a batch (B, S, C, H, W), normalised, float32 on the CPU."""
    with autocast(device, precision):
        frames = model.forward_batch(batch.without_targets().to(device))
    return frames.float().cpu()
