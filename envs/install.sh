#!/usr/bin/env bash
# Install locks into a Python environment: envs/install.sh [--python PYTHON] LOCK...
#
# The locks name every package, so nothing is resolved: what vLLM's metadata asks for beyond them is not needed, and its
# builds of that for CUDA would break a CPU environment. The CPU build of PyTorch is not on PyPI; PyTorch's own index is
# asked only where the configured ones do not have it, as an index that does not answer costs seconds for each package.
set -euo pipefail
python=python
if [ "$1" = --python ]; then
    python=$2
    shift 2
fi
locks=()
for lock in "$@"; do locks+=(-r "$lock"); done
install=("$python" -m pip install --quiet --disable-pip-version-check --no-deps "${locks[@]}")
"${install[@]}" || "${install[@]}" --extra-index-url https://download.pytorch.org/whl/cpu
