# `make quickstart`, `make test` and `make test-all` set up what they need in .venv first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart test test-all test-large test-oldest checked format

# .venv holds a stamp per set of dependencies, so that a second run installs nothing.
.venv/installed: setup.cfg setup.py pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/installed-dev: setup.cfg setup.py pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch .venv/installed $@

quickstart: .venv/installed
	$(BIN)/tfmeta train models/maml_glyphs_5w1s/quickstart.yaml --output runs/quickstart

# Two workers or more: worksteal gives each a run of neighbouring tests, so that fixtures are set up
# once, and lets who is done first take over from the others.
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal

test: checked
	$(PYTEST)

# The large tests, too: whole notebooks and training runs, thousands of requests, hundreds of kills.
test-all: checked
	$(PYTEST) -m ""

# The large tests alone: a third of them, by the date, or all on three days; within SECONDS.
SECONDS ?= 600
test-large: .venv/installed-dev
	$(PYTEST) -m large --large-day $$(( $$(date +%s) / 86400 )) --seconds $(SECONDS)

checked: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Learners, data sets and presets with the oldest versions that setup.cfg admits.
OLDEST := .venv-oldest/bin/python
.venv-oldest/installed: setup.cfg setup.py pyproject.toml tests/oldest.py
	test -x $(OLDEST) || $(PYTHON) -m venv .venv-oldest
	$(PYTHON) tests/oldest.py > .venv-oldest/constraints.txt
	$(OLDEST) -m pip install --quiet --constraint .venv-oldest/constraints.txt \
		--editable '.[digits]' pytest pytest-xdist
	touch $@

test-oldest: .venv-oldest/installed
	$(OLDEST) -m pytest -n auto --maxprocesses 8 tests/learners tests/ops tests/backbones \
		tests/data tests/test_old_files.py tests/test_versions.py

format: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
