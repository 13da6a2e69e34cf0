# Set-up, the main job and the tests. `make run` and `make test` need Python 3.11, pip and nothing else.

PYTHON ?= python3.11
PROFILE ?= default
CONFIG ?= config/config.yaml
HARDWARE := $(shell nvidia-smi -L >/dev/null 2>&1 && echo cuda || echo cpu)
LOCK := envs/$(HARDWARE).txt
BIN := .venv/bin
SNAKEMAKE := $(BIN)/snakemake --profile profiles/$(PROFILE) --configfile $(CONFIG)
# The CPU build of PyTorch is not on PyPI; this index is asked only where the configured ones do not have it.
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu

.PHONY: run test env lint format bench chaos lock schema report watch clean

run: env
	$(SNAKEMAKE) $(ARGS)

test: env
	$(BIN)/python -m pytest $(ARGS)

env: .venv/installed-$(HARDWARE)

.venv/installed-$(HARDWARE): $(LOCK)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv || python3 -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r $(LOCK) \
	  || $(BIN)/pip install --quiet --disable-pip-version-check --no-deps --extra-index-url $(TORCH_CPU_INDEX) -r $(LOCK)
	touch $@

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint

format: env
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile rules

bench: env
	$(BIN)/python -m tests.benchmarks $(ARGS)

# Injects faults and prints one JSON line for each.
chaos: env
	$(BIN)/python -m tests.chaos $(ARGS)

# A live view of a run, also from another shell.
watch: env
	$(BIN)/python -m scripts.watch --config $(CONFIG) $(ARGS)

report: env
	$(SNAKEMAKE) --until report_experiment $(ARGS)

# The schema and the tables of config/README.md follow from scripts/lib/config.py.
schema: env
	$(BIN)/python -m scripts.document_config

lock: env
	$(BIN)/python -m scripts.lock

clean:
	rm -rf .venv .snakemake .pytest_cache .mypy_cache .ruff_cache .hypothesis results
