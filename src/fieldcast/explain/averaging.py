"""Linear kernels averaged over many reference sequences, with standard errors, in a run that can stop and go on.

Shapes: T input frames, C fields, H rows, W columns, Q outputs, P probes.
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fieldcast.data.dataset import spread
from fieldcast.errors import CheckpointError, ConfigError, DataError
from fieldcast.explain.linear_kernels import (
    LinearKernels,
    Method,
    Precision,
    inner_products,
    join_kernels,
    linear_kernels,
)
from fieldcast.explain.network import Network
from fieldcast.files import write_atomic
from fieldcast.processes import Processes
from fieldcast.settings import Count, Settings

CHECK_EVERY = 10  # blocks; fewer do not tell how far apart blocks lie
SAVE_EVERY = 30.0  # seconds
# Mean, spread, mean of a block, and two more while the block is added.
DOUBLES_AT_ONCE = 5
ALONE = Processes()


class AveragingSettings(Settings):
    """Of which sequences kernels are averaged, and how.

    ``num_sequences`` are drawn without replacement, the same share of each block; None takes all. ``num_blocks`` are
    the stretches of time that errors are told from: each shall be longer than a sequence and than the weather
    remembers. With ``tolerance`` it stops early, as soon as the standard error of the averaged surrogate's outputs at
    ``num_probes`` sequences is this share of the standard deviation of the network's own outputs there.
    """

    num_sequences: Count | None = None
    num_blocks: Annotated[int, Field(ge=2)] = 20
    seed: int = 0
    tolerance: Annotated[float, Field(gt=0)] | None = None
    num_probes: Annotated[int, Field(ge=2)] = 16
    method: Method = "auto"
    precision: Precision = "float32"
    memory_megabytes: Annotated[float, Field(gt=0)] = 1024


@dataclass(frozen=True)
class AveragedKernels:
    """The mean surrogate of many references, runoff note, equation 80, and how sure it is.

    Attributes:
        kernels: mean offset a_q and kernels omega_q; its ``value`` is the mean of M_q over the references.
        offset_error: standard error of the offset, (Q,).
        weights_error: standard error of the kernels, (Q, T, C, H, W).
        curve_error: standard error of the kernels' sum over the map, (Q, T, C).
        prediction_error: root mean square over the probes of the standard error of what the surrogate gives, (Q,).
        num_sequences: references that the mean of an output is made of, (Q,).
        num_blocks: blocks of time that the errors are told from, (Q,).
    """

    kernels: LinearKernels
    offset_error: Tensor
    weights_error: Tensor
    curve_error: Tensor
    prediction_error: Tensor
    num_sequences: Tensor
    num_blocks: Tensor


@dataclass
class Moments:
    """Weighted mean of blocks, and their weighted sum of squares about it, by name; a weight is a number of sequences.

    The way of Welford (1962) and of Chan, Golub and LeVeque (1979), in float64.
    """

    mean: dict[str, Tensor]
    spread: dict[str, Tensor]
    num_sequences: int = 0
    num_blocks: int = 0

    def include(self, block: dict[str, Tensor] | None, weight: int, processes: Processes) -> None:
        """Add the block of each process; None from one that has none.

            m' = m + sum_b w_b (x_b - m) / W',   s' = s + sum_b w_b (x_b - m) (x_b - m')

        Both sums are over processes, so that all of them have the same moments.
        """
        device = self.mean["offset"].device
        counts = processes.add(torch.tensor([weight, int(block is not None)], device=device))
        self.num_sequences += int(counts[0])
        self.num_blocks += int(counts[1])
        for name, mean in self.mean.items():
            deviation = torch.zeros_like(mean) if block is None else (block[name] - mean).mul_(weight)
            mean += processes.add(deviation.clone()).div_(self.num_sequences)
            if block is not None:
                deviation *= block[name] - mean
            self.spread[name] += processes.add(deviation)

    def error(self, name: str) -> Tensor:
        """Standard error of the mean: sqrt(s / (W (K - 1))) of K blocks with weights that add up to W."""
        return (self.spread[name] / (self.num_sequences * (self.num_blocks - 1))).sqrt()

    @property
    def prediction_error(self) -> Tensor:
        """Root mean square of the standard errors at the probes, (Q,)."""
        return self.error("predictions").square().mean(1).sqrt()


def average_kernels(
    network: Network,
    read_reference: Callable[[int], Tensor],
    numbers: Sequence[int],
    settings: AveragingSettings,
    folder: Path | None = None,
    processes: Processes = ALONE,
) -> AveragedKernels:
    """Average offset and kernels over reference sequences.

    a_q = 1/N sum_s (M_q(X^s) - <omega_q(X^s), X^s>),   omega_q = 1/N sum_s d M_q / d X (X^s);   runoff note,
    equations 77 to 80.

    Windows that overlap, and weather that lasts, make neighbouring references alike: errors told from single
    references would be too small. So the references are cut into blocks of time, and what the blocks differ by tells
    the error of the mean as an estimate for all weather, of which ``numbers`` is one record. The average over just
    ``numbers`` is nearer to that of a subset.

    Args:
        network: whose outputs they are of. Memory is kept by taking some outputs at a time.
        read_reference: a sequence by its number, (1, T, C, H, W) in physical units.
        numbers: the sequences to choose from, in order of time.
        settings: how many, in how many blocks.
        folder: where the state is kept, so that a killed run goes on and ends with the same bits; None: nowhere.
        processes: share the blocks.

    Raises:
        ConfigError: for more sequences than there are, or fewer than blocks.
        CheckpointError: for a folder with averages of something else.
        DataError: for a reference whose kernels are not finite.
    """
    blocks = draw_blocks(numbers, settings)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    job = _Job(network, read_reference, blocks, settings, _read_probes(network, read_reference, numbers, settings))
    mark = _fingerprint(job, numbers) if folder is not None else ""
    shape, total = job.probes.shape[1:], len(network.outputs)
    size = max(1, int(settings.memory_megabytes / 2 * 2**20 / (8 * DOUBLES_AT_ONCE * shape.numel())))
    parts = []
    for start in range(0, total, size):
        chosen = slice(start, min(start + size, total))
        state = _State(folder / f"outputs-{start:05d}-{chosen.stop:05d}.safetensors", mark) if folder else None
        some = replace(job, network=network.with_outputs(chosen))
        parts.append(_summary(_run(some, state, processes), network.dtype))
    return _join(parts)


def draw_blocks(numbers: Sequence[int], settings: AveragingSettings) -> list[list[int]]:
    """The references, in order of time within a block, the blocks in order of the draw."""
    wanted = len(numbers) if settings.num_sequences is None else settings.num_sequences
    if wanted > len(numbers):
        raise ConfigError(f"num_sequences = {wanted}: there are {len(numbers)}")
    if wanted < settings.num_blocks:
        raise ConfigError(f"{wanted} sequences make no {settings.num_blocks} blocks: take more, or lower num_blocks")
    draw = np.random.default_rng(settings.seed)
    stretches = np.array_split(np.asarray(numbers), settings.num_blocks)
    sizes = [len(part) for part in np.array_split(np.arange(wanted), settings.num_blocks)]
    blocks = [
        stretch[np.sort(draw.permutation(len(stretch))[:size])].tolist()
        for stretch, size in zip(stretches, sizes, strict=True)
    ]
    return [blocks[place] for place in draw.permutation(settings.num_blocks)]


@dataclass(frozen=True)
class _Job:
    """What is averaged; ``probes`` are (P, T, C, H, W)."""

    network: Network
    read_reference: Callable[[int], Tensor]
    blocks: list[list[int]]
    settings: AveragingSettings
    probes: Tensor


def _read_probes(
    network: Network, read_reference: Callable[[int], Tensor], numbers: Sequence[int], settings: AveragingSettings
) -> Tensor:
    places = spread(len(numbers), settings.num_probes)
    return torch.cat([network.filled(read_reference(numbers[place])) for place in places])


def _run(job: _Job, state: "_State | None", processes: Processes) -> Moments:
    """Take blocks, one for each process at a time, until all are taken or the error is small enough."""
    moments = _empty(job)
    if state is not None:
        state.load(moments)
    scale = _spread_of_network(job)
    while not _finished(moments, job, scale):
        # Looks at the error come after the same blocks, however many processes there are.
        stop = min((moments.num_blocks // CHECK_EVERY + 1) * CHECK_EVERY, len(job.blocks))
        place = moments.num_blocks + processes.rank
        block = _block_mean(job, job.blocks[place]) if processes.rank < stop - moments.num_blocks else None
        moments.include(block, 0 if block is None else len(job.blocks[place]), processes)
        if state is not None and processes.first:
            state.save(moments, at_once=_finished(moments, job, scale))
    return moments


def _finished(moments: Moments, job: _Job, scale: Tensor) -> bool:
    if moments.num_blocks == len(job.blocks):
        return True
    if job.settings.tolerance is None or moments.num_blocks == 0 or moments.num_blocks % CHECK_EVERY:
        return False
    return bool((moments.prediction_error <= job.settings.tolerance * scale).all())


def _spread_of_network(job: _Job) -> Tensor:
    """Standard deviation (Q,) of the network's outputs over the probes."""
    with job.network.at_rest(), torch.no_grad():
        values = torch.cat([job.network(probe.to(job.network.dtype)) for probe in job.probes.split(1)])
    return values.double().std(0)


