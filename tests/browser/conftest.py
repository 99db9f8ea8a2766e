"""A headless Chromium for the tests of pages."""

import os
import shutil

import pytest
from playwright.sync_api import Error, sync_playwright

FLAGS = ("no-sandbox", "disable-gpu", "disable-background-networking", "disable-component-update", "disable-sync")
ARGUMENTS = [f"--{flag}" for flag in (*FLAGS, "no-first-run")]


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium; its absence is a failure, since nothing else tells whether the page works."""
    path = os.environ.get("FIELDCAST_CHROMIUM") or shutil.which("chromium")
    assert path, "there is no Chromium: install it or name it in FIELDCAST_CHROMIUM"
    with sync_playwright() as playwright:
        try:
            started = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        except Error as error:
            pytest.fail(f"{path} does not start: {error}")
        yield started
        started.close()
