"""A plain reading of ODE2VAE, one sample and one time after another, in float64; see ``oracles.latent_ode``."""

import numpy as np
from oracles.latent_ode import decode, encode, path, rk4
from oracles.models import part

SMALL_STEP = 1e-30  # imaginary: the derivative of an analytic function without cancellation


def acceleration(matrices, state):
    """f_W(s, v): layers (O, I + 1) with the bias last, tanh after each but the last."""
    for matrix in matrices[:-1]:
        state = np.tanh(matrix[:, :-1] @ state + matrix[:, -1])
    return matrices[-1][:, :-1] @ state + matrices[-1][:, -1]


def trace(matrices, state):
    """sum_l d f_l / d v_l, by steps into the imaginary."""
    latents = len(state) // 2
    total = 0.0
    for place in range(latents):
        moved = state.astype(complex)
        moved[latents + place] += 1j * SMALL_STEP
        total += acceleration(matrices, moved)[place].imag / SMALL_STEP
    return total


def motion(matrices, rate):
    """The derivative of (s, v, log q)."""

    def field(state):
        latents = len(state) // 2
        both = state[:-1]
        change = [both[latents:], acceleration(matrices, both), [-trace(matrices, both)]]
        return rate * np.concatenate(change)

    return field


def instant(weights, frames, times, first, *, grid, velocity_frames):
    """Mean and standard deviation of q_enc at frame ``first``."""
    places = [min(first + k, len(frames) - 1) for k in range(velocity_frames)]
    size = frames.shape[-2:]
    elapsed = [np.full((1, *size), times[place] - times[first]) for place in places[1:]]
    stacked = np.concatenate([*(frames[place] for place in places), *elapsed])
    position = encode(part(weights, "position_encoder"), frames[first], grid)
    velocity = encode(part(weights, "velocity_encoder"), stacked, grid)
    latents = len(position) // 2
    mean = np.concatenate([position[:latents], velocity[:latents]])
    return mean, np.exp(np.concatenate([position[latents:], velocity[latents:]]))


def states_at(matrices, start, log_density, input_times, target_times, *, rate, max_step):
    """(s, v, log q) at the inputs' times and then the targets': (T + S, 2 L + 1)."""
    everything = [*input_times, *target_times]
    first = np.concatenate([start, [log_density]])
    states = path(motion(matrices, rate), first, input_times[0], everything, rk4, max_step)
    return np.stack([states[time] for time in everything])


def frames_of(weights, states, *, grid, size):
    latents = states.shape[1] // 2
    return np.stack([decode(part(weights, "decoder"), state[:latents], grid, size) for state in states])
