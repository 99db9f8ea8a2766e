"""Scores of a run's forecaster and of the baselines, as sums over a split.

Shapes: B batch, S lead times, C channels, H rows, W columns; K sums of a metric.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from fieldcast.data import Batch, Normalizer, Samples
from fieldcast.data.dataset import spread
from fieldcast.data.source import NANOSECONDS, Source
from fieldcast.errors import DataError
from fieldcast.files import write_atomic
from fieldcast.lead_times import lead_labels
from fieldcast.metrics import METRICS, Metric
from fieldcast.metrics.conventions import CONVENTIONS, restate
from fieldcast.models import Forecaster, build
from fieldcast.processes import autocast, choose_device
from fieldcast.run import Run, write_json
from fieldcast.settings import look_up

BASELINES = ("persistence",)
UNIT = "unit"
SHOWN_BY_LEAD_TIME = ("mse", "mae", "psnr", "ssim")


@dataclass(frozen=True)
class Space:
    """Where fields are compared: one variable in physical units, or all of them in [0, 1]."""

    name: str
    units: str
    data_range: float
    channel: int | None


def evaluate(
    run: Run, split: str = "test", num_samples: int | None = None, device: str = "auto", batch_size: int | None = None
) -> xr.Dataset:
    """Score the run's best checkpoint and the baselines on a split.

    Args:
        run: a trained run.
        split: "test", "validation" or "train".
        num_samples: this many, spread evenly over the split; None: all.
        device: "auto", "cpu", "cuda".
        batch_size: samples at a time; None: as many pixels as in training.

    Returns:
        each metric (space, model, lead_time), pooled over the split in sums, and ``NAME_overall`` (space, model),
        pooled over lead times too. The space "physical" is in the source's units with the data range that the
        training split spans, "unit" is normalised to [0, 1] by the run's normaliser. Saved as scores.nc in the run.
    """
    torch_device = choose_device(device)
    source, splits = run.samples()
    samples: Samples = look_up(splits, split, "split")
    models = with_baselines(run, torch_device)
    spaces = describe_spaces(source, samples.normalizer)
    sums: dict[tuple[str, str, str], Tensor] = {}
    numbers = spread(len(samples), num_samples)
    size = batch_size or samples.whole_maps(run.config.training.batch_size)
    lead_times: Tensor | None = None
    for batch, truth in batches(samples, numbers, size):
        lead_times = batch.target_times[:1] if lead_times is None else lead_times
        if (batch.target_times - lead_times).abs().amax() > 1e-3:
            raise DataError("samples with different target times can't share a table by lead time")
        for name, model in models.items():
            frames = predict(model, batch, torch_device, run.config.training.precision)
            _add_sums(sums, name, spaces, samples.normalizer, frames, batch, truth)
    assert lead_times is not None
    seconds = lead_times[0].double().numpy() * source.cadence / NANOSECONDS
    scores = _table(sums, list(models), spaces, seconds)
    scores.attrs |= {
        "split": split,
        "num_samples": len(numbers),
        "data_range": ", ".join(f"{s.name}: {s.data_range:g} {s.units}".removesuffix(" 1") for s in spaces),
        "unit_space": "normalised by " + ", ".join(transform.name for transform in samples.normalizer.transforms),
        "precision": run.config.training.precision,
        "frame_pixels": len(source.variables) * source.shape[0] * source.shape[1],
        "step": run.best.state["progress"]["step"],
    }
    save_scores(run, scores)
    return scores


def with_baselines(run: Run, device: torch.device) -> dict[str, Forecaster]:
    """The run's forecaster and the baselines it is compared with, by the names that tables have."""
    num_channels = len(run.best.state["variables"])
    models = {run.model_name: run.model(device)}
    return models | {key: build(key, num_channels=num_channels) for key in BASELINES if key not in models}


def batches(samples: Samples, numbers: list[int], size: int) -> Iterator[tuple[Batch, Tensor]]:
    """Batches of the samples with these numbers, and their targets in physical units."""
    for first in range(0, len(numbers), size):
        yield samples.batch_and_truth(numbers[first : first + size])


@torch.inference_mode()
def predict(model: Forecaster, batch: Batch, device: torch.device, precision: str = "float32") -> Tensor:
    """Forecast of a batch (B, S, C, H, W), normalised, float32 on the CPU."""
    with autocast(device, precision):
        frames = model(batch.inputs.to(device), batch.input_times.to(device), batch.target_times.to(device))
    return frames.float().cpu()


def describe_spaces(source: Source, normalizer: Normalizer) -> list[Space]:
    """The unit space, and a physical one for each variable."""
    ranges = normalizer.data_range().flatten().tolist()
    several = len(source.variables) > 1
    physical = [
        Space(f"physical {variable.name}" if several else "physical", variable.units, extent, channel)
        for channel, (variable, extent) in enumerate(zip(source.variables, ranges, strict=True))
    ]
    return [*physical, Space(UNIT, "1", 1.0, None)]


