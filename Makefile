# Each target sets up .venv by itself, once, and prints it; it needs Python 3.11+, git and make alone.
PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help demo test test-all proof chaos lint reference bench bench-short clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 13

# One stamp for each set of extras; a change of pyproject.toml makes it again.
.venv/%.stamp: pyproject.toml
	@$(PYTHON) tools/set_up.py '$*'
	@touch $@

demo: .venv/demo.stamp ## Watch a provider die and come back; needs no key and no server
	@echo "the demo begins: a server, a simulator and three workers"
	@$(BIN)/breakwater demo

test: .venv/test.stamp ## Run the fast tests, in minutes
	@$(BIN)/python -m pytest -n 4 --dist worksteal -q -m 'not long and not slow'

test-all: .venv/test.stamp ## Run the slow tests too, within half an hour
	@$(BIN)/python -m pytest -n 4 --dist worksteal -q -m 'not long'

proof: .venv/test.stamp ## Run the long forms of the breaker's proofs
	@$(BIN)/python -m pytest -q -m long --hypothesis-profile=default tests/breaker

chaos: .venv/test.stamp ## Run the long forms of the chaos tests; an hour
	@$(BIN)/python -m pytest -s -q -m long tests/chaos

lint: .venv/lint.stamp ## Check style and types
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy

reference: .venv/test.stamp ## Write docs/reference.md from the docstrings
	@$(BIN)/python tools/reference.py

bench: .venv/test.stamp ## Measure, beside what others run; two hours
	@$(BIN)/python -m benchmarks

bench-short: .venv/test.stamp ## The same with smaller sizes, in minutes
	@$(BIN)/python -m benchmarks --short

clean: ## Remove what the other targets made
	@rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
