"""What forecasters of stations share.

Shapes: B batch, S target times, L lead times that a model gives, R stations.
"""

import torch
from torch import Tensor

from fieldcast.errors import DataError


def take_leads(forecasts: Tensor, leads: tuple[int, ...], steps: Tensor) -> Tensor:
    """Pick for each sample the lead times it asks for.

    Args:
        forecasts: (B, L, R), one for each of the model's lead times.
        leads: those lead times in cadences.
        steps: (B, S) lead times that are asked for.

    Returns:
        (B, S, 1, R).

    Raises:
        DataError: for a lead time that the model does not give.
    """
    matches = steps[..., None] == torch.tensor(leads, device=steps.device)
    unknown = ~matches.any(dim=-1)
    if unknown.any():
        raise DataError(
            f"this model gives the lead times {list(leads)} (in cadences after the last input), but targets are at "
            f"{sorted(set(steps[unknown].tolist()))}. Make it for the lead times that are asked for"
        )
    samples = torch.arange(len(steps), device=steps.device)[:, None]
    return forecasts[samples, matches.int().argmax(dim=-1)][:, :, None]
