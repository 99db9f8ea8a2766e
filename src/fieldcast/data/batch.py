"""What models, losses and metrics receive."""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Samples side by side, normalised, each with its own times.

    Shapes: B batch, T input frames, S target frames, C channels, H rows, W columns.
    Times are relative to the last input, in units of the source's cadence.
    """

    inputs: Tensor  # (B, T, C, H, W)
    input_times: Tensor  # (B, T), ascending, the last is 0
    targets: Tensor  # (B, S, C, H, W)
    target_times: Tensor  # (B, S), ascending
    valid: Tensor  # (B, S, C, H, W), False where the target is missing
    origin: Tensor  # (B,), int64 ns since 1970-01-01 UTC: time of the last input

    def __len__(self) -> int:
        return len(self.inputs)

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device."""
        return replace(self, **{item.name: getattr(self, item.name).to(device) for item in fields(self)})

    def without_targets(self) -> "Batch":
        """The same batch as a forecast may see it: when the targets are, and nothing of what they hold."""
        unknown = torch.full((), torch.nan, device=self.targets.device).expand(self.targets.shape)
        return replace(self, targets=unknown, valid=torch.zeros((), dtype=torch.bool).expand(self.valid.shape))

    def __getitem__(self, samples: slice) -> "Batch":
        """Some of the samples."""
        return replace(self, **{item.name: getattr(self, item.name)[samples] for item in fields(self)})


def collate(samples: list[Batch]) -> Batch:
    """Join batches along the samples; they need the same numbers of frames and the same map size."""
    return Batch(*(torch.cat([getattr(sample, item.name) for sample in samples]) for item in fields(Batch)))
