"""Deploy the servers of a study, follow their logs, and take them away again."""

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
from emoprobe.models.directory import directory_sha256
from emoprobe.models.hardware import QUERY, parse_gpus
from emoprobe.results.layout import MODELS
from server.deploy import processes, skypilot
from server.deploy.deployment import (
    DEPLOYED,
    KEY,
    TUNNEL,
    TUNNEL_LOG,
    DeployedModel,
    DeployedServer,
    Deployment,
    Order,
    Server,
    Status,
    model_identity,
    place_of,
)
from server.deploy.host import SENT, Host, HostError, Site, TakenError, digest, model_folder
from server.pool.fleets import PER_BATCH
from server.pool.launch import CODE, free_port

TUNNEL_SECONDS = 120.0

AGAIN_SECONDS = 5.0


def deploy(model: DeployedModel, root: Path = DEPLOYED, out: TextIO = sys.stderr) -> Deployment:
    """Have the servers of a plan stand on another machine, and a tunnel lead to them; what stands already stays.

    Args:
        model: the servers of a study, and their machine.
        root: the folder of the records.
        out: where to say what is going on.

    Raises:
        HostError: it could not be done; `undeploy` removes what was.
        ConfigError: a variable that is to be handed on is not set.
    """
    settings, place = model.deploy, place_of(model.deploy, root)
    environment = _environment(model)
    known = Deployment.read(place)
    deployment = _rented(model, place, known, out) if settings.backend == "skypilot" else _logged_in(settings, known)
    host = Host(deployment.host, deployment.ssh_config)
    _check_gpus(settings, host, out)
    deployment.write(place)  # whose the folder is, should the connection break while it is claimed
    try:
        site = Site.claimed(host, settings.folder, deployment.id)
    except TakenError:
        if known is None and deployment.cluster is None:
            shutil.rmtree(place)
        raise
    identity = model_identity(model.config)
    ports = _kept_ports(deployment, place)
    # No run follows to servers of another model, or that push elsewhere, while these go and come.
    servers = deployment.servers if (deployment.model_identity, deployment.push) == (identity, model.push) else []
    deployment = deployment.model_copy(update={"folder": site.folder, "model_identity": identity, "servers": servers})
    deployment.write(place)
    status = _standing(model, site, place, environment, out)
    deployment = deployment.model_copy(update={"servers": _with_ports(status, ports), "push": model.push})
    if deployment != known:
        processes.end(place / TUNNEL)
        deployment.write(place)
    _open_tunnel(place)
    _wait_for_answers(deployment, place)
    for server in deployment.servers:
        print(f"  {server.name} at {server.url}, on {server.hardware}", file=out)
    return deployment


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
    deployment = Deployment.read(place)
    if deployment is None:
        return "nothing is deployed from here"
    processes.end(place / TUNNEL)
    done = f"{deployment.host}: the servers are gone"
    try:
        if deployment.cluster is not None:
            skypilot.down(deployment.cluster)
        else:
            folder = deployment.folder or settings.folder  # the latter where nobody knows whether it was claimed
            Site(Host(deployment.host, deployment.ssh_config), folder, deployment.id).remove(keep)
    except HostError as error:
        if not forget:
            raise
        done = f"{error}\n{deployment.host} is forgotten; what it has is still there"
    shutil.rmtree(place)
    with contextlib.suppress(OSError):
        place.parent.rmdir()
    return done


def monitor(settings: Deploy, root: Path = DEPLOYED, *, lines: int = 20, once: bool = False) -> None:
    """Print the end of the logs of keeper and servers, then what is added to them, until interrupted.

    Args:
        settings: the section `deploy`.
        root: the folder of the records.
        lines: how many lines of each log to begin with.
        once: end after these.

    Raises:
        HostError: nothing is deployed.
    """
    deployment = Deployment.read(place_of(settings, root))
    if deployment is None or deployment.folder is None:
        raise HostError("nothing is deployed from here: run make deploy")
    host = Host(deployment.host, deployment.ssh_config)
    while True:
        # By name, as a server that is started again goes on in the same file.
        follow = "" if once else "-F"
        command = f"cd {shlex.quote(f'{deployment.folder}/logs')} && exec tail -n {lines} {follow} *.log"
        # With a terminal there, tail ends when this end goes away.
        done = subprocess.run([*host.ssh("-T" if once else "-tt"), f"exec sh -c {shlex.quote(command)}"])
        if once or done.returncode != 255:
            return
        lines = 0
        time.sleep(AGAIN_SECONDS)


def _logged_in(settings: Deploy, known: Deployment | None) -> Deployment:
    """The deployment on a machine that one can log in to."""
    host = Host.of(settings)
    where = {"host": host.name, "ssh_config": host.ssh_config}
    return known.model_copy(update=where) if known else Deployment(id=secrets.token_hex(8), model_identity="", **where)


def _rented(model: DeployedModel, place: Path, known: Deployment | None, out: TextIO) -> Deployment:
    """The deployment on a machine that SkyPilot rents; it is recorded before it costs anything."""
    number = secrets.token_hex(8)
    name = f"emoprobe-{number}"
    deployment = known or Deployment(id=number, host=name, ssh_config=None, cluster=name, model_identity="")
    deployment.write(place)
    assert deployment.cluster is not None
    print(f"SkyPilot rents {deployment.cluster}: at most ${model.deploy.max_price:g} an hour", file=out)
    price = skypilot.launch(deployment.cluster, model.deploy, model.gpus, place)
    print(f"  {deployment.cluster} costs ${price:.2f} an hour", file=out)
    return deployment.model_copy(update={"price": price})


