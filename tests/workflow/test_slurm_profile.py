"""A run with `profiles/slurm`: the rules that compute are SLURM jobs of their own, the thin clients stay here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import PATIENCE, StubServer
from tests.server.pool.slurm_house import urgent
from tests.slurm import Slurm
from tests.workspace import Workspace, wait_for

# Its import asks SLURM, which takes seconds where that is down; so no ordinary environment has it.
EXECUTOR = [
    "snakemake-executor-plugin-slurm==2.8.0",
    "snakemake-executor-plugin-slurm-jobstep==0.6.1",
    "throttler==1.2.3",
]
# The executor's own pauses are made for jobs that take hours, and it would ask accounts that this SLURM does not keep.
QUICK = (
    "--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "10", "--slurm-status-command", "squeue",
)  # fmt: skip
IMPATIENT = """
import sys
from emoprobe.workflow import lost_jobs
lost_jobs.INTERVAL_SECONDS, lost_jobs.PATIENCE_SECONDS = 1.0, 5.0
from snakemake.cli import main
main()
"""


@pytest.fixture(scope="module")
def python(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of an environment that has the executor beside everything else."""
    folder = tmp_path_factory.mktemp("executor")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=PATIENCE)
    (packages,) = folder.glob("lib/python*/site-packages")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(packages), *EXECUTOR]
    done = subprocess.run(install, capture_output=True, text=True, timeout=PATIENCE)
    if done.returncode != 0:
        pytest.skip(f"{EXECUTOR[0]} cannot be installed: {done.stderr.strip().splitlines()[-1]}")
    # Like an environment's own packages, those of this one may name further folders.
    # A job step asks for its cluster where every node has it, in /etc; the variable of these tests is taken from it.
    srun = folder / "bin/srun"
    srun.write_text(f'#!/bin/sh\nSLURM_CONF={slurm.config} exec {shutil.which("srun")} "$@"\n')
    srun.chmod(0o755)
    (packages / "ours.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    return str(folder / "bin/python")


@pytest.fixture(autouse=True)
def idle(slurm: Slurm) -> Iterator[None]:
    """Every test leaves an idle cluster."""
    yield
    slurm.make_idle()


def test_what_computes_is_a_job_and_thin_clients_stay(
    slurm: Slurm, python: str, workspace: Callable[..., Workspace], stub: Callable[..., StubServer]
) -> None:
    here = workspace(stub())
    here.profile, here.python = "slurm", python
    path = f"{os.path.dirname(python)}:{os.environ['PATH']}"
    output = here.run(*QUICK, "--until", "generate", env={"PATH": path})
    assert len(here.trajectories()) == 12
    comments = slurm.run("squeue", "--states=all", "--noheader", "--format=%k").split()
    jobs = {comment.removeprefix("rule_").partition("_wildcards_")[0] for comment in comments}
    assert {"prepare_model", "plan_analysis"} <= jobs, output
    assert not jobs & {"generate", "capture"}


def test_a_run_whose_job_slurm_has_forgotten_is_ended(
    slurm: Slurm, python: str, workspace: Callable[..., Workspace], stub: Callable[..., StubServer]
) -> None:
    here = workspace(stub())
    here.profile, here.python = "slurm", python
    urgent(slurm)  # so that the rule's job waits
    before = set(slurm.jobs())
    command = [python, "-c", IMPATIENT, *here.command("--until", "prepare_model", *QUICK)[3:]]
    # As a script starts it with `&`: interrupts are ignored.
    background = ["/bin/sh", "-c", 'trap "" INT; exec "$@"', "sh", *command]
    with open(here.folder / "snakemake.out", "w") as log:
        run = subprocess.Popen(background, stdout=log, stderr=log, cwd=here.folder, env=dict(os.environ))
    try:
        wait_for(lambda: set(slurm.jobs()) - before or run.poll() is not None, PATIENCE, "the rule's job")
        slurm.forget()
        assert run.wait(PATIENCE) != 0
    finally:
        run.kill()
    output = (here.folder / "snakemake.out").read_text()
    assert re.search(r"Snakemake waits for SLURM job \d+ \(prepare_model\), but SLURM has not known it for", output), (
        output
    )
