"""Kernels of a trained run: which field, where and how long ago, moves a river, a pixel or a region.

Shapes: N sequences, T input frames, S targets, C fields, H rows, W columns, Q outputs.
"""

import hashlib
import shutil
import sys
from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from fieldcast.data import Batch, Samples
from fieldcast.data.dataset import relative_times, spread
from fieldcast.data.times import decode_time, format_time
from fieldcast.errors import ConfigError, DataError
from fieldcast.explain.attribution import OcclusionSettings, integrated_gradients, kernel_contribution, occlusion
from fieldcast.explain.averaging import AveragedKernels, AveragingSettings, average_kernels
from fieldcast.explain.cost import cheapest_method, cost_of
from fieldcast.explain.fidelity import Record, SurrogateSettings, compare_surrogates, fit_surrogates, network_outputs
from fieldcast.explain.kernel_file import Explained, label_kernels
from fieldcast.explain.least_squares import ridge_surrogate
from fieldcast.explain.linear_kernels import LinearKernels, Method, Precision, describe_run, linear_kernels
from fieldcast.explain.network import Network
from fieldcast.explain.optimal_reference import SearchSettings, Series, best_data_sequences, optimal_references
from fieldcast.explain.targets import Asked, Place, choose_outputs
from fieldcast.models.base import TIME_TOLERANCE
from fieldcast.processes import Processes, choose_device, join_processes
from fieldcast.run import Run
from fieldcast.settings import Count, Settings

PATCHES_ACROSS = 8
NUM_TRIED = 20
TRIED_FOR_ONE = 20
Surrogate = Literal["average", "local", "reference", "best sequence", "optimal", "least squares"]


class ExplainSettings(Settings):
    """Which linear kernels stand for a network, and what they are compared with.

    ``surrogate``: "average" over training sequences (equation 80), "local" at the sequence that ends ``at``,
    "reference" at the mean training sequence, "best sequence" of the training data, "optimal" (equation 81), "least
    squares" fitted to what the network gives; None: the average for stations, the local one for maps. ``num_sequences``
    are taken of the training split, ``num_held_out`` of the test split, where the kernels are judged. ``compare`` makes
    and judges all but the local ones too. ``attribute`` sets beside the kernels what integrated gradients and occlusion
    say of the forecast from the sequence that ends ``at`` (None: of some of the test split, the one with the largest
    output). ``occlusion``: None hides patches of an eighth of the longer side at a time.
    """

    surrogate: Surrogate | None = None
    num_sequences: Count | None = 100
    num_held_out: Count | None = 100
    compare: bool = False
    attribute: bool = False
    at: str | None = None
    occlusion: OcclusionSettings | None = None
    search: SearchSettings = SearchSettings(num_candidates=20, max_iterations=20)
    num_blocks: Count = 10
    method: Method = "auto"
    precision: Precision = "float32"
    memory_megabytes: Count = 1024


def explain(
    run: Run,
    station: str | Sequence[str] | None = None,
    place: Place | None = None,
    minutes: Sequence[float] = (),
    settings: ExplainSettings | None = None,
    device: str = "auto",
) -> xr.Dataset:
    """Linear kernels of a trained run, in units of what it forecasts per unit of each field.

    A_q = a_q + sum over k, x, y, tau of omega_qk[x, y, tau] X_k[x, y, tau];   runoff note, equation 22.

    Args:
        run: a trained run.
        station: name or names of a run with stations; None: all of them.
        place: of a run with maps, the pixel or region that is explained.
        minutes: lead times; none: those of the run for stations, the longest of them for maps.
        settings: which kernels, made of how much, compared with what.
        device: "auto", "cpu", "cuda".

    Returns:
        the data set that ``label_kernels`` describes, with how well the kernels reproduce the network and what was
        observed on the test split.

    Raises:
        ConfigError: for an unknown station, a place outside the map, or settings that do not fit the run.
        DataError: where too few sequences have the same times.
    """
    settings = settings or ExplainSettings()
    torch_device = choose_device(device)
    _, splits = run.samples()
    with join_processes(torch_device) as processes:
        job = _Job(run, splits, Asked(station, place, minutes), settings, torch_device)
        if processes.first:
            print(job.cost(), file=sys.stderr)
        return job.explained(processes)


