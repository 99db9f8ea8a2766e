"""Trajectory GRU.

Shapes: B batch, C input width, D hidden width, L links, F width of the flow generator, H rows, W columns.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from fieldcast.cells.gates import Memory, gated_update, same_convolution
from fieldcast.layers.resample import LEAKY_SLOPE
from fieldcast.layers.warp import warp


class TrajGRUState(NamedTuple):
    """Hidden maps (B, D, H, W)."""

    hidden: Tensor


class TrajGRUCell(nn.Module):
    """One step of a trajectory GRU, whose recurrent connections follow learned flows.

    U = flow(leaky(Wxu * X + Whu * H)), L fields of displacement in pixels;
    h = sum_l Wl warp(H, U_l), a 1x1 convolution over the L warped states;
    r = s(Wxr * X + hr), z = s(Wxz * X + hz), m = memory(Wxm * X + r o hm), H' = z o H + (1 - z) o m.

    Shi et al. 2017, equation 3; thesis section 4.1 (3x3 kernels, F = D). A flow of zero leaves the state in place.

    Args:
        input_width: C, or 0 for a cell that takes no input.
        hidden_width: D.
        num_links: L.
        input_kernel: odd size of the convolutions on the input.
        flow_kernel: odd size of the flow generator's convolutions.
        flow_width: F, or None for D.
        zero_flow: whether training starts from flows of zero, as HKO-7 does.
        memory: activation of m, "tanh" or "leaky" (slope 0.2).
    """

    def __init__(
        self,
        input_width: int,
        hidden_width: int,
        num_links: int,
        input_kernel: int = 3,
        *,
        flow_kernel: int = 3,
        flow_width: int | None = None,
        zero_flow: bool = False,
        memory: Memory = "tanh",
    ) -> None:
        super().__init__()
        self.hidden_width = hidden_width
        self.num_links = num_links
        self.memory: Memory = memory
        flow_width = flow_width or hidden_width
        self.input_gates = same_convolution(input_width, 3 * hidden_width, input_kernel) if input_width else None
        self.input_flow = same_convolution(input_width, flow_width, flow_kernel) if input_width else None
        self.state_flow = same_convolution(hidden_width, flow_width, flow_kernel)
        self.flow = same_convolution(flow_width, 2 * num_links, flow_kernel)
        if zero_flow:
            for weights in self.flow.parameters():
                nn.init.zeros_(weights)
        self.state_gates = nn.Conv2d(num_links * hidden_width, 3 * hidden_width, 1)

    def start(self, like: Tensor) -> TrajGRUState:
        """A state of zeros for maps of the batch, size and device of ``like`` (B, any, H, W)."""
        return TrajGRUState(like.new_zeros(like.shape[0], self.hidden_width, *like.shape[2:]))

    def project(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """What the input alone decides: (N, C, H, W) -> gates (N, 3 D, H, W) and flow features (N, F, H, W)."""
        assert self.input_gates is not None and self.input_flow is not None
        return self.input_gates(frames), self.input_flow(frames)

    def flows(self, flow_features: Tensor | None, hidden: Tensor) -> Tensor:
        """Displacements (B, L, 2, H, W) in pixels, columns first."""
        features = self.state_flow(hidden)
        if flow_features is not None:
            features = features + flow_features
        displacements = self.flow(functional.leaky_relu(features, LEAKY_SLOPE))
        return displacements.unflatten(1, (self.num_links, 2))

    def update(self, projection: tuple[Tensor, Tensor] | None, state: TrajGRUState) -> TrajGRUState:
        """One step from a projected input, or None for a cell without input."""
        gates, flow_features = projection if projection is not None else (None, None)
        hidden = state.hidden
        # Warping reads map by map and the gates pixel by pixel: each gets the layout it is fast in.
        warped = warp(hidden.contiguous(), self.flows(flow_features, hidden)).flatten(3).flatten(1, 2)
        # The 1x1 convolution as a matrix product reads the warped states as they lie, without a copy.
        weight, bias = self.state_gates.weight[:, :, 0, 0].expand(len(hidden), -1, -1), self.state_gates.bias
        assert bias is not None
        recurrent = torch.bmm(weight, warped).unflatten(2, hidden.shape[2:]) + bias[:, None, None]
        recurrent = recurrent.contiguous(memory_format=torch.channels_last)
        return TrajGRUState(gated_update(gates, recurrent, hidden, self.memory))

    def forward(self, frame: Tensor | None, state: TrajGRUState) -> TrajGRUState:
        """One step: frame (B, C, H, W) or None, state -> state."""
        return self.update(None if frame is None else self.project(frame), state)
