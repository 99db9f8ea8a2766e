"""Convolutional GRU.

Shapes: B batch, C input width, D hidden width, H rows, W columns.
"""

from typing import NamedTuple

from torch import Tensor, nn

from fieldcast.cells.gates import Memory, gated_update, same_convolution


class ConvGRUState(NamedTuple):
    """Hidden maps (B, D, H, W)."""

    hidden: Tensor


class ConvGRUCell(nn.Module):
    """One step of a convolutional GRU.

    r = s(Wxr * X + Whr * H), z = s(Wxz * X + Whz * H),
    m = memory(Wxm * X + r o (Whm * H)), H' = z o H + (1 - z) o m, every convolution with its bias.

    Shi et al. 2017, equation 2 (with z for 1 - z); thesis section 4.1.

    Args:
        input_width: C, or 0 for a cell that takes no input.
        hidden_width: D.
        input_kernel: odd size of the convolutions on the input.
        state_kernel: odd size of the convolutions on the state.
        state_dilation: spacing of the taps on the state.
        memory: activation of m, "tanh" or "leaky" (slope 0.2).
    """

    def __init__(
        self,
        input_width: int,
        hidden_width: int,
        input_kernel: int = 3,
        state_kernel: int = 3,
        *,
        state_dilation: int = 1,
        memory: Memory = "tanh",
    ) -> None:
        super().__init__()
        self.hidden_width = hidden_width
        self.memory: Memory = memory
        self.input_gates = same_convolution(input_width, 3 * hidden_width, input_kernel) if input_width else None
        self.state_gates = same_convolution(hidden_width, 3 * hidden_width, state_kernel, dilation=state_dilation)

    def start(self, like: Tensor) -> ConvGRUState:
        """A state of zeros for maps of the batch, size and device of ``like`` (B, any, H, W)."""
        return ConvGRUState(like.new_zeros(like.shape[0], self.hidden_width, *like.shape[2:]))

    def project(self, frames: Tensor) -> Tensor:
        """The part of the gates that the input alone decides: (N, C, H, W) -> (N, 3 D, H, W)."""
        assert self.input_gates is not None
        return self.input_gates(frames)

    def update(self, projection: Tensor | None, state: ConvGRUState) -> ConvGRUState:
        """One step from a projected input, or None for a cell without input."""
        return ConvGRUState(gated_update(projection, self.state_gates(state.hidden), state.hidden, self.memory))

    def forward(self, frame: Tensor | None, state: ConvGRUState) -> ConvGRUState:
        """One step: frame (B, C, H, W) or None, state -> state."""
        return self.update(None if frame is None else self.project(frame), state)
