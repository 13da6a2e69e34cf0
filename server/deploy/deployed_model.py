"""What a plan wants of a deployment: which servers of which model, and on what kind of machine."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from emoprobe.config.errors import ConfigError
from emoprobe.config.execution.deploy import Deploy
from emoprobe.config.experiment import Config
from emoprobe.config.study import Study
from emoprobe.models import source as models
from server.pool.launch import Kind, tensor_parallel


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
        """What the experiments of a plan want together.

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
                    "generation.engine, workers.model_name); deploy and run them one after the other"
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
        """Where it is wanted."""
        return self.config.deploy

    @property
    def gpus(self) -> int:
        """How many GPUs its servers want."""
        return self.config.workers.count * tensor_parallel(self.config)

    @property
    def model_name(self) -> str:
        """What the servers call the model."""
        return self.config.workers.model_name or self.config.model.source


def pushed_to(config: Config) -> str | None:
    """Where servers that are deployed push what they capture for an experiment; None where it is fetched from them."""
    url, files = config.storage.url, config.workers.capture_files
    # A folder of this machine is none of theirs, unless the config says that it is.
    if url is None or not config.capture.enabled or files == "fetch" or (files is None and url.startswith("file:")):
        return None
    return f"{url}/captured"


def model_identity(config: Config) -> str:
    """A digest of everything about the servers that can change an answer: the model, its type, the engine's settings.

    What is deployed serves an experiment only where this is the same.
    """
    about = [
        models.identity(config.model),
        config.model.dtype,
        config.generation.engine.model_dump(mode="json"),
        config.workers.model_name,
    ]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]
