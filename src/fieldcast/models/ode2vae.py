"""ODE2VAE: a latent position and velocity that follow a second-order equation with random weights.

Shapes: B batch, T input frames, S target frames, C channels, H rows, W columns, A frames that the velocity is read
from, L latents (positions, and as many velocities), K windows of A frames, I and O a layer's inputs and outputs.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from fieldcast.data.batch import Batch
from fieldcast.evolve import ODE, ODESettings
from fieldcast.layers.frame_codec import FrameDecoder, FrameEncoder, Gaussian
from fieldcast.layers.resample import pad_to_multiple
from fieldcast.models.base import Forecaster, widen
from fieldcast.models.latent_ode import LatentSettings, decode, follow, reconstruction_penalty
from fieldcast.settings import Count

START_STD = 0.01  # of a weight, in the release


class ODE2VAESettings(LatentSettings):
    """Settings of ``ode2vae``.

    Args:
        latents: L.
        velocity_frames: A.
        ode: the field f_W of the acceleration.
        rate: latent time that passes in a cadence; the release's dt.
        encoding_weight: gamma, of the divergence from what the encoders say of later frames.
    """

    latents: Count = 20
    velocity_frames: Count = 3
    ode: ODESettings = ODESettings(width=50, depth=1, solver="rk4", max_step=0.5)
    rate: Annotated[float, Field(gt=0)] = 0.1
    encoding_weight: Annotated[float, Field(ge=0)] = 0.1

    @model_validator(mode="after")
    def _plain_gradients(self) -> "ODE2VAESettings":
        if self.ode.adjoint:
            raise ValueError("ode.adjoint finds no gradients of weights that are drawn afresh: leave it out")
        return self


class WeightPosterior(nn.Module):
    """Layers of which every weight has a normal distribution: q(W) = N(M, exp(R)^2), the prior is N(0, 1).

    A layer's matrix is (O, I + 1), its bias the last column; M and R stand one after the other, (2, O, I + 1).

    Args:
        sizes: of the layers, inputs first.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ParameterList()
        for inputs, outputs in pairwise(sizes):
            mean = torch.empty(outputs, inputs + 1).uniform_(-1, 1) / math.sqrt(inputs + 1)
            self.layers.append(torch.stack([mean, torch.full_like(mean, math.log(START_STD))]))

    def distributions(self) -> list[Gaussian]:
        """Of each layer's matrix (O, I + 1)."""
        return [Gaussian(mean, log_std.exp()) for mean, log_std in self.layers]

    def mean(self) -> list[Tensor]:
        """The matrices that stand for all: (1, O, I + 1)."""
        return [layer.mean[None] for layer in self.distributions()]

    def draw(self, batch: int) -> list[Tensor]:
        """Matrices at random for each sample: (B, O, I + 1)."""
        return [Gaussian(*(part.expand(batch, -1, -1) for part in layer)).draw() for layer in self.distributions()]

    def divergence(self) -> Tensor:
        """KL(q(W) || N(0, I)), scalar."""
        return torch.stack([layer.divergence().sum() for layer in self.distributions()]).sum()

    @property
    def num_weights(self) -> int:
        """|W|."""
        return sum(layer.mean.numel() for layer in self.distributions())


class Motion(nn.Module):
    """The second-order field: ds/dt = rate v, dv/dt = rate f_W(s, v), f_W a perceptron with tanh.

    Args:
        weights: of each layer, (B, O, I + 1), or (1, O, I + 1) for all samples.
        rate: latent time that passes in a cadence.
    """

    def __init__(self, weights: list[Tensor], rate: float) -> None:
        super().__init__()
        self.weights = weights
        self.rate = rate
        self.latents = weights[-1].shape[1]

    def forward(self, state: Tensor) -> Tensor:
        """Positions and velocities (B, 2 L) -> their derivative."""
        return self.rate * torch.cat([state[:, self.latents :], self.accelerate(state)[0]], dim=1)

    def accelerate(self, state: Tensor) -> tuple[Tensor, list[Tensor]]:
        """State (B, 2 L) -> f_W (B, L), and the hidden layers (B, 1, O) on the way."""
        values, hidden = state[:, None], []
        for weight in self.weights[:-1]:
            values = torch.tanh(_apply(weight, values))
            hidden.append(values)
        return _apply(self.weights[-1], values)[:, 0], hidden

    def trace(self, hidden: list[Tensor]) -> Tensor:
        """sum_l d f_l / d v_l, exactly, from the hidden layers at a state: (B,).

        df/dv = W_n diag(1 - h_{n-1}^2) ... W_2 diag(1 - h_1^2) W_1, of W_1 the columns of the velocities.
        """
        tangents = self.weights[0][..., self.latents : 2 * self.latents].mT
        for values, weight in zip(hidden, self.weights[1:], strict=True):
            tangents = tangents * (1 - values.square()) @ weight[..., :-1].mT
        return tangents.diagonal(dim1=1, dim2=2).sum(dim=1)


