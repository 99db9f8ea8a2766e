"""Short cuts between the top and the bottom of a pyramid, from one time to the next.

Shapes: B batch, D width of the bottom layer, E of the top layer, h x w the top's map, f h x f w the bottom's.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from fieldcast.layers.resample import LEAKY_SLOPE


class EncoderZigzag(nn.Module):
    """The top state of the last time enters the bottom state before the next frame is read.

    Z = leaky(up * H_top), g1, g2 = s(Wh * H_bottom + Wz * Z), each by its own half; H_bottom <- g1 o H_bottom + g2 o Z.
    Thesis, equation 4.1, which has one gate; its counts and release have two.

    Args:
        bottom_width: D.
        top_width: E.
        factor: f; kernel and stride of the transposed convolution.
    """

    def __init__(self, bottom_width: int, top_width: int, factor: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(top_width, bottom_width, factor, factor)
        self.state_gates = nn.Conv2d(bottom_width, 2 * bottom_width, 3, padding=1)
        self.zigzag_gates = nn.Conv2d(bottom_width, 2 * bottom_width, 3, padding=1)

    def forward(self, top: Tensor, bottom: Tensor) -> Tensor:
        """Top (B, E, h, w) and bottom state (B, D, f h, f w) -> bottom state."""
        lifted = functional.leaky_relu(self.up(top), LEAKY_SLOPE)
        keep, take = torch.sigmoid(self.state_gates(bottom) + self.zigzag_gates(lifted)).chunk(2, dim=1)
        return torch.addcmul(keep * bottom, take, lifted.to(bottom.dtype))


class DecoderZigzag(nn.Module):
    """What the bottom wrote at the last time enters the top state before the next one.

    g = s(Wh * H_top + Wz * Z [+ Wo * H_ode]), H_top <- H_top + g o Z, where Z = leaky(down * map at image resolution),
    and before the first target Z = leaky(bridge * H_bottom) of the encoder.
    Thesis, equation 4.2; the map and the term in H_ode as in its release.

    Args:
        top_width: E.
        bottom_width: D.
        image_width: channels of the map at image resolution.
        factor: f; kernel and stride of the bridge.
        image_factor: of the image's size to the top's; kernel and stride of the convolution on the map.
        ode: whether an ODE state of the top layer enters the gate.
    """

    def __init__(
        self, top_width: int, bottom_width: int, image_width: int, *, factor: int, image_factor: int, ode: bool
    ) -> None:
        super().__init__()
        self.bridge = nn.Conv2d(bottom_width, top_width, factor, factor)
        self.down = nn.Conv2d(image_width, top_width, image_factor, image_factor)
        self.state_gates = nn.Conv2d(top_width, top_width, 3, padding=1)
        self.zigzag_gates = nn.Conv2d(top_width, top_width, 3, padding=1)
        self.ode_gates = nn.Conv2d(top_width, top_width, 3, padding=1) if ode else None

    def seed(self, bottom: Tensor) -> Tensor:
        """Z before the first target, from the encoder's last bottom state (B, D, f h, f w) -> (B, E, h, w)."""
        return functional.leaky_relu(self.bridge(bottom), LEAKY_SLOPE)

    def drop(self, image: Tensor) -> Tensor:
        """Z from the map at image resolution that the last target was made of -> (B, E, h, w)."""
        return functional.leaky_relu(self.down(image), LEAKY_SLOPE)

    def forward(self, dropped: Tensor, top: Tensor, ode_state: Tensor | None) -> Tensor:
        """Z, top state and the ODE's top state at this target, all (B, E, h, w) -> top state."""
        gates = self.state_gates(top) + self.zigzag_gates(dropped)
        if self.ode_gates is not None:
            assert ode_state is not None
            gates = gates + self.ode_gates(ode_state)
        return torch.addcmul(top, torch.sigmoid(gates).to(top.dtype), dropped.to(top.dtype))
