# `make demo` and `make test` set everything up by themselves; a second run installs nothing.
PYTHON ?= python3
VENV ?= .venv
PIP = $(VENV)/bin/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test test-whole test-slow browser-test docs check clean

help:
	@echo "make demo    train on real radar rain, forecast, verify, write runs/demo/report.html"
	@echo "make test    run the tests"
	@echo "make test-whole    run the tests of whole runs: examples, the demo, the first hour"
	@echo "make browser-test    open the report in a headless Chromium"
	@echo "make docs    build the documentation: docs/_build/html/index.html"
	@echo "make check   lint, format, types"

demo: $(VENV)/core.installed
	$(VENV)/bin/fieldcast demo --overwrite

test: $(VENV)/dev.installed
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses 2 --dist worksteal

test-slow: $(VENV)/dev.installed
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses 2 --dist worksteal -m "not browser"

test-whole: $(VENV)/dev.installed
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses 2 --dist worksteal -m whole

browser-test: $(VENV)/dev.installed
	@command -v chromium >/dev/null || { echo "installing Debian's chromium" >&2; \
		apt-get update -qq && apt-get install --yes -qq --no-install-recommends chromium fonts-dejavu-core; }
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -m browser tests/browser

docs: $(VENV)/dev.installed
	$(VENV)/bin/python -m sphinx -W --keep-going -q docs docs/_build/html
	@echo docs/_build/html/index.html

check: $(VENV)/dev.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "fieldcast needs Python 3.11 or newer; name one: make demo PYTHON=python3.12" >&2; exit 2; }
	@echo "making $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/core.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing fieldcast into $(VENV) (torch is large: a minute or more)"
	@$(PIP) --editable .
	@touch $@

$(VENV)/dev.installed: $(VENV)/core.installed
	@echo "installing the test tools into $(VENV)"
	@$(PIP) --editable ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV) build dist runs docs/_build
