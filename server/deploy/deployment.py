"""The record of what is deployed, kept where the workflow is started, and how a run follows it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from emoprobe.config.execution.deploy import Deploy
from emoprobe.config.experiment import Config
from emoprobe.config.files import Study
from emoprobe.results import atomic
from server.deploy.deployed_model import model_identity, pushed_to
from server.deploy.orders import Server

DEPLOYED = Path(".snakemake/emoprobe/deployed")
RECORD, KEY, TUNNEL, TUNNEL_LOG = "deployment.json", "key", "tunnel.process", "tunnel.log"


class DeployedServer(Server):
    """A server, and the port of the loopback interface here that leads to it."""

    port: int

    @property
    def url(self) -> str:
        """Its address here."""
        return f"http://127.0.0.1:{self.port}"


class Deployment(BaseModel):
    """What is deployed. `cluster` is SkyPilot's name of a rented machine, `price` its price an hour in US dollars.

    `folder` is the absolute path there; `servers` is empty until they stand; `push` is where they push activations.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    host: str
    ssh_config: str | None
    folder: str | None = None
    cluster: str | None = None
    price: float | None = None
    model_identity: str
    servers: list[DeployedServer] = []
    push: str | None = None

    @classmethod
    def read(cls, place: Path) -> Deployment | None:
        """The deployment that is recorded in a folder; None where there is none."""
        try:
            return cls.model_validate_json((place / RECORD).read_bytes())
        except (OSError, ValidationError):
            return None

    def write(self, place: Path) -> None:
        """Record it in a folder, which nobody else may enter."""
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        atomic.write_text(place / RECORD, self.model_dump_json(indent=2) + "\n")


def place_of(deploy: Deploy, root: Path = DEPLOYED) -> Path:
    """The folder of the record of what a section `deploy` asks for: a folder on a machine has one deployment."""
    about = f"{deploy.backend} {deploy.host} {deploy.folder}"
    return root / hashlib.sha256(about.encode()).hexdigest()[:12]


def followed(config: Config, root: Path = DEPLOYED) -> Config:
    """An experiment's config with the servers that are deployed for it as endpoints.

    Activations come through object storage where the servers push there, else they are fetched. A config that deploys
    nothing, names endpoints of its own, or has nothing deployed that serves it, stays as it is.
    """
    named = config.workers.endpoints or config.workers.capture_endpoints
    if config.deploy.backend is None or named:
        return config
    place = place_of(config.deploy, root)
    found = Deployment.read(place)
    if found is None or found.model_identity != model_identity(config):
        return config
    urls = {kind: [server.url for server in found.servers if server.kind == kind] for kind in config.server_kinds}
    pushes = found.push is not None and found.push == pushed_to(config)
    if not all(urls.values()) or (config.workers.capture_files == "push" and not pushes):
        return config
    update = {
        "endpoints": urls.get("vllm", []),
        "capture_endpoints": urls.get("nnsight", []),
        "api_key_file": str((place / KEY).absolute()),
        "capture_files": "push" if pushes else "fetch",
        "hardware": {server.url: server.hardware for server in found.servers},
    }
    return config.model_copy(update={"workers": config.workers.model_copy(update=update)})


def follow(study: Study, root: Path = DEPLOYED) -> Study:
    """A plan whose experiments use what is deployed for them, see `followed`."""
    return Study(study.name, {name: followed(config, root) for name, config in study.configs.items()})
