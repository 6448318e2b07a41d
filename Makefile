# make quickstart   pretrain on the embedded data, about 3 minutes on 2 cores
# make test         lint, types and all tests
# Both need only python3 (3.11 to 3.13) and make; all else goes into .venv.

PYTHON ?= python3
VENV ?= .venv
WORKDIR ?= workdirs/quickstart
BIN := $(VENV)/bin
# Two workers, a file of tests at a time, in the order of tests/conftest.py.
SPREAD := -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: quickstart venv venv-dev test test-nightly test-fast lint types clean

quickstart: venv
	$(BIN)/python -m main --config configs/quickstart.py --workdir $(WORKDIR)

venv: $(VENV)/.installed
venv-dev: $(VENV)/.installed-dev

$(BIN)/python:
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"python {v[0]}.{v[1]} found; 3.11, 3.12 or 3.13 is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.installed-dev: requirements.txt requirements-beam.txt requirements-dev.txt requirements-peers.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-peers.txt
	touch $@ $(VENV)/.installed

test: lint types
	$(BIN)/python -m pytest $(SPREAD)

# With what repeats other tests at more sizes; CI does not run it.
test-nightly: lint types
	$(BIN)/python -m pytest $(SPREAD) --nightly

test-fast: lint
	$(BIN)/python -m pytest $(SPREAD) -m 'not slow'

lint: venv-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: venv-dev
	$(BIN)/basedpyright --level error --pythonpath $(BIN)/python

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache
