"""How the servers of a plan share GPUs: a line of the dry run, or the reason why the model does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from emoprobe import __version__
from emoprobe.config.experiment import Config
from emoprobe.config.files import Study
from emoprobe.config.judge_server import judge_server
from emoprobe.models.resolved import as_made, dtype_of, kinds_here
from emoprobe.models.server_hardware import ServerHardware
from emoprobe.models.settings import downloaded, read_settings
from emoprobe.results.layout import MODELS, Layout
from emoprobe.workflow.heavy_checks import ask, unless_unanswered
from emoprobe.workflow.model_checks import directory_of
from emoprobe.workflow.remembered import version


def continued(study: Study, root: Path) -> Study:
    """Return a plan whose experiments keep what their results were made with, see `as_made`."""
    return Study(
        study.name, {name: as_made(config, Layout.of(name, root).root) for name, config in study.configs.items()}
    )


def check_placement(config: Config, cache: Path | None, converted: Path) -> list[str]:
    """Return why the model does not fit on the GPUs of this machine, a line; nothing where it fits or is not known."""
    found = _decided(config, cache, converted)
    return found[1:] if found[:1] == ["no"] else []


def placement_lines(study: Study, cache: Path | None, converted: Path = MODELS) -> list[str]:
    """Return how the servers of each model share GPUs, one line a decision; none without GPUs."""
    lines: dict[str, None] = {}
    judges = [judge_server(config, judge) for config in study.configs.values() for judge in config.served_judges]
    for config in [*study.configs.values(), *judges]:
        servers = ServerHardware.of(config, started=True)
        if servers.job_gpus is not None and kinds_here(config):
            lines[f"GPUs: each SLURM job holds one server, with {servers.job_gpus} to itself"] = None
        found = _decided(config, cache, converted)
        if found[:1] == ["yes"]:
            lines[f"GPUs, {config.model.source}: {found[1]}"] = None
        elif not found and servers.memory and config.deploy.backend is None and kinds_here(config):
            lines[f"GPUs, {config.model.source}: decided when the model has been prepared"] = None
    return list(lines)


def _decided(config: Config, cache: Path | None, converted: Path) -> list[str]:
    """Ask for the decision on this machine's GPUs: `yes` or `no`, and a line; nothing where it is not known."""
    servers = ServerHardware.of(config, started=True)
    directory = directory_of(config.model, converted) or downloaded(config.model)
    if config.deploy.backend is not None or not servers.memory or not kinds_here(config) or directory is None:
        return []
    settings = read_settings(directory)
    if not settings:
        return []
    dtype = dtype_of(config, settings, servers)
    values: dict[str, Any] = config.model_dump(mode="json")
    about = [
        "placement", settings, str(directory.absolute()), dtype, servers.memory, values["workers"], values["capture"],
        values["generation"], config.server_kinds, version("transformers"), __version__,
    ]  # fmt: skip
    arguments = str(directory.absolute()), values, dtype, list(servers.memory)
    return unless_unanswered(cache, about, lambda: ask("placement", *arguments))
