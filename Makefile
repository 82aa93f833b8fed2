# Two commands: `make quickstart` and `make test`. Each sets up what it needs in .venv first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart test format

# .venv holds a stamp per set of dependencies, so that a second run installs nothing.
.venv/installed: setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/installed-dev: setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch .venv/installed $@

quickstart: .venv/installed
	$(BIN)/tfmeta train models/maml_glyphs_5w1s/quickstart.yaml --output runs/quickstart

test: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n auto --maxprocesses 8

format: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
