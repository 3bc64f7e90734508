# make setup | run | test | verify | lint | wheel | clean. Needs Python >= 3.11 with venv, gcc and the Python headers.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.scad-setup

.PHONY: setup run test verify lint wheel clean

setup: $(STAMP)

# Rebuilt whenever the build description or a native source changes; Python sources are used in place.
NATIVE := pyproject.toml setup.py $(wildcard libd/*.pyx libd/*.pxd libd/csrc/*.c libd/csrc/*.h operators/*.pyx openwhisk/*.pyx)
$(STAMP): $(NATIVE)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "scad needs Python 3.11 or later; try: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

run: setup
	$(BIN)/python -m tpcds.run --sf 1

test: setup lint
	$(BIN)/python -m pytest -m 'not slow'

verify: setup lint
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

wheel: setup
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean:
	rm -rf build dist $(VENV) *.egg-info
	find . -name '*.so' -path './*/*' -not -path './.venv/*' -delete
