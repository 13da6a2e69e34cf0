"""An experiment in a folder of its own, run by the real `snakemake` command."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
import yaml
from safetensors.numpy import save_file

from emoprobe.results.layout import Layout
from emoprobe.workflow.remembered import CHECKS, REMEMBERED
from tests.copies.copy import Copy, Order, begin, has_template, launch

ROOT = Path(__file__).parents[1]
# Answers of the checks before a run. They are about a model and its settings, so one folder's are those of every other;
# each takes seconds to import PyTorch.
KNOWN_CHECKS: dict[str, list[str]] = {}
# Tokens of a model for stub servers: enough that prompts are about as long as the embedded model's.
SHORT_VOCABULARY = 4096
Process = subprocess.Popen[str] | subprocess.Popen[bytes] | Copy


@dataclass
class Workspace:
    """A folder with a config; `config` is written before each run.

    `code` is the folder of the Snakefile, `profile` one of its profiles, `python` the interpreter that has Snakemake.
    With `copied` the command and what it starts are copies of a process that has imported the code; see `tests.copies`.
    """

    folder: Path
    config: dict[str, Any]
    code: Path = ROOT
    profile: str = "default"
    python: str = sys.executable
    copied: bool = field(default_factory=has_template)

    @property
    def layout(self) -> Layout:
        """Where its files lie."""
        return Layout.of(self.config["experiment"]["name"], self.folder / "results")

    def write_config(self) -> Path:
        """Write the config; return its path."""
        path = self.folder / "config.yaml"
        path.write_text(yaml.safe_dump(self.config, sort_keys=False))
        return path

    def command(self, *arguments: str) -> list[str]:
        """The command line of a run."""
        command = [self.python, "-m", "snakemake", "--snakefile", str(self.code / "Snakefile")]
        command += ["--workflow-profile", str(self.code / "profiles" / self.profile)]
        command += ["--configfile", str(self.write_config())]
        return [*command, "--directory", str(self.folder), *arguments]

    def run(self, *arguments: str, ok: bool = True, env: dict[str, str] | None = None) -> str:
        """Run snakemake to its end; return what it printed."""
        done = self.finish(*arguments, env=env)
        output = done.stdout + done.stderr
        assert (done.returncode == 0) is ok, f"exit status {done.returncode}\n{output[-6000:]}"
        return output

    def finish(self, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run snakemake to its end, whatever that is."""
        command = self.command(*arguments)
        done = _finish(lambda output, errors: self._begin(command, output, errors, {**os.environ, **(env or {})}))
        checks = self.folder / CHECKS / REMEMBERED
        if checks.exists():
            KNOWN_CHECKS.update(json.loads(checks.read_text()))
        return done

    def start(self, *arguments: str) -> Process:
        """Start snakemake and return at once; it runs in a session of its own."""
        with open(self.folder / "snakemake.out", "w") as log:
            return self._begin(self.command(*arguments), log, log, dict(os.environ), session=True)

    def _begin(
        self, command: list[str], output: IO[str], errors: IO[str], env: dict[str, str], *, session: bool = False
    ) -> Process:
        checks = self.folder / CHECKS / REMEMBERED
        if KNOWN_CHECKS and not checks.exists():
            checks.parent.mkdir(parents=True, exist_ok=True)
            checks.write_text(json.dumps(KNOWN_CHECKS))
        if self.copied and self.python == sys.executable:
            code = None if self.code == ROOT else str(self.code)
            return begin(Order(command[2], command[3:], str(self.folder), env, session, code=code), output, errors)
        return subprocess.Popen(
            command, stdout=output, stderr=errors, cwd=self.folder, env=env, text=True, start_new_session=session
        )

    def planned(self, *arguments: str) -> dict[str, int]:
        """How many jobs of each rule a dry run plans; empty where there is nothing to be done."""
        return jobs_in(self.run("-n", *arguments))

    def trajectories(self) -> dict[str, bytes]:
        """Every trajectory there is, by its path below the experiment."""
        root = self.layout.root
        return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.glob("*/*/trajectory.jsonl"))}

    def copy_without_captures(self, other: Workspace) -> None:
        """Give its trajectories to another experiment, as if they had been generated there.

        Their captures can then be made by replay, with `--rerun-triggers mtime`.
        """
        shutil.copytree(self.folder / "results", other.folder / "results")
        shutil.rmtree(other.layout.root / "activations")
        other.run("--touch", "--until", "prepare_model", "prepare_sample", "generate")

    def json(self, *parts: str) -> Any:
        """A JSON file of the experiment."""
        return json.loads(self.layout.root.joinpath(*parts).read_text())


def without_weights(model: Path, folder: Path) -> Path:
    """Copy a model with next to no weights and its first tokens alone into a folder, for stub servers.

    A run reads all weights for their hash, and loads the tokenizer in several of its processes.
    """
    for path in model.iterdir():
        if path.suffix != ".safetensors":
            shutil.copy(path, folder)
    save_file({"model.norm.weight": np.ones(576, np.float32)}, folder / "model.safetensors")
    values = json.loads((folder / "tokenizer.json").read_text())
    vocabulary, merges = values["model"]["vocab"], values["model"]["merges"]
    merged = SHORT_VOCABULARY - (len(vocabulary) - len(merges))  # the others are bytes and special tokens
    values["model"]["vocab"] = {token: number for token, number in vocabulary.items() if number < SHORT_VOCABULARY}
    values["model"]["merges"] = merges[:merged]
    (folder / "tokenizer.json").write_text(json.dumps(values, ensure_ascii=False))
    return folder


def jobs_in(output: str) -> dict[str, int]:
    """How many jobs of each rule a run has announced."""
    table = re.search(r"^job +count\n-+ +-+\n(.*?)^total", output, re.MULTILINE | re.DOTALL)
    assert table or "Nothing to be done" in output, output
    rows = re.findall(r"^(\w+) +(\d+)$", table[1], re.MULTILINE) if table else []
    return {name: int(count) for name, count in rows if name != "all"}


def copy_of_code(place: Path) -> Path:
    """Copy all that a run needs, to be changed."""
    for name in ("rules", "emoprobe", "server", "scripts", "profiles", "envs", "config"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Snakefile", place)
    return place


def finish(order: Order) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as a copy where there is a template."""
    return _finish(lambda output, errors: launch(order, output, errors))


def _finish(start: Callable[[IO[str], IO[str]], Process]) -> subprocess.CompletedProcess[str]:
    with TemporaryFile("w+") as output, TemporaryFile("w+") as errors:
        process = start(output, errors)
        try:
            status = process.wait(580)
        finally:
            process.kill()
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess([], status, output.read(), errors.read())


def wait_for(condition: Any, seconds: float = 300.0, what: str = "the condition") -> None:
    """Wait until a condition holds.

    Raises:
        TimeoutError: it did not come to hold.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come to hold within {seconds} s")
        time.sleep(0.05)


def processes_of(folder: Path) -> list[str]:
    """The command lines of all processes that know of a folder, by argument or working directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            environment = (entry / "environ").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(folder) in command or f"PWD={folder}" in environment or f"EMOPROBE_TEST={folder}" in environment:
            found.append(f"{entry.name}: {command}")
    return found
