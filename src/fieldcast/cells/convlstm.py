"""Convolutional LSTM.

Shapes: B batch, C input width, D hidden width, H rows, W columns.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from fieldcast.cells.gates import same_convolution

Peephole = Literal["none", "channel", "pixel"]
Bias = bool | Literal["pixel"]


class ConvLSTMState(NamedTuple):
    """Hidden and cell maps, each (B, D, H, W)."""

    hidden: Tensor
    cell: Tensor


class ConvLSTMCell(nn.Module):
    """One step of a convolutional LSTM.

    i = s(Wxi * X + Whi * H + Wci o C + bi)
    f = s(Wxf * X + Whf * H + Wcf o C + bf + forget_bias)
    C' = f o C + i o tanh(Wxc * X + Whc * H + bc)
    o = s(Wxo * X + Who * H + Wco o C' + bo)
    H' = o o tanh(C')

    Shi et al. 2015, equation 3. The peephole weights Wc are absent ("none"), one per channel ("channel", which
    the published parameter counts force) or one per pixel of a fixed map ("pixel"). The biases b are absent (False),
    one per channel (True) or one per pixel of a fixed map ("pixel"; the runoff note's equation 12).

    Args:
        input_width: C, or 0 for a cell that takes no input.
        hidden_width: D.
        input_kernel: odd size of the convolutions on the input.
        state_kernel: odd size of the convolutions on the hidden state.
        peephole: "none", "channel" or "pixel".
        bias: False, True (one per channel) or "pixel".
        forget_bias: constant added to the forget gate.
        map_size: (H, W), needed by a peephole or bias "pixel" alone.

    Raises:
        ValueError: for an even kernel, or without ``map_size`` where it is needed.
    """

    def __init__(
        self,
        input_width: int,
        hidden_width: int,
        input_kernel: int = 3,
        state_kernel: int = 3,
        *,
        peephole: Peephole = "none",
        bias: Bias = True,
        forget_bias: float = 0.0,
        map_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.hidden_width = hidden_width
        self.forget_bias = forget_bias
        gates = 4 * hidden_width
        # The bias sits on the state's convolution, which a cell without input has too.
        self.input_gates = same_convolution(input_width, gates, input_kernel, bias=False) if input_width else None
        self.state_gates = same_convolution(hidden_width, gates, state_kernel, bias=bias is True)
        for name, kind in (("peephole", peephole), ("bias", bias)):
            if kind == "pixel" and map_size is None:
                raise ValueError(f"a {name} per pixel needs map_size = (rows, columns)")
        self.peephole = self.pixel_bias = None
        if peephole != "none":
            rows, columns = map_size if peephole == "pixel" and map_size else (1, 1)
            self.peephole = nn.Parameter(torch.zeros(3, hidden_width, rows, columns))
        if bias == "pixel" and map_size:
            self.pixel_bias = nn.Parameter(torch.zeros(1, gates, *map_size))

    def start(self, like: Tensor) -> ConvLSTMState:
        """A state of zeros for maps of the batch, size and device of ``like`` (B, any, H, W)."""
        zeros = like.new_zeros(like.shape[0], self.hidden_width, *like.shape[2:])
        return ConvLSTMState(zeros, zeros)

    def project(self, frames: Tensor) -> Tensor:
        """The part of the gates that the input alone decides: (N, C, H, W) -> (N, 4 D, H, W)."""
        assert self.input_gates is not None
        return self.input_gates(frames)

    def update(self, projection: Tensor | None, state: ConvLSTMState) -> ConvLSTMState:
        """One step from a projected input, or None for a cell without input."""
        gates = self.state_gates(state.hidden)
        if projection is not None:
            gates = gates + projection
        if self.pixel_bias is not None:
            gates = gates + self.pixel_bias
        input_gate, forget_gate, candidate, output_gate = gates.chunk(4, dim=1)
        if self.peephole is not None:
            input_gate = input_gate + self.peephole[0] * state.cell
            forget_gate = forget_gate + self.peephole[1] * state.cell
        kept = torch.sigmoid(forget_gate + self.forget_bias) * state.cell
        cell = kept + torch.sigmoid(input_gate) * torch.tanh(candidate)
        if self.peephole is not None:
            output_gate = output_gate + self.peephole[2] * cell
        return ConvLSTMState(torch.sigmoid(output_gate) * torch.tanh(cell), cell)

    def forward(self, frame: Tensor | None, state: ConvLSTMState) -> ConvLSTMState:
        """One step: frame (B, C, H, W) or None, state -> state."""
        return self.update(None if frame is None else self.project(frame), state)
