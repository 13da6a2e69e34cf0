"""Deployments: the servers of a study, the order to the keeper and its status, the record that a run follows."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from emoprobe.config.errors import ConfigError
from emoprobe.config.execution.deploy import Deploy
from emoprobe.config.experiment import Config
from emoprobe.config.files import Study
from emoprobe.models import source as models
from emoprobe.results import atomic
from server.pool.launch import Kind, tensor_parallel

ORDER, STATUS, KEY, ENVIRONMENT, PROCESS = "order.json", "status.json", "key", "environment.json", "keeper.process"


class Order(BaseModel):
    """The order to the keeper: which servers shall stand, and where they push activations. `digest` stands for all."""

    model_config = ConfigDict(frozen=True)

    digest: str
    config: dict[str, Any]
    kinds: list[str]
    push: str | None
    idle_minutes: float | None


class Server(BaseModel):
    """A server that is deployed: its kind, the socket there that leads to it, and what it runs on."""

    model_config = ConfigDict(frozen=True)

    name: str
    kind: str
    socket: str
    hardware: str


class ServerStatus(Server):
    """State of a server, with a description of its activity."""

    state: str
    phase: str
    error: str | None
    restarts: int


class Status(BaseModel):
    """State of the keeper. `ended` is the reason why its servers ended, `model_sha256` identifies their model."""

    model_config = ConfigDict(frozen=True)

    digest: str
    phase: str
    model_sha256: str | None = None
    servers: list[ServerStatus] = []
    ended: str | None = None

    def write(self, folder: Path) -> None:
        """Write it into the keeper's folder."""
        atomic.write_text(folder / STATUS, self.model_dump_json(indent=2) + "\n")


@dataclass(frozen=True)
class DeployedModel:
    """The first experiment stands for all; every other needs the same model, set up in the same way.

    `push` is where in object storage the servers push activations.
    """

    config: Config
    kinds: tuple[Kind, ...]
    push: str | None = None

    @classmethod
    def of(cls, study: Study) -> DeployedModel:
        """Combine the experiments of a plan.

        Raises:
            ConfigError: nothing is to be deployed, or not the same for all.
        """
        configs = list(study.configs.values())
        first = configs[0]
        if any(config.deploy != first.deploy for config in configs):
            raise ConfigError(["deploy: differs between the experiments of the study; keep it in `base` or `patch`"])
        if first.deploy.backend is None:
            raise ConfigError(["deploy.backend: is null, so nothing is to be deployed; set ssh or skypilot"])
        if len({model_identity(config) for config in configs}) > 1:
            raise ConfigError(
                [
                    "deploy: a deployment serves one model, and the experiments of the study name several (model, "
                    "generation.engine, workers.model_name, conversation.tool_parser); deploy and run them one after "
                    "the other"
                ]
            )
        places = list(dict.fromkeys(place for config in configs if (place := pushed_to(config)) is not None))
        if len(places) > 1:
            raise ConfigError(
                [
                    "storage.url: the servers of a deployment push to one place, and the experiments of the study name "
                    f"{len(places)}; keep it in `base`, or set workers.capture_files: fetch"
                ]
            )
        kinds = dict.fromkeys(kind for config in configs for kind in config.server_kinds)
        return cls(first, tuple(kinds), *places)

    @property
    def deploy(self) -> Deploy:
        """The section `deploy`."""
        return self.config.deploy

    @property
    def gpus(self) -> int:
        """Number of GPUs of its servers."""
        return self.config.workers.count * tensor_parallel(self.config)

    @property
    def model_name(self) -> str:
        """Name of the model at the servers."""
        return self.config.workers.model_name or self.config.model.source


def pushed_to(config: Config) -> str | None:
    """Return where deployed servers push captures of an experiment; None where captures are fetched from them."""
    url, files = config.storage.url, config.workers.capture_files
    # A folder of this machine is none of theirs, unless the config says that it is.
    if url is None or not config.capture.enabled or files == "fetch" or (files is None and url.startswith("file:")):
        return None
    return f"{url}/captured"


def model_identity(config: Config) -> str:
    """A digest of everything about the servers that can change an answer: the model, its type, the engine's settings.

    What is deployed serves an experiment only where this is the same.
    """
    about: list[Any] = [
        models.identity(config.model),
        config.model.dtype,
        config.generation.engine.model_dump(mode="json"),
        config.workers.model_name,
    ]
    if config.conversation.tool_parser is not None:  # servers that are started without it refuse tools
        about.append(config.conversation.tool_parser)
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]


DEPLOYED = Path(".snakemake/emoprobe/deployed")
RECORD, TUNNEL, TUNNEL_LOG = "deployment.json", "tunnel.process", "tunnel.log"


class DeployedServer(Server):
    """A server, and the port of the loopback interface here that leads to it."""

    port: int

    @property
    def url(self) -> str:
        """Its address here."""
        return f"http://127.0.0.1:{self.port}"


class Deployment(BaseModel):
    """A deployment. `cluster` is SkyPilot's name of a rented machine, `price` its price per hour in US dollars.

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
    deployment = Deployment.read(place)
    if deployment is None or deployment.model_identity != model_identity(config):
        return config
    urls = {kind: [server.url for server in deployment.servers if server.kind == kind] for kind in config.server_kinds}
    pushes = deployment.push is not None and deployment.push == pushed_to(config)
    if not all(urls.values()) or (config.workers.capture_files == "push" and not pushes):
        return config
    update = {
        "endpoints": urls.get("vllm", []),
        "capture_endpoints": urls.get("nnsight", []),
        "api_key_file": str((place / KEY).absolute()),
        "capture_files": "push" if pushes else "fetch",
        "hardware": {server.url: server.hardware for server in deployment.servers},
    }
    return config.model_copy(update={"workers": config.workers.model_copy(update=update)})


def follow(study: Study, root: Path = DEPLOYED) -> Study:
    """A plan whose experiments use what is deployed for them, see `followed`."""
    return Study(study.name, {name: followed(config, root) for name, config in study.configs.items()})
