"""One workflow run as the pool sees it: its configuration, folder and model."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emoprobe.config.experiment import Config
from emoprobe.config.files import load_config
from emoprobe.models import source as models
from emoprobe.models.source import ModelCard
from emoprobe.results.layout import RESULTS, Layout
from emoprobe.results.sample import Sample
from emoprobe.tasks import variants
from emoprobe.tasks.samples import Drawer, is_file


@dataclass
class Run:
    """What the jobs of one workflow run share."""

    config: Config
    directory: Path
    failed: dict[tuple[str, str, str], str] = field(default_factory=dict)
    _card: ModelCard | None = None
    _drawer: Drawer | None = None
    _opening: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def read(cls, config_file: str, directory: str) -> Run:
        """A run of the resolved config in `config_file`, whose results lie under `directory`."""
        return cls(load_config(config_file), Path(directory))

    @property
    def layout(self) -> Layout:
        """Where its files lie."""
        return Layout.of(self.config.experiment.name, self.directory / RESULTS)

    def sample(self, index: int) -> Sample:
        """One sample, drawn from the data set, which stays open for the others.

        Raises:
            DataError: it cannot be drawn.
        """
        with self._opening:
            if self._drawer is None:
                dataset = self.config.dataset
                if is_file(dataset.source):  # the pool works elsewhere than the workflow
                    source = str(self.directory / Path(dataset.source).expanduser())
                    dataset = dataset.model_copy(update={"source": source})
                self._drawer = Drawer(dataset, self.config.experiment.seed)
        return self._drawer.sample(index)

    @property
    def card(self) -> ModelCard:
        """The model, from `model.json`, which the jobs of this run wait for."""
        if self._card is None:
            self._card = ModelCard.read(self.layout.model)
        return self._card

    @property
    def model_name(self) -> str:
        """What the servers call the model."""
        return self.config.workers.model_name or self.config.model.source

    def pair_index(self, variant: str, sample_index: int) -> int:
        """The place of a pair among all pairs of the experiment, sample by sample: what round robin counts."""
        names = list(self.config.variants)
        return sample_index * len(names) + names.index(variant)


def address_path(config: Config, code: Path) -> Path:
    """The file that tells where the pool of a configuration listens.

    Runs share a pool only where host, scheduler job, code, model, transforms and all settings of the servers are the
    same.
    """
    # Another folder may have another model under the same relative path.
    source = Path(config.model.source).expanduser().resolve() if models.is_local(config.model.source) else ""
    key: list[Any] = [
        socket.gethostname(),
        os.environ.get("SLURM_JOB_ID"),
        os.environ.get("CUDA_VISIBLE_DEVICES"),
        str(code),
        [str(source), models.identity(config.model), config.model.dtype],
        # A module is imported once, so a pool that is kept alive would go on with the old source of a transform.
        [variants.identity(variant) for variant in config.variants.values() if variant.transform is not None],
        config.workers.model_dump(mode="json"),
        config.generation.engine.model_dump(mode="json"),
    ]
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    return base / f"emoprobe-{os.getuid()}" / f"{digest}.address"


def job_environment(config: Config, config_file: Path, code: Path, python: str) -> dict[str, str]:
    """What the commands of a run find in their environment.

    Transforms are imported from the folder in which the workflow was started, everything else from the code.
    """
    return {
        "EMOPROBE_PYTHON": python,
        "EMOPROBE_CONFIG": str(config_file),
        "EMOPROBE_CODE": str(code),
        "EMOPROBE_CLIENT": str(code / "scripts/ask_pool.sh"),
        "EMOPROBE_POOL": str(address_path(config, code)),
        "EMOPROBE_OWNER": str(os.getpid()),
        "PYTHONPATH": os.pathsep.join([str(code), os.getcwd()]),
    }
