"""A real SLURM on this machine: munged, slurmctld, and several slurmd that each play a node, in a folder of their own.

It takes the rights of root and Debian's packages `slurmctld slurmd slurm-client munge` (or `slurm-wlm`).
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.workspace import wait_for

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo", "setpriv")
PATIENCE = 120.0
# What accounting adds: a database, and SLURM's own service before it.
ACCOUNTING_PROGRAMS = ("slurmdbd", "mariadbd", "mariadb-install-db", "sacctmgr")
DATABASE_CONFIG = """\
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database_port}
StorageUser=root
StorageLoc=slurm
PidFile={folder}/slurmdbd.pid
LogFile={folder}/slurmdbd.log
"""
# Partitions: jobs of `urgent` end those of `normal`. Nothing that a node claims to have is looked at.
CONFIG = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
SlurmctldPort={controller_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000,sched_interval=1,bf_interval=1
SlurmctldTimeout=30
SlurmdTimeout={node_timeout}
InactiveLimit=0
KillWait=5
WaitTime=0
MinJobAge=300
ReturnToService=2
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
{accounting}
MailProg=/bin/true
{nodes}
PartitionName=normal Nodes=ALL Default=YES PriorityTier=1 MaxTime=UNLIMITED
PartitionName=urgent Nodes=ALL PriorityTier=10 PreemptMode=off MaxTime=UNLIMITED
"""


def why_not(*, accounting: bool = False) -> str | None:
    """Why no SLURM, or none with accounting, can be started here; None where one can."""
    wanted = [*PROGRAMS, *(ACCOUNTING_PROGRAMS if accounting else ())]
    missing = [program for program in wanted if shutil.which(program, path=_path()) is None]
    if missing:
        return f"SLURM is not installed: no {', '.join(missing)}"
    return None if os.getuid() == 0 else "slurmd needs the rights of root"


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