def _check_gpus(settings: Deploy, host: Host, out: TextIO) -> None:
    """Compare the machine's GPUs with `deploy.min_vram`, and print once what some of them lack."""
    gpus = parse_gpus(host.run(f"{shlex.join(QUERY)} 2>/dev/null || true"))
    if settings.min_vram is not None and (not gpus or min(gpu.memory_gb for gpu in gpus) < settings.min_vram):
        has = ", ".join(f"{gpu.name} with {gpu.memory_gb:g} GB" for gpu in gpus) or "no NVIDIA GPU"
        raise HostError(f"{host.name} has {has}; deploy.min_vram asks for {settings.min_vram} GB")
    for gpu in dict.fromkeys(str(gpu) for gpu in gpus if not gpu.batch_invariant):
        print(PER_BATCH % gpu, file=out)


def _environment(model: DeployedModel) -> dict[str, str]:
    """The variables that are handed to the machine: those of `deploy.environment`, and what a push needs there.

    Raises:
        ConfigError: one is not set here.
    """
    names = model.deploy.environment
    missing = [name for name in names if name not in os.environ]
    if missing:
        raise ConfigError([f"deploy.environment: {', '.join(missing)} is not set here, so it cannot be handed on"])
    environment = {name: os.environ[name] for name in names}
    if model.push is not None:
        from emoprobe.storage.bucket import portable_credentials

        environment |= portable_credentials(model.push)
    return environment


def _standing(model: DeployedModel, site: Site, place: Path, environment: dict[str, str], out: TextIO) -> Status:
    """Return the status of the servers, started anew unless the same order runs already."""
    order, host = _order(model, site, environment), site.host
    status = site.status()
    stands = status is not None and status.digest == order.digest and status.ended is None and site.keeper_lives()
    if stands and (place / KEY).exists():
        print(f"{host.name}: the servers stand already", file=out)
    else:
        site.end_keeper()
        print(f"{host.name}: sends the code", file=out)
        site.send_code()
        python = model.deploy.python
        if python is None:
            print(f"{host.name}: installs the environment, which takes minutes the first time", file=out)
            python = site.install()
        source = model.config.model.source
        if is_local(source):
            print(f"{host.name}: sends the model {source}", file=out)
            site.send_model(Path(source).expanduser(), model_folder(source))
        key = secrets.token_urlsafe(32)
        _write_private(place / KEY, key)
        if model.push is not None:
            handed = ", ".join(environment) or "what it has itself"
            print(f"{host.name}: its servers push activations to {model.push}, with {handed}", file=out)
        print(f"{host.name}: starts {' and '.join(model.kinds)}", file=out)
        site.start(order, key, environment, python)
    status = site.wait(order, out)
    _check_model(model.config, status)
    return status


def _order(model: DeployedModel, site: Site, environment: dict[str, str]) -> Order:
    """The order for the keeper: the first experiment, as that machine sees it."""
    config = model.config
    source = config.model.source
    if is_local(source):
        source = f"{site.folder}/models/{model_folder(source)}"
    # Endpoints and their keys are of this side, and a port that is free here need not be there.
    local = {"endpoints", "capture_endpoints", "hardware", "api_key_env", "api_key_file", "capture_files", "port"}
    workers = Workers(**config.workers.model_dump(exclude=local) | {"model_name": model.model_name})
    remote = config.model.model_copy(update={"source": source})
    values = config.model_copy(update={"model": remote, "workers": workers, "deploy": Deploy()}).resolved()
    # With the variables' values, so that credentials that were renewed get there. Only that machine is told the hash.
    about = json.dumps(
        [values, model.kinds, model.push, model.deploy.model_dump(mode="json"), environment, digest(CODE, SENT)]
    )
    return Order(
        digest=hashlib.sha256(about.encode()).hexdigest()[:16],
        config=values,
        kinds=list(model.kinds),
        push=model.push,
        idle_minutes=model.deploy.idle_minutes,
    )


def _check_model(config: Config, status: Status) -> None:
    """Compare the model there with the one here, where one lies here."""
    here = models.local_directory(config.model, MODELS)
    if here is not None and directory_sha256(here) != status.model_sha256:
        raise HostError(
            f"the model {config.model.source} there (sha256 {status.model_sha256}) is not the one in {here}; was the "
            "same lock installed?"
        )


def _kept_ports(deployment: Deployment, place: Path) -> dict[str, int]:
    """The port here of each server, but for those that another program has taken since the tunnel ended."""
    tunnel = processes.Process.read(place / TUNNEL)
    held = tunnel is not None and tunnel.lives
    return {server.name: server.port for server in deployment.servers if held or free_port(server.port) == server.port}


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


def _wait_for_answers(deployment: Deployment, place: Path) -> None:
    """Wait until every server answers through the tunnel.

    Raises:
        HostError: one does not.
    """
    headers = {"Authorization": f"Bearer {(place / KEY).read_text(encoding='utf-8')}"}
    deadline = time.monotonic() + TUNNEL_SECONDS
    with httpx.Client(trust_env=False, timeout=5.0, headers=headers) as client:
        for server in deployment.servers:
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