class _Job:
    """One explanation, from the choice of sequences to the labelled result."""

    def __init__(
        self,
        run: Run,
        splits: dict[str, Samples],
        asked: Asked,
        settings: ExplainSettings,
        device: torch.device,
    ) -> None:
        self.run, self.splits, self.settings, self.device = run, splits, settings, device
        self.surrogate = settings.surrogate or ("average" if run.stations else "local")
        test = splits["test"]
        number = 0 if settings.at is None else _ending_at(test, settings.at)
        target_times, self.outputs, self.labels = choose_outputs(run, test, number, asked)
        times = test.batch([number]).input_times
        self.network = Network(
            run.model(device), times, target_times, self.outputs, run.normalizer, run.target_normalizer
        )
        self.numbers = {
            "train": _alike(splits["train"], times, settings.num_sequences),
            "test": _alike(test, times, settings.num_held_out),
        }
        if min(map(len, self.numbers.values())) < 2 and (self.surrogate != "local" or settings.compare):
            raise DataError(
                f"{len(self.numbers['train'])} training and {len(self.numbers['test'])} test sequences have inputs at "
                'the same times: one linear function of them takes several; take surrogate = "local"'
            )
        self.chosen = self._wettest() if settings.at is None else number

    def read(self, split: str, number: int) -> Tensor:
        """A sequence (1, T, C, H, W) in physical units."""
        return self.run.normalizer.denormalise(self.splits[split].batch([number]).inputs).to(self.device)

    def cost(self) -> str:
        """What kernels at one sequence cost, and at how many they are taken."""
        settings, reference = self.settings, self.read("test", self.chosen)
        memory = settings.memory_megabytes
        if self.surrogate in ("local", "reference") and not settings.compare:
            # To measure a part would take longer than the whole.
            method = cheapest_method(self.network, reference) if settings.method == "auto" else settings.method
            return cost_of(self.network, reference, method, memory).describe()
        one = describe_run(self.network, reference, settings.method, memory_megabytes=memory)
        return f"{one}; at {len(self.numbers['train'])} sequences"

    def explained(self, processes: Processes) -> xr.Dataset:
        """The labelled kernels, the same in all processes."""
        chosen = self.read("test", self.chosen)
        surrogates, average = self._surrogates(chosen, processes)
        kernels = surrogates[self.surrogate]
        fidelity = compare_surrogates(self.network, surrogates, self._record("test"))
        shares = {}
        if self.settings.attribute:
            baseline = self._mean
            shares = {
                "contribution": kernel_contribution(self.network, kernels, chosen, baseline),
                "integrated_gradients": integrated_gradients(self.network, chosen, baseline),
                "occlusion": occlusion(self.network, chosen, baseline, self.settings.occlusion or _patches(chosen)),
            }
        reference = chosen[0] if self.surrogate == "local" else self._mean[0]
        count, shown = len(self.numbers["train"]), {name: share.shares for name, share in shares.items()}
        origin = format_time(self.splits["test"].origin(self.chosen), self.splits["test"].source.calendar)
        return label_kernels(
            Explained(
                self.run, self.splits["test"].source, self.network, self.labels, self.surrogate, kernels, average,
                reference, shown, fidelity, count, origin,
            )
        )  # fmt: skip

    @cached_property
    def _mean(self) -> Tensor:
        """The mean training sequence, (1, T, C, H, W)."""
        numbers = self.numbers["train"]
        if not numbers:
            raise DataError(
                "no training sequence has inputs at these times: there is no mean to set the forecast against"
            )
        return torch.stack([self.read("train", number) for number in numbers]).mean(0)

    def _surrogates(
        self, chosen: Tensor, processes: Processes
    ) -> tuple[dict[str, LinearKernels], AveragedKernels | None]:
        """The linear functions that are judged, by name, and the average among them where the kernels are of it."""
        settings, found, average = self.settings, {}, None
        averaging = AveragingSettings(
            num_blocks=min(settings.num_blocks, max(2, len(self.numbers["train"]))),
            method=settings.method,
            precision=settings.precision,
            memory_megabytes=settings.memory_megabytes,
        )
        if settings.compare:
            every = SurrogateSettings(averaging=averaging, search=settings.search)
            fitted = fit_surrogates(self.network, self._record("train"), every, processes)
            found, average = dict(fitted.kernels), fitted.average
        elif self.surrogate == "average":
            average = self._average(averaging, processes)
            found["average"] = average.kernels
        if self.surrogate not in found:
            found[self.surrogate] = self._one(self.surrogate, chosen)
        return found, average if self.surrogate == "average" else None

    def _one(self, surrogate: Surrogate, chosen: Tensor) -> LinearKernels:
        settings, network = self.settings, self.network
        if surrogate in ("local", "reference"):
            reference = chosen if surrogate == "local" else self._mean
            return linear_kernels(
                network, reference, settings.method, memory_megabytes=settings.memory_megabytes,
                precision=settings.precision,
            )  # fmt: skip
        inputs = self._record("train").inputs
        series = Series(inputs, network_outputs(network, inputs))
        if surrogate == "least squares":
            return ridge_surrogate(series, SurrogateSettings().num_folds)
        search = best_data_sequences if surrogate == "best sequence" else optimal_references
        return search(network, series, settings.search).kernels

    def _average(self, averaging: AveragingSettings, processes: Processes) -> AveragedKernels:
        """The averaged kernels; what was done stays in the run's folder until all is done."""
        step = self.run.best.state["progress"]["step"]
        mark = repr((step, self.outputs.names, self.network.target_times.tolist(), averaging, self.numbers["train"]))
        folder = self.run.folder / f"explain-{hashlib.sha256(mark.encode()).hexdigest()[:12]}"
        average = average_kernels(
            self.network, lambda number: self.read("train", number), self.numbers["train"], averaging, folder, processes
        )
        processes.wait()
        if processes.first:
            shutil.rmtree(folder)
        return average

    def _record(self, split: str) -> Record:
        """The sequences of a split, each read once."""
        samples, inputs, observed = self.splits[split], [], []
        for number in self.numbers[split]:
            batch, truth = samples.batch_and_truth([number])
            inputs.append(self.run.normalizer.denormalise(batch.inputs))
            observed.append(self._observed(batch, truth))
        origins = np.array([samples.origin(number) for number in self.numbers[split]]).astype("datetime64[ns]")
        known = [values for values in observed if values is not None]
        return Record(
            torch.cat(inputs).to(self.device), origins, torch.stack(known) if len(known) == len(observed) else None
        )

    def _observed(self, batch: Batch, truth: Tensor) -> Tensor | None:
        """What was observed of the outputs, (Q,), NaN where a part of it is missing; None: at other lead times."""
        places = (batch.target_times[0][:, None] - self.network.target_times[0]).abs() < TIME_TOLERANCE
        if not places.any(0).all():
            return None
        truth = truth[0, places.int().argmax(0)]
        value = self.outputs.of(torch.nan_to_num(truth)[None].to(self.outputs.weights))[0]
        missing = ((self.outputs.weights != 0) & truth.isnan()).flatten(1).any(1)
        return torch.where(missing, torch.nan, value)

    def _wettest(self) -> int:
        """Number of the test sequence, of some, from which the network forecasts most of the first output."""
        numbers = [self.numbers["test"][place] for place in spread(len(self.numbers["test"]), NUM_TRIED)]
        values = torch.cat([network_outputs(self.network, self.read("test", number))[:, :1] for number in numbers])
        return numbers[int(values.argmax())]


