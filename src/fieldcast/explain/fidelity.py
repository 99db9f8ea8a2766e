"""How well linear surrogates reproduce the network they stand for, and what was observed.

Shapes: N sequences, T input frames, C fields, H rows, W columns, Q outputs.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from pydantic import Field
from torch import Tensor

from fieldcast.explain.averaging import ALONE, AveragedKernels, AveragingSettings, average_kernels
from fieldcast.explain.least_squares import LeastSquaresBound, least_squares_bound, ridge_surrogate
from fieldcast.explain.linear_kernels import LinearKernels, linear_kernels
from fieldcast.explain.network import Network
from fieldcast.explain.optimal_reference import (
    References,
    SearchSettings,
    Series,
    best_data_sequences,
    optimal_references,
    predict,
)
from fieldcast.metrics import Yardstick
from fieldcast.metrics.hydrology import flow_sums, nash_sutcliffe
from fieldcast.processes import Processes
from fieldcast.settings import Settings

NETWORK, OBSERVED = "network", "observed"
SEASONS = ("DJF", "MAM", "JJA", "SON")
FLOWS = ("low", "middle", "high")
THRESHOLD = 0.5
YARDSTICK = Yardstick()
LONG_NAMES = {
    "nse": "share of the variance that is explained",
    "r2": "share of the variance that is explained with the best offset",
}


class Record(NamedTuple):
    """Sequences in order of time and what was observed.

    Attributes:
        inputs: (N, T, C, H, W) in physical units without a missing one.
        times: (N,) datetime64 of the outputs.
        observed: (N, Q), NaN where missing; None: nothing was.
    """

    inputs: Tensor
    times: np.ndarray
    observed: Tensor | None = None


class SurrogateSettings(Settings):
    """How the surrogates that are compared are made; ridge regression holds out one of ``num_folds`` blocks of time."""

    averaging: AveragingSettings = AveragingSettings()
    search: SearchSettings = SearchSettings()
    num_folds: Annotated[int, Field(ge=2)] = 5


class Surrogates(NamedTuple):
    """Linear functions that stand for one network, each made of training sequences alone.

    Attributes:
        kernels: by name: "reference" at the mean sequence, "average", "best sequence", "optimal", "least squares".
        average: the average with its errors.
        best: the best sequence of the data.
        optimal: what the search found from there.
        bound: what none of them can fall below on the sequences they were made of.
    """

    kernels: dict[str, LinearKernels]
    average: AveragedKernels
    best: References
    optimal: References
    bound: LeastSquaresBound


def fit_surrogates(
    network: Network, train: Record, settings: SurrogateSettings, processes: Processes = ALONE
) -> Surrogates:
    """Make each surrogate of the table, to reproduce the network itself.

    Args:
        network: what they stand for.
        train: the sequences that they are made of; what was observed is not used.
        settings: of the average, the search and ridge regression.
        processes: share the average; the rest is done in each.
    """
    series = Series(train.inputs, network_outputs(network, train.inputs))
    mean = train.inputs.mean(0, keepdim=True)
    numbers = range(len(train.inputs))
    average = average_kernels(
        network, lambda number: train.inputs[number][None], numbers, settings.averaging, processes=processes
    )
    best = best_data_sequences(network, series, settings.search)
    optimal = optimal_references(network, series, settings.search)
    kernels = {
        "reference": linear_kernels(network, mean),
        "average": average.kernels,
        "best sequence": best.kernels,
        "optimal": optimal.kernels,
        "least squares": ridge_surrogate(series, settings.num_folds),
    }
    return Surrogates(kernels, average, best, optimal, least_squares_bound(series))


def compare_surrogates(
    network: Network, surrogates: Mapping[str, LinearKernels], held_out: Record, train: Record | None = None
) -> xr.Dataset:
    """Judge surrogates on sequences that none of them has seen, against the network and what was observed.

    Args:
        network: what they stand for.
        surrogates: by name.
        held_out: the sequences that they are judged on.
        train: with it, each surrogate NAME is judged again as "NAME, offset fitted": plus its mean error on these.

    Returns:
        the table of ``fidelity_table``; the network itself is in it too, as surrogate "network" against "observed".
    """
    predictions = {name: predict(kernels, held_out.inputs) for name, kernels in surrogates.items()}
    if train is not None:
        wanted = network_outputs(network, train.inputs).double()
        for name, kernels in surrogates.items():
            missed = (wanted - predict(kernels, train.inputs)).mean(0)
            predictions[f"{name}, offset fitted"] = predictions[name] + missed
    against = {NETWORK: network_outputs(network, held_out.inputs)}
    if held_out.observed is not None:
        predictions[NETWORK] = against[NETWORK]
        against[OBSERVED] = held_out.observed
    return fidelity_table(predictions, against, held_out.times, network.outputs.names)


def network_outputs(network: Network, inputs: Tensor) -> Tensor:
    """What the network itself gives, (N, Q), one sequence at a time."""
    with network.at_rest(), torch.no_grad():
        return torch.cat([network(part.to(network.dtype)) for part in inputs.split(1)])


def fidelity_table(
    predictions: Mapping[str, Tensor], against: Mapping[str, Tensor], times: np.ndarray, outputs: Sequence[str]
) -> xr.Dataset:
    """Scores of what surrogates give, over all sequences, by flow and by season.

    nse = 1 - sum (p - o)^2 / sum (o - mean o)^2,   r2 = 1 - sum (p - o - mean (p - o))^2 / sum (o - mean o)^2

    The first (Nash and Sutcliffe 1970) judges offset and kernels, the second kernels alone: it is what the first would
    be with the best offset. It is not the squared correlation, which a kernel that is twice too large leaves at 1.
    Within a class means are the class's own. "low", "middle" and "high" are thirds of the values of what is compared
    with.

    Args:
        predictions: (N, Q) by the name of the surrogate.
        against: (N, Q) by name, such as "network" and "observed"; NaN is left out.
        times: (N,) datetime64.
        outputs: Q names.

    Returns:
        ``nse`` and ``r2`` (surrogate, against, output), ``nse_by_flow`` and ``r2_by_flow`` (..., flow, output),
        ``nse_by_season`` and ``r2_by_season`` (..., season, output), and of each the number of values that were
        compared, ``num_values``, ... (against, ..., output). NaN where it is not defined, as where values are constant.
    """
    predictions = {name: values.detach().cpu() for name, values in predictions.items()}
    against = {name: values.detach().cpu() for name, values in against.items()}
    variables: dict[str, Any] = {}
    for kind, classes in _classes(list(against.values()), times).items():
        ending, axes = (f"_by_{kind}", (kind,)) if kind else ("", ())
        numbers = torch.stack([valid.sum(1) for valid in classes])
        scores = torch.stack([_scores(one, list(against.values()), classes) for one in predictions.values()], dim=1)
        if not kind:
            numbers, scores = numbers[:, 0], scores[:, :, :, 0]
        variables["num_values" + ending] = (("against", *axes, "output"), numbers.numpy(), {"units": "1"})
        for (name, long_name), values in zip(LONG_NAMES.items(), scores, strict=True):
            attributes = {"long_name": long_name, "units": "1"}
            variables[name + ending] = (("surrogate", "against", *axes, "output"), values.numpy(), attributes)
    names = {"surrogate": list(predictions), "against": list(against), "output": list(outputs)}
    return xr.Dataset(variables, names | {"flow": list(FLOWS), "season": list(SEASONS)})


def _classes(against: Sequence[Tensor], times: np.ndarray) -> dict[str, list[Tensor]]:
    """For each kind of class, which values belong to it, (classes, N, Q) for each that is compared with."""
    months = torch.from_numpy(np.asarray(times).astype("datetime64[M]").astype(np.int64) % 12)
    seasons = ((months + 1) % 12 // 3)[:, None]  # December is the first month of DJF
    known = [~truth.isnan() for truth in against]
    thirds = [_thirds(truth) for truth in against]
    return {
        "": [valid[None] for valid in known],
        "flow": [torch.stack([part == one for one in range(len(FLOWS))]) for part in thirds],
        "season": [torch.stack([valid & (seasons == one) for one in range(len(SEASONS))]) for valid in known],
    }


def failed(table: xr.Dataset, surrogate: str, threshold: float = THRESHOLD) -> xr.DataArray:
    """For each output, whether the kernels explain less than this share of the network's variance, (output,).

    Such a kernel does not say what the network does. Where r2 is not defined, the surrogate has failed too.
    """
    return ~(table["r2"].sel(surrogate=surrogate, against=NETWORK, drop=True) >= threshold)


def _thirds(truth: Tensor) -> Tensor:
    """For each value (N, Q) whether it is in the lowest third of its output's (0), the middle (1) or the highest (2).

    -1 where it is missing.
    """
    values = truth.double()
    bounds = torch.nanquantile(values, torch.tensor([1 / 3, 2 / 3], dtype=torch.float64), dim=0)
    return torch.where(values.isnan(), -1, (values > bounds[0]).long() + (values > bounds[1]).long())


def _scores(predicted: Tensor, against: Sequence[Tensor], classes: Sequence[Tensor]) -> Tensor:
    """nse and r2 of each class, for each that is compared with: (2, against, classes, Q)."""
    rows = []
    for truth, masks in zip(against, classes, strict=True):
        # Neither score depends on what is taken from both flows, and sums of squares are exacter without their level.
        level = truth.double().nanmean(0)
        own, wanted = ((flow.double() - level)[:, None, None] for flow in (predicted, truth))
        sums = torch.stack([flow_sums(own, wanted, valid[:, None, None], YARDSTICK)[..., 0] for valid in masks], dim=1)
        shifted = sums.clone()
        shifted[6] -= (sums[1] - sums[2]).square() / sums[0]
        rows.append(torch.stack([nash_sutcliffe(sums, YARDSTICK), nash_sutcliffe(shifted, YARDSTICK)]))
    return torch.stack(rows, dim=1)
