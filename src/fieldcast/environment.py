"""What a run ran on: versions, devices, threads, extras."""

import importlib.metadata
import importlib.util
import os
import platform
from typing import Any

import torch

EXTRAS = {
    "video": "av",
    "tensorboard": "tensorboard",
    "digits": "mlxtend",
    "netcdf3": "scipy",
    "verify": "scipy",
    "nowcast": "pysteps",
    "dask": "distributed",
    "ode": "torchdiffeq",
}


def version() -> str:
    """Version of fieldcast."""
    return importlib.metadata.version("fieldcast")


def describe_environment(device: torch.device | str) -> dict[str, Any]:
    """Versions, device, threads and processor, as plain types."""
    packages = ("torch", "numpy", "xarray", "h5netcdf", "zarr", "pydantic", "safetensors")
    return {
        "fieldcast": version(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": str(device),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        **{name: importlib.metadata.version(name) for name in packages},
    }


def usable_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def bf16_in_hardware(device: torch.device | str) -> bool:
    """Whether a device has instructions for bfloat16; without them mixed precision is many times slower."""
    if torch.device(device).type == "cuda":
        return True
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def installed_extras() -> dict[str, bool]:
    """Which optional features can be used here."""
    return {extra: importlib.util.find_spec(module) is not None for extra, module in EXTRAS.items()}
