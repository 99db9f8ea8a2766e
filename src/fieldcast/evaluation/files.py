"""What an evaluation leaves in a run: scores.nc, scores.json, and the sums they are made of."""

import json
from collections.abc import Hashable, Iterator
from typing import Any

import numpy as np
import xarray as xr

from fieldcast.evaluation.table import COMPARED, metrics_of, plain_numbers, scores_document
from fieldcast.evaluation.tally import Tally, load_tally, save_tally
from fieldcast.files import write_atomic
from fieldcast.metrics import METRICS
from fieldcast.run import Run, write_json

SUMS = "sums.safetensors"
PARTS = tuple(
    f"{over}{kind}{ends}"
    for over in ("", "_overall")
    for kind in ("", "_spread", "_difference")
    for ends in ("", "_interval")
)


def save_scores(run: Run, scores: xr.Dataset, tally: Tally) -> None:
    """Write scores.nc, scores.json for those who read no NetCDF, and the sums."""
    save_tally(tally, run.folder / SUMS)
    write_atomic(run.folder / "scores.nc", lambda path: stack_metrics(scores).to_netcdf(path, engine="h5netcdf"))
    write_json(run.folder / "scores.json", plain_numbers(scores_document(scores)))


def load_scores(run: Run) -> xr.Dataset | None:
    """The scores that ``evaluate`` left in a run, or None."""
    path = run.folder / "scores.nc"
    if not path.is_file():
        return None
    with xr.open_dataset(path, engine="h5netcdf", decode_timedelta=True) as scores:
        return unstack_metrics(scores.load())


def run_tally(run: Run) -> Tally | None:
    """The sums that ``evaluate`` left in a run, or None."""
    return load_tally(run.folder / SUMS)


def stack_metrics(scores: xr.Dataset) -> xr.Dataset:
    """The table with metrics along a dimension, as a file has it: HDF5 takes seconds for hundreds of variables.

    ``score`` (metric, space, model, lead_time), ``score_overall`` and so on; metrics with further dimensions have
    variables of their own, such as ``score_by_threshold`` (metric_by_threshold, space, model, threshold, lead_time).
    """
    stacked: dict[str, tuple] = {}
    coordinates: dict[Hashable, Any] = {name: scores[name] for name in scores.coords}
    for label, names in _groups(metrics_of(scores)):
        attributes = {name: scores[name].attrs for name in names}
        coordinates[f"metric{label}"] = (f"metric{label}", names, {"attributes": json.dumps(attributes)})
        for part in PARTS:
            found = {name: scores[f"{name}{part}"] for name in names if f"{name}{part}" in scores}
            if found:
                first = next(iter(found.values()))
                blank = np.full(first.shape, np.nan)
                values = np.stack([found[name].values if name in found else blank for name in names])
                stacked[f"score{label}{part}"] = ((f"metric{label}", *first.dims), values)
    return xr.Dataset(stacked, coordinates, scores.attrs)


def unstack_metrics(stacked: xr.Dataset) -> xr.Dataset:
    """Undo ``stack_metrics``."""
    variables = {}
    for label in [str(name).removeprefix("metric") for name in stacked.coords if str(name).startswith("metric")]:
        along = stacked[f"metric{label}"]
        attributes = json.loads(along.attrs["attributes"])
        for part in (part for part in PARTS if f"score{label}{part}" in stacked):
            values = stacked[f"score{label}{part}"]
            for row, name in enumerate(along.values.tolist()):
                if "_difference" not in part or attributes[name]["orientation"] in COMPARED:
                    described = attributes[name] if part in ("", "_overall") else {}
                    variables[f"{name}{part}"] = (values.dims[1:], values.values[row], described)
    coordinates = {name: stacked[name] for name in stacked.coords if not str(name).startswith("metric")}
    # In the order of the table of metrics.
    names = [f"{name}{part}" for name in METRICS for part in PARTS]
    return xr.Dataset({name: variables[name] for name in names if name in variables}, coordinates, stacked.attrs)


def _groups(names: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Metrics of the same further dimensions, and what their variables are called by."""
    for dimensions in dict.fromkeys(METRICS[name].dimensions for name in names):
        label = "_by_" + "_".join(dimensions) if dimensions else ""
        yield label, [name for name in names if METRICS[name].dimensions == dimensions]
