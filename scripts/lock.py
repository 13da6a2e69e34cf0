"""Write the locks: every package of the environment with its version, for a CPU and for CUDA."""

import subprocess
import sys
from pathlib import Path

ENVS = Path(__file__).parents[1] / "envs"
TORCH = "torch==2.13.0"
YAML = """# Made by `make lock`: conda brings the interpreter, {name}.post-deploy.sh the packages of {name}.txt.
channels:
  - conda-forge
dependencies:
  - python =3.11
  - pip
"""
SCRIPT = """#!/usr/bin/env bash
# Made by `make lock`: installs the packages of {name}.txt into the conda environment.
set -euo pipefail
lock=$(mktemp)
cat > "$lock" <<'LOCK'
{lock}LOCK
pip install --no-deps -r "$lock" || pip install --no-deps --extra-index-url {index} -r "$lock"
rm "$lock"
"""
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def compile_lock(name: str, *options: str) -> str:
    """Resolve the project's dependencies with one extra."""
    uv = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--upgrade", "pyproject.toml", "--extra", name]
    common = ["--extra", "dev", "--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_28"]
    shape = ["--no-annotate", "--no-header"]
    done = subprocess.run(
        [*uv, *common, *shape, *options], cwd=ENVS.parent, check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


def main() -> None:
    """Write `envs/cpu.*` and `envs/cuda.*`."""
    overrides = ["--overrides", "envs/cpu-overrides.txt", "--excludes", "envs/cpu-excludes.txt"]
    # The local version picks the CPU build; no index that uv knows has it, so it is named after resolving.
    cpu = compile_lock("cpu", *overrides).replace(f"{TORCH}\n", f"{TORCH}+cpu\n")
    for name, lock in (("cpu", cpu), ("cuda", compile_lock("cuda"))):
        (ENVS / f"{name}.txt").write_text(lock)
        (ENVS / f"{name}.yaml").write_text(YAML.format(name=name))
        (ENVS / f"{name}.post-deploy.sh").write_text(SCRIPT.format(name=name, lock=lock, index=TORCH_CPU_INDEX))


if __name__ == "__main__":
    main()
