"""Keys of servers: taken from the environment, used, and told to nobody."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from emoprobe.config.files import parse_config
from server.pool.launch import Share, command, environment
from tests.conftest import PATIENCE, StubServer
from tests.workflow.pool import end_pool
from tests.workspace import ROOT, Workspace, wait_for

KEY = "sk-an-endpoints-own-secret"


def command_lines() -> str:
    """What a list of all processes shows, except for the stub, which a test starts with its key."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return "\n".join(line for line in found if "stub_server" not in line)


def test_the_key_of_an_endpoint_is_nowhere_to_be_read(
    stub: Callable[..., StubServer], workspace: Callable[..., Workspace]
) -> None:
    server = stub(0.5, KEY)
    run = workspace(server, workers={"api_key_env": "SOME_KEY", "log_level": "debug"})
    os.environ["SOME_KEY"] = KEY
    try:
        process = run.start()
        wait_for(lambda: len(server.requests()) > 0, PATIENCE, "a request")
        assert KEY not in command_lines()
        assert process.wait(PATIENCE) == 0
    finally:
        del os.environ["SOME_KEY"]
        end_pool(run.config)
    assert len(run.trajectories()) == 12
    for path in run.folder.rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes(), path


def test_a_wrong_key_is_told_without_the_key(
    stub: Callable[..., StubServer], workspace: Callable[..., Workspace]
) -> None:
    run = workspace(stub(0.0, KEY), workers={"api_key_env": "SOME_KEY", "start_timeout": 3.0})
    output = run.run(ok=False, env={"SOME_KEY": "sk-wrong"})
    assert "is the key right?" in output
    assert "sk-wrong" not in output


def test_a_key_in_the_wrong_place_is_written_nowhere(tmp_path: Path) -> None:
    secret = "hunter2-0a1b2c3d"
    config: dict[str, dict[str, Any]] = {
        "workers": {
            "api_key_env": secret,
            "endpoints": [f"http://me:{secret}@host/v1"],
            "capture_endpoints": [f"http://host/v1?key={secret}"],
            "hardware": {f"http://me:{secret}@host/v1": "GPU"},
        },
        "storage": {"url": f"s3://me:{secret}@bucket/x"},
        "deploy": {"host": f"me:{secret}@gpu", "environment": [f"HF_TOKEN={secret}"]},
        "generation": {"engine": {"extra_args": [f"--hf-token={secret}"]}},
    }
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(config))
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "-s",
        str(ROOT / "Snakefile"),
        "--configfile",
        path.name,
        "--cores",
        "1",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1
    for section, keys in config.items():
        assert all(f"{section}.{key}" in done.stderr for key in keys)
    assert secret not in done.stdout + done.stderr
    for written in tmp_path.rglob("*"):
        assert written == path or not written.is_file() or secret.encode() not in written.read_bytes(), written


def test_servers_of_the_pool_listen_here_alone_and_have_their_key_in_the_environment() -> None:
    config, share = parse_config({}), Share([0], [])
    for kind in ("vllm", "nnsight"):
        line: list[Any] = command(kind, config, "/model", "name", share, 8000, Path("/results"))  # type: ignore[arg-type]
        assert line[line.index("--host") + 1] == "127.0.0.1"
        assert "--api-key" not in line
        assert "--trust-remote-code" not in line
    assert environment(config, share, KEY)["VLLM_API_KEY"] == KEY
    assert environment(config, share, KEY)["EMOPROBE_API_KEY"] == KEY
