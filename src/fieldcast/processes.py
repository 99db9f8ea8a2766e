"""The processes that train together under torchrun; one process alone is the special case."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor

from fieldcast.errors import ConfigError


@dataclass(frozen=True)
class Processes:
    """This process's number among ``count`` that train together."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and messages."""
        return self.rank == 0

    def add(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.count > 1:
            distributed.all_reduce(values)
        return values

    def gather(self, value: Any) -> list[Any]:
        """What every process has, in order of their numbers."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        distributed.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Go on when all processes are here."""
        if self.count > 1:
            distributed.barrier()


@contextmanager
def join_processes(device: torch.device) -> Iterator[Processes]:
    """Join the group that torchrun has started, if there is one."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes()
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(distributed.get_rank(), count)
    finally:
        distributed.destroy_process_group()


def is_first_process() -> bool:
    """Whether this process writes files and messages, before a group is joined or after it is left."""
    return int(os.environ.get("RANK", "0")) == 0


def choose_device(name: str = "auto") -> torch.device:
    """``auto`` takes CUDA where there is one, this process's own under torchrun.

    Raises:
        ConfigError: for a device that isn't there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device '{name}': allowed are auto, cpu, cuda, cuda:0, ...") from None
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device '{name}': allowed are auto, cpu, cuda, cuda:0, ...")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError(f"no CUDA device (torch {torch.__version__} sees none): use --device cpu")
        if device.index is None:
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    return device


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context that a forward pass of this precision, "float32" or "bf16-mixed", runs in."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed")
