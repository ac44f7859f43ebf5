# The same few commands for people and for machines. `make` alone lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# the first Python that is new enough
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null \
	&& echo $$python && break; done)

# Small matrices gain nothing from many threads, and threads that spin starve their neighbours.
CORES := $(shell nproc 2> /dev/null || sysctl -n hw.ncpu 2> /dev/null || echo 1)
export OMP_NUM_THREADS ?= $(shell echo $$(( $(CORES) < 4 ? $(CORES) : 4 )))
# of tests, each with one thread and up to 2 GB
WORKERS := $(shell echo $$(( $(CORES) < 4 ? $(CORES) : 4 )))
export OMP_WAIT_POLICY ?= PASSIVE
export TOKENIZERS_PARALLELISM := false

# a stamp is newer than what it was made from, so that a second call does nothing
SETUP_STAMP := $(VENV)/.setup-done
CORE_STAMP := $(VENV)/.core-done
SOURCES := pyproject.toml constraints.txt

.PHONY: help setup demo test test-long check format bench starter clean

help:  ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

setup: $(SETUP_STAMP)  ## .venv with every extra and the development tools

demo: $(CORE_STAMP)  ## install only what the demo needs, and run it
	$(BIN)/detour demo

test: setup check  ## check, then all tests but the long ones; coverage of src at least 90 %
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m "not long" -n $(WORKERS) \
		--dist loadfile --no-loadscope-reorder --durations=40 --cov --cov-fail-under=90

test-long: setup  ## experiments, soaks and fuzzing
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m long

check: setup  ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: setup  ## put the code in its format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup  ## every benchmark, one after another
	for script in benchmarks/against_*.py benchmarks/cold_start.py benchmarks/decode/parts.py benchmarks/decode/layouts.py benchmarks/decode/against_peft.py benchmarks/hypernet/against_hooks.py; do echo "== $$script"; $(BIN)/python "$$script"; done

# alone on its cores, threads that spin a while train half as fast again as threads that sleep
starter: setup  ## make the packaged model anew (resumes where it stopped)
	env -u OMP_WAIT_POLICY GOMP_SPINCOUNT=3000 $(BIN)/python -m recipes.starter.pretrain --minutes 600
	$(BIN)/python -m recipes.starter.publish --short-of "citing the right source"
	$(BIN)/python -m recipes.starter.styles

clean:  ## remove what can be made again; keeps work/
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis .coverage .coverage.* htmlcov
	rm -rf src/*.egg-info
	find src tests recipes benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Detour needs Python 3.11 or newer" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(SETUP_STAMP): $(SOURCES) | $(BIN)/python
	$(PIP) install --quiet --constraint constraints.txt --editable ".[all,dev]"
	touch $@ $(CORE_STAMP)

$(CORE_STAMP): $(SOURCES) | $(BIN)/python
	$(PIP) install --quiet --constraint constraints.txt --editable .
	touch $@
