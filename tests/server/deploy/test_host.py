"""Commands on another machine, whose shell may print something of its own, and the ports of a tunnel."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from server.deploy import processes
from server.deploy.deploy import _kept_ports
from server.deploy.deployment import TUNNEL, DeployedServer, Deployment
from server.deploy.host import Host, HostError, Site

GREETING = """#!/bin/sh
echo 'Welcome to gpu!'
for last; do :; done
exec sh -c "$last"
"""


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A machine whose login shell greets everybody, here without a network."""
    program = tmp_path / "bin/ssh"
    program.parent.mkdir()
    program.write_text(GREETING)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    return Host("gpu")


def test_a_greeting_is_no_output_of_a_command(host: Host, tmp_path: Path) -> None:
    assert host.run("echo", "it's") == "it's\n"
    assert host.run("cat", content=b"a\nb") == "a\nb"
    assert host.run("true") == ""
    site = Site.claimed(host, str(tmp_path / "deployed"), "0123")
    assert (site.folder, site.status(), site.keeper_lives()) == (str(tmp_path / "deployed"), None, False)
    assert Site.claimed(host, str(tmp_path / "deployed"), "0123") == site
    with pytest.raises(HostError, match="belongs to a deployment from"):
        Site.claimed(host, str(tmp_path / "deployed"), "4567")
    with pytest.raises(HostError, match="exit status 3 of: exit 3"):
        host.run("exit 3")


@pytest.mark.parametrize("tunnel", [True, False])
def test_a_port_that_another_program_has_taken_is_not_kept(tmp_path: Path, tunnel: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as other:
        free = other.getsockname()[1]
        other.close()
        server = {"kind": "vllm", "socket": "/s", "hardware": "CPU"}
        servers = [
            DeployedServer(name=name, port=port, **server)
            for name, port in (("vllm-0", taken.getsockname()[1]), ("vllm-1", free))
        ]
        if tunnel:  # which listens there itself
            processes.write_own(tmp_path / TUNNEL)
        deployment = Deployment(id="1", host="gpu", ssh_config=None, model_identity="m", servers=servers)
        assert _kept_ports(deployment, tmp_path).keys() == ({"vllm-0", "vllm-1"} if tunnel else {"vllm-1"})