class MotionDensity(nn.Module):
    """``Motion`` with the logarithm of the density of its states: d log q / dt = -rate tr(df_W / dv).

    Chen et al. 2018, theorem 1; the positions' derivative has no trace of its own.

    Args:
        motion: the field.
    """

    def __init__(self, motion: Motion) -> None:
        super().__init__()
        self.motion = motion

    def forward(self, state: Tensor) -> Tensor:
        """Positions, velocities and log q (B, 2 L + 1) -> their derivative."""
        motion, latents = self.motion, self.motion.latents
        # Laid out as without the density, so that a path has the same bits with it.
        acceleration, hidden = motion.accelerate(state[:, :-1].contiguous())
        change = -motion.trace(hidden)[:, None]
        return motion.rate * torch.cat([state[:, latents : 2 * latents], acceleration, change], dim=1)


def _apply(weight: Tensor, values: Tensor) -> Tensor:
    """An affine layer (B, O, I + 1) at values (B, 1, I)."""
    return values @ weight[..., :-1].mT + weight[..., -1][:, None]


class ODE2VAE(Forecaster):
    """ODE2VAE of Yildiz et al. 2019 (arXiv:1905.10994) with convolutions around it.

    q(s_0) = N(mu_s, sigma_s^2) from the first frame, q(v_0) from the first A frames and their times after the first
    (the release has no times there; of fewer frames the last stands in); ds/dt = v, dv/dt = f_W(s, v), q(W) normal;
    from the time of the first input through the wanted times; the frame is the decoder's of s(t). ``forward`` takes
    the means of z_0 = (s_0, v_0) and of W; ``draw`` and training draw both, W for each sample. So a forecast depends
    on the first A frames alone; the others are what training fits the path to.

    Training adds to the loss, with the mean squared error of weight 1 as the loss, M = S C H W and t over the times of
    inputs and targets:

        reconstruction = T / S mean((x_i - decoded)^2) over the inputs
        trajectory = 2 std^2 / M sum_t (log q(z_t) - log N(z_t; 0, I))
        encoding = 2 std^2 / M gamma sum_k (log q(z_k) - log q_enc(z_k | x_k ... x_{k + A - 1})), k from 0 to T - A
        weights = 2 std^2 / M beta KL(q(W) || N(0, I)), beta = L / |W|

        log q(z_t) = log N(e; 0, I) - sum log sigma - integral of tr(df_W / dv), for z_0 = mu + sigma o e

    so that the sum is -2 std^2 / M times the paper's bound with its penalty gamma, under p(x | s) =
    N(decoded, std^2), but for a constant. The releases leave out the sum of log sigma. The field has tanh where the
    release has ReLU, so that a forecast far ahead stays finite and the trace has a gradient everywhere.

    Any T and S; any H and W, padded to a multiple of the strides.
    """

    irregular_inputs = True
    irregular_targets = True
    interpolates: ClassVar[bool] = True
    draws: ClassVar[bool] = True

    def __init__(self, settings: ODE2VAESettings, num_channels: int) -> None:
        super().__init__()
        self.settings = settings
        latents, ode, codec = settings.latents, settings.ode, (settings.widths, settings.grid)
        stacked = settings.velocity_frames * (num_channels + 1) - 1
        self.position_encoder = FrameEncoder(num_channels, *codec, 2 * latents)
        self.velocity_encoder = FrameEncoder(stacked, *codec, 2 * latents)
        self.weights = WeightPosterior((2 * latents, *[ode.width] * (ode.depth + 1), latents))
        self.decoder = FrameDecoder(latents, *codec, num_channels)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, inputs: Tensor, input_times: Tensor, target_times: Tensor) -> Tensor:
        """See ``Forecaster.forward``."""
        input_times, target_times = self.seen_times(input_times, target_times)
        start = self.infer(inputs, input_times, 1).mean[:, 0]
        return self._forecast(self.weights.mean(), start, inputs, input_times, target_times)

    def draw(self, inputs: Tensor, input_times: Tensor, target_times: Tensor) -> Tensor:
        """See ``Forecaster.draw``: z_0 and W are drawn for each sample."""
        input_times, target_times = self.seen_times(input_times, target_times)
        start = self.infer(inputs, input_times, 1).draw()[:, 0]
        return self._forecast(self.weights.draw(len(inputs)), start, inputs, input_times, target_times)

    def forward_train(self, batch: Batch, teacher: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """See ``Forecaster.forward_train``; in evaluation mode the means stand for the draws."""
        assert teacher is None, "this model takes no teacher"
        input_times, target_times = self.seen_times(batch.input_times, batch.target_times)
        num_inputs, size = input_times.shape[1], batch.inputs.shape[-2:]
        num_windows = max(1, num_inputs - self.settings.velocity_frames + 1)
        encoded = self.infer(batch.inputs, input_times, num_windows)
        first = Gaussian(*(part[:, 0] for part in encoded))
        start = first.draw() if self.training else first.mean
        weights = self.weights.draw(len(batch)) if self.training else self.weights.mean()
        ode = ODE(MotionDensity(Motion(weights, self.settings.rate)), self.settings.ode)
        path = follow(ode, torch.cat([start, first.log_density(start)[:, None]], dim=1), input_times, target_times)
        positions = path[..., : self.settings.latents]
        again = decode(self.decoder, positions[:, :num_inputs], size)
        scale = self.settings.penalty_scale(batch.targets)
        penalties = {name: scale * nats for name, nats in self._divergences(path, encoded).items()}
        penalties["reconstruction"] = reconstruction_penalty(again, batch.inputs, target_times.shape[1])
        return decode(self.decoder, positions[:, num_inputs:], size), penalties

    def infer(self, inputs: Tensor, input_times: Tensor, num_windows: int) -> Gaussian:
        """What the encoders say of positions and velocities (B, K, 2 L) at the first K of frames (B, T, C, H, W)."""
        padded = pad_to_multiple(inputs, math.prod(self.settings.strides))
        places = torch.arange(self.settings.velocity_frames, device=inputs.device)
        places = places + torch.arange(num_windows, device=inputs.device)[:, None]
        places = places.clamp(max=inputs.shape[1] - 1)
        windows, times = padded[:, places], input_times[:, places].to(padded)
        elapsed = (times[..., 1:] - times[..., :1])[..., None, None].expand(-1, -1, -1, *padded.shape[-2:])
        position = self.position_encoder(windows[:, :, 0].flatten(0, 1))
        velocity = self.velocity_encoder(torch.cat([windows.flatten(2, 3), elapsed], dim=2).flatten(0, 1))
        parts = (widen(part).unflatten(0, times.shape[:2]).chunk(2, dim=2) for part in (position, velocity))
        mean, log_std = (torch.cat(pair, dim=2) for pair in zip(*parts, strict=True))
        return Gaussian(mean, log_std.exp())

    def _divergences(self, path: Tensor, encoded: Gaussian) -> dict[str, Tensor]:
        """The divergences of a path (B, T + S, 2 L + 1) with log q last, in nats."""
        settings, points, log_density = self.settings, path[..., :-1], path[..., -1]
        prior = Gaussian(torch.zeros_like(points), torch.ones_like(points))
        known = encoded.mean.shape[1]
        surprise = log_density[:, :known] - encoded.log_density(points[:, :known])
        return {
            "trajectory": (log_density - prior.log_density(points)).sum(dim=1).mean(),
            "encoding": settings.encoding_weight * surprise.sum(dim=1).mean(),
            "weights": settings.latents / self.weights.num_weights * self.weights.divergence(),
        }

    def _forecast(
        self, weights: list[Tensor], start: Tensor, inputs: Tensor, input_times: Tensor, target_times: Tensor
    ) -> Tensor:
        ode = ODE(Motion(weights, self.settings.rate), self.settings.ode)
        states = follow(ode, start, input_times, target_times)[:, input_times.shape[1] :, : self.settings.latents]
        return decode(self.decoder, states, inputs.shape[-2:])


ODE2VAE_PRESETS: dict[str, dict] = {
    "rotating-mnist": {
        "widths": [8, 16, 32, 64],
        "grid": 2,
        "latents": 20,
        "velocity_frames": 3,
        "encoding_weight": 0.1,
        "ode": {"width": 50, "depth": 1, "solver": "rk4", "max_step": 0.5},
    },
    "bouncing-balls": {
        "widths": [16, 32, 64, 128],
        "grid": 2,
        "latents": 25,
        "velocity_frames": 3,
        "encoding_weight": 1.0,
        "ode": {"width": 100, "depth": 1, "solver": "rk4", "max_step": 0.5},
    },
}
