"""What flowed at stations and what each model had forecast, in order of time.

Shapes: L lead times, N times, R stations.
"""

from collections.abc import Mapping

import numpy as np
import torch
import xarray as xr

from fieldcast.data import Samples
from fieldcast.data.source import StationSource
from fieldcast.evaluation.forecasts import predict
from fieldcast.evaluation.sample_times import elapsed_times
from fieldcast.evaluation.scoring import batches_of
from fieldcast.forecast.labels import decode_times, station_coordinates
from fieldcast.models import Forecaster
from fieldcast.report.contents import OBSERVED

SAMPLES_AT_ONCE = 16


def hydrographs(models: Mapping[str, Forecaster], samples: Samples, precision: str = "float32") -> xr.Dataset:
    """Flow of all samples of a split, by the time that it is of.

    Args:
        models: forecasters of flow at stations, by name, on the CPU.
        samples: of one split.
        precision: that the models compute in.

    Returns:
        ``flow`` (model, lead_time, time, station) in physical units, "observed" the first of the models; NaN where
        nothing was observed, or no sample forecasts that time at that lead time.
    """
    source = samples.source
    assert isinstance(source, StationSource)
    numbers = list(range(len(samples)))
    leads = elapsed_times(samples, numbers)[:, samples.windows.num_inputs :]
    origins = np.array([samples.origin(number) for number in numbers])
    lead_times, times = np.unique(leads), _with_gaps(np.unique(origins[:, None] + leads), source.cadence)
    flow = np.full((1 + len(models), len(lead_times), len(times), len(source.stations)), np.nan, np.float32)
    for some in batches_of(numbers, SAMPLES_AT_ONCE):
        batch, truth = samples.batch_and_truth(some)
        rows = np.searchsorted(lead_times, leads[some])
        columns = np.searchsorted(times, origins[some, None] + leads[some])
        flow[0, rows, columns] = truth[:, :, 0]
        for position, model in enumerate(models.values(), start=1):
            forecast = predict(model, batch, torch.device("cpu"), precision)
            flow[position, rows, columns] = samples.target_normalizer.denormalise(forecast)[:, :, 0]
    coordinates = {
        "model": [OBSERVED, *models],
        "lead_time": lead_times.astype("timedelta64[ns]"),
        "time": decode_times(times, source.calendar),
        **station_coordinates(source.stations),
    }
    attributes = {**source.flow.attributes, "units": source.flow.units}
    values = xr.DataArray(flow, coordinates, ("model", "lead_time", "time", "station"), source.flow.name, attributes)
    return values.to_dataset(name="flow")


def _with_gaps(times: np.ndarray, cadence: int) -> np.ndarray:
    """The times (N,) int64 ns, and one more at which nothing is known after each that the next does not follow at once:
    a line through them is broken there."""
    before_gap = times[:-1][np.diff(times) > 1.5 * cadence]
    return np.union1d(times, before_gap + cadence)
