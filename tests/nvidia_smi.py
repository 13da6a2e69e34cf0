"""A stand-in for `nvidia-smi` on the path: GPUs as the driver lists them, where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from emoprobe.models import hardware
from server.pool import launch

SCRIPT = """#!/bin/sh
case "$1" in
  -L) {listed} ;;
  --query-gpu=index*) {queried} ;;
  --query-gpu=driver*) {driver} ;;
esac
exit 0
"""


def install(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    memory_mib: list[int],
    capability: str = "9.0",
    driver: str = "580.95.05",
    free: float = 1.0,
) -> None:
    """Put an `nvidia-smi` on the path that lists GPUs with so much memory each, of which a share is free."""
    folder.mkdir(exist_ok=True)
    listed = "; ".join(f"echo 'GPU {index}: A GPU (UUID: GPU-{index})'" for index in range(len(memory_mib)))
    queried = "; ".join(
        f"echo '{index}, GPU-{index}, A GPU, {memory}, {capability}'" for index, memory in enumerate(memory_mib)
    )
    states = "; ".join(f"echo '{driver}, {index}, {int(free * memory)}'" for index, memory in enumerate(memory_mib))
    script = folder / "nvidia-smi"
    script.write_text(SCRIPT.format(listed=listed or ":", queried=queried or ":", driver=states or ":"))
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    forget()


def forget() -> None:
    """Forget which GPUs were seen before."""
    hardware.gpus.cache_clear()
    launch.visible_gpus.cache_clear()
