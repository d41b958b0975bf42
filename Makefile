# make serve   serve a registry on 127.0.0.1:5000, as conf/registry.yml says
# make test    run the tests that need no other program
# make lint    check the style
# make types   check the types
# make bench   measure it beside the registries that are installed; ARGS=--quick for a short look,
#              ARGS=--help for what can be chosen
#
# Each makes its virtual environment first, and is quick the second time.
# PYTHON=... chooses the interpreter, VENV=... the folder of the environment.

VENV ?= .venv
BIN = $(VENV)/bin
FIND_PYTHON = $(if $(PYTHON),printf '%s\n' "$(PYTHON)",.ci/find-python)
# An editable install of the newer kind hides the plugin from twistd; this one does not.
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	--config-settings editable_mode=compat --editable
# One more than there are processors: some tests wait for a while.
TEST_PROCESSES = $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)

.PHONY: serve test lint types bench clean
.DELETE_ON_ERROR:

serve: $(VENV)/.installed
	$(BIN)/twisted-registry serve conf/registry.yml

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist worksteal -m "not integration and not nightly" $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	.ci/forbidden-words

types: $(VENV)/.installed-dev
	$(BIN)/mypy

bench: $(VENV)/.installed-test
	$(BIN)/python -m tests.bench $(ARGS)

clean:
	rm -rf $(VENV) build *.egg-info

$(VENV)/bin/python:
	@python="$$($(FIND_PYTHON))" || exit 1; echo "$$python -m venv $(VENV)"; \
	"$$python" -m venv --clear $(VENV)

$(VENV)/.installed: setup.py pyproject.toml | $(VENV)/bin/python
	$(INSTALL) .
	@touch $@

$(VENV)/.installed-test: setup.py pyproject.toml | $(VENV)/bin/python
	$(INSTALL) '.[test]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-dev: setup.py pyproject.toml | $(VENV)/bin/python
	$(INSTALL) '.[dev]'
	@touch $@ $(VENV)/.installed $(VENV)/.installed-test
