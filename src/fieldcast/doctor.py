"""What this installation can do, and how to get what it can't."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch

from fieldcast.data.digits import cache_folder
from fieldcast.environment import bf16_in_hardware, describe_environment, installed_extras

VARIABLES = ("FIELDCAST_CACHE", "FIELDCAST_DEVICE", "FIELDCAST_OFFLINE", "OMP_NUM_THREADS", "TMPDIR")


def examine() -> dict[str, Any]:
    """Versions, devices, threads, folders, environment variables and extras, as plain types."""
    cache = cache_folder()
    existing = next(parent for parent in (cache, *cache.parents) if parent.exists())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return {
        **describe_environment(device),
        "bf16 in hardware": bf16_in_hardware(device),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "working folder writable": os.access(Path.cwd(), os.W_OK),
        "free disk": f"{shutil.disk_usage(Path.cwd()).free / 1e9:.0f} GB",
        "cache folder": f"{cache} ({'writable' if os.access(existing, os.W_OK) else 'not writable'})",
        **{f"${name}": os.environ.get(name, "") for name in VARIABLES},
        "extras": {
            extra: "installed" if there else f'missing: pip install "fieldcast[{extra}]"'
            for extra, there in installed_extras().items()
        },
    }
