# `make` lists the commands. Each first makes .venv when that is missing or older than what it is
# made from, and needs nothing but bash and Python 3.11 or newer with its venv module.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test lint bench constraints clean

PYTHON ?= python3
PYTEST_ARGS ?=
# A file goes to one worker: its tests may share what is costly. In order: long ones come first.
WORKERS := --numprocesses=auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder
BENCH_ARGS ?=
TORCH ?= $(shell sed -n 's/^torch==//p' constraints.txt)

BIN := .venv/bin
PIP := -m pip --quiet --quiet install
SAY := @echo wavemill:

unexport PYTHONPATH PYTHONHOME
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
export PIP_RETRIES := 10

# $(call install,REQUIREMENTS): at pinned versions; if the index fails for a moment, tried again.
define install
@for attempt in 1 2 3; do \
	if $(BIN)/python $(PIP) --constraint constraints.txt $(1); then exit 0; fi; \
	echo "wavemill: attempt $$attempt of 3 failed" >&2; sleep $$((attempt * 2)); \
done; exit 1
endef

help: ## list the commands
	@sed -n 's/^\([a-z]*\):.*## /\1#/p' Makefile | while IFS='#' read -r name text; do \
		printf 'make %-12s %s\n' "$$name" "$$text"; done

demo: .venv/.installed ## the main job on embedded data, from snapshots to a report
	@$(BIN)/wavemill demo

test: lint ## all that must hold: lint, then pytest (PYTEST_ARGS="-k scattering" chooses)
	$(SAY) pytest
	@$(BIN)/pytest $(WORKERS) --durations=10 $(PYTEST_ARGS)

lint: .venv/.installed ## ruff, mypy --strict, import-linter
	$(SAY) ruff check
	@$(BIN)/ruff check --quiet .
	$(SAY) ruff format
	@$(BIN)/ruff format --check .
	$(SAY) mypy
	@$(BIN)/mypy
	$(SAY) import-linter
	@$(BIN)/lint-imports --no-logo

bench: .venv/.installed-bench ## side by side with peers (BENCH_ARGS chooses)
	@$(BIN)/python -m benchmarks $(BENCH_ARGS)

# In steps: what is installed is kept, so that the tests' packages adapt to the project's.
constraints: ## pin anew what a fresh environment resolves to (TORCH=2.13.0 chooses)
	$(SAY) resolving every dependency in a fresh environment takes minutes
	@scratch=$$(mktemp -d); trap 'rm -rf "$$scratch"' EXIT; \
	python="$$scratch/bin/python"; pins="$$scratch/constraints.txt"; \
	$(PYTHON) -m venv "$$scratch"; \
	"$$python" $(PIP) --upgrade pip setuptools hatchling editables; \
	for part in . ".[test]" ".[test,bench]"; do \
		"$$python" $(PIP) --no-build-isolation "torch==$(TORCH)" "$$part"; done; \
	"$$python" -m pip check; \
	sed -n '/^#/p; /;/p' constraints.txt > "$$pins"; \
	"$$python" -m pip freeze --all --exclude wavemill | sed 's/+.*//' >> "$$pins"; \
	cp "$$pins" constraints.txt
	@echo "wavemill: constraints.txt pins $$(grep --count == constraints.txt) packages"

clean: ## remove what builds and tools leave; .venv and stores stay
	@rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -path ./.venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.installed: pyproject.toml constraints.txt $(wildcard wavemill/kernels/*.[ch] wavemill/kernels/build.py)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "wavemill: needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)." \
			"Name another: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { \
		echo "wavemill: $(PYTHON) cannot make environments; on Debian and Ubuntu:" \
			"apt install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || { \
		echo "wavemill: making .venv with $$($(PYTHON) --version)"; \
		$(PYTHON) -m venv --clear .venv; }
	$(SAY) installing pip and the build backend
	$(call install,pip setuptools hatchling editables)
	$(SAY) installing torch
	$(call install,torch)
	$(SAY) installing some 200 packages takes minutes and 2 GB
	$(call install,--no-build-isolation --editable ".[test]")
	@touch $@

.venv/.installed-bench: .venv/.installed
	$(SAY) installing what benchmarks compare with
	$(call install,--no-build-isolation --editable ".[bench]")
	@touch $@
