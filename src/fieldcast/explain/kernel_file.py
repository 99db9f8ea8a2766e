"""Kernels as a labelled data set, and as a file beside a run.

Shapes: Q outputs, T input frames, C fields, H rows, W columns.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from torch import Tensor

from fieldcast.data.source import Source
from fieldcast.explain.averaging import AveragedKernels
from fieldcast.explain.fidelity import THRESHOLD
from fieldcast.explain.linear_kernels import LinearKernels
from fieldcast.explain.network import Network
from fieldcast.explain.targets import Labels
from fieldcast.forecast.labels import history_line, made_by, station_coordinates, time_unit
from fieldcast.run import Run

FILE = "kernels.nc"
SHARES = {
    "contribution": "kernel times deviation from the mean sequence",
    "integrated_gradients": "integrated gradients from the mean sequence",
    "occlusion": "occlusion by the mean sequence",
}


@dataclass(frozen=True)
class Explained:
    """All that a kernel file is made of.

    ``reference`` (T, C, H, W) is the sequence that the kernels were taken at, or the mean of those that they are the
    average of; ``shares`` are attributions (Q, T, C, H, W) of the forecast from the sequence that ends at ``at``.
    """

    run: Run
    source: Source
    network: Network
    labels: Labels
    surrogate: str
    kernels: LinearKernels
    average: AveragedKernels | None
    reference: Tensor
    shares: dict[str, Tensor]
    fidelity: xr.Dataset
    num_sequences: int
    at: str


def label_kernels(explained: Explained) -> xr.Dataset:
    """Put names, units and coordinates to kernels.

    Returns:
        for each field NAME ``kernel_NAME`` (output, lag, row, column) in units of the output per unit of the field;
        of an average ``kernel_error_NAME``, its standard error, and ``lag_curve_error_NAME`` (output, lag), that of its
        sum over the map; ``reference_NAME`` (lag, row, column); ``contribution_NAME``, ``integrated_gradients_NAME``
        and ``occlusion_NAME`` of one forecast, where they were asked for, in units of the output; ``offset`` and
        ``value`` (output); and the scores of ``fidelity_table``. ``lag`` counts from the last input back.
    """
    source, kernels = explained.source, explained.kernels
    units = explained.labels.variable.units
    grid = source.grid
    maps = ("lag", grid.row_name, grid.column_name)
    variables: dict[str, Any] = {}
    for channel, field in enumerate(source.variables):
        about = {"field": field.name, "field_units": field.units}
        per = units if field.units == "1" else f"{units} per {field.units}"
        parts = {"kernel": (kernels.weights, per, f"influence of {field.name}")}
        if explained.average is not None:
            error = explained.average.weights_error
            parts["kernel_error"] = (error, per, f"standard error of the kernel of {field.name}")
        parts |= {kind: (share, units, f"{SHARES[kind]}: {field.name}") for kind, share in explained.shares.items()}
        for kind, (values, own_units, long_name) in parts.items():
            attributes = {"units": own_units, "long_name": long_name, **about}
            variables[f"{kind}_{field.name}"] = (("output", *maps), _newest_first(values)[:, :, channel], attributes)
        if explained.average is not None:
            curve = _newest_first(explained.average.curve_error)[:, :, channel]
            attributes = {
                "units": per,
                "long_name": f"standard error of the kernel of {field.name}, summed over the map",
            }
            variables[f"lag_curve_error_{field.name}"] = (("output", "lag"), curve, attributes | about)
        reference = _newest_first(explained.reference[None])[0, :, channel]
        attributes = {"units": field.units, "long_name": f"{field.name} of the reference", **about}
        variables[f"reference_{field.name}"] = (maps, reference, attributes)
    for name, values in (("offset", kernels.offset), ("value", kernels.value)):
        variables[name] = (("output",), values.double().cpu().numpy(), {"units": units})
    dataset = xr.Dataset(variables, _coordinates(explained), _attributes(explained))
    dataset["lag"].encoding |= {"units": time_unit(dataset.lag.values.astype(np.int64)), "dtype": "int64"}
    dataset["lead_time"].encoding |= {"units": time_unit(dataset.lead_time.values.astype(np.int64)), "dtype": "int64"}
    return dataset.merge(explained.fidelity, combine_attrs="override")


def _newest_first(values: Tensor) -> np.ndarray:
    """(Q, T, ...) in order of lag, float32."""
    return values.flip(1).float().cpu().numpy()


def _coordinates(explained: Explained) -> dict[str, Any]:
    run, grid = explained.run, explained.source.grid
    cadence, names = run.best.state["cadence"], list(explained.network.outputs.names)
    lags = np.rint(-explained.network.input_times[0].flip(0).double().numpy() * cadence)
    leads = np.rint(np.array(explained.labels.leads) * cadence)
    coordinates: dict[str, Any] = {
        "output": names,
        "lag": ("lag", lags.astype("timedelta64[ns]"), {"long_name": "time before the last input"}),
        "lead_time": ("output", leads.astype("timedelta64[ns]"), {"standard_name": "forecast_period"}),
    }
    for name, values in ((grid.row_name, grid.rows), (grid.column_name, grid.columns)):
        if values is not None:
            coordinates[name] = (name, values, grid.attributes.get(name, {}))
    if explained.labels.place is not None:
        # The middle of a region.
        for axis, (first, stop), values in (
            (grid.row_name, explained.labels.place.rows, grid.rows),
            (grid.column_name, explained.labels.place.columns, grid.columns),
        ):
            middle = (first + stop - 1) / 2 if values is None else float(np.mean(values[first:stop]))
            coordinates[f"output_{axis}"] = ("output", np.full(len(names), middle))
    if run.stations is not None and explained.labels.stations is not None:
        for name, (_, values, attributes) in station_coordinates(run.stations).items():
            coordinate = name if name not in (grid.row_name, grid.column_name) else f"output_{name}"
            coordinates[coordinate] = ("output", np.asarray(values)[explained.labels.stations], attributes)
    return coordinates


def _attributes(explained: Explained) -> dict[str, Any]:
    run = explained.run
    return {
        "Conventions": "CF-1.11",
        "title": f"Linear kernels of {run.model_name}, {run.config.name}",
        "variable": explained.labels.variable.name,
        "units": explained.labels.variable.units,
        "surrogate": explained.surrogate,
        "threshold": THRESHOLD,
        "num_sequences": explained.num_sequences,
        "at": explained.at,
        "source": made_by(run),
        "history": history_line("explain", run),
    }


def load_kernels(run: Run) -> xr.Dataset | None:
    """Kernels that ``fieldcast explain`` left in a run's folder; None where there are none."""
    path = run.folder / FILE
    if not path.is_file():
        return None
    with xr.open_dataset(path, engine="h5netcdf", decode_timedelta=True) as stored:
        return stored.load()
