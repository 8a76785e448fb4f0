# All that is done with this project by hand or in CI. Needs make and Python 3.11 or newer; the rest is installed:
# the project's own tools into .venv, the vLLM server into a cache folder (see scripts/cached_env.py).

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
TOOLS  := .venv-tools/bin/python

.DEFAULT_GOAL := help
.PHONY: help demo massgen-demo test test-version test-newest test-lowest bench bench-quick check lint types unit \
  soak fuzz format docs docs-serve dist server stop lock clean

help:
	@echo "make demo         see it talk to a real vLLM server (the first time installs it: a few minutes)"
	@echo "make massgen-demo see three agents of MassGen's agree, on a real vLLM server"
	@echo "make test         all that CI runs: format, lint, types, every test, the real server included, with coverage"
	@echo "make test-version the tests that need a server, with an older one: V=0.19.1"
	@echo "make check        the fast loop: format, lint, types, unit tests"
	@echo "make format       format the code and fix what can be fixed"
	@echo "make docs         build the documentation into site/ (docs-serve: show it while you write)"
	@echo "make dist         build and check the files of a release, in dist/"
	@echo "make docs-look    look at every page in a browser, light and dark, desktop and phone: PAGES=\"index tools\" SHOTS=shots"
	@echo "make server       the real vLLM server that all examples run against (make stop ends it)"
	@echo "make bench        measure it against other clients, for the page Performance (about 35 minutes)"
	@echo "make bench-quick  measure this tree against a commit: BASE=HEAD (under two minutes)"
	@echo "make soak         many streams against a server that fails and restarts: MINUTES=5 STREAMS=1000"
	@echo "make fuzz         calls answered with mutated responses of real servers: SECONDS=300 SEED=7"
	@echo "make lock         resolve the lock files anew, after a change of requirements"
	@echo "make test-newest  unit tests, examples and a MassGen run on the newest versions that pyproject.toml allows"
	@echo "make test-lowest  the same on the lowest"
	@echo "make clean        remove what make made in this folder"

demo: $(VENV)/.runtime
	@$(BIN)/python scripts/demo.py

massgen-demo: $(VENV)/.runtime
	@$(BIN)/python scripts/massgen_demo.py

test: lint types
	$(BIN)/python -m pytest --cov

# Resolved on the day, so that we hear of the next break before users do.
test-newest test-lowest: test-%: .venv-tools/.stamp
	$(TOOLS) scripts/bounds.py $*

# A release of scripts/vllm_releases.py: it is installed, and what needs a newer one is skipped and listed by reason.
V ?=
test-version: $(VENV)/.dev
	$(if $(V),,$(error name a version: make test-version V=0.19.1))
	$(BIN)/python scripts/vllm_server.py install --version $(V)
	VLLMCHAT_REQUIRE_SERVER=1 $(BIN)/python -m pytest -q --vllm $(V) tests/server

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

# By hand, for the page Reliability: what they find depends on chance and time.
MINUTES ?= 5
STREAMS ?= 1000
SEED ?=
CASE ?=
soak: $(VENV)/.runtime
	$(BIN)/python scripts/soak.py --minutes $(MINUTES) --streams $(STREAMS) $(if $(SEED),--seed $(SEED))

SECONDS ?= 300
fuzz: $(VENV)/.runtime
	PYTHONPATH=tests $(BIN)/python scripts/fuzz.py --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) $(if $(CASE),--case $(CASE))

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs-serve: $(VENV)/.docs
	$(BIN)/mkdocs serve

# By hand: it needs Chromium and its driver, and says how to get them.
PAGES ?=
SHOTS ?=
docs-look: docs
	$(BIN)/python scripts/docs_look.py $(PAGES) $(if $(SHOTS),--shots $(SHOTS))

# The build backend is in the lock too, so that nothing is resolved on the day.
RELEASE := .venv-release/bin/python
dist: .venv-release/.stamp
	rm -rf dist
	$(RELEASE) -m build --no-isolation
	$(RELEASE) -m twine check --strict dist/*

server:
	@url=$$($(PYTHON) scripts/vllm_server.py start --playground) && echo "export VLLM_BASE_URL=$$url"

stop:
	@$(PYTHON) scripts/vllm_server.py stop

clean:
	rm -rf $(VENV) .venv-bench .venv-release .venv-tools .venv-newest* .venv-lowest* site dist build .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests scripts docs benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# Resolves all locks, or only some: make lock LOCKS="dev docs".
lock: .venv-tools/.stamp
	$(TOOLS) scripts/locks.py renew $(LOCKS)

# One environment, filled as far as a target needs it, from the lock of that name. A stamp is renewed when the lock or
# pyproject.toml changes; a lock that does not fit pyproject.toml is an error there.

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vllmchat needs Python 3.11 or newer, and \
	$(PYTHON) is %d.%d; name another one: make PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)

INSTALL := scripts/locks.py install

$(VENV)/.runtime: locks/runtime.txt pyproject.toml | $(BIN)/python
	@$(BIN)/python $(INSTALL) runtime
	@touch $@

$(VENV)/.dev: locks/dev.txt pyproject.toml | $(BIN)/python
	@$(BIN)/python $(INSTALL) dev
	@touch $@ $(VENV)/.docs $(VENV)/.runtime

$(VENV)/.docs: locks/docs.txt pyproject.toml | $(BIN)/python
	@$(BIN)/python $(INSTALL) docs
	@touch $@ $(VENV)/.runtime

.venv-bench/.stamp: locks/bench.txt pyproject.toml
	$(PYTHON) -m venv .venv-bench
	@$(BENCH) $(INSTALL) bench
	@touch $@

.venv-release/.stamp: locks/release.txt
	$(PYTHON) -m venv .venv-release
	@$(RELEASE) $(INSTALL) release
	@touch $@

.venv-tools/.stamp: locks/tools.txt
	$(PYTHON) -m venv .venv-tools
	@$(TOOLS) $(INSTALL) tools
	@touch $@