def _empty(job: _Job) -> Moments:
    total, probes = len(job.network.outputs), job.probes
    shapes: dict[str, Sequence[int]] = {"offset": (), "value": (), "predictions": (len(probes),)}
    shapes |= {"weights": probes.shape[1:], "curve": probes.shape[1:3]}
    new = {
        name: torch.zeros(total, *shape, dtype=torch.float64, device=probes.device) for name, shape in shapes.items()
    }
    return Moments(new, {name: torch.zeros_like(mean) for name, mean in new.items()})


def _block_mean(job: _Job, numbers: list[int]) -> dict[str, Tensor]:
    """Mean of a block's offsets, values and kernels, and what its surrogate gives at the probes."""
    means = _empty(job).mean
    settings = job.settings
    for count, number in enumerate(numbers, 1):
        kernels = linear_kernels(
            job.network,
            job.read_reference(number),
            settings.method,
            memory_megabytes=settings.memory_megabytes / 2,
            precision=settings.precision,
        )
        if not (kernels.weights.isfinite().all() and kernels.offset.isfinite().all()):
            raise DataError(f"the kernels at sequence {number} are not finite: leave it out")
        for name in ("offset", "value", "weights"):
            means[name] += (getattr(kernels, name) - means[name]) / count
    means["curve"] = means["weights"].sum((-2, -1))
    means["predictions"] = means["offset"][:, None] + inner_products(means["weights"], job.probes).T
    return means


