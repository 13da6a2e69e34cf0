"""Rent a machine with SkyPilot, which lives in an environment of its own.

SkyPilot finds the cheapest machine that fits, enters it into ssh's configuration, and ends it once its jobs are over.
The one job that it is given lasts as long as the keeper of the servers does, so the machine goes when the servers have
been idle, even where nobody is there to end it.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import yaml

from emoprobe.config.execution.deploy import Deploy
from emoprobe.results import atomic
from server.deploy.deployment import PROCESS
from server.deploy.host import HostError

ENVIRONMENT_VARIABLE = "EMOPROBE_SKYPILOT"
ENVIRONMENT = Path(".venv-skypilot")
INSTALL = f"python3.11 -m venv {ENVIRONMENT} && {ENVIRONMENT}/bin/pip install -r envs/skypilot.txt"
# Minutes for SkyPilot to wait after the job, and for the job to wait for a keeper: at first, while an environment is
# installed, and later, while one is started again.
AFTER_JOB, FIRST_WAIT, LATER_WAIT = 1, 90, 5
PYTHON = """\
command -v python3.11 >/dev/null || {
  curl -LsSf https://astral.sh/uv/install.sh | sh
  "$HOME/.local/bin/uv" python install 3.11
}
"""
WAIT = """\
# The machine is needed as long as the keeper of the model servers lives.
lives() {{
  read -r number started < "{folder}/run/{process}" && stat=$(<"/proc/$number/stat") || return
  set -- ${{stat##*) }}  # the name of a process, in parentheses, may have spaces
  [[ $1 != [ZX] && ${{20}} = "$started" ]]
}} 2>/dev/null
left={first}
while [ "$left" -gt 0 ]; do
  if lives; then left={later}; else left=$((left - 1)); fi
  sleep 60
done
"""
# Printed by SkyPilot's own interpreter: what the machine that was launched costs an hour.
PRICE = """\
import sys, sky
cluster = sky.get(sky.status(cluster_names=[sys.argv[1]]))[0]
handle = cluster["handle"] if isinstance(cluster, dict) else cluster.handle
print(handle.launched_resources.get_cost(3600) * handle.launched_nodes)
"""


def task(name: str, deploy: Deploy, gpus: int) -> dict[str, Any]:
    """SkyPilot's description of the machine and its one job.

    Args:
        name: the task's.
        deploy: what machine it shall be.
        gpus: how many GPUs it needs.
    """
    folder = deploy.folder if deploy.folder.startswith("/") else f"$HOME/{deploy.folder}"
    return {
        "name": name,
        "resources": {
            # The locks are for CUDA, so other makers' accelerators do not do.
            "accelerators": f"NVIDIA:{deploy.min_vram}GB+:{gpus}",
            "use_spot": deploy.spot,
            "max_hourly_cost": deploy.max_price,
            # The tunnel is a session of ssh, which must not keep the machine by itself.
            "autostop": {"idle_minutes": AFTER_JOB, "down": True, "wait_for": "jobs"},
        },
        "setup": PYTHON,
        "run": WAIT.format(folder=folder, process=PROCESS, first=FIRST_WAIT, later=LATER_WAIT),
    }


def launch(cluster: str, deploy: Deploy, gpus: int, place: Path) -> float:
    """Have a machine stand that fits, and return what it costs an hour, in US dollars.

    Args:
        cluster: its name; one that stands already is used again.
        deploy: what machine it shall be.
        gpus: how many GPUs it needs.
        place: the folder of the deployment's record, where the description of the task is kept.

    Raises:
        HostError: there is none, or it costs more than it may; then it was given back at once.
    """
    assert deploy.max_price is not None
    path = place / "task.yaml"
    atomic.write_text(path, yaml.safe_dump(task(cluster, deploy, gpus), sort_keys=False))
    _run("bin/sky", "launch", "--yes", "--detach-run", "--cluster", cluster, str(path))
    # SkyPilot holds the limit against its catalogue's price of the instance, and that of the GPU may come on top.
    try:
        price = float(_run("bin/python", "-c", PRICE, cluster, shown=False).strip().splitlines()[-1])
    except (HostError, ValueError, IndexError):
        price = None
    if price is None or price > deploy.max_price:
        down(cluster)
        costs = "does not tell its price" if price is None else f"costs ${price:.2f} an hour"
        raise HostError(f"{cluster} {costs}; deploy.max_price allows ${deploy.max_price:g}, so it was given back")
    return price


def down(cluster: str) -> None:
    """Give a machine back.

    Raises:
        HostError: SkyPilot could not; it may still cost money.
    """
    _run("bin/sky", "down", "--yes", cluster)


def _run(program: str, *arguments: str, shown: bool = True) -> str:
    """Run a program of SkyPilot's environment; return what it printed, unless that is shown."""
    environment = Path(os.environ.get(ENVIRONMENT_VARIABLE, ENVIRONMENT))
    path = environment.absolute() / program
    if not path.exists():
        raise HostError(
            f"SkyPilot is not installed in {environment} (or name its environment in {ENVIRONMENT_VARIABLE}): {INSTALL}"
        )
    # The packages of this environment are none of SkyPilot's.
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run([str(path), *arguments], env=env, stdout=None if shown else subprocess.PIPE, text=True)
    if done.returncode:
        raise HostError(f"`{path.name} {' '.join(arguments[:2])}` ended with status {done.returncode}; see above")
    return done.stdout or ""
