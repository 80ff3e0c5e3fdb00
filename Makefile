# Every target sets itself up first: `.venv` at the root, from the lock file, in seconds when nothing changed.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(not (3,11) <= sys.version_info[:2] <= (3,13))' 2>/dev/null && echo $$p && break; done)
ifeq ($(strip $(PYTHON)),)
PYTHON := python3
endif
BIN := .venv/bin

.PHONY: setup demo up test faults bench lint format dashboards docs clean

setup: ## make .venv
	@$(PYTHON) tools/setup_venv.py

demo: setup ## real MCP servers, real calls, the answer, and a service to look at
	@$(BIN)/hubscope demo $(ARGS)

up: setup ## the service and its worker on the embedded database
	@$(BIN)/hubscope up $(ARGS)

test: setup ## every test
	@$(BIN)/python -m pytest $(ARGS)

faults: setup ## the faults again and again: make faults ROUNDS=50
	@HUBSCOPE_FAULTS_ROUNDS=$(or $(ROUNDS),20) $(BIN)/python -m pytest tests/faults $(ARGS)

bench: setup ## figures: make bench NAME=rollup ARGS=--json
	@$(BIN)/python -m tests.bench $(NAME) $(ARGS)

lint: setup ## ruff, mypy --strict, the floor plan, and artefacts that must match their sources
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python -m tools.check_artefacts

format: setup
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

dashboards: setup ## grafana/source/*.py -> grafana/dashboards/*.json
	@$(BIN)/python -m grafana.source

docs: setup ## docs/reference/settings.md from the settings themselves
	@$(BIN)/python -m tools.settings_page

clean: ## forget the environment and caches (never a data directory)
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