class Slurm:
    """A cluster of a few nodes of four processors each.

    Args:
        folder: where its state and logs lie.
        nodes: how many.
        node_timeout: seconds of silence after which SLURM takes a node for lost.
        accounting: whether it keeps accounts, in a database of its own.
    """

    def __init__(self, folder: Path, nodes: int = 2, node_timeout: int = 10, *, accounting: bool = False) -> None:
        self.folder = folder
        self.nodes = [f"n{number}" for number in range(1, nodes + 1)]
        self.config = folder / "slurm.conf"
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._accounting = accounting
        ports = [free_port() for _ in range(nodes + 3)]
        self._database_ports = ports[nodes + 1 :]
        for name in ("state", "munge"):
            (folder / name).mkdir(parents=True, mode=0o755)
        lines = [
            f"NodeName={name} NodeHostname={socket.gethostname()} NodeAddr=127.0.0.1 Port={port} CPUs=4 "
            f"RealMemory=8000 Feature=tests State=UNKNOWN"
            for name, port in zip(self.nodes, ports[1:], strict=False)
        ]
        self.config.write_text(
            CONFIG.format(
                host=socket.gethostname(),
                folder=folder,
                controller_port=ports[0],
                node_timeout=node_timeout,
                accounting=f"AccountingStorageType=accounting_storage/slurmdbd\nAccountingStorageHost=127.0.0.1\n"
                f"AccountingStoragePass={folder}/munge/socket\n"
                f"AccountingStoragePort={self._database_ports[0]}"
                if accounting
                else "AccountingStorageType=accounting_storage/none",
                nodes="\n".join(lines),
            )
        )
        # By EMOPROBE_TEST a fault's own processes are told from others.
        inherited = {name: value for name, value in os.environ.items() if name != "EMOPROBE_TEST"}
        self.environment = {**inherited, "SLURM_CONF": str(self.config), "PATH": _path()}

    def start(self) -> None:
        """Start every daemon and wait until all nodes are idle."""
        key = self.folder / "munge/key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        munge = self.folder / "munge"
        self._run_daemon(
            "munged", "--foreground", "--force", f"--key-file={key}", f"--socket={munge}/socket",
            f"--pid-file={munge}/pid", f"--log-file={munge}/log", f"--seed-file={munge}/seed",
        )  # fmt: skip
        wait_for((munge / "socket").exists, PATIENCE, "munge's socket")
        if self._accounting:
            self._start_accounting()
        self.start_controller()
        for name in self.nodes:
            self.start_node(name)
        wait_for(lambda: self.states().count("idle") == len(self.nodes), PATIENCE, "idle nodes")

    def _start_accounting(self) -> None:
        """Start a database and slurmdbd."""
        port, database_port = self._database_ports
        data = self.folder / "database"
        installer = shutil.which("mariadb-install-db", path=_path()) or ""
        subprocess.run(
            [installer, "--no-defaults", "--user=root", f"--datadir={data}", "--auth-root-authentication-method=normal",
             "--skip-test-db"],
            check=True, capture_output=True, timeout=PATIENCE,
        )  # fmt: skip
        self._run_daemon(
            "mariadbd", "--no-defaults", "--user=root", f"--datadir={data}", f"--socket={data}/socket",
            f"--port={database_port}", "--bind-address=127.0.0.1", "--innodb-buffer-pool-size=16M",
        )  # fmt: skip
        wait_for((data / "socket").exists, PATIENCE, "the database")
        config = self.folder / "slurmdbd.conf"
        config.write_text(
            DATABASE_CONFIG.format(
                host=socket.gethostname(), folder=self.folder, port=port, database_port=database_port
            )
        )
        config.chmod(0o600)
        self._run_daemon("slurmdbd", "-D")
        wait_for(lambda: self._answers("sacctmgr", "--noheader", "show", "cluster"), PATIENCE, "slurmdbd")

    def _answers(self, *command: str) -> bool:
        return subprocess.run(command, env=self.environment, capture_output=True, timeout=PATIENCE).returncode == 0

    def start_controller(self, *options: str) -> None:
        """Start slurmctld."""
        self._run_daemon("slurmctld", "-D", "-i", "-f", str(self.config), *options)

    def forget(self) -> None:
        """Make SLURM forget every job that it knows."""
        self.signal("slurmctld", signal.SIGKILL)
        self.start_controller("-c")
        wait_for(lambda: self.states().count("idle") == len(self.nodes), PATIENCE, "idle nodes")

    def start_node(self, name: str) -> None:
        """Start the slurmd of a node."""
        self._run_daemon("slurmd", "-D", "-N", name, "-f", str(self.config), key=name)

    def signal(self, daemon: str, number: signal.Signals) -> None:
        """Send a signal to `slurmctld` or to the slurmd of a node."""
        self._daemons[daemon].send_signal(number)
        if number is signal.SIGKILL:
            self._daemons[daemon].wait()

    def is_up(self, daemon: str) -> bool:
        """Whether `slurmctld` or the slurmd of a node runs."""
        return self._daemons[daemon].poll() is None

    def kill_node(self, name: str) -> None:
        """What a loss of power does to a node: its slurmd and everything that its jobs run are gone at once."""
        self.signal(name, signal.SIGKILL)
        for entry in _processes():
            if f"SLURMD_NODENAME={name}\0".encode() in _read(entry / "environ") and self._is_ours(entry):
                for number in (_step_of(entry), int(entry.name)):
                    with suppress(ProcessLookupError):
                        os.kill(number, signal.SIGKILL)

    def _is_ours(self, entry: Path) -> bool:
        return str(self.config).encode() in _read(entry / "environ")

    def run(self, *command: str) -> str:
        """Run one of SLURM's commands; return what it printed."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def states(self) -> list[str]:
        """The state of each node."""
        done = subprocess.run(
            ["sinfo", "--noheader", "--Node", "--partition=normal", "--format=%T"],
            env=self.environment, capture_output=True, text=True, timeout=PATIENCE,
        )  # fmt: skip
        return done.stdout.split()

    def jobs(self) -> dict[int, str]:
        """The state of each job that has not ended, by its number."""
        lines = self.run("squeue", "--noheader", "--format=%i %T").splitlines()
        return {int(number): state for number, state in (line.split() for line in lines)}

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for something that SLURM does."""
        wait_for(condition, PATIENCE, what)

    def wait_until_empty(self) -> None:
        """Wait until no job is left in the queue."""
        wait_for(lambda: not self.jobs(), PATIENCE, "the end of all jobs")

    def make_idle(self) -> None:
        """End every job and put every node back into service."""
        self.run("scancel", "--user=root")
        self.wait_until_empty()
        for name in self.nodes:
            with suppress(AssertionError):
                self.run("scontrol", "update", f"NodeName={name}", "State=RESUME")
        wait_for(lambda: self.states().count("idle") == len(self.nodes), PATIENCE, "idle nodes")

    def stop(self) -> None:
        """End every job and every daemon."""
        for process in self._daemons.values():
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
        with suppress(AssertionError, subprocess.TimeoutExpired):
            self.run("scancel", "--user=root")
            wait_for(lambda: not self.jobs(), 30, "the end of all jobs")
        for process in reversed(self._daemons.values()):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for entry in _processes():  # a step whose slurmd was killed waits for it for ever
            if b"slurmstepd" in _read(entry / "cmdline") and self._is_ours(entry):
                with suppress(ProcessLookupError):
                    os.kill(int(entry.name), signal.SIGKILL)

    def _run_daemon(self, *command: str, key: str | None = None) -> None:
        program = shutil.which(command[0], path=_path())
        assert program is not None
        name = key or command[0]
        with open(self.folder / f"{name}.out", "ab") as output:
            self._daemons[name] = subprocess.Popen(
                # No daemon outlives the tests, even where they are killed.
                ["setpriv", "--pdeathsig", "KILL", program, *command[1:]],
                env=self.environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )


@contextmanager
def running(*, accounting: bool = False) -> Iterator[Slurm]:
    """A cluster whose commands are on the path while the block lasts; a test is skipped where none can be started."""
    if reason := why_not(accounting=accounting):
        pytest.skip(reason)
    # Not below pytest's own folder, which others may not enter: munge would refuse its socket there.
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder, pytest.MonkeyPatch.context() as patch:
        Path(folder).chmod(0o755)
        cluster = Slurm(Path(folder), accounting=accounting)
        try:
            cluster.start()
            patch.setenv("SLURM_CONF", str(cluster.config))
            yield cluster
        finally:
            cluster.stop()


def _processes() -> list[Path]:
    return [entry for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _step_of(entry: Path) -> int:
    """The process of SLURM above one of a job's."""
    while b"slurmstepd" not in _read(entry / "cmdline") and entry.name != "1":
        entry = entry.with_name(_read(entry / "stat").rpartition(b")")[2].split()[1].decode())
    return int(entry.name)
