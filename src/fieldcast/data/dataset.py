"""The samples of one split: which frames each is made of, and how they become a batch.

Shapes: B batch, T input frames, S target frames, C channels, H rows, W columns, R stations.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from fieldcast.data.batch import Batch, collate
from fieldcast.data.flow import FlowNormalizer, fit_flow_normalizer
from fieldcast.data.normalize import Normalizer, NormalizerSettings, fit_normalizer
from fieldcast.data.sampling import Sampler, SamplingSettings, make_samplers
from fieldcast.data.source import FrameSequence, RenderedSequence, Source, StationSequence, StationSource
from fieldcast.data.splits import ALWAYS, SPLITS, Interval, SplitSettings, split_intervals
from fieldcast.data.thinning import RunsOfFrames
from fieldcast.data.times import parse_duration
from fieldcast.data.windows import WindowSettings, find_windows, longest_run
from fieldcast.errors import ConfigError, DataError

FRAMES_AT_ONCE = 64  # read together when statistics are gathered
HOW_TO_SPLIT = {
    "archive": "times or fractions",
    "divided": 'train = "source", and so for the others: it comes with splits of its own',
    "generator": "counts of sequences, such as train = 10000",
}


@dataclass(frozen=True)
class Samples:
    """Samples of one split, in order of sequence and time.

    A sample is taken from a stretch of consecutive frames of a sequence; the sampler says at which times in it. Targets
    are later frames, under the same normaliser as the inputs, or the flow at the stations of a source that has some.
    """

    source: Source
    sequences: Sequence[FrameSequence]
    starts: list[tuple[int, int]]  # (sequence, position of the first frame of the stretch)
    windows: WindowSettings
    normalizer: Normalizer
    target_normalizer: Normalizer | FlowNormalizer
    sampler: Sampler

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def span(self) -> int:
        """Longest time from the first to the last frame of a sample, ns."""
        return self.sampler.plan.span(self.source.cadence)

    def origin(self, number: int) -> int:
        """Time of the last input of the sample with this number, int64 ns since 1970-01-01."""
        return int(self.times(number)[self.windows.num_inputs - 1])

    def times(self, number: int) -> np.ndarray:
        """Times of a sample's inputs, then of its targets, each ascending: (T + S,) int64 ns since 1970-01-01."""
        return self._times(self.sequences[self.starts[number][0]], number)

    def whole_maps(self, batch_size: int) -> int:
        """How many whole maps hold as many pixels as ``batch_size`` training samples, at least one."""
        height, width = self.source.shape
        crop = self.windows.crop
        return batch_size if crop is None else max(1, batch_size * crop**2 // (height * width))

    def batch(self, numbers: Sequence[int], corners: Sequence[tuple[int, int]] | None = None) -> Batch:
        """The samples with these numbers; ``corners`` cut each down to ``windows.crop`` from (row, column)."""
        return self.batch_and_truth(numbers, corners)[0]

    def batch_and_truth(
        self, numbers: Sequence[int], corners: Sequence[tuple[int, int]] | None = None
    ) -> tuple[Batch, Tensor]:
        """As ``batch``, with the targets (B, S, C, H, W) or (B, S, 1, R) in physical units as they were read."""
        size = self.windows.crop
        parts = []
        for row, number in enumerate(numbers):
            cut = None
            if corners is not None and size is not None:
                top, left = corners[row]
                cut = (slice(top, top + size), slice(left, left + size))
            parts.append(self._sample(number, cut))
        return collate([part[0] for part in parts]), torch.cat([part[1] for part in parts])

    def frames(self, number: int, cut: tuple[slice, slice] | None = None) -> np.ndarray:
        """A sample's inputs and targets as they were read, (T + S, C, H, W) physical, NaN where missing."""
        return self._frames(self.sequences[self.starts[number][0]], number, cut)

    # A generator makes a sequence anew each time it is asked for one.
    def _times(self, sequence: FrameSequence, number: int) -> np.ndarray:
        which, start = self.starts[number]
        moments, settings = self.sampler.times(which, start), self.sampler.plan.settings
        if settings.real_numbers:
            return sequence.times[start] + np.rint(moments * self.source.cadence).astype(np.int64)
        absolute = sequence.times[start + moments]
        if settings.jitter:
            absolute = absolute + np.rint(self.sampler.lateness(which, start) * self.source.cadence).astype(np.int64)
        return absolute

    def _frames(self, sequence: FrameSequence, number: int, cut: tuple[slice, slice] | None) -> np.ndarray:
        if self.sampler.plan.settings.renders:
            assert isinstance(sequence, RenderedSequence)
            rows, columns = cut or (slice(None), slice(None))
            return sequence.read_at(self._times(sequence, number) / self.source.cadence)[:, :, rows, columns]
        which, start = self.starts[number]
        return sequence.read(start + self.sampler.times(which, start), cut)

    def _sample(self, number: int, cut: tuple[slice, slice] | None) -> tuple[Batch, Tensor]:
        (which, start), num_inputs = self.starts[number], self.windows.num_inputs
        sequence = self.sequences[which]
        absolute = self._times(sequence, number)
        if isinstance(sequence, StationSequence):
            positions = start + self.sampler.times(which, start)
            inputs = sequence.read(positions[:num_inputs], cut)
            targets = sequence.read_flow(positions[num_inputs:])
        else:
            inputs, targets = np.split(self._frames(sequence, number, cut), [num_inputs])
        origin = int(absolute[num_inputs - 1])
        times = relative_times(absolute, origin, self.source.cadence)[None]
        truth = torch.from_numpy(targets)[None]
        batch = make_batch(self, torch.from_numpy(inputs)[None], truth, times)
        return replace(batch, origin=torch.tensor([origin])), truth


def spread(total: int, wanted: int | None) -> list[int]:
    """At most ``wanted`` of the numbers below ``total``, evenly spread."""
    if wanted is not None and wanted < 1:
        raise ConfigError(f"num_samples = {wanted}: at least 1")
    return np.unique(np.linspace(0, total - 1, min(wanted or total, total)).round().astype(int)).tolist()


def relative_times(times: np.ndarray, origin: int, cadence: int) -> Tensor:
    """Times (n,) in cadences after ``origin``, float32."""
    return torch.from_numpy(((times - origin) / cadence).astype(np.float32))


class Normalizers(Protocol):
    """What says how inputs and targets are normalised: samples, or a run."""

    @property
    def normalizer(self) -> Normalizer:
        """That of the inputs."""

    @property
    def target_normalizer(self) -> Normalizer | FlowNormalizer:
        """That of the targets."""


def make_batch(normalizers: Normalizers, inputs: Tensor, targets: Tensor, times: Tensor) -> Batch:
    """Normalise inputs (B, T, C, H, W) and targets (B, S, ...) at times (B, T + S), and mark what is missing.

    A missing input pixel reads as the low end.
    """
    inputs, targets = normalizers.normalizer.normalise(inputs), normalizers.target_normalizer.normalise(targets)
    valid = ~torch.isnan(targets)
    return Batch(
        inputs=torch.where(torch.isnan(inputs), 0, inputs),
        input_times=times[:, : inputs.shape[1]],
        targets=torch.where(valid, targets, 0),
        target_times=times[:, inputs.shape[1] :],
        valid=valid,
        origin=torch.zeros(len(inputs), dtype=torch.int64),
    )


def make_samples(
    source: Source,
    windows: WindowSettings,
    splits: SplitSettings,
    normalizer: Normalizer | NormalizerSettings,
    sampling: SamplingSettings | None = None,
    seed: int = 0,
    flow_normalizer: FlowNormalizer | None = None,
) -> dict[str, Samples]:
    """The samples of every split, under one normaliser, which is fitted to the training split where only settings come.

    So is that of the flow of a source with stations, where none comes.

    ``sampling`` says at which times inputs and targets lie, by default one frame after the other; what is drawn for it
    depends on ``seed``.

    Raises:
        ConfigError: where ``sampling`` does not fit ``windows``.
        DataError: where a split has no sample, or splits, sampling and source do not fit.
    """
    samplers = make_samplers(sampling or SamplingSettings(), windows, seed)
    if source.kind != splits.kind:
        raise DataError(f"this source takes splits as {HOW_TO_SPLIT[source.kind]}")
    if windows.first_lead == 0 and not isinstance(source, StationSource):
        raise DataError(
            "windows.first_lead = 0: the frame at lead time 0 is an input of this source; begin at 1 or later"
        )
    if windows.crop is not None and isinstance(source, StationSource):
        raise DataError("windows.crop cuts stations off from the weather that makes their flow: leave it out")
    if windows.crop is not None and windows.crop > min(source.shape):
        raise DataError(f"windows.crop = {windows.crop} is larger than the map {source.shape[0]} x {source.shape[1]}")
    place = _place_generated if splits.counts else _place_archive
    placed = place(source, windows, splits, samplers)
    unfitted = Normalizer(())
    samples = {split: Samples(source, *placed[split], windows, unfitted, unfitted, samplers[split]) for split in SPLITS}
    if isinstance(normalizer, NormalizerSettings):
        normalizer = _fit(normalizer, source, samples["train"])
    if isinstance(source, StationSource) and flow_normalizer is None:
        pieces = (flow for flow, _ in flow_and_times(samples["train"]))
        flow_normalizer = fit_flow_normalizer(source.flow_settings, source.stations, pieces)
    of_targets = flow_normalizer or normalizer
    return {
        split: replace(part, normalizer=normalizer, target_normalizer=of_targets) for split, part in samples.items()
    }


def _fit(settings: NormalizerSettings, source: Source, train: Samples) -> Normalizer:
    if source.value_range is not None:
        ends = np.array(source.value_range, np.float32)[:, None, None, None]
        return fit_normalizer(settings, source.variables, [ends.repeat(len(source.variables), axis=1)])
    return fit_normalizer(settings, source.variables, (frames for frames, _ in frames_and_times(train)))


def frames_and_times(samples: Samples) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every frame that the samples are made of, once, in pieces: (n, C, H, W) physical, and times (n,) int64 ns."""
    if samples.sampler.plan.settings.renders:
        # What is rendered for one sample has a time of its own and is no other sample's.
        yield from ((samples.frames(number), samples.times(number)) for number in range(len(samples)))
        return
    # Weather at the time of a flow that lies ahead is no part of the sample.
    own = slice(samples.windows.num_inputs) if isinstance(samples.source, StationSource) else slice(None)
    for sequence, positions in _positions(samples, own):
        for first in range(0, len(positions), FRAMES_AT_ONCE):
            piece = positions[first : first + FRAMES_AT_ONCE]
            yield sequence.read(piece), sequence.times[piece]


def flow_and_times(samples: Samples) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The flow at every target of samples with stations, once: (n, 1, R) physical, and times (n,) int64 ns."""
    for sequence, positions in _positions(samples, slice(samples.windows.num_inputs, None)):
        assert isinstance(sequence, StationSequence)
        yield sequence.read_flow(positions), sequence.times[positions]


def _positions(samples: Samples, part: slice) -> Iterator[tuple[FrameSequence, np.ndarray]]:
    """Each sequence with the positions in it of some part of every sample, ascending."""
    wanted: dict[int, set[int]] = {}
    for which, start in samples.starts:
        wanted.setdefault(which, set()).update((start + samples.sampler.times(which, start)[part]).tolist())
    for which, positions in wanted.items():
        yield samples.sequences[which], np.array(sorted(positions))


Placed = dict[str, tuple[Sequence[FrameSequence], list[tuple[int, int]]]]


def _place_generated(
    source: Source, windows: WindowSettings, splits: SplitSettings, samplers: dict[str, Sampler]
) -> Placed:
    placed: Placed = {}
    for split, count in (splits.counts or {}).items():
        sequences, plan = source.sequences(split, count), samplers[split].plan
        settings, length = plan.settings, len(sequences[0].times)
        if settings.renders or settings.thins:
            _refuse_fixed(sequences[0], "real_numbers, jitter, gaps and bursts of a generator")
        if settings.thins:
            longest = windows.longest_step(source.cadence)
            sequences = RunsOfFrames(sequences, samplers[split].thinning, plan.length, longest, source.cadence)
        elif length < plan.length:
            raise DataError(f"a sample needs {plan.length} frames, this source makes sequences of {length}")
        placed[split] = (sequences, [(number, 0) for number in range(count)])
    return placed


def _refuse_fixed(sequence: FrameSequence, what: str) -> None:
    if not isinstance(sequence, RenderedSequence):
        raise DataError(
            f"sampling: {what} need a source that renders any time, such as moving-mnist; this one has frames at fixed "
            "times only: choose among those with input_interval and target_interval"
        )


def _place_archive(
    source: Source, windows: WindowSettings, splits: SplitSettings, samplers: dict[str, Sampler]
) -> Placed:
    sequences = {split: source.sequences(split, None) for split in SPLITS}
    plan = samplers["train"].plan
    if plan.settings.renders:
        _refuse_fixed(sequences["train"][0], "real_numbers and jitter")
    if splits.kind == "divided":
        intervals = {split: [[ALWAYS]] * len(sequences[split]) for split in SPLITS}
    else:
        intervals = split_intervals(splits, source, sequences["train"], plan.span(source.cadence))
    sequences = {split: samplers[split].thinning.thin(sequences[split]) for split in SPLITS}
    return {
        split: (sequences[split], _find_samples(source, samplers[split], sequences[split], intervals[split]))
        for split in SPLITS
    }


def _find_samples(
    source: Source, sampler: Sampler, sequences: Sequence[FrameSequence], intervals: Sequence[Sequence[Interval]]
) -> list[tuple[int, int]]:
    """The samples that lie in an interval of their sequence, as (sequence, position of the first frame)."""
    plan, windows = sampler.plan, sampler.plan.windows
    longest = windows.longest_step(source.cadence)
    stride = parse_duration(windows.stride) if windows.stride else 0
    starts = []
    best = 0
    for which, (sequence, own) in enumerate(zip(sequences, intervals, strict=True)):
        ends = [np.searchsorted(sequence.times, interval) for interval in own]
        parts = [(int(first), sequence.times[first:stop]) for first, stop in ends]
        best = max([best, *(longest_run(times, longest) for _, times in parts)])
        if isinstance(sequence, StationSequence):
            found = find_windows(sequence.times, plan.length, longest, stride)
            found = _with_flow(sequence, which, found, sampler, own)
        else:
            found = np.concatenate(
                [first + find_windows(times, plan.length, longest, stride) for first, times in parts]
            )
        starts += [(which, int(start)) for start in found]
    if not starts:
        left = " of those that [sampling] leaves" if plan.settings.thins else ""
        flow = ", with flow in the split" if isinstance(source, StationSource) else ""
        raise DataError(
            f"0 {sampler.split} samples: one needs {plan.length} frames{left} without a step above "
            f"{longest / 1e9:g} s{flow}, the longest run in splits.{sampler.split} has {best}"
        )
    return starts


def _with_flow(
    sequence: StationSequence, which: int, starts: np.ndarray, sampler: Sampler, intervals: Sequence[Interval]
) -> np.ndarray:
    """The starts of samples whose targets lie in one of the intervals and hold some flow.

    The weather before may be older: an interval begins a sample's length after an earlier split ends, so that no
    frame is shared.
    """
    if not len(starts):
        return starts
    num_inputs = sampler.plan.windows.num_inputs
    targets = np.stack([start + sampler.times(which, int(start))[num_inputs:] for start in starts])
    known = ~np.isnan(sequence.read_flow(np.arange(len(sequence.times)))).all(axis=(1, 2))
    times = sequence.times[targets]
    within = [((begin <= times) & (times < end)).all(axis=1) for begin, end in intervals]
    return starts[np.any(within, axis=0) & known[targets].any(axis=1)]
