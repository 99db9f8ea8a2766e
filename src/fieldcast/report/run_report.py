"""The report of a run, gathered from its folder.

Shapes: T input frames, S lead times, C variables, H rows, W columns.
"""

import json
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from fieldcast.data import Samples, Source
from fieldcast.data.dataset import spread
from fieldcast.data.source import Variable
from fieldcast.evaluate import evaluate, load_scores, predict, with_baselines
from fieldcast.forecast import decode_times
from fieldcast.report.contents import OBSERVED, ReportContents
from fieldcast.report.page import write_report
from fieldcast.run import Run

CANDIDATES = 24  # samples among which the one with most in it is shown


def report(run: Run, split: str = "test") -> Path:
    """Write report.html and its figures into the run, from its scores (evaluated where missing or stale) and one case.

    Returns:
        the path of report.html.
    """
    scores = load_scores(run)
    step = run.best.state["progress"]["step"]
    if scores is None or (scores.attrs["split"], scores.attrs["step"]) != (split, step):
        scores = evaluate(run, split)
    source, splits = run.samples()
    environment = run.folder / "environment.json"
    contents = ReportContents(
        title=f"{run.config.name}: {run.model_name} on {run.config.source.key}",
        scores=scores,
        history=run.history(),
        cases=show_case(run, source, splits[split]),
        settings=run.config.resolved(),
        environment=json.loads(environment.read_text()) if environment.is_file() else {},
    )
    return write_report(contents, run.folder)


def show_case(run: Run, source: Source, samples: Samples) -> list[xr.DataArray]:
    """The sample with the largest targets: observed, model and baselines side by side, one array a variable."""
    numbers = spread(len(samples), CANDIDATES)
    amounts = [float(samples.batch_and_truth([number])[1].nanmean()) for number in numbers]
    number = numbers[int(np.argmax(np.nan_to_num(amounts, nan=-np.inf)))]
    batch, truth = samples.batch_and_truth([number])
    device = torch.device("cpu")
    models = with_baselines(run, device)
    normalise = samples.normalizer
    past = normalise.denormalise(batch.inputs)[0].numpy()
    panels = [np.concatenate([past, truth[0].numpy()])]
    for model in models.values():
        future = normalise.denormalise(predict(model, batch, device, run.config.training.precision))
        panels.append(np.concatenate([np.full_like(past, np.nan), future[0].numpy()]))
    times = np.concatenate([batch.input_times[0], batch.target_times[0]]).astype(np.float64)
    elapsed = np.round(times * source.cadence).astype(np.int64)
    coordinates = {
        "panel": [OBSERVED, *models],
        "lead_time": elapsed.astype("timedelta64[ns]"),
        "valid_time": ("lead_time", decode_times(int(batch.origin[0]) + elapsed, source.calendar)),
    }
    grid = source.grid
    for axis, name, values in (("y", grid.row_name, grid.rows), ("x", grid.column_name, grid.columns)):
        if values is not None:
            coordinates[axis] = (axis, values, grid.attributes.get(name, {}))
    stacked = np.stack(panels)
    return [
        xr.DataArray(
            stacked[:, :, channel],
            coordinates,
            ("panel", "lead_time", "y", "x"),
            name=variable.name,
            attrs={"long_name": _title(variable), **variable.attributes, "units": variable.units},
        )
        for channel, variable in enumerate(source.variables)
    ]


def _title(variable: Variable) -> str:
    """A name to read, where the file gives none: by what it is rather than by what the file calls it."""
    return str(variable.attributes.get("standard_name", variable.name)).replace("_", " ")
