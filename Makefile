# Everything runs inside .venv; nothing is installed outside this folder.
PYTHON ?= python3.11
# The index that torch alone is taken from, such as one of CPU builds; the usual one if empty.
TORCH_INDEX_URL ?=
# So many processes run the tests; the tests of a file stay together, as they share what they build.
TEST_PROCESSES ?= 2
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: install demo test check bench clean
.DEFAULT_GOAL := help

help:  ## Say what each target does
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(STAMP)  ## Make .venv and install compactds with its development tools

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch -c constraints.txt $(if $(TORCH_INDEX_URL),--index-url "$(TORCH_INDEX_URL)")
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP)  ## Build the bundled corpus, serve it, ask it three questions
	$(BIN)/compactds demo $(ARGS)

test: $(STAMP)  ## Run all tests with branch coverage
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --cov --cov-report=term $(ARGS)

check: $(STAMP)  ## Lint, format, types and import arrows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)  ## Run a short benchmark on the bundled corpus, or the one that ARGS names
	$(BIN)/python -m benchmarks $(ARGS)

clean:  ## Remove the environment and everything made by builds and tests
	rm -rf .venv build dist *.egg-info .coverage .coverage.* htmlcov .mypy_cache .ruff_cache .pytest_cache .hypothesis demo-store bench-out
