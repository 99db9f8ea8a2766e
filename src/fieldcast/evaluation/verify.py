"""Scores of forecasts from anywhere, as labelled arrays, beside what was observed.

Shapes: B initial times, S lead times, M members, H rows, W columns, R stations.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from fieldcast.data.source import NANOSECONDS
from fieldcast.errors import DataError
from fieldcast.evaluation.spaces import Space
from fieldcast.evaluation.table import make_table
from fieldcast.evaluation.tally import MAX_STRETCHES, Compared, Stretch, Tally, TallyKey
from fieldcast.evaluation_settings import EvaluationSettings
from fieldcast.metrics import Yardstick

MEMBER = "number"


def verify(
    forecasts: Mapping[str, xr.DataArray],
    observed: xr.DataArray,
    settings: EvaluationSettings | None = None,
    data_range: float | None = None,
) -> xr.Dataset:
    """Score forecasts, deterministic or ensembles, of one quantity on the same initial and lead times.

    Arrays that are chunked along ``init_time`` are read chunk by chunk, through Dask: sums of chunks are added.

    Args:
        forecasts: by the name that the table shall have, (init_time, lead_time, [number,] y, x), or with ``station`` in
            place of y, x for rivers; ``init_time`` datetime64, ``lead_time`` timedelta64. NaN is a forecast that
            is not there.
        observed: (time, y, x) or (time, station), in the same units; NaN where missing. A valid time without
            a frame is missing.
        settings: thresholds, neighbourhoods, blocks; None: as ``EvaluationSettings`` says.
        data_range: largest minus smallest value that the data can take; None: what ``observed`` spans.

    Returns:
        the table that ``make_table`` describes, with one space "physical". An ensemble's fields are its mean.

    Raises:
        DataError: where dimensions, units, coordinates or numbers of members differ.
    """
    settings = settings or EvaluationSettings()
    forecasts = {name: _ordered(name, array) for name, array in forecasts.items()}
    if not forecasts:
        raise DataError("verify got no forecast")
    first = next(iter(forecasts.values()))
    for name, array in forecasts.items():
        _check_fit(name, array, first, observed)
    tally = _empty_tally(forecasts, observed, settings, data_range)
    for part in _parts(tally, forecasts, observed):
        tally.include(part)
    scores = make_table(tally, settings)
    scores.attrs |= {"num_samples": first.sizes["init_time"], "data_range": f"{tally.spaces[0].yardstick.data_range:g}"}
    return scores


def _place(array: xr.DataArray) -> tuple[str, ...]:
    """The dimensions of space, whatever the rows and columns are called."""
    return tuple(str(name) for name in array.dims if name not in ("init_time", "lead_time", "time", MEMBER))


def _ordered(name: str, array: xr.DataArray) -> xr.DataArray:
    wanted = {"init_time", "lead_time"}
    if not wanted <= set(array.dims):
        raise DataError(f"the forecast '{name}' has dimensions {array.dims}: init_time and lead_time are needed")
    members = (MEMBER,) if MEMBER in array.dims else ()
    return array.transpose(*members, "init_time", "lead_time", *_place(array))


def _check_fit(name: str, array: xr.DataArray, first: xr.DataArray, observed: xr.DataArray) -> None:
    if "time" not in observed.dims:
        raise DataError(f"what was observed has dimensions {observed.dims}: time is needed")
    place = _place(array)
    if place != _place(observed) or len(place) not in (1, 2):
        raise DataError(f"the forecast '{name}' lies on {place}, what was observed on {_place(observed)}")
    units = [str(one.attrs.get("units", "1")) for one in (array, observed)]
    if units[0] != units[1]:
        raise DataError(f"the forecast '{name}' is in {units[0]}, what was observed in {units[1]}: convert one")
    for axis in place:
        for other in (observed, first):
            if array.sizes[axis] != other.sizes[axis]:
                raise DataError(f"the forecast '{name}' has {array.sizes[axis]} along {axis}, not {other.sizes[axis]}")
            both = axis in array.coords and axis in other.coords
            if both and not _same(array[axis].values, other[axis].values):
                raise DataError(f"the forecast '{name}' lies elsewhere along {axis}: put it on the observed grid")
    for axis in ("init_time", "lead_time"):
        if not np.array_equal(array[axis].values, first[axis].values):
            raise DataError(f"the forecast '{name}' has other values of {axis} than the first: select what they share")


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    if one.dtype.kind not in "fiu":
        return np.array_equal(one, other)
    step = np.abs(np.diff(one)).min() if len(one) > 1 else 1
    return bool(np.allclose(one, other, rtol=0, atol=1e-4 * step))


def _empty_tally(
    forecasts: Mapping[str, xr.DataArray], observed: xr.DataArray, settings: EvaluationSettings,
    data_range: float | None,
) -> Tally:  # fmt: skip
    first = next(iter(forecasts.values()))
    units = str(observed.attrs.get("units", "1"))
    numbers = {array.sizes[MEMBER] for array in forecasts.values() if MEMBER in array.dims}
    if len(numbers) > 1:
        raise DataError(f"ensembles of {sorted(numbers)} members: scores of one table need the same number")
    if data_range is None:
        data_range = float(observed.max() - observed.min())
    thresholds, weights = settings.events_of(units)
    stations = first["station"].values.astype(str).tolist() if "station" in first.coords else []
    if "station" in first.dims and not stations:
        stations = [str(number) for number in range(first.sizes["station"])]
    yardstick = Yardstick(
        units, data_range, (first.shape[-2], first.shape[-1]), thresholds, weights, settings.scales, settings.event,
        numbers.pop() if numbers else 1, tuple(stations),
    )  # fmt: skip
    times = first["init_time"].values.astype("datetime64[ns]").astype(np.int64)
    leads = first["lead_time"].values.astype("timedelta64[ns]").astype(np.int64)
    groups = np.array_split(np.arange(len(times)), min(len(times), MAX_STRETCHES))
    stretches = [Stretch(0, int(times[group[0]]), tuple(group.tolist())) for group in groups]
    span = int(leads.max() - min(leads.min(), 0)) if len(leads) else 0
    return Tally([Space("physical", 0, yardstick)], stretches, (leads / NANOSECONDS).tolist(), True, span)


def _parts(
    tally: Tally, forecasts: Mapping[str, xr.DataArray], observed: xr.DataArray
) -> Iterator[tuple[dict[TallyKey, Tensor], Tensor]]:
    """Sums of each chunk of initial times, computed side by side where the arrays are Dask's."""
    first = next(iter(forecasts.values()))
    chunks = first.chunksizes.get("init_time", (1,) * first.sizes["init_time"])
    edges = np.cumsum([0, *chunks])
    pieces = [slice(int(start), int(stop)) for start, stop in pairwise(edges)]
    work = [(tally, piece, _cut(forecasts, piece), _truth(first.isel(init_time=piece), observed)) for piece in pieces]
    if any(array.chunks is not None for array in (*forecasts.values(), observed)):
        import dask

        yield from dask.compute(*(dask.delayed(_sums)(*item) for item in work))
    else:
        yield from (_sums(*item) for item in work)


