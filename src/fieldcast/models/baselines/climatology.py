"""Climatology: what is usual at this hour of day or this time of year.

Shapes: n frames of a piece, N bins of the season, B batch, S target frames, C channels, H rows, W columns.
"""

from collections.abc import Iterable
from typing import ClassVar, NamedTuple

import cftime
import numpy as np
import torch
from torch import Tensor

from fieldcast.data.batch import Batch
from fieldcast.data.normalize import Normalizer
from fieldcast.data.source import NANOSECONDS, Source
from fieldcast.errors import DataError
from fieldcast.models.base import Forecaster, ModelSettings

HOUR, DAY = 3600, 86400  # s
DAYS_OF_A_BIN = 10


class Season(NamedTuple):
    """What a climatology goes by: the hour of day of frames less than a day apart, the day of year of others.

    Attributes:
        cadence: ns between frames.
        calendar: CF calendar of the times.
        real_times: whether times say when it was; otherwise there is one mean for all.
    """

    cadence: int
    calendar: str
    real_times: bool

    @property
    def num_bins(self) -> int:
        """24 hours, or 37 times ten days of which the last are the few that remain, or one bin for all."""
        if not self.real_times:
            return 1
        return 24 if self.cadence < DAY * NANOSECONDS else 37

    def bins(self, times: np.ndarray) -> np.ndarray:
        """Which bin each time is in, int64, for times of any shape in int64 ns since 1970-01-01 of the calendar."""
        # Lead times are float32 inside models: a moment too early must not fall into the hour before.
        seconds = (times + NANOSECONDS // 2) // NANOSECONDS
        if self.num_bins == 1:
            return np.zeros_like(seconds)
        if self.num_bins == 24:
            return seconds % DAY // HOUR
        days, places = np.unique(seconds // DAY, return_inverse=True)
        dates = cftime.num2date(days, "days since 1970-01-01", calendar=self.calendar)
        day_of_year = np.array([date.dayofyr for date in dates], dtype=np.int64)
        return ((day_of_year - 1) // DAYS_OF_A_BIN)[places].reshape(seconds.shape)


def mean_by_season(pieces: Iterable[tuple[np.ndarray, np.ndarray]], season: Season) -> tuple[Tensor, Tensor]:
    """Means of each bin of the season and of all, in one pass, NaN for what was never seen.

    Args:
        pieces: values (n, ...), NaN where missing, and their times (n,) int64 ns.
        season: which says what bin a time is in.

    Returns:
        (N, ...) and (...), float64; a bin without data has the mean of all.

    Raises:
        DataError: where there is no piece.
    """
    sums, counts = torch.empty(0), torch.empty(0)
    for frames, times in pieces:
        values, bins = torch.from_numpy(frames), torch.from_numpy(season.bins(times))
        if not len(sums):
            sums = torch.zeros(season.num_bins, *values.shape[1:], dtype=torch.float64)
            counts = torch.zeros(sums.shape, dtype=torch.int32)
        seen = ~torch.isnan(values)
        sums.index_add_(0, bins, torch.where(seen, values, 0).double())
        counts.index_add_(0, bins, seen.int())
    if not len(sums):
        raise DataError("climatology: there are no frames to take the mean of")
    # 0 / 0 marks a pixel that was never seen, as NaN.
    overall = sums.sum(0) / counts.sum(0)
    return torch.where(counts > 0, sums / counts.clamp(min=1), overall), overall


class Climatology(Forecaster):
    """The mean of the training split at each pixel, by hour of day or by time of year.

    X^(t) = normalise(mean of X over the training frames in the same bin of the season as t). The mean is taken in
    physical units, in which a climatology is read: the mean of log rates would be that of drizzle. A bin without
    data has the mean of all; a pixel that was never seen reads as the low end, as missing inputs do.

    ``forward``, which knows no calendar, gives the mean of all; ``forward_batch`` knows it.
    """

    irregular_inputs = True
    irregular_targets = True
    trained: ClassVar[bool] = False

    means: Tensor  # (N, C, H, W), normalised
    overall: Tensor  # (C, H, W), normalised

    def __init__(self, settings: ModelSettings, num_channels: int) -> None:
        super().__init__()
        self.settings = settings
        self.season: Season | None = None
        self.register_buffer("means", torch.empty(0))
        self.register_buffer("overall", torch.empty(0))
        self.register_load_state_dict_pre_hook(_resize)

    def fit(self, pieces: Iterable[tuple[np.ndarray, np.ndarray]], source: Source, normalizer: Normalizer) -> None:
        """Take the means, in one pass.

        Args:
            pieces: frames (n, C, H, W) in physical units, NaN where missing, and their times (n,) int64 ns.
            source: which says what times are.
            normalizer: what forecasts are normalised by.

        Raises:
            DataError: where there are no frames.
        """
        season = Season(source.cadence, source.calendar, source.real_times)
        means, overall = mean_by_season(pieces, season)
        self.season = season
        self.means, self.overall = (_ready(normalizer, part).to(self.means) for part in (means, overall))

    def forward(self, inputs: Tensor, input_times: Tensor, target_times: Tensor) -> Tensor:
        """See ``Forecaster.forward``: the mean of all frames, whatever the time."""
        self._check(inputs)
        return self.overall.expand(*target_times.shape, *self.overall.shape)

    def forward_batch(self, batch: Batch) -> Tensor:
        """See ``Forecaster.forward_batch``: the mean of the season that the target times are in."""
        season = self._check(batch.inputs)
        _, target_times = self.seen_times(batch.input_times, batch.target_times)
        after = (target_times.double() * season.cadence).round().long()
        bins = season.bins((batch.origin[:, None] + after).cpu().numpy())
        return self.means[torch.from_numpy(bins).to(self.means.device)]

    def get_extra_state(self) -> dict:
        """What of the state is no tensor."""
        return {} if self.season is None else self.season._asdict()

    def set_extra_state(self, state: dict) -> None:
        """Undo ``get_extra_state``."""
        self.season = Season(**state) if state else None

    def _check(self, inputs: Tensor) -> Season:
        if self.season is None:
            raise DataError("climatology has seen no frames: fit it to the training split first (`fit`)")
        if inputs.shape[2:] != self.overall.shape:
            own, came = (" x ".join(str(size) for size in shape) for shape in (self.overall.shape, inputs.shape[2:]))
            raise DataError(f"the climatology is of channels x rows x columns {own}, the inputs are {came}")
        return self.season


def _ready(normalizer: Normalizer, physical: Tensor) -> Tensor:
    normalised = normalizer.normalise(physical)
    return torch.where(torch.isnan(normalised), 0, normalised)


def _resize(model: Climatology, state: dict[str, Tensor], prefix: str, *rest: object) -> None:
    """Make room for means of another map: their size is known only when they are fitted."""
    for name in ("means", "overall"):
        if prefix + name in state:
            setattr(model, name, torch.empty_like(state[prefix + name], device=model.means.device))
