# Everything runs in .venv, made on first use from constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PRESET ?= demo
OUT ?= artifacts/$(PRESET)
READY := $(VENV)/.ready

.PHONY: reproduce test test-slow check format bench notebooks clean

reproduce: $(READY)  ## the main job: train, find the phases, measure, report
	$(BIN)/interp reproduce $(PRESET) --out $(OUT)

test: $(READY)  ## the fast tests, two at a time
	$(BIN)/pytest -n 2

test-slow: $(READY)  ## tests that train at the tiny and demo presets, and re-check the committed tables
	$(BIN)/pytest -m slow

check: $(READY)  ## format, lint, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

notebooks: $(READY)  ## execute the notebooks at demo and save them with their outputs
	$(BIN)/python notebooks/execute.py

bench: $(READY)  ## speed: training, patching, attention analysis, interventions; growth in people, layers, tokens
	$(BIN)/python -m tests.benchmarks
	$(BIN)/python -m tests.benchmarks.growth --out artifacts/growth

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	# torch by itself first: its exact version decides whether a CPU or a CUDA build comes.
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,notebooks]'
	touch $(READY)

clean:
	rm -rf $(VENV)
