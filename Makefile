# Set-up, the main job and the tests. `make run` and `make test` need Python 3.11, pip, bash and a package index.
#
# CONFIG is an experiment or a study, ARGS goes to the command that a target runs, PYTHON names an interpreter.

PROFILE ?= default
CONFIG ?= config/config.yaml
PYTHON ?=
HARDWARE := $(shell nvidia-smi -L >/dev/null 2>&1 && echo cuda || echo cpu)
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' emoprobe/__init__.py)
BIN := .venv/bin
# Live bars on a terminal, lines elsewhere. Snakemake writes to standard error.
LOGGER := $$(test -t 2 && echo --logger rich emoprobe)
# Beside a plain --profile Snakemake would read profiles/default as well, which then has the last word.
SNAKEMAKE := $(BIN)/snakemake --workflow-profile profiles/$(PROFILE) --configfile $(CONFIG) $(LOGGER)

.PHONY: run report watch deploy undeploy monitor push pull test docs lint format env env-dev bench chaos calibrate lock schema clean

run: env
	$(SNAKEMAKE) $(ARGS)

report: env
	$(SNAKEMAKE) --until report_experiment $(ARGS)

# A live view of a run, also from another shell.
watch: env
	$(BIN)/python -m scripts.watch --config $(CONFIG) $(ARGS)

# Model servers on another machine, see docs/deploy.md: start them, end them, read along in their logs.
deploy undeploy monitor: env
	$(BIN)/python -m scripts.$@ --config $(CONFIG) $(ARGS)

# Activations to object storage (storage.url), and back.
push pull: env
	$(BIN)/python -m scripts.$@_activations --config $(CONFIG) $(ARGS)

# What a run needs, and `emoprobe` itself.
env: .venv/installed-$(HARDWARE) .venv/installed-emoprobe-$(VERSION)

# What tests and linting add.
env-dev: env .venv/installed-dev

# The locks are for Python 3.11. A name on the path may be a stub that does not run, so each is tried.
.venv/bin/python:
	@for python in $(PYTHON) python3.11 python3 python; do \
	  if $$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then \
	    exec $$python -m venv .venv; \
	  fi; \
	done; \
	echo "No Python 3.11 with venv was found: install python3.11 and python3.11-venv (or 'uv python install 3.11', 'pyenv install 3.11'), or name one with 'make PYTHON=/path/to/python3.11'." >&2; \
	exit 1

.venv/installed-$(HARDWARE): envs/$(HARDWARE).txt | .venv/bin/python
	envs/install.sh --python $(BIN)/python $<
	touch $@

.venv/installed-dev: envs/dev.txt | .venv/installed-$(HARDWARE)
	envs/install.sh --python $(BIN)/python $<
	touch $@

# Editable, so that it is current and only a new version needs it again.
.venv/installed-emoprobe-$(VERSION): pyproject.toml | .venv/installed-$(HARDWARE)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

test: env-dev
	$(BIN)/python -m pytest -n auto $(ARGS)

# The documentation site, into docs/_build; a warning is an error.
docs: env-dev
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -b html docs docs/_build $(ARGS)

lint: env-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint

format: env-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile rules

# JSON lines, two ways in one run.
bench: env-dev
	$(BIN)/python -m tests.benchmarks $(ARGS)

# Injects faults and prints one JSON line for each.
chaos: env-dev
	$(BIN)/python -m tests.chaos $(ARGS)

# How often each kind of sentence is false by construction, in simulations.
calibrate: env-dev
	$(BIN)/python -m tests.calibration $(ARGS)

# Resolves the locks; versions that still fit stay, unless ARGS=--upgrade.
lock: env-dev
	$(BIN)/python -m scripts.lock $(ARGS)

# The schema and the tables of config/README.md follow from the classes in emoprobe/config.
schema: env
	$(BIN)/python -m scripts.document_config

clean:
	@test ! -d .snakemake/emoprobe/deployed || { echo "Servers are deployed from here: run make undeploy first." >&2; exit 1; }
	rm -rf .venv .snakemake .pytest_cache .mypy_cache .ruff_cache .hypothesis docs/_build results
