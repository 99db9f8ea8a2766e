"""Attention over past maps, weighed by how they move.

Shapes: B batch, C channels, H rows, W columns, n maps that come at once, Q maps that are looked back at.
Maps that come at once stand time first and folded, (n B, C, H, W).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

WINDOW = 10


class Moment(NamedTuple):
    """What is kept of one past map, so that nothing is computed twice."""

    frame: Tensor  # X_i, (B, C, H, W)
    features: Tensor  # Wa1 * X_i, (B, C, H, W)
    time: Tensor  # (B,)
    mean: Tensor  # mean_xy X_i, (B, C)
    velocity: Tensor  # (B, C)
    score: Tensor  # what time, velocity and acceleration add to the score, (B, C)


Memory = tuple[Moment, ...]


class MotionAttention(nn.Module):
    """Weights of past maps, for each channel its own, from four keys: time, velocity, acceleration, correlation.

    V_1 = mean X_1, V_i = mean(X_i - X_{i-1}) / (t_i - t_{i-1}); A_1 = V_1, A_i = (V_i - V_{i-1}) / (t_i - t_{i-1});
    C_i = mean tanh(Wa1 * X_i + Wa2 * X_Q); S = softmax_i(Wc [t_i, V_i, A_i, C_i]); H_a = sum_i S_i o X_i,
    with means over the map. Over input frames (``of_inputs``) V_i is of |X_i - X_{i-1}| and C_i of X_i - X_Q.

    Thesis, equations 4.5 to 4.9, the sum over i <= Q included; the pooling and the keys of inputs as in its release.
    The bias of Wc shifts all scores alike and changes nothing; it is there because the published counts have it.

    Args:
        width: C.
        of_inputs: whether maps are input frames rather than states.
        window: of how many of the newest maps; None: all.
    """

    def __init__(self, width: int, *, of_inputs: bool, window: int | None = None) -> None:
        super().__init__()
        self.of_inputs = of_inputs
        self.window = window
        self.past = nn.Conv2d(width, width, 3, padding=1)
        self.present = nn.Conv2d(width, width, 3, padding=1)
        self.combine = nn.Linear(4 * width, width)

    def remember(self, frames: Tensor, times: Tensor, memory: Memory) -> Memory:
        """Add maps (n B, C, H, W) at times (B, n) to what is kept; at most the window's length stays."""
        num_new = times.shape[1]
        features = self.past(frames).chunk(num_new)
        for number, frame in enumerate(frames.chunk(num_new)):
            memory = self._add(memory, frame, features[number], times[:, number])
        return memory

    def forward(self, frames: Tensor, times: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Attention states H_a (n B, C, H, W) of maps (n B, C, H, W) at times (B, n), and what is kept for later."""
        num_new = times.shape[1]
        shifts = self.present(frames)
        features = self.past(frames)
        if self.of_inputs:
            assert self.past.bias is not None
            # Wa1 is linear: Wa1 * (X_i - X_Q) needs no convolution of its own for each pair.
            shifts = shifts - features + self.past.bias[:, None, None]
        attended = []
        parts = zip(frames.chunk(num_new), features.chunk(num_new), shifts.chunk(num_new), strict=True)
        for number, (frame, own, shift) in enumerate(parts):
            memory = self._add(memory, frame, own, times[:, number])
            attended.append(self._attend(shift, memory))
        return attended[0] if num_new == 1 else torch.cat(attended), memory

    def _add(self, memory: Memory, frame: Tensor, features: Tensor, time: Tensor) -> Memory:
        """The newest map beside those that are kept, as many as the window holds."""
        last = memory[-1] if memory else None
        mean = _mean(frame)
        if last is None:
            velocity = acceleration = mean
        else:
            elapsed = (time - last.time)[:, None]
            change = _mean((frame - last.frame).abs()) if self.of_inputs else mean - last.mean
            velocity = change / elapsed
            acceleration = (velocity - last.velocity) / elapsed
        keys = torch.cat([time[:, None].expand_as(mean), velocity, acceleration], dim=1)
        score = self._linear(keys, slice(None, -mean.shape[1]), True)
        memory = (*memory, Moment(frame, features, time, mean, velocity, score))
        return memory[-self.window :] if self.window else memory

    def _attend(self, shift: Tensor, memory: Memory) -> Tensor:
        correlation = MeanTanh.apply(shift, *[moment.features for moment in memory])
        width = correlation.shape[-1]
        own = torch.stack([moment.score for moment in memory])
        scores = own + self._linear(correlation, slice(-width, None), False)
        weights = scores.softmax(dim=0).to(memory[0].frame.dtype)[..., None, None]
        attended = memory[0].frame * weights[0]
        for moment, weight in zip(memory[1:], weights[1:], strict=True):
            attended = torch.addcmul(attended, moment.frame, weight)
        return attended

    def _linear(self, keys: Tensor, columns: slice, bias: bool) -> Tensor:
        # Times in bfloat16 would be eighths of a cadence after 16 of them.
        with torch.autocast(keys.device.type, enabled=False):
            weight = self.combine.weight[:, columns]
            return functional.linear(keys.to(weight.dtype), weight, self.combine.bias if bias else None)


class EncodingAttention(nn.Module):
    """Motion-based encoding attention: X_new = W1x1 * [H_a, X_Q], over all inputs so far.

    Thesis, equation 4.10.

    Args:
        width: C.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = MotionAttention(width, of_inputs=True)
        self.merge = nn.Conv2d(2 * width, width, 1)

    def forward(self, frames: Tensor, times: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """New inputs (n B, C, H, W) in place of the frames at times (B, n), and what is kept for later."""
        attended, memory = self.attention(frames, times, memory)
        return self.merge(torch.cat([attended, frames], dim=1)), memory


class DecodingAttention(nn.Module):
    """Motion-based decoding attention over the newest states, the present one included, merged by gates.

    g1, g2 = s(Wh * H + Wa * H_a), m = tanh(Wh * H + Wa * H_a), each by its own third; H_new = g1 o H + g2 o m.
    Thesis, section 4.2.3.2; the gates as in its release.

    Args:
        width: C.
        window: number of states looked back at.
    """

    def __init__(self, width: int, window: int = WINDOW) -> None:
        super().__init__()
        self.attention = MotionAttention(width, of_inputs=False, window=window)
        self.state_gates = nn.Conv2d(width, 3 * width, 3, padding=1)
        self.attention_gates = nn.Conv2d(width, 3 * width, 3, padding=1)

    def start(self, states: Tensor, times: Tensor) -> Memory:
        """Keep the newest of the encoder's states (T B, C, H, W) at times (B, T)."""
        return self.attention.remember(states, times, ())

    def forward(self, states: Tensor, times: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """States (n B, C, H, W) at times (B, n) merged with what they attend to, and what is kept for later."""
        attended, memory = self.attention(states, times, memory)
        gates = self.state_gates(states) + self.attention_gates(attended)
        keep, take, candidate = gates.chunk(3, dim=1)
        merged = torch.sigmoid(keep) * states
        return torch.addcmul(merged, torch.sigmoid(take), torch.tanh(candidate).to(merged.dtype)), memory


def _mean(maps: Tensor) -> Tensor:
    """Mean over the map (B, C), float32 at least."""
    return maps.mean((2, 3), dtype=torch.promote_types(maps.dtype, torch.float32))


class MeanTanh(torch.autograd.Function):
    """Means (Q, B, C) over the map of tanh(features_i + shift), for Q maps (B, C, H, W) of features.

    Its gradient computes tanh again, so that nothing of the size of a map is kept for each pair of maps:
    d features_i = g_i (1 - tanh^2) / (H W), d shift = sum_i d features_i.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(shift: Tensor, *features: Tensor) -> Tensor:
        """See the class."""
        return torch.stack([_mean((one + shift).tanh_()) for one in features])

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Keep the inputs, which others keep too."""
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, ...]:
        """Gradients of shift and features."""
        shift, *features = ctx.saved_tensors
        scaled = (gradient / (shift.shape[2] * shift.shape[3])).to(shift.dtype)[..., None, None]
        own = [(1 - (one + shift).tanh().square()) * scale for one, scale in zip(features, scaled, strict=True)]
        return sum(own[1:], own[0]), *own
