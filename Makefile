# Everything here needs Python 3.11, Node.js 20 and make. What is set up once is remembered in stamp files.

.DEFAULT_GOAL := help
.PHONY: help up setup unit test system test-measured proof check check-slowly check-python check-types check-js test-js fmt wheel clean
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-print-directory

# The first that is new enough; python3 when none is, so that the complaint names it.
PYTHON ?= $(or $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; \
	done),python3)
PYTEST_ARGS ?=
CORES := $(shell getconf _NPROCESSORS_ONLN)
# Two processes more than cores, since many tests wait. The longest tests begin first (tests/tiers.py).
SPREAD := --dist loadgroup --no-loadscope-reorder
ON_ALL_CORES = --numprocesses $$(($(CORES) + 2)) --maxprocesses 8 $(SPREAD)
# Without byte code each of the processes that the tests start compiles all its modules again.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
BIN := $(VENV)/bin
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip --quiet --no-input
# NODE_ENV=production would leave out what the build needs.
NPM_CI := npm ci --include=dev --no-audit --no-fund --loglevel=error

TOOLS := $(VENV)/.tools
CREATED := $(VENV)/.created
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
NODE_MODULES := client-js/node_modules/.installed
PAGE := client-js/dist/.built
E2E_MODULES := tests/e2e/node_modules/.installed
TYPED := build/typed/legato/.linked
CLIENT_SOURCES := $(shell find client-js \( -name node_modules -o -name dist -o -name test \) -prune -o -type f -print)

help: ## list the targets
	@echo "make TARGET, where TARGET is"
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-8s%s\n", $$1, $$2 }' Makefile

up: setup ## set up if needed, then serve a chat on http://127.0.0.1:8080 (PORT, LEGATO_DATA, ANTHROPIC_API_KEY)
	@exec $(BIN)/legato up

setup: $(INSTALLED) $(PAGE) ## make everything ready without starting it
	@:

unit: $(INSTALLED_DEV) ## run the tests that need no server, browser or other process (a minute)
	$(BIN)/python -m pytest -m unit --numprocesses $$(($(CORES) + 1)) --maxprocesses 6 $(SPREAD) $(PYTEST_ARGS)

test: ## check, then run every test, and ask for coverage
	@$(MAKE) --jobs 4 system $(INSTALLED_DEV) $(PAGE) $(E2E_MODULES) $(TYPED)
	@$(MAKE) --jobs 2 --output-sync=target check-python test-js
	@$(MAKE) --jobs 2 check-slowly test-measured
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --include 'protocol/*' --omit 'protocol/redis/*' --fail-under=100
	$(BIN)/coverage report --fail-under=90

# What the tests need beside the packages of Python and JavaScript.
system:
	@tests/setup-debian.sh

# Beside the tests, which wait at times: their output comes when each has ended.
check-slowly:
	@$(MAKE) --output-sync=target check-types check-js

test-measured:
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(ON_ALL_CORES) $(PYTEST_ARGS)

proof: ## run what proves more the longer it runs: many seeds and examples, whole crowds, attacks, chaos
	@$(MAKE) --jobs 4 system $(INSTALLED_DEV) $(PAGE) $(E2E_MODULES)
	LEGATO_PROOF=1 $(BIN)/python -m pytest -m proof --numprocesses $(CORES) $(SPREAD) $(PYTEST_ARGS)
	$(BIN)/legato chaos --seeds 1-10 --minutes 2

check: $(INSTALLED_DEV) $(NODE_MODULES) $(TYPED) ## lint, format and types, Python and TypeScript
	@$(MAKE) --jobs $(CORES) --output-sync=target check-python check-types check-js

check-python: $(INSTALLED_DEV)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

check-types: $(INSTALLED_DEV) $(TYPED)
	$(BIN)/mypy

check-js: $(NODE_MODULES)
	npm --prefix client-js run check

test-js: $(NODE_MODULES)
	npm --prefix client-js test

fmt: $(INSTALLED_DEV) $(NODE_MODULES) ## format and fix what can be fixed
	$(BIN)/ruff format
	$(BIN)/ruff check --fix
	npm --prefix client-js run fmt --if-present
	$(BIN)/python -m tests.sample

wheel: $(INSTALLED_DEV) $(PAGE) ## build the wheel and the source distribution, in dist
	@rm -rf dist && mkdir -p build
	@$(BIN)/python -m build --no-isolation --outdir dist >build/wheel.log 2>&1 || { cat build/wheel.log; exit 1; }
	@ls dist/*

clean: ## remove what was set up and built (not .legato, where the data is)
	rm -rf $(VENV) build dist *.egg-info .coverage .coverage.* htmlcov .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -rf client-js/node_modules client-js/dist tests/e2e/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(TOOLS): deploy/check-tools.sh
	@deploy/check-tools.sh $(PYTHON)
	@mkdir -p $(@D) && touch $@

$(CREATED): | $(TOOLS)
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(INSTALLED): pyproject.toml $(CREATED)
	@echo "Installing the Python packages into $(VENV) (a minute, once)"
	@$(PIP) install --editable .
	@touch $@

$(INSTALLED_DEV): pyproject.toml $(CREATED)
	@echo "Installing the Python packages into $(VENV), also what the tests and checks need (a minute, once)"
	@$(PIP) install --editable '.[dev]'
	@touch $(INSTALLED) $@

$(NODE_MODULES): client-js/package-lock.json | $(TOOLS)
	@echo "Installing the JavaScript packages of client-js (a minute, once)"
	@cd client-js && $(NPM_CI) >/dev/null
	@touch $@

$(PAGE): $(NODE_MODULES) $(CLIENT_SOURCES)
	@echo "Building the chat page"
	@npm --prefix client-js run --silent build
	@touch $@

$(E2E_MODULES): tests/e2e/package-lock.json | $(TOOLS)
	@echo "Installing the JavaScript packages of the end-to-end tests"
	@cd tests/e2e && $(NPM_CI) >/dev/null
	@touch $@

# mypy finds `legato` by a search path alone: here are the folders below that name.
$(TYPED): Makefile
	@mkdir -p $(@D)
	@for name in protocol broadcaster worker deploy benchmarks; do ln -sfn ../../../$$name $(@D)/$$name; done
	@touch $@
