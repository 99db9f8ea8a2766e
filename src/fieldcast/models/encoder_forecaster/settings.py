"""Settings of the encoder-forecaster: which parts it is put together from, and the published ones."""

from typing import Annotated, Literal

from pydantic import Field, model_validator
from torch import nn

from fieldcast.cells import ConvGRUCell, TrajGRUCell
from fieldcast.cells.gates import Memory
from fieldcast.evolve import ODESettings
from fieldcast.layers.motion_attention import WINDOW
from fieldcast.models.base import ModelSettings
from fieldcast.settings import Count, OddSize, TupleOf


class EncoderForecasterSettings(ModelSettings):
    """Settings of the pyramid, bottom layer first.

    ``evolution`` is what happens to a state between two frames: nothing, a decay, or, given as a table, an ODE.
    """

    widths: Annotated[TupleOf[Count], Field(min_length=1)] = (64, 96, 128)
    strides: TupleOf[Count] = (1, 2, 2)
    down_widths: TupleOf[Count] | None = None  # of the convolution under each cell; None: the cell's own width
    up_widths: TupleOf[Count] | None = None  # over each cell; None: 32, then the width of the cell below
    head_width: Count = 16
    coordinates: bool = False
    upsample_bias: bool = True
    memory: Memory = "tanh"
    evolution: Literal["hold", "decay"] | ODESettings = "hold"

    @model_validator(mode="after")
    def _same_depth(self) -> "EncoderForecasterSettings":
        for name in ("strides", "down_widths", "up_widths"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.widths):
                raise ValueError(f"{name} has {len(values)} entries, widths has {len(self.widths)}: one for each layer")
        return self


class ConvGRUSettings(EncoderForecasterSettings):
    """Settings of ``convgru``."""

    state_kernel: OddSize = 3
    state_dilation: Count = 1

    def cell(self, input_width: int, width: int) -> nn.Module:
        """A cell of the pyramid."""
        return ConvGRUCell(
            input_width,
            width,
            state_kernel=self.state_kernel,
            state_dilation=self.state_dilation,
            memory=self.memory,
        )


class TrajGRUSettings(EncoderForecasterSettings):
    """Settings of ``trajgru``."""

    num_links: Count = 9
    flow_kernel: OddSize = 3
    flow_width: Count | None = None
    zero_flow: bool = False

    def cell(self, input_width: int, width: int) -> nn.Module:
        """A cell of the pyramid."""
        return TrajGRUCell(
            input_width,
            width,
            self.num_links,
            flow_kernel=self.flow_kernel,
            flow_width=self.flow_width,
            zero_flow=self.zero_flow,
            memory=self.memory,
        )


class TrajGRUAttentionSettings(TrajGRUSettings):
    """Settings of ``trajgru-attention``, ``trajgru-ode`` and both in one; layers are numbered from 1 at the bottom.

    A row of the thesis' table B.1 such as en_a23_de_a21 is ``encoder_attention = [2, 3]``, ``decoder_attention =
    [1, 2]``. ``ode`` guides every layer of the forecaster.
    """

    encoder_attention: TupleOf[Count] = (2, 3)
    decoder_attention: TupleOf[Count] = (1, 2)
    attention_window: Count = WINDOW
    zigzag: bool = True
    ode: ODESettings | None = None

    @model_validator(mode="after")
    def _layers_are_there(self) -> "TrajGRUAttentionSettings":
        for name in ("encoder_attention", "decoder_attention"):
            layers = getattr(self, name)
            if len(set(layers)) < len(layers) or any(layer > len(self.widths) for layer in layers):
                raise ValueError(f"{name} = {list(layers)}: layers from 1 to {len(self.widths)}, each once")
        if 1 in self.decoder_attention and not self.zigzag:
            raise ValueError(
                "decoder_attention: at layer 1 it reaches the forecast through the zigzag alone: "
                "set zigzag = true or leave layer 1 out"
            )
        return self


_THESIS = {
    "thesis-mnist": {"widths": [64, 96, 128], "up_widths": [32, 64, 96]},
    "thesis-radar": {"widths": [96, 96, 128], "up_widths": [64, 96, 96]},
}
_HKO = {
    "widths": [64, 96, 96],
    "down_widths": [16, 96, 96],
    "up_widths": [16, 96, 96],
    "coordinates": True,
    "upsample_bias": False,
    "memory": "leaky",
}
_HKO_FLOW = {**_HKO, "flow_kernel": 5, "flow_width": 32, "zero_flow": True}
_THESIS_FLOW: dict[str, dict] = {
    "thesis-mnist": {**_THESIS["thesis-mnist"], "num_links": 9},
    "thesis-radar": {**_THESIS["thesis-radar"], "num_links": 11},
}
CONVGRU_PRESETS: dict[str, dict] = {
    **_THESIS,
    "hko7-mnist-k5": {**_HKO, "state_kernel": 5},
    "hko7-mnist-k7": {**_HKO, "state_kernel": 7},
    "hko7-mnist-k3-d2": {**_HKO, "state_dilation": 2},
}
TRAJGRU_PRESETS: dict[str, dict] = {
    **_THESIS_FLOW,
    **{f"hko7-mnist-l{links}": {**_HKO_FLOW, "num_links": links} for links in (5, 9, 13, 17)},
}
ATTENTION_PRESETS = _THESIS_FLOW
# What distinguishes the three models, unless a preset or a setting says otherwise.
ATTENTION_ODE_DEFAULTS: dict = {"ode": {"width": 48, "depth": 1}}
ODE_DEFAULTS = {**ATTENTION_ODE_DEFAULTS, "decoder_attention": []}
ODE_PRESETS: dict[str, dict] = {
    "thesis-mnist": {**_THESIS_FLOW["thesis-mnist"], **ATTENTION_ODE_DEFAULTS},
    "thesis-radar": {**_THESIS_FLOW["thesis-radar"], "ode": {"width": 64, "depth": 2}},
}
