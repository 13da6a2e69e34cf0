"""Deploy the servers of a plan, and take them away again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TextIO

import httpx

from emoprobe.config.errors import ConfigError
from emoprobe.config.execution.deploy import Deploy
from emoprobe.config.execution.workers import Workers
from emoprobe.config.experiment import Config
from emoprobe.config.section import is_local
from emoprobe.models import source as models
from emoprobe.models.hardware import QUERY, parse_gpus
from emoprobe.results.layout import MODELS
from server.deploy import processes, skypilot
from server.deploy.deployed_model import DeployedModel, model_identity
from server.deploy.deployment import DEPLOYED, KEY, TUNNEL, TUNNEL_LOG, DeployedServer, Deployment, place_of
from server.deploy.host import Host, HostError, digest
from server.deploy.orders import Order, Server, Status
from server.deploy.site import SENT, Site, model_folder
from server.pool.fleets import PER_BATCH
from server.pool.launch import CODE, free_port

TUNNEL_SECONDS = 120.0


def deploy(wanted: DeployedModel, root: Path = DEPLOYED, out: TextIO = sys.stderr) -> Deployment:
    """Have the servers of a plan stand on another machine, and a tunnel lead to them; what stands already stays.

    Args:
        wanted: which servers, and where.
        root: the folder of the records.
        out: where to say what is going on.

    Raises:
        HostError: it could not be done; `undeploy` removes what was.
        ConfigError: a variable that is to be handed on is not set.
    """
    settings, place = wanted.deploy, place_of(wanted.deploy, root)
    environment = _environment(wanted)
    known = Deployment.read(place)
    found = _rented(wanted, place, known, out) if settings.backend == "skypilot" else _logged_in(settings, known)
    host = Host(found.host, found.ssh_config)
    _check_gpus(settings, host, out)
    site = Site.claimed(host, settings.folder, found.id)
    identity = model_identity(wanted.config)
    ports = {server.name: server.port for server in found.servers}
    # No run follows to servers of another model, or that push elsewhere, while these go and come.
    servers = found.servers if (found.model_identity, found.push) == (identity, wanted.push) else []
    found = found.model_copy(update={"folder": site.folder, "model_identity": identity, "servers": servers})
    found.write(place)
    status = _standing(wanted, site, place, environment, out)
    found = found.model_copy(update={"servers": _with_ports(status, ports), "push": wanted.push})
    if found != known:
        processes.end(place / TUNNEL)
        found.write(place)
    _open_tunnel(place)
    _wait_for_answers(found, place)
    for server in found.servers:
        print(f"  {server.name} at {server.url}, on {server.hardware}", file=out)
    return found


def undeploy(settings: Deploy, root: Path = DEPLOYED, *, keep: bool = False, forget: bool = False) -> str:
    """End tunnel and servers and remove what was put on the machine; a rented one is given back.

    Args:
        settings: the section `deploy`.
        root: the folder of the records.
        keep: leave code, environment and models on the machine, for the next time.
        forget: remove the record even where the machine cannot be reached.

    Returns:
        What was done, in a line.

    Raises:
        HostError: the machine could not be reached; the record stays, for another try.
    """
    place = place_of(settings, root)
    found = Deployment.read(place)
    if found is None:
        return "nothing is deployed from here"
    processes.end(place / TUNNEL)
    done = f"{found.host}: the servers are gone"
    try:
        if found.cluster is not None:
            skypilot.down(found.cluster)
        elif found.folder is not None:
            Site(Host(found.host, found.ssh_config), found.folder, found.id).remove(keep)
    except HostError as error:
        if not forget:
            raise
        done = f"{error}\n{found.host} is forgotten; what it has is still there"
    shutil.rmtree(place)
    with contextlib.suppress(OSError):
        place.parent.rmdir()
    return done


def _logged_in(settings: Deploy, known: Deployment | None) -> Deployment:
    """The deployment on a machine that one can log in to."""
    host = Host.of(settings)
    where = {"host": host.name, "ssh_config": host.ssh_config}
    return known.model_copy(update=where) if known else Deployment(id=secrets.token_hex(8), model_identity="", **where)


def _rented(wanted: DeployedModel, place: Path, known: Deployment | None, out: TextIO) -> Deployment:
    """The deployment on a machine that SkyPilot rents; it is recorded before it costs anything."""
    number = secrets.token_hex(8)
    name = f"emoprobe-{number}"
    found = known or Deployment(id=number, host=name, ssh_config=None, cluster=name, model_identity="")
    found.write(place)
    assert found.cluster is not None
    print(f"SkyPilot rents {found.cluster}: at most ${wanted.deploy.max_price:g} an hour", file=out)
    price = skypilot.launch(found.cluster, wanted.deploy, wanted.gpus, place)
    print(f"  {found.cluster} costs ${price:.2f} an hour", file=out)
    return found.model_copy(update={"price": price})


def _check_gpus(settings: Deploy, host: Host, out: TextIO) -> None:
    """Compare the machine's GPUs with what is wanted, and tell once what some of them lack."""
    gpus = parse_gpus(host.run(f"{shlex.join(QUERY)} 2>/dev/null || true"))
    if settings.min_vram is not None and (not gpus or min(gpu.memory_gb for gpu in gpus) < settings.min_vram):
        has = ", ".join(f"{gpu.name} with {gpu.memory_gb:g} GB" for gpu in gpus) or "no NVIDIA GPU"
        raise HostError(f"{host.name} has {has}; deploy.min_vram asks for {settings.min_vram} GB")
    for gpu in dict.fromkeys(str(gpu) for gpu in gpus if not gpu.batch_invariant):
        print(PER_BATCH % gpu, file=out)


