# `make demo` and `make test` set up all they need: Python 3.11+ and make are enough.
PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3)
ENGINE ?= cpu
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready-$(ENGINE)
TESTS := $(VENV)/.ready-test-$(ENGINE)
PEERS := $(VENV)/.ready-bench-$(ENGINE)
TRIED := edgetl/constraints.txt
WHEELS := .cache/wheels
INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python
PYTEST := $(BIN)/python -m pytest
# Every core runs tests in a process of its own.
WORKERS ?= auto
DATA ?= $(EDGETL_DATA)

comma := ,
NEEDED := train,$(ENGINE)
TESTED := $(NEEDED),openvino,litert,video,sound,sign,rtx,loadgen,search,serve,dev

# A half-made environment (Debian without python3-venv leaves one without pip), or one of another Python, is made anew.
ABOUT := import sys, importlib.util as u; print(*sys.version_info[:2], u.find_spec("pip") is not None)
ABOUT_VENV := $(shell $(BIN)/python -c '$(ABOUT)' 2>/dev/null)
ABOUT_PYTHON := $(shell $(PYTHON) -c 'import sys; print(*sys.version_info[:2], True)' 2>/dev/null || echo none)

# Tests start many processes, each of which would compile the sources anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo setup test test-arm test-slow test-gpu bench wheel newest constraints lint format help clean
.DEFAULT_GOAL := help

ifneq ($(ABOUT_VENV),$(ABOUT_PYTHON))
.PHONY: $(READY)
endif

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(READY): pyproject.toml $(TRIED)
ifneq ($(ABOUT_VENV),$(ABOUT_PYTHON))
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is not Python 3.11 or newer: install one, or name it with make PYTHON=..." >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make virtual environments:" \
	  "install the package python$(subst $() ,.,$(wordlist 1,2,$(ABOUT_PYTHON)))-venv and run make again." >&2; exit 2; }
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
endif
	@echo "Setting up $(VENV) (torch is large: a few minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(TRIED) uv
	@$(INSTALL) -c $(TRIED) -e '.[$(NEEDED)]'
	@touch $@

$(TESTS): $(READY)
	@$(INSTALL) -c $(TRIED) -e '.[$(TESTED)]'
	@touch $@

# The peers that benchmarks compare with, and weights that only they use.
$(PEERS): $(TESTS)
	@$(INSTALL) -c $(TRIED) -e '.[$(TESTED),bench]'
	@touch $@

# The device test installs the built wheel from these only, without a network.
$(WHEELS)/.ready: $(READY)
	@rm -rf $(WHEELS) && mkdir -p $(WHEELS)
	@$(BIN)/python -m pip download --quiet --disable-pip-version-check --only-binary=:all: --dest $(WHEELS) \
	  -c $(TRIED) numpy pillow typer rich onnxruntime
	@touch $@

setup: $(READY)  ## .venv with all that training and one engine need (ENGINE=gpu for NVIDIA GPUs)

demo: $(READY)  ## Digits from start to finish: a gated model in runs/digits and its report
	$(BIN)/edgetl init digits -o runs/digits.toml --force
	$(BIN)/edgetl run runs/digits.toml --out runs/digits
	$(BIN)/edgetl verify runs/digits/digits.edgetl
	$(BIN)/edgetl predict runs/digits/digits.edgetl calibration/digits --limit 5
	$(BIN)/edgetl bench runs/digits/digits.edgetl

wheel: $(READY)  ## dist/edgetl-*.whl, for the device
	@$(BIN)/uv build --quiet --wheel --build-constraints $(TRIED) --out-dir dist
	@ls dist/edgetl-*.whl

lint: $(TESTS)  ## Ruff and mypy
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(TESTS)  ## Ruff, in place
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: lint $(WHEELS)/.ready  ## Lint, types and tests
	$(PYTEST) -n $(WORKERS) --dist worksteal -m 'not slow and not serial and not arm'
	$(PYTEST) -m 'serial and not slow' $$(grep -rl --include='*.py' 'mark\.serial' tests)
	$(PYTEST) -m arm tests/test_arm.py

test-arm: $(TESTS)  ## The wheel on an emulated 64-bit Arm processor, where QEMU and its packages can be had
	$(PYTEST) -m arm tests/test_arm.py

# One after the other, so each may use all cores, where the quick tests have one each.
test-slow: $(PEERS)  ## The long runs on real image sets (DATA=folder with the zips of the sets)
	OMP_NUM_THREADS=$$(getconf _NPROCESSORS_ONLN) EDGETL_DATA='$(DATA)' $(PYTEST) -m slow -s

# Nothing is fetched, since such a machine may have no network: without .venv it is that machine's own Python.
test-gpu:  ## What runs on an NVIDIA GPU, as a report for the README: eight minutes at most, no network
	@$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m tests.gpu

bench: $(PEERS)  ## Every claim measured; ONLY=name runs one
	$(BIN)/python -m tests.bench $(ONLY)

newest: $(TESTS)  ## Take the newest versions into .venv instead of those in edgetl/constraints.txt
	$(INSTALL) --upgrade -e '.[$(TESTED)]'

constraints: $(TESTS)  ## Write the newest versions into edgetl/constraints.txt (then: make test)
	$(BIN)/uv pip compile --quiet --upgrade --no-header --no-annotate --python-version 3.11 \
	  --python-platform x86_64-unknown-linux-gnu $(foreach extra,gpu bench,--extra $(extra)) \
	  $(patsubst %,--extra %,$(subst $(comma), ,$(TESTED))) pyproject.toml -o $(TRIED)

clean:  ## Remove the environment and what the tests made
	rm -rf $(VENV) .cache build dist
