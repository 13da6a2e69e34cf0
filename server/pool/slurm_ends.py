"""What the end of a SLURM job means for its server: whether it counts, and what is said of it."""

from __future__ import annotations

from server.pool.launcher import Exit
from server.pool.local_process import PORT_TAKEN
from server.pool.slurm_cluster import JobState

# SLURM took the job away: the server has done nothing wrong.
TAKEN = frozenset({"PREEMPTED", "TIMEOUT", "NODE_FAIL", "BOOT_FAIL", "DEADLINE", "REVOKED"})


def judge(job: str, state: JobState | None, reason: str, log_lines: list[str]) -> Exit:
    """Whether the end of a job counts as a restart of its server.

    Args:
        job: its number.
        state: what SLURM says of it, if anything.
        reason: what is known of its end besides.
        log_lines: the last lines of its output.
    """
    if state is not None and state.state in TAKEN:
        return Exit(f"job {job}: {state.state}", again=True, counts=False)
    if state is not None and state.state == "OUT_OF_MEMORY":
        return Exit(f"job {job}: OUT_OF_MEMORY; raise memory in workers.slurm", again=True)
    if PORT_TAKEN in "\n".join(log_lines):
        return Exit(f"{reason}, as another program took its port", again=True, counts=False)
    return Exit(reason, again=True)


def judge_leaving(job: str, state: JobState | None, *, draining: bool) -> Exit:
    """SLURM has told a job to end. That costs nothing, unless somebody has cancelled it on a node that stays."""
    if state is not None and state.state == "CANCELLED" and not draining:
        return Exit(f"job {job}: CANCELLED", again=True)
    said = f" ({state.state})" if state is not None else ""
    return Exit(f"SLURM wants job {job} to end{said}", again=True, counts=False)


def judge_status(job: str, state: JobState | None, status: int, log_lines: list[str]) -> Exit:
    """The server of a job has ended by itself, with this status of its process."""
    words = f"signal {-status}" if status < 0 else f"exit status {status}"
    how = f"its server ended {'by' if status < 0 else 'with'} {words}"
    return judge(job, state, f"job {job}: {how}", log_lines)