def _add_sums(
    sums: dict[tuple[str, str, str], Tensor],
    model: str,
    spaces: list[Space],
    normalizer: Normalizer,
    frames: Tensor,
    batch: Batch,
    truth: Tensor,
) -> None:
    physical = normalizer.denormalise(frames)
    for space in spaces:
        pair = (frames, batch.targets) if space.channel is None else (physical, truth)
        part = slice(None) if space.channel is None else slice(space.channel, space.channel + 1)
        predicted, observed = (field[:, :, part] for field in pair)
        for name, metric in METRICS.items():
            new = metric.sums(predicted, observed, batch.valid[:, :, part], space.data_range)
            key = (name, space.name, model)
            sums[key] = sums[key] + new if key in sums else new


def _table(
    sums: dict[tuple[str, str, str], Tensor], models: list[str], spaces: list[Space], seconds: np.ndarray
) -> xr.Dataset:
    lead_time = (seconds * NANOSECONDS).round().astype("timedelta64[ns]")
    coordinates = {"space": [space.name for space in spaces], "model": models}
    scores = xr.Dataset(coords={**coordinates, "lead_time": ("lead_time", lead_time, {"long_name": "lead time"})})
    for name, metric in METRICS.items():
        rows = [[metric.score(sums[name, space.name, model], space.data_range) for model in models] for space in spaces]
        pooled = [
            [metric.score(sums[name, space.name, model].sum(-1), space.data_range) for model in models]
            for space in spaces
        ]
        attributes = {
            "long_name": metric.long_name,
            "convention": metric.convention,
            "orientation": metric.orientation,
            **{f"units_{space.name}": _units(metric, space.units) for space in spaces},
        }
        by_lead = torch.stack([torch.stack(row) for row in rows]).numpy()
        overall = torch.stack([torch.stack(row) for row in pooled]).numpy()
        scores[name] = (("space", "model", "lead_time"), by_lead, attributes)
        scores[f"{name}_overall"] = (("space", "model"), overall, attributes)
    return scores


def _units(metric: Metric, units: str) -> str:
    return "1" if units == "1" and "{units}" in metric.units else metric.units.format(units=units)


def save_scores(run: Run, scores: xr.Dataset) -> None:
    """Write scores.nc, and scores.json for those who read no NetCDF."""
    write_atomic(run.folder / "scores.nc", lambda path: scores.to_netcdf(path, engine="h5netcdf"))
    write_json(run.folder / "scores.json", plain_numbers(scores_document(scores)))


def load_scores(run: Run) -> xr.Dataset | None:
    """The scores that ``evaluate`` left in a run, or None."""
    path = run.folder / "scores.nc"
    if not path.is_file():
        return None
    with xr.open_dataset(path, engine="h5netcdf", decode_timedelta=True) as scores:
        return scores.load()


def scores_document(scores: xr.Dataset) -> dict:
    """Scores as plain types: metric, space, model -> overall and by lead time in seconds."""
    seconds = (scores.lead_time / np.timedelta64(1, "s")).values.tolist()
    return {
        # Out of a file come numpy's numbers.
        "attributes": {
            k: value.item() if isinstance(value, np.generic) else value for k, value in scores.attrs.items()
        },
        "lead_time_seconds": seconds,
        "scores": {
            name: {
                str(space): {
                    str(model): {
                        "overall": float(scores[f"{name}_overall"].sel(space=space, model=model)),
                        "by_lead_time": scores[name].sel(space=space, model=model).values.tolist(),
                    }
                    for model in scores.model.values
                }
                for space in scores.space.values
            }
            for name in METRICS
        },
    }


def plain_numbers(document: Any) -> Any:
    """A document of plain types with None for what is not finite: JSON has no NaN and no infinity."""
    if isinstance(document, dict):
        return {key: plain_numbers(value) for key, value in document.items()}
    if isinstance(document, list):
        return [plain_numbers(value) for value in document]
    return None if isinstance(document, float) and not math.isfinite(document) else document


def score_rows(scores: xr.Dataset, convention: str = "fieldcast") -> list[dict]:
    """Overall scores as rows for a table, in the words and scale of a convention.

    "fieldcast" has every metric in every space; "thesis" and "openstl" theirs, in [0, 1].
    """
    names = look_up(CONVENTIONS, convention, "convention")
    spaces = scores.space.values if convention == "fieldcast" else [UNIT]
    rows = []
    for space in spaces:
        for name in names:
            row: dict[str, str | float] = {"space": str(space), "metric": "", "units": ""}
            if convention == "fieldcast":
                row["units"] = scores[name].attrs[f"units_{space}"]
            for model in scores.model.values:
                value = float(scores[f"{name}_overall"].sel(space=space, model=model))
                restated, row["metric"] = restate(name, value, convention, int(scores.attrs["frame_pixels"]))
                row[str(model)] = restated
            rows.append(row)
    return rows


def lead_rows(scores: xr.Dataset, convention: str = "fieldcast") -> list[dict]:
    """Scores by lead time as rows for a table, in the first space of the convention; see ``score_rows``."""
    names = SHOWN_BY_LEAD_TIME if convention == "fieldcast" else tuple(look_up(CONVENTIONS, convention, "convention"))
    space = str(scores.space.values[0]) if convention == "fieldcast" else UNIT
    rows = []
    for number, label in enumerate(lead_labels(scores.lead_time.values)):
        row: dict[str, str | float] = {"lead time": label}
        for name in names:
            for model in scores.model.values:
                value = float(scores[name].sel(space=space, model=model)[number])
                row[f"{name} {model}"] = restate(name, value, convention, int(scores.attrs["frame_pixels"]))[0]
        rows.append(row)
    return rows
