# Every target makes the environment it needs; nothing but Python 3.11 or newer, make and a package index is assumed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STORE ?= sqlite:///fhir.db
PORT ?= 8000
LOADED = $(VENV)/.samples-in-$(subst /,_,$(STORE))
LOAD = test -e '$(LOADED)' -a -e '$(STORE:sqlite:///%=%)' || \
	{ echo 'Loading the sample clinic into $(STORE).'; $(BIN)/fhir-server load examples --store '$(STORE)' && touch '$(LOADED)'; }
PYTEST = $(BIN)/python -m pytest -ra
QUICK = not long and not external and not slow
# The tests are compiled once, not in each of their processes each time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: serve serve-secure check test test-full coverage lint clean

$(VENV)/.runtime: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; say make PYTHON=python3.12")'
	@echo 'Making the environment in $(VENV): once, half a minute to two minutes.'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/.test: $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test]'
	touch $@

# A second validator of X12, for the long run; it needs an older pydantic, so it has an environment of its own.
$(VENV)/.x12: $(VENV)/.test
	$(PYTHON) -m venv $(VENV)/x12
	$(VENV)/x12/bin/python -m pip install --quiet 'linuxforhealth-x12==0.57.0' 'pydantic==1.10.26'
	touch $@

# The samples are loaded once into a store: loading them again would undo what was changed in them since.
serve: $(VENV)/.runtime
	@$(LOAD)
	$(BIN)/fhir-server serve --store '$(STORE)' --port $(PORT)

# The same, where every request needs a token: this one, which is good for twelve hours.
serve-secure: $(VENV)/.runtime
	@$(LOAD)
	@$(BIN)/fhir-server token create --name "serve-secure $$(date +%s)" --role administrator --expires 12h --store '$(STORE)'
	FHIR_AUTHENTICATION=on $(BIN)/fhir-server serve --store '$(STORE)' --port $(PORT)

# What to run before each commit: everything that is quick and needs no database and no process of its own.
check: lint
	$(PYTEST) -n auto -m '$(QUICK)'

test: $(VENV)/.test
	$(PYTEST) -n auto -m 'not long'

test-full: $(VENV)/.test $(VENV)/.x12
	$(PYTEST) -n auto -m long

# What the tests in memory run of the product; to measure all of `make test` would take twice its time. Tests of cost are left
# out: what is measured takes longer, and what it is compared with does not.
coverage: $(VENV)/.test
	$(PYTEST) -n auto -m 'not long and not external' --ignore tests/cost --cov --cov-report=
	$(BIN)/python -m scripts.coverage_table $(VENV)/coverage

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(BIN)/python -m scripts.check_advisories

clean:
	rm -rf $(VENV) build dist *.egg-info