def _patches(sequence: Tensor) -> OcclusionSettings:
    size = -(-max(sequence.shape[-2:]) // PATCHES_ACROSS)
    return OcclusionSettings(size=size, stride=size)


def _alike(samples: Samples, times: Tensor, wanted: int | None) -> list[int]:
    """Numbers of samples with these input times (1, T), evenly spread, in order of time; all at other times: none."""
    # A generator may have a million samples, and makes each to say when it is.
    tried = spread(len(samples), None if wanted is None else TRIED_FOR_ONE * wanted)
    numbers = [
        number
        for number in tried
        if torch.allclose(_input_times(samples, number), times[0], rtol=0, atol=TIME_TOLERANCE)
    ]
    return [numbers[place] for place in spread(len(numbers), wanted)] if numbers else []


def _input_times(samples: Samples, number: int) -> Tensor:
    times = samples.times(number)[: samples.windows.num_inputs]
    return relative_times(times, int(times[-1]), samples.source.cadence)


def _ending_at(samples: Samples, at: str) -> int:
    """Number of the sample whose last input is of this time."""
    calendar = samples.source.calendar
    try:
        wanted = decode_time(at, calendar)
    except ValueError as error:
        raise ConfigError(f"at: {error}") from None
    origins = np.array([samples.origin(number) for number in range(len(samples))])
    nearest = int(np.abs(origins - wanted).argmin())
    if abs(int(origins[nearest]) - wanted) > samples.source.cadence // 200:
        raise ConfigError(
            f"at = '{at}': no sequence of the test split ends then; the nearest ends "
            f"{format_time(int(origins[nearest]), calendar)}"
        )
    return nearest
