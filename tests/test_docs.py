"""What stands on the pages of docs/ and in the README runs: each page from top to bottom, in a folder of its own."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pytest

import fieldcast
from fieldcast.config import read_config

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NOT_RUN = re.compile(r"<!-- not run: (.+) -->\n$")
ENVIRONMENT = {"MPLBACKEND": "agg", "FIELDCAST_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


class Block(NamedTuple):
    language: str
    code: str
    line: int  # of its first line of code
    runs: bool


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(found[1], found[2], text.count("\n", 0, found.start(2)), not NOT_RUN.search(text[: found.start()]))
        for found in BLOCK.finditer(text)
    ]


def runnable(page: Path, languages: tuple[str, ...]) -> list[Block]:
    return [block for block in blocks(page) if block.runs and block.language in languages]


def run_shell(block: Block, page: Path) -> None:
    found = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.code],
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert found.returncode == 0, f"{page.name}, line {block.line + 1}: {found.stderr}"


@pytest.fixture
def tables():
    """What a page adds to the tables is gone after it."""
    with (
        mock.patch.dict(fieldcast.CELLS),
        mock.patch.dict(fieldcast.MODELS),
        mock.patch.dict(fieldcast.SOURCES),
        mock.patch.dict(fieldcast.METRICS),
        mock.patch.dict(fieldcast.LOSSES),
    ):
        yield


LANGUAGES = dict.fromkeys(PAGES, ("python", "sh")) | {ROOT / "README.md": ("python",)}
RUNNABLE = [page for page, languages in LANGUAGES.items() if runnable(page, languages)]


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=pytest.mark.whole) if page.stem == "first-hour" else page for page in RUNNABLE],
    ids=lambda page: page.stem,
)
def test_page(page, tmp_path, monkeypatch, tables):
    monkeypatch.chdir(tmp_path)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    namespace = {"__name__": "__main__"}
    for block in runnable(page, LANGUAGES[page]):
        if block.language == "sh":
            run_shell(block, page)
        else:
            # Empty lines before the code make a traceback point into the page.
            exec(compile("\n" * block.line + block.code, str(page), "exec"), namespace)


def test_enough_runs():
    assert {"README", "first-hour", "extend", "verification"} <= {page.stem for page in RUNNABLE}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_configurations_are_whole(page):
    for block in blocks(page):
        if block.language == "toml" and "[source]" in block.code:
            read_config(tomllib.loads(block.code), f"{page.name}, line {block.line + 1}")


def test_every_metric_is_explained():
    text = (ROOT / "docs" / "verification.md").read_text()
    missing = [name for name in fieldcast.METRICS if f"`{name}`" not in text]
    assert not missing, f"docs/verification.md says nothing of {missing}"


@pytest.mark.slow
def test_pages_build_without_warnings(tmp_path):
    words = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", ROOT / "docs", tmp_path]
    found = subprocess.run(words, capture_output=True, text=True, timeout=240)
    assert found.returncode == 0, found.stderr
