"""Commands on another machine, whose shell may print something of its own, and the ports of a tunnel."""

from __future__ import annotations

import io
import socket
from pathlib import Path

import pytest

from emoprobe.config.files import parse_config
from server.deploy import deploy, processes
from server.deploy.deployment import TUNNEL, DeployedModel, DeployedServer, Deployment
from server.deploy.host import MARK, Host, HostError, Site

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


@pytest.mark.parametrize("again", [True, False])
def test_a_connection_that_breaks_while_the_folder_is_claimed_locks_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    program, broken, folder = tmp_path / "bin/ssh", tmp_path / "broken", tmp_path / "deployed"
    program.parent.mkdir()
    program.write_text(f"{GREETING.replace('exec sh', 'sh')}[ ! -e {folder}/{MARK} ] || [ -e {broken} ] || exit 255\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    config = parse_config({"deploy": {"backend": "ssh", "host": "gpu", "folder": str(folder)}})
    model, root, out = DeployedModel(config, ("vllm",)), tmp_path / "records", io.StringIO()
    with pytest.raises(HostError, match="cannot be reached"):
        deploy.deploy(model, root, out)
    broken.touch()  # the connection is whole from here on
    assert (folder / MARK).exists()
    if again:
        monkeypatch.setattr(deploy, "_standing", lambda *_: (_ for _ in ()).throw(HostError("it went on")))
        with pytest.raises(HostError, match="it went on"):
            deploy.deploy(model, root, out)
    assert deploy.undeploy(config.deploy, root) == "gpu: the servers are gone"
    assert not folder.exists()
    assert deploy.undeploy(config.deploy, root) == "nothing is deployed from here"


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
        assert deploy._kept_ports(deployment, tmp_path).keys() == ({"vllm-0", "vllm-1"} if tunnel else {"vllm-1"})
