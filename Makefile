# Everything needs GNU make 3.81 or later and Python 3.11 or later; nothing else.
#
#   PYTHON       interpreter that creates .venv (default python3)
#   TORCH_INDEX  package index to take torch, and torch alone, from: for its CPU build on Linux
#   ARGS         more arguments for pytest: make test ARGS="-k replay"
#   JOBS         tests at the same time (default 2)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up
DEMO_PRESET ?= smoke
JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-faults bench bench-smoke check format clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1 @\2/p' $(firstword $(MAKEFILE_LIST)) \
		| awk -F@ '{ printf "%-16s %s\n", $$1, $$2 }'

setup: $(STAMP)  ## .venv with mgrl, its extras and everything the tests need

# A torch that the interpreter or .venv already has is kept, whatever its version and build: the
# pin in constraints.txt would replace it. All other packages get the pinned versions.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make: $(PYTHON) is older than Python 3.11; name another: make setup PYTHON=python3.12" >&2; exit 1; }
	test -x $(BIN)/python || if $(PYTHON) -c 'import torch' 2>/dev/null; \
		then $(PYTHON) -m venv --system-site-packages $(VENV); \
		else $(PYTHON) -m venv $(VENV); fi
	grep -v '^torch==' constraints.txt > $(VENV)/constraints-without-torch.txt
	$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/python -m pip install \
		$(if $(TORCH_INDEX),--index-url $(TORCH_INDEX),--constraint $(VENV)/constraints-without-torch.txt) \
		"$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --constraint $(VENV)/constraints-without-torch.txt \
		--editable '.[all,dev]'
	touch $(STAMP)

demo: setup  ## meta-train, meta-test on an unseen task, look at the replay; can be run again
	rm -rf runs/demo runs/demo-hopper runs/demo-plots
	$(BIN)/mgrl meta-train --envs lunar,cheetah --preset $(DEMO_PRESET) --runs-dir runs --run demo
	$(BIN)/mgrl meta-test --env hopper --objective demo --against ddpg,reinforce --preset $(DEMO_PRESET) \
		--runs-dir runs --run demo-hopper
	mkdir -p runs/demo-plots
	$(BIN)/mgrl inspect runs/demo/buffer.zarr --plot runs/demo-plots/buffer.png

test: setup  ## the test suite
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

test-slow: setup  ## the tests that take minutes (they train)
	$(BIN)/python -m pytest -m slow $(ARGS)

test-faults: setup  ## the campaign of faults: hundreds of kills, failed writes, damaged files
	mkdir -p build && rm -f build/faults.jsonl
	MGRL_FAULTS=$(CURDIR)/build/faults.jsonl $(BIN)/python -m pytest -n $(JOBS) tests/faults \
		-m "slow or not slow" -o timeout=0 -o faulthandler_timeout=0 $(ARGS)

bench: setup  ## speed against plain PyTorch, higher, stable-baselines3, torchrl and gloo: build/bench.json
	$(BIN)/python -m pip install --constraint $(VENV)/constraints-without-torch.txt --editable '.[bench]'
	mkdir -p build
	$(BIN)/python -m benchmarks --json build/bench.json $(ARGS)

bench-smoke: setup  ## a minute of it, without peers; fails where something got 30 % slower
	$(BIN)/python -m benchmarks --smoke $(ARGS)

check: setup  ## lint, format, types and import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --project pyproject.toml
	$(BIN)/lint-imports

format: setup  ## rewrite the sources in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove caches and builds; runs and .venv stay
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +
