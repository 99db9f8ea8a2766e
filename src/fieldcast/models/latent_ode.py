"""Latent ODE: a recurrent encoder that runs backward in time, and a differential equation that runs on from it.

Shapes: B batch, T input frames, S target frames, C channels, H rows, W columns, F features of a frame, D width of the
encoder's state, L latents, N times of any number.
"""

import math
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from fieldcast.data.batch import Batch
from fieldcast.evolve import ODE, ODESettings
from fieldcast.layers.frame_codec import FrameDecoder, FrameEncoder, Gaussian
from fieldcast.layers.resample import pad_to_multiple
from fieldcast.models.base import Forecaster, ModelSettings, widen
from fieldcast.settings import Count, TupleOf

HEAD_WIDTH = 100  # of the layer between the encoder's state and the posterior, in the release
SMALLEST_STD = 1e-6  # of the posterior, so that its logarithm is finite


class LatentSettings(ModelSettings):
    """Settings of models whose state is one vector: the frames' encoder and decoder, and how sure a pixel is.

    Args:
        widths: of the convolutions, each of which halves the map, bottom first.
        grid: points of the map, in rows and in columns, that a linear layer reads and writes.
        latents: L.
        observation_std: standard deviation of a pixel about the decoded frame, normalised; the smaller, the less
            the divergences weigh.
    """

    widths: Annotated[TupleOf[Count], Field(min_length=1)] = (16, 32, 64, 128)
    grid: Count = 4
    latents: Count
    observation_std: Annotated[float, Field(gt=0)] = 0.1

    @property
    def strides(self) -> tuple[int, ...]:
        """Of the convolutions: H and W are padded to a multiple of their product."""
        return (2,) * len(self.widths)

    def penalty_scale(self, targets: Tensor) -> float:
        """What makes nats of a sample parts of the mean squared error of its targets (B, S, C, H, W).

        -log p(x | z) = 1 / (2 std^2) sum (x - decoded)^2 + constant, so a nat is worth 2 std^2 / (S C H W).
        """
        return 2 * self.observation_std**2 / targets[0].numel()


def reconstruction_penalty(frames: Tensor, inputs: Tensor, num_targets: int) -> Tensor:
    """Squared errors of the inputs (B, T, C, H, W), each weighing as one of a target's does in their mean: scalar."""
    return (frames - inputs).square().mean() * inputs.shape[1] / num_targets


class LatentODESettings(LatentSettings):
    """Settings of ``latent-ode``.

    Args:
        latents: L.
        features: F, of a frame.
        state_width: D.
        gate_width: of the hidden layer of each gate.
        recognition: the field of the encoder's state between two frames.
        generation: the field of the latents.
    """

    latents: Count = 6
    features: Count = 64
    state_width: Count = 20
    gate_width: Count = 100
    recognition: ODESettings = ODESettings(width=100, depth=1, solver="euler", max_step=0.25)
    generation: ODESettings = ODESettings(width=100, depth=1, solver="rk4", max_step=0.25)


def perceptron(inputs: int, width: int, outputs: int, depth: int = 0) -> nn.Sequential:
    """Linear layers with tanh between them, ``depth`` + 1 hidden ones of the same width."""
    hidden = [layer for _ in range(depth) for layer in (nn.Linear(width, width), nn.Tanh())]
    return nn.Sequential(nn.Linear(inputs, width), nn.Tanh(), *hidden, nn.Linear(width, outputs))


class GaussianGRU(nn.Module):
    """A gated recurrent update of a state that has a mean and a standard deviation.

    u = s(U(m, d, x)), r = s(R(m, d, x)), (m', d') = C(r o m, r o d, x),
    m <- u o m + (1 - u) o m', d <- u o d + (1 - u) o |d'|, with U, R and C of one hidden layer.
    Rubanova et al. 2019, released code.
    """

    def __init__(self, features: int, state_width: int, gate_width: int) -> None:
        super().__init__()
        joint = 2 * state_width + features
        self.update = perceptron(joint, gate_width, state_width)
        self.reset = perceptron(joint, gate_width, state_width)
        self.candidate = perceptron(joint, gate_width, 2 * state_width)

    def forward(self, features: Tensor, state: Gaussian) -> Gaussian:
        """Features (B, F) and state (B, D) -> state."""
        joint = torch.cat([*state, features], dim=1)
        keep, reset = widen(torch.sigmoid(self.update(joint))), torch.sigmoid(self.reset(joint))
        candidate = self.candidate(torch.cat([reset * state.mean, reset * state.std, features], dim=1))
        mean, std = widen(candidate).chunk(2, dim=1)
        return Gaussian(torch.lerp(mean, state.mean, keep), torch.lerp(std.abs(), state.std, keep))


