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


class SplitSettings(Settings):
    """Where each split lies: half-open intervals of time, or fractions in order of time, or counts of sequences.

    Intervals [start, end) are ISO times; fractions add up to at most 1; counts are for sources that make
    their own sequences; ``"source"`` is for sources that come with splits of their own.
    """

    train: TupleOf[str] | float | int | Literal["source"]
    validation: TupleOf[str] | float | int | Literal["source"]
    test: TupleOf[str] | float | int | Literal["source"]

    @model_validator(mode="after")
    def _one_kind(self) -> "SplitSettings":
        values = [getattr(self, split) for split in SPLITS]
        if len({type(value) for value in values}) > 1:
            raise ValueError(
                'all splits are of one kind: [start, end] times, or fractions such as 0.7, or counts, or "source"'
            )
        if isinstance(values[0], tuple):
            if any(len(value) != 2 for value in values):
                raise ValueError('an interval is ["start", "end"]')
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
) -> dict[str, list[tuple[int, int]]]:
    """Half-open intervals of time in which the samples of each split lie, one for each sequence.

    A split that begins less than a sample after the end of an earlier one begins later by that much, so that no
    frame, and nothing within a sample's length of it, is shared.

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
        intervals = {split: [named[split]] * len(sequences) for split in SPLITS}
        order = sorted(named, key=lambda split: named[split])
        for earlier, later in pairwise(order):
            if named[later][0] < named[earlier][1]:
                raise ConfigError(f"splits.{earlier} and splits.{later} overlap in time")
    else:
        intervals, order = _fractions(splits, sequences), list(SPLITS)
    for position, split in enumerate(order):
        for number, (start, end) in enumerate(intervals[split]):
            ends = [intervals[earlier][number] for earlier in order[:position]]
            clear = max((stop + span for begin, stop in ends if begin < stop), default=start)
            intervals[split][number] = (max(start, clear), end)
    return intervals


def _decode(split: str, interval: tuple[str, ...], calendar: str) -> tuple[int, int]:
    try:
        start, end = (decode_time(text, calendar) for text in interval)
    except ValueError as error:
        raise ConfigError(f"splits.{split}: {error}") from None
    if start >= end:
        raise ConfigError(f"splits.{split}: {interval[0]} is not before {interval[1]}")
    return start, end


def _fractions(splits: SplitSettings, sequences: Sequence[FrameSequence]) -> dict[str, list[tuple[int, int]]]:
    lengths = np.array([len(sequence.times) for sequence in sequences])
    firsts = np.concatenate([[0], np.cumsum(lengths)])
    edges = np.round(np.cumsum([0.0, *(getattr(splits, split) for split in SPLITS)]) * firsts[-1]).astype(int)
    intervals: dict[str, list[tuple[int, int]]] = {}
    for split, low, high in zip(SPLITS, edges[:-1], edges[1:], strict=True):
        intervals[split] = []
        for sequence, first, length in zip(sequences, firsts[:-1], lengths, strict=True):
            start, end = np.clip([low - first, high - first], 0, length)
            times = [*sequence.times.tolist(), FOREVER]
            intervals[split].append((times[start], times[end]) if start < end else (0, 0))
    return intervals
