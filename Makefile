# All that is done with this project by hand or in CI. Needs make and Python 3.11 or newer; the rest is installed:
# the project's own tools into .venv, the vLLM server into a cache folder (see scripts/cached_env.py).

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.DEFAULT_GOAL := help
.PHONY: help demo massgen-demo test bench bench-quick check lint types unit format docs docs-serve server stop clean

help:
	@echo "make demo         see it talk to a real vLLM server (the first time installs it: a few minutes)"
	@echo "make massgen-demo see three agents of MassGen's agree, on a real vLLM server"
	@echo "make test         every test, the real server included, with coverage"
	@echo "make check        the fast loop: format, lint, types, unit tests"
	@echo "make format       format the code and fix what can be fixed"
	@echo "make docs         build the documentation into site/ (docs-serve: show it while you write)"
	@echo "make server       a real vLLM server to play with (make stop ends it)"
	@echo "make bench        measure it beside its peers, for the page Performance (some 30 minutes)"
	@echo "make bench-quick  measure this tree against a commit: BASE=HEAD (under two minutes)"
	@echo "make clean        remove what make made in this folder"

demo: $(VENV)/.runtime
	@$(BIN)/python scripts/demo.py

massgen-demo: $(VENV)/.runtime
	@$(BIN)/python scripts/massgen_demo.py

test: $(VENV)/.dev
	$(BIN)/python -m pytest --cov

# Two at a time and all of them, each one's output in one piece where make can do that (4.0 and newer).
SYNC := $(if $(filter output-sync,$(.FEATURES)),--output-sync)
check: $(VENV)/.dev
	@$(MAKE) --no-print-directory --keep-going --jobs 2 $(SYNC) lint types unit

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.dev
	$(BIN)/mypy
	$(BIN)/pyright

# UNIT="not server" runs the slow ones too.
UNIT ?= not server and not slow
unit: $(VENV)/.dev
	$(BIN)/python -m pytest -q -n auto -m "$(UNIT)" --hypothesis-profile=quick tests/unit \
	  $(wildcard tests/typing)

# Peers want other versions than the tools above, so they have an environment of their own.
BENCH := .venv-bench/bin/python
bench: .venv-bench/.stamp
	$(BENCH) -m benchmarks.run
	$(BENCH) -m benchmarks.real
	$(BENCH) -m benchmarks.page

BASE ?= HEAD
bench-quick: $(VENV)/.runtime
	@$(BIN)/python -m benchmarks.run --quick --base $(BASE)

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs-serve: $(VENV)/.docs
	$(BIN)/mkdocs serve

server:
	@url=$$($(PYTHON) scripts/vllm_server.py start) && echo "export VLLM_BASE_URL=$$url"

stop:
	@$(PYTHON) scripts/vllm_server.py stop

clean:
	rm -rf $(VENV) .venv-bench site dist build .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests scripts docs benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# One environment, filled as far as a target needs it; the stamps are renewed when pyproject.toml changes.

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vllmchat needs Python 3.11 or newer, and \
	$(PYTHON) is %d.%d; name another one: make PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: pyproject.toml | $(BIN)/python
	$(PIP) --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(PIP) --editable '.[dev,docs]'
	@touch $@ $(VENV)/.docs $(VENV)/.runtime

$(VENV)/.docs: pyproject.toml | $(BIN)/python
	$(PIP) --editable '.[docs]'
	@touch $@ $(VENV)/.runtime

.venv-bench/.stamp: benchmarks/requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv-bench
	$(BENCH) -m pip --disable-pip-version-check install --quiet --upgrade -r benchmarks/requirements.txt --editable .
	@touch $@
