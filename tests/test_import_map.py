"""Who may import whom: no package imports one above it, and help comes without torch."""

import ast
import subprocess
import sys
from collections import defaultdict
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import fieldcast

SOURCE = Path(fieldcast.__file__).parent

# A unit is a module or a package directly under fieldcast.
TOP = {"cli", "demo"}
LEARNING = {
    "training", "evaluation", "benchmark", "forecast", "fill", "explain", "report", "run", "checkpoint", "config",
}  # fmt: skip
FORECASTERS = {"models"}
PARTS = {"layers", "cells", "evolve", "losses", "metrics", "data"}

FORBIDDEN = {
    "errors": TOP | LEARNING | FORECASTERS | PARTS | {"settings"},
    "settings": TOP | LEARNING | FORECASTERS | PARTS,
    "layers": TOP | LEARNING | FORECASTERS | (PARTS - {"layers"}),
    "cells": TOP | LEARNING | FORECASTERS | (PARTS - {"cells", "layers"}),
    **dict.fromkeys(("evolve", "losses", "metrics", "data"), TOP | LEARNING | FORECASTERS),
    **dict.fromkeys(sorted(FORECASTERS), TOP | LEARNING),
    **dict.fromkeys(sorted(LEARNING), TOP),
}


def imported(path):
    """Every module that a file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            names = (alias.name for alias in node.names)
            yield from (f"fieldcast.{name}" for name in names) if node.module == "fieldcast" else [node.module]


@cache
def import_map():
    """Unit -> {unit it imports: a file that does so}."""
    units = defaultdict(dict)
    for path in sorted(SOURCE.rglob("*.py")):
        unit = path.relative_to(SOURCE).with_suffix("").parts[0]
        for name in imported(path):
            package, *rest = name.split(".")
            if package == "fieldcast" and rest and rest[0] != unit:
                units[unit].setdefault(rest[0], path.relative_to(SOURCE).as_posix())
    return units


@pytest.mark.parametrize("unit", FORBIDDEN)
def test_no_unit_imports_one_above_it(unit):
    wrong = {name: where for name, where in import_map().get(unit, {}).items() if name in FORBIDDEN[unit]}
    assert not wrong, f"fieldcast.{unit} must not import {wrong}"


def test_the_map_sees_imports():
    units = import_map()
    assert units["cells"]["layers"]
    assert units["models"]["cells"]
    assert units["config"]["models"]


def test_no_two_units_import_each_other():
    graph = {unit: set(names) for unit, names in import_map().items() if unit != "__init__"}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' <- '.join(error.args[1])}")


def modules_after(statement):
    """Names of the modules loaded by a statement in a fresh interpreter."""
    script = f"import sys\ntry:\n    {statement}\nexcept SystemExit:\n    pass\nprint('\\n' + ' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


HEAVY = {"torch", "xarray", "matplotlib", "zarr"}


def test_importing_the_package_is_light():
    assert not modules_after("import fieldcast") & HEAVY


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["--version"]])
def test_help_does_not_import_torch(arguments):
    start = "import runpy; runpy.run_module('fieldcast.cli', run_name='__main__')"
    loaded = modules_after(f"sys.argv = ['fieldcast', *{arguments}]; {start}")
    assert "typer" in loaded
    assert not loaded & HEAVY


def test_help_is_printed():
    command = [sys.executable, "-m", "fieldcast.cli", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "train" in done.stdout


# Each before those whose modules it imports.
PUBLIC_FUNCTIONS = [
    "demo",
    "benchmark",
    "report",
    "explain",
    "forecast",
    "fill",
    "evaluate",
    "verify",
    "resume",
    "train",
    "build",
]


def test_public_functions_are_not_hidden_by_modules_of_the_same_name():
    script = f"""
import fieldcast
for _ in range(2):
    for name in {PUBLIC_FUNCTIONS}:
        if not callable(getattr(fieldcast, name)):
            print(name)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stdout.split()
