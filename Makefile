# make serve   serve a registry on 127.0.0.1:5000, as conf/registry.yml says
# make test    run the tests that need no other program
# make lint    check the style
# make types   check the types
# make docs    build the documentation as HTML in dist/docs
# make bench   measure it beside the registries that are installed; ARGS=--quick for a short look,
#              ARGS=--help for what can be chosen
# make requirements  pin what a release installs again; ARGS=--upgrade for newer versions
# make sbom    list what a release installs in dist/sbom.cdx.json (CycloneDX)
# make wheel   build wheel and source distribution in dist, and check what they say of themselves
# make binary  build dist/twisted-registry, one file with everything that a server needs
# make image   write a container image of that file to dist/image and an archive beside it
# make deb     build a Debian package of that file in dist
# make man     write the manual page dist/twisted-registry.1
# make audit   look for known vulnerabilities of it; this needs a vulnerability database
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

# Where make docs writes.
SITE = dist/docs

# Of the programs that pin, list and audit what a release installs.
TOOLS = .venv-tools
RELEASE = .venv-release
# A release, and what makes one file of it.
BINARY = .venv-binary
# What a release installs: all extras that a server can use.
COMPILE = $(TOOLS)/bin/uv pip compile --quiet --python-version 3.11 --generate-hashes \
	--no-emit-find-links --custom-compile-command 'make requirements'
SOURCES = $(shell git ls-files twisted_registry twisted 2>/dev/null)
EXTRAS = --extra acme --extra auth --extra aws --extra metrics --extra otel --extra redis

# The time of the latest change, in seconds since 1970: what is built has this date.
EPOCH = $(or $(SOURCE_DATE_EPOCH),$(shell git log -1 --format=%ct 2>/dev/null),$(shell date +%s))

.PHONY: serve test lint types docs bench requirements sbom wheel binary image deb man audit clean
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

docs: $(VENV)/.installed-docs
	$(BIN)/python -m sphinx --quiet --fresh-env --write-all --fail-on-warning --keep-going docs $(SITE)
	rm -rf $(SITE)/.doctrees

bench: $(VENV)/.installed-test
	$(BIN)/python -m tests.bench $(ARGS)

requirements: $(TOOLS)/.installed
	$(COMPILE) --universal requirements/tools.in -o requirements/tools.txt $(ARGS)
	$(COMPILE) --universal requirements/docs.in -o requirements/docs.txt $(ARGS)
	$(COMPILE) --universal setup.py $(EXTRAS) -o requirements/release.txt $(ARGS)
	$(COMPILE) --universal requirements/binary.in -o requirements/binary.txt $(ARGS)
	$(COMPILE) --resolution lowest-direct setup.py $(EXTRAS) -o requirements/oldest.txt $(ARGS)

sbom: dist/sbom.cdx.json

dist/sbom.cdx.json: $(RELEASE)/.installed
	mkdir -p dist
	$(TOOLS)/bin/cyclonedx-py environment --pyproject $(RELEASE)/project.toml \
		--output-reproducible -o $@ $(RELEASE)

VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' twisted_registry/__init__.py)
PACKAGES = dist/twisted_registry-$(VERSION)
SHIPPED = $(shell git ls-files . ':!twisted_registry' ':!twisted' 2>/dev/null)

wheel: $(PACKAGES).tar.gz

# The wheel is built from the source distribution.
$(PACKAGES).tar.gz: $(SOURCES) $(SHIPPED) | $(TOOLS)/.installed
	rm -rf build/lib *.egg-info/SOURCES.txt
	$(TOOLS)/bin/uv build --quiet --out-dir dist .
	$(TOOLS)/bin/twine --no-color check --strict $(PACKAGES).tar.gz $(PACKAGES)-*.whl

binary: dist/twisted-registry

# The order of sets is not in the file.
dist/twisted-registry: $(BINARY)/.installed $(wildcard .ci/binary/*)
	PYTHONHASHSEED=0 PYINSTALLER_CONFIG_DIR=build/pyinstaller \
		$(BINARY)/bin/python -m PyInstaller --clean --noconfirm --log-level ERROR \
		--distpath dist --workpath build/binary .ci/binary/twisted-registry.spec

image: dist/twisted-registry dist/sbom.cdx.json $(VENV)/.installed
	SOURCE_DATE_EPOCH=$(EPOCH) $(BIN)/python .ci/image dist/twisted-registry dist/sbom.cdx.json \
		dist $(shell git rev-parse HEAD 2>/dev/null)

deb: dist/twisted-registry
	SOURCE_DATE_EPOCH=$(EPOCH) .ci/deb/build dist/twisted-registry $(BINARY)/bin/python dist

man: $(VENV)/.installed
	mkdir -p dist
	SOURCE_DATE_EPOCH=$(EPOCH) $(BIN)/python -m twisted_registry.commands.manual \
		>dist/twisted-registry.1

audit: $(TOOLS)/.installed
	.ci/audit $(TOOLS)/bin/pip-audit requirements/release.txt

clean:
	rm -rf $(VENV) $(RELEASE) $(BINARY) $(TOOLS) build *.egg-info

$(VENV)/bin/python $(TOOLS)/bin/python: %/bin/python:
	@python="$$($(FIND_PYTHON))" || exit 1; echo "$$python -m venv $*"; \
	"$$python" -m venv --clear $*

$(VENV)/.installed: setup.py pyproject.toml | $(VENV)/bin/python
	$(INSTALL) .
	@touch $@

$(VENV)/.installed-test: setup.py pyproject.toml | $(VENV)/bin/python
	$(INSTALL) '.[test]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-dev: setup.py pyproject.toml | $(VENV)/bin/python
	$(INSTALL) '.[dev]'
	@touch $@ $(VENV)/.installed $(VENV)/.installed-test

$(VENV)/.installed-docs: requirements/docs.txt | $(VENV)/.installed-test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

$(TOOLS)/.installed: requirements/tools.txt | $(TOOLS)/bin/python
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

# As a release is installed: not editable, nothing else beside it.
INSTALL_RELEASE = rm -rf build/lib && \
	$(TOOLS)/bin/uv venv --quiet --clear --python $(TOOLS)/bin/python $(@D) && \
	$(TOOLS)/bin/uv pip install --quiet --python $(@D) --require-hashes -r requirements/release.txt && \
	$(TOOLS)/bin/uv pip install --quiet --python $(@D) --no-deps .

$(RELEASE)/.installed: requirements/release.txt setup.py $(SOURCES) | $(TOOLS)/.installed
	$(INSTALL_RELEASE)
	$(RELEASE)/bin/python .ci/release-metadata >$(RELEASE)/project.toml
	@touch $@

# PyInstaller's own loader is compiled, since the one of its wheel needs the system's zlib.
$(BINARY)/.installed: requirements/release.txt requirements/binary.txt setup.py $(SOURCES) \
		| $(TOOLS)/.installed
	$(INSTALL_RELEASE)
	PYINSTALLER_COMPILE_BOOTLOADER=1 PYI_STATIC_ZLIB=1 \
		$(TOOLS)/bin/uv pip install --quiet --python $(@D) --no-binary pyinstaller \
		--build-constraints requirements/binary.txt --require-hashes -r requirements/binary.txt
	@touch $@
