# Everything starts here: `make demo` and `make test` need Debian's python3 (3.11 or later), python3-venv, make and git.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
SYSTEM := sh scripts/system-packages.sh

.PHONY: demo test test-slow check lint types imports advisories bench clean lock
demo: $(VENV)/run.stamp
	@$(SYSTEM) demo
	$(BIN)/kakoi demo

test: $(VENV)/dev.stamp
	@$(SYSTEM) test
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow"
	$(BIN)/python -m pytest -n 2 --dist loadgroup tests/integration/test_readme.py tests/integration/test_notebook.py tests/integration/test_make.py

# Kills at every step of a run, whole corpora of bad twins, fuzzers, a browser through the whole story: half an hour on two cores.
test-slow: $(VENV)/dev.stamp
	@$(SYSTEM) test
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m slow

check: lint types imports advisories test

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev.stamp
	$(BIN)/mypy

imports: $(VENV)/dev.stamp
	$(BIN)/lint-imports --no-logo --no-cache

# Our own locked dependencies against known advisories (a pinned snapshot: works offline).
advisories: $(VENV)/dev.stamp
	$(BIN)/python scripts/advisories.py

bench: $(VENV)/dev.stamp
	@$(SYSTEM) demo
	$(BIN)/python -m bench

lock:
	sh scripts/lock.sh

PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-build-isolation

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or later is needed; hint: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "error: no venv module; hint: apt-get install python3-venv"; rm -rf $(VENV); exit 1; }

# dev.lock contains run.lock (a test compares them), so an environment for tests also runs the demo.
$(VENV)/dev.stamp: requirements/dev.lock requirements/build.lock pyproject.toml | $(VENV)/bin/python
	$(PIP) -r requirements/build.lock
	$(PIP) -r requirements/dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index -e .
	@touch $@ $(VENV)/run.stamp

$(VENV)/run.stamp: requirements/run.lock requirements/build.lock pyproject.toml | $(VENV)/bin/python
	$(PIP) -r requirements/build.lock
	$(PIP) -r requirements/run.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index -e .
	@touch $@

clean:
	rm -rf $(VENV) build demo-out test-out .mypy_cache .ruff_cache
