"""What an ordinary differential equation foresees, gated into the state of a cell.

Shapes: B batch, S steps, D hidden width, H rows, W columns.
"""

import torch
from torch import Tensor, nn

from fieldcast.cells.gates import gated_update, same_convolution


class ODEUpdate(nn.Module):
    """The extended gates of a TrajGRU-ODE: a second gated update, after the cell's own.

    D_i = Wc * [Ho_{i-1}, Ho_i], where Ho follows the equation from the encoder's last state;
    r = s(h0 + d0), z = s(h1 + d1), m = tanh(h2 + r o d2), H' = z o H + (1 - z) o m, with h = Wh * H, d = Wd * D.

    Thesis, equations 4.3 and 4.4 with H_mid = H_TrajGRU. The candidate takes
    its own third of h, where the release takes that of the reset gate a second time.

    Args:
        width: D.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.combine = same_convolution(2 * width, width, 3)
        self.difference_gates = same_convolution(width, 3 * width, 3)
        self.state_gates = same_convolution(width, 3 * width, 3)

    def project(self, states: list[Tensor]) -> Tensor:
        """d of all steps (S B, 3 D, H, W), time first, from the S + 1 states of the equation (B, D, H, W)."""
        before, after = torch.cat(states[:-1]), torch.cat(states[1:])
        return self.difference_gates(self.combine(torch.cat([before, after], dim=1)))

    def forward(self, projection: Tensor, hidden: Tensor) -> Tensor:
        """One step: d (B, 3 D, H, W) and the cell's new state (B, D, H, W) -> state."""
        return gated_update(self.state_gates(hidden), projection, hidden, "tanh")