def _cut(forecasts: Mapping[str, xr.DataArray], piece: slice) -> dict[str, xr.DataArray]:
    return {name: array.isel(init_time=piece) for name, array in forecasts.items()}


def _truth(forecast: xr.DataArray, observed: xr.DataArray) -> xr.DataArray:
    """What was observed at the valid times: (init_time, lead_time, ...)."""
    valid_time = forecast["init_time"] + forecast["lead_time"]
    return observed.reindex(time=np.unique(valid_time)).sel(time=valid_time)


def _sums(
    tally: Tally, piece: slice, forecasts: dict[str, xr.DataArray], truth: xr.DataArray
) -> tuple[dict[TallyKey, Tensor], Tensor]:
    part = replace(tally, sums={}, observed=torch.zeros_like(tally.observed))
    space = tally.spaces[0]
    # (B, S, ...) -> (B, S, C = 1, ...)
    observed = torch.from_numpy(np.asarray(truth.values)).unsqueeze(2)
    seen = ~observed.isnan()
    stretch_of = {number: place for place, stretch in enumerate(tally.stretches) for number in stretch.numbers}
    for row, number in enumerate(range(piece.start, piece.stop)):
        stretch, one = stretch_of[number], slice(row, row + 1)
        part.observe(stretch, observed[one], seen[one])
        for name, array in forecasts.items():
            values = torch.from_numpy(np.asarray(array.values)).unsqueeze(-3 if space.yardstick.stations == () else -2)
            predicted = values[:, one] if MEMBER in array.dims else values[one]
            there = ~predicted.isnan() if predicted.ndim == observed.ndim else ~predicted.isnan().any(0)
            part.add(stretch, space, name, Compared(predicted, observed[one], seen[one] & there))
    return part.sums, part.observed
