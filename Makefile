# What one does with this repository; `make help` lists it.
#
# Every target sets up what it needs. An environment that exists already is used with `make test VENV=path/to/venv`;
# another interpreter makes a new one with `make test PYTHON=python3.12`.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= runs/demo
ARGS ?=

# Which versions are installed: those of a file of constraints. `make lock` writes both files anew.
LOCK := constraints/lock.txt
OLDEST := constraints/oldest.txt
INSTALL = PIP_CONSTRAINT=$(CONSTRAINTS) $(BIN)/python -m pip install
CONSTRAINTS := $(LOCK)

# Two OpenMP programs whose idle threads spin slow each other four-fold, so the tests use one quiet thread each.
QUIET := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
# Each worker takes its half from one end to the other, so that what the tests of a module share is made once.
TESTS := $(QUIET) $(BIN)/python -m pytest -n 2 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help demo test test-quick test-all test-newest test-oldest style bench lock

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1#\2/p' $(MAKEFILE_LIST) | column -t -s '#' 2>/dev/null \
		|| sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1   \2/p' $(MAKEFILE_LIST)

demo: $(VENV)/.trainflat-demo ## the main job on real text: AdamW against SAM, each pruned; ends with a table and a page
	$(BIN)/trainflat run demo-adamw demo-sam --out $(DEMO)
	$(BIN)/trainflat report $(DEMO) --out $(DEMO)/report

test-quick: $(VENV)/.trainflat-dev ## the first case of every test that takes no seconds: all rooms in about two minutes
	$(TESTS) --quick $(ARGS)

test: $(VENV)/.trainflat-dev ## the tests, except the slow ones: ten minutes on two quiet cores (ARGS="-k sam" chooses)
	$(TESTS) $(ARGS)

test-all: $(VENV)/.trainflat-dev ## every test, the slow ones too
	$(TESTS) -m "slow or not slow" $(ARGS)

test-newest: ## the tests against the newest versions that pyproject.toml allows, in an environment made anew
	$(call tested-anew,.venv-newest,)

test-oldest: ## the tests against the oldest versions that pyproject.toml allows, in an environment made anew
	$(call tested-anew,.venv-oldest,$(OLDEST))

# An environment of its own, emptied first: one that is there already hides an install that no longer works.
define tested-anew
	rm -rf $(1)
	$(MAKE) $(1)/.trainflat-dev VENV=$(1) CONSTRAINTS=$(2)
	$(1)/bin/python -m pip freeze --exclude-editable
	$(MAKE) test VENV=$(1) CONSTRAINTS=$(2)
endef

lock: $(BIN)/python ## choose the versions of constraints/ anew: the newest and the oldest that pyproject.toml allows
	$(BIN)/python -m pip install uv
	$(RESOLVE) --upgrade --output-file $(LOCK)
	$(RESOLVE) --upgrade --resolution lowest-direct --output-file $(OLDEST)

RESOLVE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra dev --extra torchao --extra tracking \
	--no-annotate --custom-compile-command "make lock" pyproject.toml

style: $(VENV)/.trainflat-dev ## lint, formatting, types, and that imports point down the floors
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy tools benchmarks
	$(BIN)/python tools/check_imports.py

bench: $(VENV)/.trainflat-dev ## every benchmark, into results/benchmarks (about 20 minutes on two cores with nothing else to do)
	$(BIN)/python -m benchmarks $(ARGS)

# A stamp says which extras an environment holds; it is older than pyproject.toml or the constraints when they have to be looked at again.
$(VENV)/.trainflat-dev: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(INSTALL) -e '.[dev]'
	touch $(VENV)/.trainflat-demo $@

$(VENV)/.trainflat-demo: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(INSTALL) -e '.[minilm]'
	touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ". Name another: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
