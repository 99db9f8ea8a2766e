"""fieldcast: learn, forecast, verify and explain fields that move.

The public names are imported when they are first used, so that ``import fieldcast`` is quick.
"""

import importlib
import sys
from types import ModuleType
from typing import Any

_HOMES = {
    "build": "fieldcast.models",
    "MODELS": "fieldcast.models",
    "Forecaster": "fieldcast.models",
    "SOURCES": "fieldcast.data",
    "Batch": "fieldcast.data",
    "CELLS": "fieldcast.cells",
    "METRICS": "fieldcast.metrics",
    "LOSSES": "fieldcast.losses",
    "load_config": "fieldcast.config",
    "read_config": "fieldcast.config",
    "Run": "fieldcast.run",
    "train": "fieldcast.training.loop",
    "resume": "fieldcast.training.loop",
    "evaluate": "fieldcast.evaluation",
    "verify": "fieldcast.evaluation",
    "forecast": "fieldcast.forecast",
    "save_forecast": "fieldcast.forecast",
    "fill": "fieldcast.fill",
    "explain": "fieldcast.explain",
    "report": "fieldcast.report.run_report",
    "benchmark": "fieldcast.benchmark.run_benchmark",
    "demo": "fieldcast.demo",
    "FieldcastError": "fieldcast.errors",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fieldcast' has no attribute '{name}'")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


class _Package(ModuleType):
    """`fieldcast.forecast` is a module as well as a function: importing the module must not hide the function."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
