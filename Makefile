# Set up the environment, run experiments and tests. Needs Python 3.11 with pip and venv, bash, and a package index.
#
# CONFIG: file of an experiment or study. ARGS: further arguments of the target's command. PYTHON: interpreter for .venv.
# HARDWARE: cuda or cpu, which the model servers run on (default: see envs/hardware.sh).

PROFILE ?= default
CONFIG ?= config/config.yaml
PYTHON ?=
# Snakemake would answer with a traceback, after the installation.
ifneq ($(words $(wildcard $(CONFIG))),$(words $(CONFIG)))
ifneq ($(origin CONFIG),file)
$(error CONFIG=$(CONFIG): there is no such file)
endif
endif
HARDWARE := $(shell envs/hardware.sh $(CONFIG))
# vLLM has one package for CPUs and another for GPUs with the same files, so no environment holds both. The hardware that
# comes first gets .venv, the other one .venv-cuda or .venv-cpu.
OTHER := $(if $(filter cuda,$(HARDWARE)),cpu,cuda)
VENV := $(if $(wildcard .venv/installed-$(OTHER)),.venv-$(HARDWARE),.venv)
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' emoprobe/__init__.py)
BIN := $(VENV)/bin
# Progress bars on a terminal, plain lines otherwise. Snakemake writes to standard error.
LOGGER := $$(test -t 2 && echo --logger rich emoprobe)
# With --profile, Snakemake would also read profiles/default, which would take precedence.
SNAKEMAKE := $(BIN)/snakemake --workflow-profile profiles/$(PROFILE) --configfile $(CONFIG) $(LOGGER)

.PHONY: run doctor report explorer watch deploy undeploy monitor push pull test docs lint format env interpreter env-dev bench gpu-check chaos calibrate check-texts lock schema clean

run: env
	@$(BIN)/python -m scripts.doctor --short --config $(CONFIG) >&2 || true
	$(SNAKEMAKE) $(ARGS)

# Check driver, GPUs, environment, compiler, disk, ports and clock: one line each, ok or what to do.
doctor: env
	$(BIN)/python -m scripts.doctor --config $(CONFIG) $(ARGS)

report: env
	$(SNAKEMAKE) --until report_experiment build_explorer $(ARGS)

# Bundle the page of the explorer from its sources; needs Node. What it shows is made by the target `explorer` of Snakemake.
explorer: $(BIN)/python
	$(BIN)/python -m scripts.bundle_explorer

# Show a live view of a run, from any shell.
watch: env
	$(BIN)/python -m scripts.watch --config $(CONFIG) $(ARGS)

# Start model servers on another machine, end them, follow their logs; see docs/deploy.md.
deploy undeploy monitor: env
	$(BIN)/python -m scripts.$@ --config $(CONFIG) $(ARGS)

# Copy activations to object storage (storage.url), and back; see docs/storage.md.
push pull: env
	$(BIN)/python -m scripts.$@_activations --config $(CONFIG) $(ARGS)

# Install the packages that a run needs, and emoprobe.
env: $(VENV)/installed-$(HARDWARE) $(VENV)/installed-emoprobe-$(VERSION)

# Print the interpreter of that environment.
interpreter:
	@echo $(CURDIR)/$(BIN)/python

# Also install the packages for tests and linting.
env-dev: env $(VENV)/installed-dev

# The locks are for Python 3.11. Try each interpreter, because a name on the path may be a stub that does not run.
$(BIN)/python:
	@for python in $(PYTHON) python3.11 python3 python; do \
	  if $$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then \
	    exec $$python -m venv $(VENV); \
	  fi; \
	done; \
	echo "No Python 3.11 with venv was found: install python3.11 and python3.11-venv (or 'uv python install 3.11', 'pyenv install 3.11'), or name one with 'make PYTHON=/path/to/python3.11'." >&2; \
	exit 1

$(VENV)/installed-$(HARDWARE): envs/$(HARDWARE).txt | $(VENV)/bin/python
	envs/install.sh --python $(BIN)/python $<
	touch $@

$(VENV)/installed-dev: envs/dev.txt | $(VENV)/installed-$(HARDWARE)
	envs/install.sh --python $(BIN)/python $<
	touch $@

# Editable, so only a new version needs another installation.
$(VENV)/installed-emoprobe-$(VERSION): pyproject.toml | $(VENV)/installed-$(HARDWARE)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

test: env-dev
	$(BIN)/python -m pytest -n auto $(ARGS)

# Build the documentation site into docs/_build, with warnings as errors.
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

# Compare two ways of doing something in one run; prints JSON lines.
bench: env-dev
	$(BIN)/python -m tests.benchmarks $(ARGS)

# Check on a GPU what no CPU can show; prints one JSON line for each step. ARGS="--part capture" needs no vLLM.
gpu-check: env-dev
	$(BIN)/python -m tests.gpu $(ARGS)

# Inject faults; prints one JSON line for each.
chaos: env-dev
	$(BIN)/python -m tests.chaos $(ARGS)

# Simulate how often each kind of sentence is printed although it is false by construction: about ten CPU hours.
# ARGS="--keep FILE" goes on where an earlier run stopped.
calibrate: env-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.calibration $(ARGS)

# Check the texts of the shipped tones; prints lengths, repetitions, balance, ratings, and one line for each fault.
check-texts: env
	$(BIN)/python -m scripts.check_texts config/tones.yaml $(ARGS)

# Resolve the locks. Versions that still fit stay, unless ARGS=--upgrade.
lock: env-dev
	$(BIN)/python -m scripts.lock $(ARGS)

# Generate config/schema.json and the tables of config/README.md from the classes in emoprobe/config.
schema: env
	$(BIN)/python -m scripts.document_config

clean:
	@test ! -d .snakemake/emoprobe/deployed || { echo "Servers are deployed from here: run make undeploy first." >&2; exit 1; }
	rm -rf .venv .venv-cpu .venv-cuda .snakemake .pytest_cache .mypy_cache .ruff_cache .hypothesis docs/_build results
