"""Every example runs as it stands."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def run(words, folder):
    environment = {**os.environ, "MPLBACKEND": "agg", "FIELDCAST_OFFLINE": "1"}
    found = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)
    assert found.returncode == 0, found.stderr
    return found.stdout


@pytest.mark.whole
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example(path, tmp_path):
    assert len(path.read_text().splitlines()) <= 60
    assert run([sys.executable, path], tmp_path)
    assert not list(tmp_path.iterdir()), "an example leaves nothing behind where it is run"