class LatentODE(Forecaster):
    """Latent ODE of Rubanova et al. 2019 (arXiv:1907.03907) with convolutions around it.

    Encoder, from the last input to the first: m <- m + integral of g(m) over the gap, (m, d) <- GRU(e(x_i), (m, d));
    at the first input (mu, sigma) = head(m, d), q(z_0) = N(mu, |sigma|^2). Forecast: dz/dt = f(z) from z_0 at the time
    of the first input through the wanted times, before, between and after the inputs; the frame is the decoder's of
    z(t). ``forward`` starts from mu, ``draw`` and training from a draw.

    Training adds to the loss, with the mean squared error of weight 1 as the loss and M = S C H W:

        reconstruction = T / S mean((x_i - decoded)^2) over the inputs
        divergence = 2 std^2 / M sum_l KL(q(z_0l) || N(0, 1))

    so that the sum is -2 std^2 / M times the evidence lower bound of inputs and targets under
    p(x | z) = N(decoded, std^2), but for a constant, by one draw. A bound by several draws weighted by importance is a
    logarithm of a mean over draws of all frames together; no loss of single frames can hold it. The release averages
    the divergence over latents and the likelihood over values, which is another bound, and lets the divergence grow
    over the epochs.

    Any T and S; any H and W, padded to a multiple of the strides.
    """

    irregular_inputs = True
    irregular_targets = True
    interpolates: ClassVar[bool] = True
    draws: ClassVar[bool] = True

    def __init__(self, settings: LatentODESettings, num_channels: int) -> None:
        super().__init__()
        self.settings = settings
        width, latents = settings.state_width, settings.latents
        self.encoder = FrameEncoder(num_channels, settings.widths, settings.grid, settings.features)
        self.cell = GaussianGRU(settings.features, width, settings.gate_width)
        self.recognition = vector_ode(width, settings.recognition)
        self.head = perceptron(2 * width, HEAD_WIDTH, 2 * latents)
        self.generation = vector_ode(latents, settings.generation)
        self.decoder = FrameDecoder(latents, settings.widths, settings.grid, num_channels)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, inputs: Tensor, input_times: Tensor, target_times: Tensor) -> Tensor:
        """See ``Forecaster.forward``."""
        input_times, target_times = self.seen_times(input_times, target_times)
        posterior = self.infer(inputs, input_times)
        return self._forecast(posterior.mean, inputs, input_times, target_times)

    def draw(self, inputs: Tensor, input_times: Tensor, target_times: Tensor) -> Tensor:
        """See ``Forecaster.draw``: z_0 is drawn for each sample."""
        input_times, target_times = self.seen_times(input_times, target_times)
        posterior = self.infer(inputs, input_times)
        return self._forecast(posterior.draw(), inputs, input_times, target_times)

    def forward_train(self, batch: Batch, teacher: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """See ``Forecaster.forward_train``; in evaluation mode the posterior's mean stands for the draw."""
        assert teacher is None, "this model takes no teacher"
        input_times, target_times = self.seen_times(batch.input_times, batch.target_times)
        posterior = self.infer(batch.inputs, input_times)
        start = posterior.draw() if self.training else posterior.mean
        states = follow(self.generation, start, input_times, target_times)
        num_inputs, size = input_times.shape[1], batch.inputs.shape[-2:]
        frames = decode(self.decoder, states[:, num_inputs:], size)
        again = decode(self.decoder, states[:, :num_inputs], size)
        return frames, {
            "reconstruction": reconstruction_penalty(again, batch.inputs, target_times.shape[1]),
            "divergence": self.settings.penalty_scale(batch.targets) * posterior.divergence().mean(),
        }

    def infer(self, inputs: Tensor, input_times: Tensor) -> Gaussian:
        """The posterior q(z_0) of the latents (B, L) at the time of the first input, from frames (B, T, C, H, W)."""
        padded = pad_to_multiple(inputs, math.prod(self.settings.strides))
        features = self.encoder(padded.flatten(0, 1)).unflatten(0, inputs.shape[:2])
        nothing = widen(features).new_zeros(len(inputs), self.settings.state_width)
        state = Gaussian(nothing, nothing)
        for place in reversed(range(inputs.shape[1])):
            if place + 1 < inputs.shape[1]:
                elapsed = input_times[:, place] - input_times[:, place + 1]
                state = state._replace(mean=self.recognition(state.mean, elapsed))
            state = self.cell(features[:, place], state)
        mean, std = widen(self.head(torch.cat(state, dim=1))).chunk(2, dim=1)
        return Gaussian(mean, std.abs() + SMALLEST_STD)

    def _forecast(self, start: Tensor, inputs: Tensor, input_times: Tensor, target_times: Tensor) -> Tensor:
        states = follow(self.generation, start, input_times, target_times)[:, input_times.shape[1] :]
        return decode(self.decoder, states, inputs.shape[-2:])


def vector_ode(width: int, settings: ODESettings) -> ODE:
    """A vector (B, ``width``) that follows a perceptron's field."""
    return ODE(perceptron(width, settings.width, width, settings.depth), settings)


def follow(ode: ODE, start: Tensor, input_times: Tensor, target_times: Tensor) -> Tensor:
    """States at the times of the inputs and of the targets, from one at the time of the first input.

    Each is solved from the last of these times before it (after it, for one before the first input).

    Args:
        ode: the equation.
        start: (B, L), at the first input.
        input_times: (B, T).
        target_times: (B, S), before, between, at or after those of the inputs.

    Returns:
        (B, T + S, L), inputs first.
    """
    times = torch.cat([input_times, target_times], dim=1) - input_times[:, :1]
    order = times.argsort(dim=1, stable=True)
    states = _solve_both_ways(ode, start, times.gather(1, order))
    places = order.argsort(dim=1)
    return states.gather(1, places[..., None].expand_as(states))


def _solve_both_ways(ode: ODE, start: Tensor, times: Tensor) -> Tensor:
    """States (B, N, L) at ascending times (B, N) after and before that of ``start``, 0."""
    after = torch.stack(ode.trajectory(start, times.clamp(min=0)), dim=1)
    early = times < 0
    if not early.any():
        return after
    backward = torch.stack(ode.trajectory(start, times.clamp(max=0).flip(1)), dim=1)
    return torch.where(early[..., None], backward.flip(1), after)


def decode(decoder: FrameDecoder, states: Tensor, size: torch.Size) -> Tensor:
    """Frames (B, N, C, H, W) of states (B, N, L), ``size`` being (H, W)."""
    multiple = 1 << len(decoder.up)
    rows, columns = (side + -side % multiple for side in size)
    frames = widen(decoder(states.flatten(0, 1), (rows, columns)))
    return frames[..., : size[0], : size[1]].unflatten(0, states.shape[:2])


LATENT_ODE_PRESETS: dict[str, dict] = {
    "rubanova2019": {
        "widths": [16, 32, 64, 128],
        "latents": 6,
        "state_width": 20,
        "gate_width": 100,
        "observation_std": 0.01,
        "recognition": {"width": 100, "depth": 1, "solver": "euler", "max_step": 0.25},
        "generation": {"width": 100, "depth": 1, "solver": "rk4", "max_step": 0.25},
    },
    "rubanova2019-hopper": {
        "widths": [16, 32, 64, 128],
        "latents": 15,
        "state_width": 30,
        "gate_width": 100,
        "observation_std": 0.001,
        "recognition": {"width": 300, "depth": 3, "solver": "euler", "max_step": 0.25},
        "generation": {"width": 300, "depth": 3, "solver": "rk4", "max_step": 0.25},
    },
}
