"""Every example runs as it stands, and so does the first Python in the README."""

import os
import re
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


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example(path, tmp_path):
    assert len(path.read_text().splitlines()) <= 60
    assert run([sys.executable, path], tmp_path)
    assert not list(tmp_path.iterdir()), "an example leaves nothing behind where it is run"


def test_readme(tmp_path):
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    if not blocks:
        pytest.skip("README.md has no Python yet")
    assert run([sys.executable, "-c", blocks[0]], tmp_path)
