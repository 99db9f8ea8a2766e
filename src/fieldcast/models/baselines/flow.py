"""What a river does without being asked why: flow stays as it is, or is what is usual at this time of year.

Shapes: n times of the record, N bins of the season, B batch, S targets, R stations.
"""

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from fieldcast.data.batch import Batch
from fieldcast.data.dataset import Samples, flow_and_times
from fieldcast.data.source import StationSequence
from fieldcast.errors import DataError
from fieldcast.models.base import Forecaster, ModelSettings
from fieldcast.models.baselines.climatology import Season, mean_by_season


def flow_record(train: Samples) -> StationSequence:
    """The record of flow that samples are taken from, before, in and after their split.

    Raises:
        DataError: for a source without stations, or of several records.
    """
    sequence = train.sequences[0]
    if not isinstance(sequence, StationSequence):
        raise DataError("this baseline forecasts flow at stations, and the source has none: it is for rivers")
    if len(train.sequences) > 1:
        raise DataError(f"baselines of flow take one record, the source has {len(train.sequences)}: join its files")
    return sequence


class FlowPersistence(Forecaster):
    """The last flow that was measured before the first target, and never after the last input.

    A forecast from lead time 1 on has the flow of the last input's day; one that begins at lead time 0, whose own flow
    is asked for, has that of the day before. Where a station has measured nothing yet, the mean of training.

    ``forward``, which knows no calendar, gives that mean; ``forward_batch`` knows it.
    """

    irregular_inputs = True
    irregular_targets = True
    trained: ClassVar[bool] = False
    forecasts_stations: ClassVar[bool] = True

    latest: Tensor  # (n + 1, 1, R), normalised: the newest flow before each time of the record, and at its end
    mean: Tensor  # (1, R), normalised

    def __init__(self, settings: ModelSettings, num_channels: int) -> None:
        super().__init__()
        self.settings = settings
        self.times = np.zeros(0, dtype=np.int64)
        for name in ("latest", "mean"):
            self.register_buffer(name, torch.empty(0), persistent=False)

    def fit(self, train: Samples) -> None:
        """Read the record: all of it, since a forecast of any split may look at what was measured before.

        Raises:
            DataError: see ``flow_record``.
        """
        record, season = flow_record(train), Season(0, "standard", real_times=False)
        _, overall = mean_by_season(flow_and_times(train), season)
        flow = record.read_flow(np.arange(len(record.times)))
        rows = np.where(np.isnan(flow), -1, np.arange(len(flow))[:, None, None])
        rows = np.concatenate([np.full_like(rows[:1], -1), np.maximum.accumulate(rows)])
        latest = np.take_along_axis(flow, rows.clip(min=0), axis=0)
        latest = np.where(rows >= 0, latest, overall.float().numpy())
        self.times = record.times
        self.latest = train.target_normalizer.normalise(torch.from_numpy(latest)).to(self.latest.device)
        self.mean = train.target_normalizer.normalise(overall.float()).to(self.mean.device)

    def forward(self, inputs: Tensor, input_times: Tensor, target_times: Tensor) -> Tensor:
        """See ``Forecaster.forward``: the mean of training, (B, S, 1, R)."""
        _check_fitted(self.times)
        return self.mean.expand(*target_times.shape, *self.mean.shape)

    def forward_batch(self, batch: Batch) -> Tensor:
        """See ``Forecaster.forward_batch``: (B, S, 1, R), the same for all targets of a sample."""
        _check_fitted(self.times)
        _, target_times = self.seen_times(batch.input_times, batch.target_times)
        diagnosed = (target_times[:, 0] <= 0).cpu().numpy()
        origin = batch.origin.cpu().numpy()
        before = np.where(
            diagnosed, np.searchsorted(self.times, origin), np.searchsorted(self.times, origin, side="right")
        )
        forecast = self.latest[torch.from_numpy(before).to(self.latest.device)]
        return forecast[:, None].expand(-1, target_times.shape[1], -1, -1)


class FlowClimatology(Forecaster):
    """The flow that is usual at the time of the target.

    What is usual is the source's own, taken from other years, where it has that; otherwise the mean of the training
    flow in the same bin of the ``Season``, in physical units. A bin without data has the mean of all.

    ``forward``, which knows no calendar, gives the mean of all; ``forward_batch`` knows it.
    """

    irregular_inputs = True
    irregular_targets = True
    trained: ClassVar[bool] = False
    forecasts_stations: ClassVar[bool] = True

    means: Tensor  # (N, 1, R), normalised
    overall: Tensor  # (1, R), normalised
    usual: Tensor  # (n, 1, R), normalised, NaN where the source does not say

    def __init__(self, settings: ModelSettings, num_channels: int) -> None:
        super().__init__()
        self.settings = settings
        self.season: Season | None = None
        self.times = np.zeros(0, dtype=np.int64)
        for name in ("means", "overall", "usual"):
            self.register_buffer(name, torch.empty(0), persistent=False)

    def fit(self, train: Samples) -> None:
        """Take the means over the training split, and the source's own usual flow.

        Raises:
            DataError: see ``flow_record``.
        """
        source, record = train.source, flow_record(train)
        self.season = Season(source.cadence, source.calendar, source.real_times)
        physical = [*mean_by_season(flow_and_times(train), self.season)]
        self.times = record.times[:0]
        usual = record.read_usual(np.arange(len(record.times)))
        if usual is not None:
            self.times = record.times
            physical.append(torch.from_numpy(usual))
        normalised = [train.target_normalizer.normalise(part.float()).to(self.means.device) for part in physical]
        self.means, self.overall = normalised[:2]
        # Without any the one row is never taken.
        self.usual = normalised[2] if len(normalised) > 2 else torch.full_like(self.overall[None], torch.nan)

    def forward(self, inputs: Tensor, input_times: Tensor, target_times: Tensor) -> Tensor:
        """See ``Forecaster.forward``: the mean of all times, (B, S, 1, R)."""
        _check_fitted(self.overall)
        return self.overall.expand(*target_times.shape, *self.overall.shape)

    def forward_batch(self, batch: Batch) -> Tensor:
        """See ``Forecaster.forward_batch``: (B, S, 1, R)."""
        _check_fitted(self.overall)
        assert self.season is not None
        _, target_times = self.seen_times(batch.input_times, batch.target_times)
        after = (target_times.double() * self.season.cadence).round().long()
        times = (batch.origin[:, None] + after).cpu().numpy()
        bins = torch.from_numpy(self.season.bins(times)).to(self.means.device)
        known, places = self._find(times)
        usual = self.usual[places.to(self.usual.device)]
        known = known.to(usual.device)[..., None, None] & ~torch.isnan(usual)
        return torch.where(known, usual, self.means[bins])

    def _find(self, times: np.ndarray) -> tuple[Tensor, Tensor]:
        """Whether the source's usual flow has these times (B, S), and where."""
        if not len(self.times):
            return torch.zeros(times.shape, dtype=torch.bool), torch.zeros(times.shape, dtype=torch.int64)
        assert self.season is not None
        # Lead times are float32 inside models.
        forgiven = self.season.cadence // 200
        places = np.searchsorted(self.times, times - forgiven).clip(max=len(self.times) - 1)
        return torch.from_numpy(np.abs(self.times[places] - times) <= forgiven), torch.from_numpy(places)


def _check_fitted(part: np.ndarray | Tensor) -> None:
    if not len(part):
        raise DataError("this baseline has seen no flow: fit it to the training split first (`fit`)")
