"""Training, validation and test data, apart in time."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
from pydantic import model_validator

from fieldcast.data.source import FrameSequence, Source
from fieldcast.data.times import decode_time
from fieldcast.errors import ConfigError
from fieldcast.settings import Settings, TupleOf

SPLITS = ("train", "validation", "test")
FOREVER = np.iinfo(np.int64).max
ALWAYS = (np.iinfo(np.int64).min, FOREVER)
Interval = tuple[int, int]  # [start, end), ns


class SplitSettings(Settings):
    """Where each split lies: half-open intervals of time, or fractions in order of time, or counts of sequences.

    Intervals [start, end) are ISO times, and a split may have several of them, such as weeks of every season;
    fractions add up to at most 1; counts are for sources that make their own sequences; ``"source"`` is for sources
    that come with splits of their own.
    """

    train: TupleOf[str] | TupleOf[TupleOf[str]] | float | int | Literal["source"]
    validation: TupleOf[str] | TupleOf[TupleOf[str]] | float | int | Literal["source"]
    test: TupleOf[str] | TupleOf[TupleOf[str]] | float | int | Literal["source"]

    @model_validator(mode="after")
    def _one_kind(self) -> "SplitSettings":
        values = [getattr(self, split) for split in SPLITS]
        if len({type(value) for value in values}) > 1:
            raise ValueError(
                'all splits are of one kind: [start, end] times, or fractions such as 0.7, or counts, or "source"'
            )
        if isinstance(values[0], tuple):
            if any(not value or any(len(interval) != 2 for interval in _listed(value)) for value in values):
                raise ValueError('an interval is ["start", "end"], several are [["start", "end"], ["start", "end"]]')
        elif not isinstance(values[0], str) and min(values) <= 0:
            raise ValueError("no split may be empty")
        elif isinstance(values[0], float) and sum(values) > 1 + 1e-9:
            raise ValueError(f"the fractions add up to {sum(values):g}, more than 1")
        return self

    @property
    def kind(self) -> Literal["archive", "divided", "generator"]:
        """The kind of source that splits like these fit."""
        if isinstance(self.train, str):
            return "divided"
        return "generator" if isinstance(self.train, int) else "archive"

    @property
    def counts(self) -> dict[str, int] | None:
        """Number of sequences of each split, or None where they are not counted."""
        values = {split: getattr(self, split) for split in SPLITS}
        return values if self.kind == "generator" else None


def split_intervals(
    splits: SplitSettings, source: Source, sequences: Sequence[FrameSequence], span: int
) -> dict[str, list[list[Interval]]]:
    """Half-open intervals of time in which the samples of each split lie, a list for each sequence.

    An interval that begins less than a sample after the end of one of another split begins later by that much, so that
    no frame, and nothing within a sample's length of it, is shared.

    Args:
        splits: times or fractions.
        source: gives the calendar.
        sequences: where frames are.
        span: ns, the longest time from first to last frame of a sample.

    Raises:
        ConfigError: where intervals overlap or are empty.
    """
    if isinstance(splits.train, tuple):
        named = {split: _decode(split, getattr(splits, split), source.calendar) for split in SPLITS}
        order = sorted((*interval, split) for split, intervals in named.items() for interval in intervals)
        for (_, end, earlier), (start, _, later) in pairwise(order):
            if start < end:
                which = f"splits.{earlier} and splits.{later}" if earlier != later else f"intervals of splits.{earlier}"
                raise ConfigError(f"{which} overlap in time")
        planned = {split: [intervals] * len(sequences) for split, intervals in named.items()}
    else:
        planned = {split: [[one] for one in intervals] for split, intervals in _fractions(splits, sequences).items()}
    kept: dict[str, list[list[Interval]]] = {}
    for split in SPLITS:
        kept[split] = []
        for number, intervals in enumerate(planned[split]):
            others = [interval for other in SPLITS if other != split for interval in planned[other][number]]
            kept[split].append([_clear_of(others, interval, span) for interval in intervals])
    return kept


def _clear_of(others: list[Interval], interval: Interval, span: int) -> Interval:
    """The interval from at least a sample after those of other splits that end before it."""
    start, end = interval
    return max([start, *(stop + span for begin, stop in others if begin < stop <= start)]), end


def _listed(value: tuple) -> tuple[tuple[str, ...], ...]:
    """Several intervals, though one may be written without a list around it."""
    return (value,) if isinstance(value[0], str) else value


def _decode(split: str, value: tuple, calendar: str) -> list[Interval]:
    intervals = []
    for interval in _listed(value):
        try:
            start, end = (decode_time(text, calendar) for text in interval)
        except ValueError as error:
            raise ConfigError(f"splits.{split}: {error}") from None
        if start >= end:
            raise ConfigError(f"splits.{split}: {interval[0]} is not before {interval[1]}")
        intervals.append((start, end))
    return sorted(intervals)


def _fractions(splits: SplitSettings, sequences: Sequence[FrameSequence]) -> dict[str, list[Interval]]:
    lengths = np.array([len(sequence.times) for sequence in sequences])
    firsts = np.concatenate([[0], np.cumsum(lengths)])
    edges = np.round(np.cumsum([0.0, *(getattr(splits, split) for split in SPLITS)]) * firsts[-1]).astype(int)
    intervals: dict[str, list[Interval]] = {}
    for split, low, high in zip(SPLITS, edges[:-1], edges[1:], strict=True):
        intervals[split] = []
        for sequence, first, length in zip(sequences, firsts[:-1], lengths, strict=True):
            start, end = np.clip([low - first, high - first], 0, length)
            times = [*sequence.times.tolist(), FOREVER]
            intervals[split].append((times[start], times[end]) if start < end else (0, 0))
    return intervals
