"""The linear model of rivers: flow from all pixels of the weather, by ridge regression.

Shapes: n training samples, D distinct frames in them, T input frames, L lead times, C channels, H rows, W columns,
R stations, B batch, S targets.
"""

from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fieldcast.data.dataset import FRAMES_AT_ONCE, Samples, spread
from fieldcast.errors import DataError
from fieldcast.models.base import Forecaster, ModelSettings, widen
from fieldcast.models.baselines.flow import flow_record
from fieldcast.models.baselines.ridge import Blocks, fit_dual, inner_products
from fieldcast.models.stations import take_leads
from fieldcast.settings import Count

NUM_BLOCKS = 5


class RidgeRegressionSettings(ModelSettings):
    """Settings of ``ridge-regression``: at most how many training samples, evenly spread, since the cost grows with
    their number's third power."""

    num_samples: Count = 1000


class RidgeRegression(Forecaster):
    """Flow as a linear function of the weather at every pixel and lag, for each station and lead time its own:

    R_r(lead) = b_r,lead + sum over tau, k, x, y of w_r,lead,k[x, y, tau] X_k[x, y, tau], both normalised.

    Weights by ridge least squares, the penalty of each station and lead time by cross-validation over contiguous blocks
    of the training samples with a gap between (``Blocks``). A flow that is missing is left out of its station's fit.
    """

    trained: ClassVar[bool] = False
    forecasts_stations: ClassVar[bool] = True

    weights: Tensor  # (L R, T, C, H, W)
    intercepts: Tensor  # (L, R)
    penalties: Tensor  # (L, R)
    leads: Tensor  # (L,), int64

    def __init__(self, settings: RidgeRegressionSettings, num_channels: int) -> None:
        super().__init__()
        self.settings = settings
        for name in ("weights", "intercepts", "penalties", "leads"):
            self.register_buffer(name, torch.empty(0))
        self.register_load_state_dict_pre_hook(_resize)

    def fit(self, train: Samples) -> None:
        """Solve for the weights on the training samples.

        The inner product of two windows is the sum over lags of those of their frames, so that each frame is kept once
        though it is in many windows.

        Raises:
            DataError: for a source without stations or of several records, or lead times that differ by sample.
        """
        window = _read(train, self.settings.num_samples)
        of_frames = inner_products(window.frames.flatten(1))
        gram = sum(of_frames[places][:, places] for places in window.places.T)
        assert isinstance(gram, Tensor)
        flow = window.flow.flatten(1)
        valid = ~torch.isnan(flow)
        dual = fit_dual(gram, torch.where(valid, flow, 0), valid, blocks=Blocks(NUM_BLOCKS, window.gap))
        weights = window.frames.new_empty(flow.shape[1], window.places.shape[1], *window.frames.shape[1:])
        for lag, places in enumerate(window.places.T):
            by_pixel = dual.coefficients.T @ window.frames[places].flatten(1).double()
            weights[:, lag] = by_pixel.float().unflatten(1, window.frames.shape[1:])
        size = (len(window.leads), -1)
        found = (weights, dual.intercepts.float().view(size), dual.penalties.float().view(size), window.leads)
        self.weights, self.intercepts, self.penalties, self.leads = (part.to(self.weights.device) for part in found)

    def forward(self, inputs: Tensor, input_times: Tensor, target_times: Tensor) -> Tensor:
        """See ``Forecaster.forward``: (B, S, 1, R).

        Raises:
            DataError: before ``fit``, for inputs of another size, and for a lead time that is not fitted.
        """
        if not len(self.leads):
            raise DataError("ridge regression has seen no samples: fit it to the training split first (`fit`)")
        if inputs.shape[1:] != self.weights.shape[1:]:
            own, came = (" x ".join(map(str, part.shape[1:])) for part in (self.weights, inputs))
            raise DataError(f"the regression is on inputs x channels x rows x columns {own}, but {came} came")
        steps = self.target_steps(input_times, target_times)
        # A baseline does not depend on the precision of the model that it is compared with.
        with torch.autocast(inputs.device.type, enabled=False):
            inputs = inputs.to(self.weights.dtype).flatten(1)
            forecasts = functional.linear(inputs, self.weights.flatten(1), self.intercepts.flatten())
        forecasts = forecasts.unflatten(1, self.intercepts.shape)
        return widen(take_leads(forecasts, tuple(self.leads.tolist()), steps))


class _Windows(NamedTuple):
    """Training samples, each frame once."""

    frames: Tensor  # (D, C, H, W) normalised, 0 where missing
    places: Tensor  # (n, T), which frames a sample's inputs are
    flow: Tensor  # (n, L, R) normalised, NaN where missing
    leads: Tensor  # (L,), int64
    gap: int  # samples


def _read(train: Samples, num_samples: int) -> _Windows:
    record, num_inputs = flow_record(train), train.windows.num_inputs
    times = np.stack([train.times(number) for number in spread(len(train), num_samples)])
    origins = times[:, num_inputs - 1]
    leads = np.rint((times[:, num_inputs:] - origins[:, None]) / train.source.cadence).astype(np.int64)
    if (leads != leads[0]).any():
        raise DataError("ridge regression needs the same lead times in every training sample")
    positions = np.searchsorted(record.times, times)
    distinct, places = np.unique(positions[:, :num_inputs], return_inverse=True)
    pieces = []
    for first in range(0, len(distinct), FRAMES_AT_ONCE):
        frames = torch.from_numpy(record.read(distinct[first : first + FRAMES_AT_ONCE]))
        pieces.append(train.normalizer.normalise(frames).nan_to_num(nan=0.0))
    flow = torch.from_numpy(record.read_flow(positions[:, num_inputs:].ravel()))
    normalised = train.target_normalizer.normalise(flow)[:, 0].unflatten(0, leads.shape)
    return _Windows(
        torch.cat(pieces),
        torch.from_numpy(places.reshape(len(times), num_inputs)),
        normalised,
        torch.from_numpy(leads[0]),
        _overlap(times),
    )


def _overlap(times: np.ndarray) -> int:
    """How many samples after one overlap it, from times (n, T + S); no more than leave a half to fit where samples are
    long and the record is short."""
    following = np.searchsorted(times[:, 0], times[:, -1], side="right") - np.arange(len(times)) - 1
    return min(int(following.max()), len(times) // (2 * NUM_BLOCKS))


def _resize(model: RidgeRegression, state: dict[str, Tensor], prefix: str, *rest: object) -> None:
    """Make room for weights of another size: it is known only when they are fitted."""
    for name in ("weights", "intercepts", "penalties", "leads"):
        if prefix + name in state:
            setattr(model, name, torch.empty_like(state[prefix + name], device=model.weights.device))
