# Every target makes the environment it needs; nothing but Python 3.11 or newer, make and a package index is assumed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STORE ?= sqlite:///fhir.db

.PHONY: serve test test-full lint clean

$(VENV)/.runtime: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; say make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/.test: $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test]'
	touch $@

serve: $(VENV)/.runtime
	$(BIN)/fhir-server load examples --store $(STORE)
	$(BIN)/fhir-server serve --store $(STORE)

test: $(VENV)/.test
	$(BIN)/python -m pytest -n auto -m 'not long'

test-full: $(VENV)/.test
	$(BIN)/python -m pytest -n auto -m long

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) build dist *.egg-info