def _environment(wanted: DeployedModel) -> dict[str, str]:
    """The variables that are handed to the machine: those of `deploy.environment`, and what a push needs there.

    Raises:
        ConfigError: one is not set here.
    """
    names = wanted.deploy.environment
    missing = [name for name in names if name not in os.environ]
    if missing:
        raise ConfigError([f"deploy.environment: {', '.join(missing)} is not set here, so it cannot be handed on"])
    found = {name: os.environ[name] for name in names}
    if wanted.push is not None:
        from emoprobe.storage.bucket import portable_credentials

        found |= portable_credentials(wanted.push)
    return found


def _standing(wanted: DeployedModel, site: Site, place: Path, environment: dict[str, str], out: TextIO) -> Status:
    """What stands on the machine, once it is what is wanted."""
    order, host = _order(wanted, site, environment), site.host
    status = site.status()
    stands = status is not None and status.digest == order.digest and status.ended is None and site.keeper_lives()
    if stands and (place / KEY).exists():
        print(f"{host.name}: the servers stand already", file=out)
    else:
        site.end_keeper()
        print(f"{host.name}: sends the code", file=out)
        site.send_code()
        python = wanted.deploy.python
        if python is None:
            print(f"{host.name}: installs the environment, which takes minutes the first time", file=out)
            python = site.install()
        source = wanted.config.model.source
        if is_local(source):
            print(f"{host.name}: sends the model {source}", file=out)
            site.send_model(Path(source).expanduser(), model_folder(source))
        key = secrets.token_urlsafe(32)
        _write_private(place / KEY, key)
        if wanted.push is not None:
            handed = ", ".join(environment) or "what it has itself"
            print(f"{host.name}: its servers push activations to {wanted.push}, with {handed}", file=out)
        print(f"{host.name}: starts {' and '.join(wanted.kinds)}", file=out)
        site.start(order, key, environment, python)
    status = site.wait(order, out)
    _check_model(wanted.config, status)
    return status


def _order(wanted: DeployedModel, site: Site, environment: dict[str, str]) -> Order:
    """The order for the keeper: the first experiment, as that machine sees it."""
    config = wanted.config
    source = config.model.source
    if is_local(source):
        source = f"{site.folder}/models/{model_folder(source)}"
    # Endpoints and their keys are of this side, and a port that is free here need not be there.
    others = {"endpoints", "capture_endpoints", "hardware", "api_key_env", "api_key_file", "capture_files", "port"}
    workers = Workers(**config.workers.model_dump(exclude=others) | {"model_name": wanted.model_name})
    model = config.model.model_copy(update={"source": source})
    values = config.model_copy(update={"model": model, "workers": workers, "deploy": Deploy()}).resolved()
    # With the variables' values, so that credentials that were renewed get there. Only that machine is told the hash.
    about = json.dumps(
        [values, wanted.kinds, wanted.push, wanted.deploy.model_dump(mode="json"), environment, digest(CODE, SENT)]
    )
    return Order(
        digest=hashlib.sha256(about.encode()).hexdigest()[:16],
        config=values,
        kinds=list(wanted.kinds),
        push=wanted.push,
        idle_minutes=wanted.deploy.idle_minutes,
    )


def _check_model(config: Config, status: Status) -> None:
    """Compare the model there with the one here, where one lies here."""
    here = models.local_directory(config.model, MODELS)
    if here is not None and models.directory_sha256(here) != status.model_sha256:
        raise HostError(
            f"the model {config.model.source} there (sha256 {status.model_sha256}) is not the one in {here}; was the "
            "same lock installed?"
        )


def _with_ports(status: Status, ports: dict[str, int]) -> list[DeployedServer]:
    """The servers, each with a port here: the one that it has had, or a free one."""
    return [
        DeployedServer(
            port=ports.get(server.name) or free_port(0), **server.model_dump(include=set(Server.model_fields))
        )
        for server in status.servers
    ]


def _open_tunnel(place: Path) -> None:
    """Start the tunnel where it does not run; it outlives this process and its terminal."""
    process = processes.Process.read(place / TUNNEL)
    if process is not None and process.lives:
        return
    with open(place / TUNNEL_LOG, "ab") as log:
        subprocess.Popen(
            [sys.executable, "-m", "server.deploy.tunnel", str(place.absolute())],
            cwd="/",
            env={**os.environ, "PYTHONPATH": str(CODE)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _wait_for_answers(found: Deployment, place: Path) -> None:
    """Wait until every server answers through the tunnel.

    Raises:
        HostError: one does not.
    """
    headers = {"Authorization": f"Bearer {(place / KEY).read_text(encoding='utf-8')}"}
    deadline = time.monotonic() + TUNNEL_SECONDS
    with httpx.Client(trust_env=False, timeout=5.0, headers=headers) as client:
        for server in found.servers:
            answered = False
            while not answered:
                with contextlib.suppress(httpx.HTTPError):
                    answered = client.get(f"{server.url}/v1/models").status_code == 200
                if not answered and time.monotonic() > deadline:
                    tail = (place / TUNNEL_LOG).read_text(errors="replace")[-1500:]
                    raise HostError(f"{server.name} does not answer through the tunnel; the end of its log:\n{tail}")
                time.sleep(0.0 if answered else 0.2)


def _write_private(path: Path, content: str) -> None:
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(content)