def _summary(moments: Moments, dtype: torch.dtype) -> AveragedKernels:
    mean, counts = moments.mean, torch.ones(len(moments.mean["offset"]), dtype=torch.int64)
    return AveragedKernels(
        LinearKernels(mean["value"], mean["offset"], mean["weights"].to(dtype)),
        moments.error("offset"),
        moments.error("weights").to(dtype),
        moments.error("curve"),
        moments.prediction_error,
        counts * moments.num_sequences,
        counts * moments.num_blocks,
    )


def _join(parts: list[AveragedKernels]) -> AveragedKernels:
    names = ("offset_error", "weights_error", "curve_error", "prediction_error", "num_sequences", "num_blocks")
    return AveragedKernels(
        join_kernels([part.kernels for part in parts]),
        **{name: torch.cat([getattr(part, name) for part in parts]) for name in names},
    )


def _fingerprint(job: _Job, numbers: Sequence[int]) -> str:
    """SHA-256 of what an average is of: the network with its weights, the sequences, the settings."""
    network = job.network
    digest = hashlib.sha256()
    tensors = {**network.model.state_dict(), "outputs": network.outputs.weights, "probes": job.probes}
    tensors |= {"input times": network.input_times, "target times": network.target_times}
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    described = (network.outputs.names, network.normalizer, network.target_normalizer, list(numbers), job.settings)
    digest.update(repr(described).encode())
    return digest.hexdigest()


class _State:
    """The file that the moments of some outputs are kept in."""

    def __init__(self, path: Path, mark: str) -> None:
        self.path, self.mark = path, mark
        self.saved = time.monotonic()

    def save(self, moments: Moments, at_once: bool) -> None:
        """Write the moments, whole or not at all, if the last time was long ago."""
        if not at_once and time.monotonic() - self.saved < SAVE_EVERY:
            return
        tensors = {f"mean.{name}": tensor for name, tensor in moments.mean.items()}
        tensors |= {f"spread.{name}": tensor for name, tensor in moments.spread.items()}
        counts = {"num_sequences": moments.num_sequences, "num_blocks": moments.num_blocks}
        write_atomic(self.path, save(tensors, {"mark": self.mark, "counts": json.dumps(counts)}))
        self.saved = time.monotonic()

    def load(self, moments: Moments) -> None:
        """Take the moments from the file, if there is one."""
        if not self.path.is_file():
            return
        try:
            with safe_open(self.path, "pt") as file:
                described = file.metadata()
                if described["mark"] != self.mark:
                    raise CheckpointError(
                        f"{self.path} is the average of another network, other sequences or other settings: "
                        "take another folder"
                    )
                for kind, tensors in (("mean", moments.mean), ("spread", moments.spread)):
                    for name, tensor in tensors.items():
                        tensor.copy_(file.get_tensor(f"{kind}.{name}"))
        except (SafetensorError, KeyError, TypeError) as error:
            raise CheckpointError(f"{self.path} is no state of an average: {error}. Delete it") from None
        counts = json.loads(described["counts"])
        moments.num_sequences, moments.num_blocks = counts["num_sequences"], counts["num_blocks"]
