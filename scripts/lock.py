"""Write the locks, each package with its version: `cpu` and `cuda` are what a run needs, `dev` what tests add to it."""

import argparse
import hashlib
import re
import subprocess
import sys
from pathlib import Path

ENVS = Path(__file__).parents[1] / "envs"
PYTHON = "3.11"
PLATFORM = "x86_64-manylinux_2_28"
TORCH = "torch==2.13.0"
UNUSED = ("--excludes", "envs/excludes.txt")
DEVELOPMENT = ("--excludes", "envs/dev-excludes.txt", "--overrides", "envs/dev-overrides.txt")
CPU_BUILDS = (*UNUSED, "--overrides", "envs/cpu-overrides.txt", "--excludes", "envs/cpu-excludes.txt")
NEEDS = f"# Made by `make lock`, for Python {PYTHON} on x86-64 Linux. Install it with envs/install.sh {{path}}\n"
CONDA = """# Made by `make lock`: conda brings the interpreter, {name}.post-deploy.sh installs {name}.txt, of SHA-256
# {digest}.
channels:
  - conda-forge
dependencies:
  - python ={python}
  - pip
"""

DEPLOY = """#!/usr/bin/env bash
# Made by `make lock` of {name}.txt and install.sh. Snakemake runs a copy of this, wherever the workflow comes from, in
# the environment that conda made.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
cat >"$folder/{name}.txt" <<'LOCK'
{lock}LOCK
set -- "$folder/{name}.txt"
{install}"""


def compile_lock(extras: list[str], known: str, *options: str) -> str:
    """Resolve the project's dependencies with some extras.

    Args:
        extras: which.
        known: lines of versions to keep where they still fit.
        options: further ones of `uv pip compile`.
    """
    output = ENVS / "resolving.txt"
    output.write_text(known)
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "pyproject.toml", "--output-file", str(output)]
    command += [option for extra in extras for option in ("--extra", extra)]
    command += ["--python-version", PYTHON, "--python-platform", PLATFORM, "--no-annotate", "--no-header", *options]
    try:
        subprocess.run(command, cwd=ENVS.parent, check=True, stdout=subprocess.DEVNULL)
        return output.read_text()
    finally:
        output.unlink()


def packages(lock: str) -> dict[str, str]:
    """Name → its line in a lock."""
    lines = [line for line in lock.splitlines() if line and not line.startswith("#")]
    return {re.split("[=<>@ ]", line)[0]: line for line in lines}


def previous(name: str) -> str:
    """The lock as it is now; empty where there is none."""
    path = ENVS / f"{name}.txt"
    return path.read_text() if path.exists() else ""


def write(name: str, lock: str) -> None:
    """Write one lock, which says what it needs."""
    path = ENVS / f"{name}.txt"
    path.write_text(NEEDS.format(path=path.relative_to(ENVS.parent)) + lock)


def conda_file(name: str) -> str:
    """The conda environment of a lock. It names the lock's hash: Snakemake renews an environment whose file changes."""
    digest = hashlib.sha256((ENVS / f"{name}.txt").read_bytes()).hexdigest()
    return CONDA.format(name=name, digest=digest, python=PYTHON)


def deploy_script(name: str) -> str:
    """The script that installs a lock into the environment that conda made."""
    install = (ENVS / "install.sh").read_text().partition("set -euo pipefail\n")[2]
    return DEPLOY.format(name=name, lock=(ENVS / f"{name}.txt").read_text(), install=install)


def main() -> None:
    """Command line; see --help."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upgrade", action="store_true", help="take new versions where the present ones still fit")
    options = ["--upgrade"] if parser.parse_args().upgrade else []
    # The local version picks the CPU build; no index that uv knows has it, so it is named after resolving.
    cpu = compile_lock(["cpu"], previous("cpu").replace("+cpu", ""), *CPU_BUILDS, *options)
    cuda = compile_lock(["cuda"], previous("cuda"), *UNUSED, *options)
    # What tests add may change no version of a run, on either hardware.
    fixed = {**packages(cuda), **packages(cpu)}
    constraints = ENVS / "run-versions.txt"
    constraints.write_text("\n".join(fixed.values()))
    try:
        everything = compile_lock(
            ["cpu", "dev"],
            cpu + previous("dev"),
            *CPU_BUILDS,
            *DEVELOPMENT,
            "--constraints",
            str(constraints),
            *options,
        )
    finally:
        constraints.unlink()
    added = [line for name, line in packages(everything).items() if name not in packages(cpu)]
    write("cpu", cpu.replace(f"{TORCH}\n", f"{TORCH}+cpu\n"))
    write("cuda", cuda)
    write("dev", "".join(f"{line}\n" for line in added))
    for name in ("cpu", "cuda"):
        (ENVS / f"{name}.yaml").write_text(conda_file(name))
        (ENVS / f"{name}.post-deploy.sh").write_text(deploy_script(name))


if __name__ == "__main__":
    main()
