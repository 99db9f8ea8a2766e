"""Rivers from weather maps: a ConvLSTM reads the weather, a head turns its last hidden map into flow.

Equation numbers are those of the runoff note, "Runoff prediction architecture".

Shapes: B batch, T input frames (N_tau), S target times, L lead times, C fields (N_k), D hidden width (N_h), H rows,
W columns, R stations, a and b units of a head's two hidden layers.
"""

from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from fieldcast.cells import ConvLSTMCell
from fieldcast.errors import ConfigError, DataError
from fieldcast.models.base import Forecaster, ModelSettings, widen
from fieldcast.models.stations import take_leads
from fieldcast.settings import Count, OddSize, TupleOf

Pair = Annotated[TupleOf[Count], Field(min_length=2, max_length=2)]
HEAD_WIDTHS = {"dense": (512, 256), "catchment": (64, 32)}


class RunoffConvLSTMSettings(ModelSettings):
    """Settings of ``runoff-convlstm``.

    ``map_size`` (rows, columns) and ``num_stations`` come from the source in a run. ``leads`` are the lead times in
    cadences that the head gives, ascending: in a run those of its windows, elsewhere 0, where they are left out.
    ``head_widths`` are 512 and 256 for the dense head and 64 and 32 for the
    other where they are not given.
    """

    map_size: Pair | None = None
    num_stations: Count | None = None
    hidden_width: Count = 9
    kernel: OddSize = 7
    bias: Literal["channel", "pixel"] = "channel"
    head: Literal["dense", "catchment"] = "dense"
    head_widths: Pair | None = None
    leads: Annotated[TupleOf[Annotated[int, Field(ge=0)]], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _ascending(self) -> "RunoffConvLSTMSettings":
        if any(later <= earlier for earlier, later in pairwise(self.leads or ())):
            raise ValueError(f"leads = {list(self.leads or ())}: lead times ascend")
        return self


class RunoffConvLSTM(Forecaster):
    """Flow at stations from maps of weather, by a ConvLSTM without peepholes and a head on its last hidden map.

    (H[tau], C[tau]) = L(X[tau], (H[tau - 1], C[tau - 1])) from zeros, with L of equations 13 to 18, and
    R = head(H[N_tau]), equation 20.

    Raises:
        ConfigError: where the size of the map or the number of stations is not known.
    """

    irregular_inputs = False
    irregular_targets = False
    forecasts_stations: ClassVar[bool] = True

    def __init__(self, settings: RunoffConvLSTMSettings, num_channels: int) -> None:
        super().__init__()
        if settings.map_size is None or settings.num_stations is None:
            raise ConfigError(
                "model.map_size and model.num_stations are not known: a run takes them from its source of rivers; "
                "elsewhere give both, such as map_size = [74, 81] and num_stations = 97"
            )
        self.settings = settings
        self.map_size = (settings.map_size[0], settings.map_size[1])
        self.cell = ConvLSTMCell(
            num_channels,
            settings.hidden_width,
            settings.kernel,
            settings.kernel,
            bias="pixel" if settings.bias == "pixel" else True,
            map_size=self.map_size,
        )
        widths = settings.head_widths or HEAD_WIDTHS[settings.head]
        self.leads = settings.leads or (0,)
        outputs = (len(self.leads), settings.num_stations)
        kind = DenseHead if settings.head == "dense" else CatchmentHead
        self.head: DenseHead | CatchmentHead = kind(
            (settings.hidden_width, *self.map_size), (widths[0], widths[1]), outputs
        )
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def use_catchments(self, catchments: Tensor | np.ndarray) -> None:
        """Give the catchment head the share of each pixel that drains to each station, (R, H, W).

        Raises:
            ConfigError: where the head is another one.
            DataError: for shares of another shape, below zero or missing, and for a catchment outside the map.
        """
        if not isinstance(self.head, CatchmentHead):
            raise ConfigError('the dense head reads the whole map: catchments belong to model.head = "catchment"')
        self.head.use_catchments(torch.as_tensor(catchments))

    def read(self, inputs: Tensor) -> Tensor:
        """The last hidden map (B, D, H, W) of weather (B, T, C, H, W), equation 19.

        Raises:
            DataError: for a map of another size than the model's.
        """
        rows, columns = inputs.shape[-2:]
        if (rows, columns) != self.map_size:
            raise DataError(
                f"this model is made for a map of {self.map_size[0]} x {self.map_size[1]} pixels, "
                f"the inputs are {rows} x {columns}: a model of rivers knows one map"
            )
        state = self.cell.start(inputs[:, 0])
        for frame in inputs.unbind(dim=1):
            state = self.cell(frame.contiguous(memory_format=torch.channels_last), state)
        return state.hidden

    def forward(self, inputs: Tensor, input_times: Tensor, target_times: Tensor) -> Tensor:
        """See ``Forecaster.forward``: (B, S, 1, R).

        Raises:
            DataError: for a lead time that the head does not give, or another map.
        """
        steps = self.target_steps(input_times, target_times)
        return widen(take_leads(self.head(self.read(inputs)), self.leads, steps))


class DenseHead(nn.Module):
    """Fully connected layers on the whole hidden map, equations 67 to 69:

    rho1 = W1 H + B1, rho2 = W2 ReLU(rho1) + B2, phi = W3 ReLU(rho2) + B3.

    Args:
        hidden_size: (D, H, W).
        widths: (a, b).
        outputs: (L, R).
    """

    def __init__(self, hidden_size: tuple[int, int, int], widths: tuple[int, int], outputs: tuple[int, int]) -> None:
        super().__init__()
        width, rows, columns = hidden_size
        self.outputs = outputs
        self.first = nn.Linear(width * rows * columns, widths[0])
        self.second = nn.Linear(*widths)
        self.third = nn.Linear(widths[1], outputs[0] * outputs[1])

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, D, H, W) -> (B, L, R)."""
        _, second = self._layers(hidden)
        return self.third(torch.relu(second)).unflatten(1, self.outputs)  # (69)

    def jacobian(self, hidden: Tensor) -> Tensor:
        """Omega = d phi / d H at one hidden map (1, D, H, W): (L R, D, H, W), lead times outermost."""
        first, second = self._layers(hidden)
        by_second = self.third.weight * (second > 0)  # (71), (L R, b)
        by_first = by_second @ (self.second.weight * (first > 0))  # times (72), (L R, a): few columns before many
        return (by_first @ self.first.weight).view(-1, *hidden.shape[1:])  # times (73) is (74)

    def _layers(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        first = self.first(hidden.flatten(1))  # (67)
        return first, self.second(torch.relu(first))  # (68)


class CatchmentHead(nn.Module):
    """A small network on the hidden state of each river's own catchment, shared by the rivers but for its last layer:

    p_r = sum_xy m_r[x, y] H[x, y] / sum_xy m_r[x, y], and in the place of equations 67 to 69
    rho1_r = W1 p_r + B1, rho2_r = W2 ReLU(rho1_r) + B2, phi_r = <W3_r, ReLU(rho2_r)> + B3_r.

    Args:
        hidden_size: (D, H, W).
        widths: (a, b).
        outputs: (L, R).
    """

    shares: Tensor  # (R, H, W), each catchment's sum is 1

    def __init__(self, hidden_size: tuple[int, int, int], widths: tuple[int, int], outputs: tuple[int, int]) -> None:
        super().__init__()
        width, rows, columns = hidden_size
        self.first = nn.Linear(width, widths[0])
        self.second = nn.Linear(*widths)
        reach = widths[1] ** -0.5  # as a linear layer starts
        self.river_weights = nn.Parameter(torch.empty(*outputs, widths[1]).uniform_(-reach, reach))
        self.river_biases = nn.Parameter(torch.empty(outputs).uniform_(-reach, reach))
        self.register_buffer("shares", torch.zeros(outputs[1], rows, columns))

    def use_catchments(self, catchments: Tensor) -> None:
        """See ``RunoffConvLSTM.use_catchments``."""
        if catchments.shape != self.shares.shape:
            came, own = (" x ".join(map(str, masks.shape)) for masks in (catchments, self.shares))
            raise DataError(f"catchments are stations x rows x columns, here {own}, but {came} came")
        if not (catchments >= 0).all():
            raise DataError("catchments: the share of a pixel that drains to a station is a number from 0 on")
        sizes = catchments.double().sum(dim=(1, 2))
        if (sizes == 0).any():
            empty = (sizes == 0).nonzero()[:, 0].tolist()
            raise DataError(
                f"no pixel of the map drains to the stations number {empty} (from 0): leave these stations out, or "
                'set model.head = "dense"'
            )
        self.shares.copy_(catchments / sizes[:, None, None])

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, D, H, W) -> (B, L, R).

        Raises:
            ConfigError: where nobody said what the catchments are.
        """
        _, second = self._layers(hidden)
        return torch.einsum("brf,lrf->blr", torch.relu(second), self.river_weights) + self.river_biases  # (69)

    def jacobian(self, hidden: Tensor) -> Tensor:
        """Omega = d phi / d H at one hidden map (1, D, H, W): (L R, D, H, W), lead times outermost."""
        first, second = self._layers(hidden)
        by_second = self.river_weights * (second[0] > 0)  # (71), (L, R, b)
        by_first = (by_second @ self.second.weight) * (first[0] > 0)  # times (72), (L, R, a)
        by_pooled = by_first @ self.first.weight  # times d rho1 / d p, (L, R, D)
        return (by_pooled[..., None, None] * self.shares[:, None]).flatten(0, 1)  # times d p / d H, for (73), is (74)

    def _layers(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        # Every catchment has a pixel, so one tells whether there are any.
        if not self.shares[0].any():
            raise ConfigError(
                'model.head = "catchment" needs the catchments of the stations: a run takes them from its source; '
                'elsewhere call use_catchments. A source without them goes with model.head = "dense"'
            )
        pooled = torch.einsum("bdhw,rhw->brd", hidden, self.shares.to(hidden.dtype))
        first = self.first(pooled)  # (67)
        return first, self.second(torch.relu(first))  # (68)


# The fields of the paper are four, which num_channels says and no preset can.
RUNOFF_CONVLSTM_PRESETS: dict[str, dict] = {
    "boergel2025": {
        "map_size": [74, 81],
        "num_stations": 97,
        "hidden_width": 9,
        "kernel": 7,
        "bias": "channel",
        "head": "dense",
        "leads": [0],
    }
}
