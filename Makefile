# Two commands matter: `make demo` and `make test`. Each does all its own set-up; all they need is Python 3.11 or newer, pip, git and a
# package index that pip knows.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PROJECTS := packages/mac/pyproject.toml packages/wallaroo/pyproject.toml packages/bettong/pyproject.toml
EDITABLE := -e packages/mac -e packages/wallaroo[notebook]
RUN := $(VENV)/.run-ready
DEV := $(VENV)/.dev-ready
CORE := "not service and not framework and not soak"

.DEFAULT_GOAL := help
.PHONY: help demo test test-units test-processes test-services test-frameworks check lint format types soak bench bench-infer-batch bench-connections bench-frameworks clean

help: ## Show this list.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

demo: $(RUN) ## Run the main job end to end on this machine: model file, pipeline, Connection, prediction.
	$(BIN)/python examples/forecast/demo.py

test: $(DEV) ## Run the core tests: those that compute beside those that mostly wait for processes.
	$(MAKE) -j2 test-units test-processes

test-units: $(DEV)
	$(call twice,units,-m $(CORE) tests/unit tests/contract)

test-processes: $(DEV)
	$(call twice,processes,-m $(CORE) tests/integration tests/e2e)

test-services: $(DEV) ## Run the tests against real services (PostgreSQL, …), each brought up by the suite itself.
	$(call twice,services,-m "service and not soak")

test-frameworks: $(DEV) ## Run the tests that build environments for other interpreters and frameworks.
	$(call twice,frameworks,-m "framework and not soak")

# Dozens of processes on two busy cores can outlast any patience. What failed is run once more, alone, with both runs in sight: a test that
# fails twice fails, one that only failed beside others is there to be looked into.
define twice
	$(BIN)/python -m pytest -o cache_dir=build/pytest-$(1) $(2) || \
	$(BIN)/python -m pytest -o cache_dir=build/pytest-$(1) $(2) -rA --last-failed --last-failed-no-failures none
endef

check: format lint types ## Format, lint, check types and run the fast tests.
	$(call twice,units,-m $(CORE) tests/unit tests/contract)

format: $(DEV) ## Format the code.
	$(BIN)/ruff format .

lint: $(DEV) ## Look for mistakes without changing anything.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(DEV) ## Check types, tests included.
	$(BIN)/mypy packages/mac/src packages/wallaroo/src packages/bettong/src tests benchmarks .ci/install.py examples/forecast/demo.py

soak: $(DEV) ## Run the tests that take very long; never in CI.
	$(BIN)/python -m pytest -m soak

bench: $(DEV) ## Measure the main job, and write its section of docs/performance.md.
	$(BIN)/python benchmarks/main_job.py

bench-infer-batch: $(DEV) ## Measure batch inference from table to table, and write its section.
	$(BIN)/python benchmarks/infer_batch.py --page

bench-connections: $(DEV) ## Measure reading and writing through a Connection beside ADBC called directly, and write its section.
	$(BIN)/python benchmarks/connections.py --page

bench-frameworks: $(DEV) ## Measure what each framework takes, and write its section; some minutes.
	$(BIN)/python benchmarks/frameworks.py

bench-growth: $(DEV) ## Measure how cost grows, and write its section and plot; some eight minutes.
	$(BIN)/python benchmarks/growth.py

clean: ## Remove the environment and what was built.
	chmod -R u+w build 2>/dev/null || true  # environments and models are read-only
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache

$(RUN): .ci/install.py constraints.txt $(PROJECTS)
	$(PYTHON) .ci/install.py $(VENV) $(EDITABLE) -e "packages/bettong[notebook,sqlite,sql]"
	touch $@

$(DEV): requirements-dev.txt $(RUN)
	$(PYTHON) .ci/install.py $(VENV) -r requirements-dev.txt $(EDITABLE) -e "packages/bettong[notebook,drivers]"
	touch $(RUN) $@
