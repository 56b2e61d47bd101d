# Commands for working on the provider. `make` alone lists them.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# The Python that .venv is made with: 3.11 or newer.
PYTHON ?= python3
# Options for pytest, such as ARGS="tests/api -k orders", or for the benchmarks and the house.
ARGS ?=
# Cells of the matrix, such as CELLS=3.0-3.11 or CELLS="2.11 3.3"; empty means all.
CELLS ?=
# The tag that `make release-check` holds the checkout against; empty means that of the commit.
export TAG ?=
# Test processes at a time: many tests wait for other processes, so there are more than cores.
WORKERS ?= 4
BIN := .venv/bin

# No Airflow of ours reads a person's own installation, loads the example DAGs or reports home.
export AIRFLOW_HOME := $(CURDIR)/.airflow
export AIRFLOW__CORE__LOAD_EXAMPLES := False
export AIRFLOW__USAGE_DATA_COLLECTION__ENABLED := False
export SCARF_ANALYTICS := false
export DO_NOT_TRACK := 1
export UV_PYTHON_DOWNLOADS := never
unexport AIRFLOW_CONN_FEEDAMP_DEFAULT PYTHONPATH PYTHONHOME VIRTUAL_ENV
# Some images set it: then each of the many processes of the tests compiles all of Airflow again, 1.5 s or more.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup test faults system pictures bench lint format matrix constraints demo docs house package release-check clean

help: ## List the commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /make \1|/' | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

setup: ## Make .venv: the newest Airflow, this project, the tools (instant when nothing changed)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    echo "This needs Python 3.11 or newer, and '$(PYTHON)' is: $$($(PYTHON) --version 2>&1 || true)" >&2; \
	    echo "Name another one: make setup PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -m scripts.environment

test: setup ## Run the tests on the newest Airflow (ARGS="tests/api -k orders")
	@rm -rf .airflow && mkdir -p .airflow
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not faults and not browser and not deployment" --basetemp=.airflow/tmp $(ARGS)

faults: setup ## Run the long tests: real processes, killed, cut and raced
	@rm -rf .airflow && mkdir -p .airflow
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -m faults --basetemp=.airflow/tmp $(ARGS)

system: setup ## Try whole deployments, and look at Airflow's pages with a browser (installs Chromium, servers)
	@bash scripts/debian.sh chromium && bash scripts/databases.sh
	@$(BIN)/python -m scripts.matrix --make --cells 2.11-3.11
	@rm -rf .airflow && mkdir -p .airflow
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -m "browser or deployment" --durations=0 --durations-min=1 --basetemp=.airflow/tmp $(ARGS)
	@$(BIN)/python -m scripts.matrix --cells 2.11-3.11 -- -m deployment tests/deployments --durations=0

pictures: export FEEDAMP_PICTURES := $(CURDIR)/docs/pictures
pictures: setup ## Make the pictures of the docs anew: what the tests with a browser see
	@bash scripts/debian.sh chromium pngquant
	@rm -rf .airflow && mkdir -p .airflow
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -m browser --basetemp=.airflow/tmp $(ARGS)
	@pngquant --force --strip --ext .png 64 docs/pictures/*.png

bench: setup ## Measure speed, memory and start-up beside what else there is (ARGS="speed token")
	@$(BIN)/python -m benchmarks $(ARGS)

lint: setup ## Check style, types and workflows: ruff, mypy, zizmor
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/zizmor --offline --quiet .github/workflows
	$(BIN)/mypy

format: setup ## Mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

matrix: setup ## Run the tests on Airflow 2.11 to 3.3 (CELLS=3.0-3.11)
	@$(BIN)/python -m scripts.matrix --cells "$(CELLS)" -- $(ARGS)

constraints: setup ## Renew constraints/ from the package index
	@$(BIN)/python -m scripts.constraints

demo: setup ## Import a few hundred orders into a local FeedAMP with a real Airflow
	@$(BIN)/python -m scripts.demo

house: setup ## Measure the package: files, lines, circles, the files that one order enters (ARGS=-v)
	@mkdir -p .airflow
	@$(BIN)/python -m scripts.house $(ARGS)

docs: setup ## Build the documentation into .docs/html; a warning is an error (ARGS=links checks other sites' addresses)
	@mkdir -p .airflow
	@$(BIN)/python -m scripts.docs $(ARGS)

package: setup ## Build the package twice, check it, import README's first orders with it, write its bill of materials
	@$(BIN)/python -m scripts.package

release-check: setup ## Say what keeps this checkout from being released
	@$(BIN)/python -m scripts.package release-check

clean: ## Remove everything that these commands made
	rm -rf .venv .matrix .airflow .demo .bench .docs .package .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
