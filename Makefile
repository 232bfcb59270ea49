# Everything runs in .venv, made on first use from constraints.txt; `make gpu` in .venv-gpu.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PRESET ?= demo
OUT ?= artifacts/$(PRESET)
READY := $(VENV)/.ready
GPU_VENV := .venv-gpu
GPU_READY := $(GPU_VENV)/.ready
GPU_OUT ?= artifacts/gpu

.PHONY: reproduce test test-slow check format bench gpu notebooks docs studies dist clean

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

studies: $(READY)  ## the studies of artifacts/gallery/studies.yaml: train, measure, draw; hours; goes on where it was stopped
	$(BIN)/interp batch artifacts/gallery/studies.yaml --out artifacts/studies --workers 2
	$(BIN)/python artifacts/gallery/studies.py

notebooks: $(READY)  ## execute the notebooks at demo and save them with their outputs
	$(BIN)/python notebooks/execute.py

docs: $(READY)  ## the site: artifacts/site/index.html, opens with the network off
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(READY)  ## speed: training, patching, attention analysis, interventions; growth in people, layers, tokens
	$(BIN)/python -m tests.benchmarks
	$(BIN)/python -m tests.benchmarks.growth --out artifacts/growth

dist: $(READY)  ## wheel and source archive, into dist/
	$(BIN)/python -m hatchling build --directory dist

gpu: $(GPU_READY)  ## everything that needs a card, in one table: tests, speed, utilisation, measures
	$(GPU_VENV)/bin/python -m tests.gpu --out $(GPU_OUT)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	# torch by itself first: its exact version decides whether a CPU or a CUDA build comes.
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,docs,notebooks]'
	touch $(READY)

# Not from constraints.txt alone: the build of torch has to fit the card's driver.
$(GPU_READY): pyproject.toml constraints.txt tests/gpu/install.py
	TORCH_INDEX=$(TORCH_INDEX) $(PYTHON) tests/gpu/install.py $(GPU_VENV)
	touch $(GPU_READY)

clean:
	rm -rf $(VENV) $(GPU_VENV) .venv-lowest dist
