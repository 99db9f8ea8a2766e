"""Eulerian persistence: nothing changes where it stands."""

from typing import ClassVar

from torch import Tensor

from fieldcast.models.base import Forecaster, ModelSettings


class Persistence(Forecaster):
    """The last input frame, for ever: X^(t) = X(0).

    Eulerian persistence, Germann and Zawadzki 2002, doi 10.1175/1520-0493(2002)130<2859:SDOTPO>2.0.CO;2.
    """

    irregular_inputs: ClassVar[bool] = True
    irregular_targets: ClassVar[bool] = True
    trained: ClassVar[bool] = False

    def __init__(self, settings: ModelSettings, num_channels: int) -> None:
        super().__init__()
        self.settings = settings

    def forward(self, inputs: Tensor, input_times: Tensor, target_times: Tensor) -> Tensor:
        """See ``Forecaster.forward``."""
        return inputs[:, -1:].expand(-1, target_times.shape[1], -1, -1, -1)
