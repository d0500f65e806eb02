# Every target does its own set-up: Python 3.11 or newer, pip and make are enough; uv is used where it is installed. PyTorch always comes
# through pip, so that what pip is configured to look at (a CPU build in a folder or an index) is found; uv reads none of pip's settings.
VENV   := .venv
BIN    := $(VENV)/bin
PYTHON ?= python3
UV     := $(shell command -v uv 2>/dev/null)
STAMP  := $(VENV)/.mainspring

.PHONY: help setup demo test test-long check chaos-serving docs bench bench-spark lock clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -E '^[a-z-]+%?:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP)-demo  ## .venv with the package and what the demo needs, leaves .venv/bin/mainspring

demo: $(STAMP)-demo  ## the whole loop on real flights, with a report at the end
	$(BIN)/mainspring run eta

test: $(STAMP)-dev  ## every test but the long ones
	$(BIN)/python -m pytest -n 2 -m "not long"

test-long: $(STAMP)-long  ## the long suites; those of Spark need Java 17 or newer
	$(BIN)/python -m pytest -m long
	MAINSPRING_EXAMPLES=10000 $(BIN)/python -m pytest -n 2 tests/contracts/test_same_answer.py tests/contracts/test_same_answer_on_spark.py

check: $(STAMP)-dev  ## format, lint, types, floors
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

chaos-serving: $(STAMP)-dev  ## a server under attack: processes killed, clients hostile, slow or too many, its store gone, its clock moved
	$(BIN)/python -m pytest tests/chaos

docs: $(STAMP)-dev  ## hold the documentation against the code
	$(BIN)/python -m pytest tests/test_docs.py

bench: $(STAMP)-long  ## every benchmark; QUICK=1 for a short one
	@for area in $(basename $(notdir $(wildcard benchmarks/bench_*.py))); do $(BIN)/python benchmarks/$$area.py || exit 1; done

bench-%: $(STAMP)-dev  ## one benchmark: make bench-serving
	$(BIN)/python benchmarks/bench_$*.py

bench-spark: $(STAMP)-long
	$(BIN)/python benchmarks/bench_spark.py

lock: $(STAMP)-dev  ## pin again what the demo and the tests install (needs uv)
	uv pip compile -q --universal --python-version 3.11 pyproject.toml --extra eta --no-header --no-annotate --no-emit-index-url --no-emit-find-links -o requirements/demo.txt
	uv pip compile -q --universal --python-version 3.11 pyproject.toml --extra eta --extra redis --extra kafka --extra torch --extra tune --extra mlflow --group dev --config-file requirements/uv.toml --no-header --no-annotate --no-emit-index-url --no-emit-find-links -o requirements/dev.txt
	uv pip compile -q --universal --python-version 3.11 pyproject.toml --extra eta --extra redis --extra kafka --extra torch --extra tune --extra mlflow --extra ray --extra rayserve --extra spark --group dev -c requirements/dev.txt --config-file requirements/uv.toml --no-header --no-annotate --no-emit-index-url --no-emit-find-links -o requirements/long.txt

clean:  ## remove what was installed and what was built
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(VENV)/bin/python:
ifdef UV
	uv venv --quiet --python $(PYTHON) $(VENV)
else
	$(PYTHON) -m venv $(VENV)
endif

$(STAMP)-demo: requirements/demo.txt pyproject.toml | $(VENV)/bin/python
	@echo "Setting up $(VENV) for the demo"
ifdef UV
	@VIRTUAL_ENV=$(VENV) uv pip install --quiet -r requirements/demo.txt
	@VIRTUAL_ENV=$(VENV) uv pip install --quiet --no-deps -e .
else
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/demo.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
endif
	@touch $@

$(STAMP)-dev: requirements/dev.txt $(STAMP)-demo
	@echo "Setting up $(VENV) for tests and checks"
ifdef UV
	@VIRTUAL_ENV=$(VENV) uv pip install --quiet pip
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' requirements/dev.txt)"
	@VIRTUAL_ENV=$(VENV) uv pip install --quiet -r requirements/dev.txt
else
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/dev.txt
endif
	@touch $@

$(STAMP)-long: requirements/long.txt $(STAMP)-dev
	@echo "Setting up $(VENV) for the long suites"
ifdef UV
	@VIRTUAL_ENV=$(VENV) uv pip install --quiet -r requirements/long.txt
else
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/long.txt
endif
	@touch $@
