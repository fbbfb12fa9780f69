"""A SLURM cluster of one node on this machine's loopback address, with a controller of its own."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "srun")
CONF = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=5
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,batch_sched_delay=0
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
KillWait=5
InactiveLimit=0
MinJobAge=300
SlurmctldTimeout=30
SlurmdTimeout=30
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=512 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=60 State=UP
PartitionName=short Nodes={host} MaxTime=2 State=UP
PartitionName=urgent Nodes={host} PriorityTier=10 State=UP
"""


def missing() -> str | None:
    """Why no cluster can be started here; None if one can."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    if absent:
        return f"no {', '.join(absent)}; on Debian: apt-get install slurm-wlm munge"
    return None if os.geteuid() == 0 else "slurmd starts jobs as root only"


def _path() -> str:
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Cluster:
    """The daemons, which end with :meth:`stop`; ``environment`` lets commands find them.

    Args:
        folder: for keys, state and logs; its path must be short, since it holds a socket.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.host = folder, socket.gethostname().split(".")[0]
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": _path()}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        for name in ("state", "spool"):
            (folder / name).mkdir(parents=True)
        folder.chmod(0o755)  # munged refuses a folder that others can write
        key = folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        values = {"host": self.host, "port": _free_port(), "node_port": _free_port()}
        (folder / "slurm.conf").write_text(CONF.format(folder=folder, **values))

    def start(self) -> None:
        """Start everything, and wait until the node is idle."""
        files = {"socket": "munge.sock", "key-file": "munge.key", "seed-file": "munge.seed"}
        files |= {"pid-file": "munge.pid", "log-file": "munge.log"}
        options = [f"--{name}={self.folder / file}" for name, file in files.items()]
        self._spawn("munged", "munged", "--foreground", "--force", *options)
        self.wait(lambda: (self.folder / "munge.sock").exists())
        self.start_controller()
        self.restart_node("slurmd", "-D")

    def start_controller(self) -> None:
        self._spawn("slurmctld", "slurmctld", "-D")
        self.wait(lambda: self.ask("scontrol", "ping").returncode == 0)

    def stop_controller(self) -> None:
        self._end(self.processes.pop("slurmctld"))

    def restart_node(self, *command: str) -> None:
        """Start the node's daemon by this command, and wait until the node is idle."""
        if process := self.processes.pop("slurmd", None):
            self._end(process)
        self._spawn("slurmd", *command)
        self.wait(lambda: self.node_state() == "idle")

    def stop(self) -> None:
        self.ask("scancel", "--user=root")
        for name in ("slurmd", "slurmctld", "munged"):
            if process := self.processes.pop(name, None):
                self._end(process)

    def _spawn(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.out").open("ab") as out:
            self.processes[name] = subprocess.Popen(
                command, env=self.environment, stdout=out, stderr=out, cwd="/"
            )

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def ask(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command of SLURM."""
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False, timeout=60
        )

    def set_node(self, state: str) -> None:
        words = ("update", f"nodename={self.host}", f"state={state}", "reason=test")
        done = self.ask("scontrol", *words)
        assert not done.returncode, done.stderr

    def node_state(self) -> str:
        return self.ask("sinfo", "--noheader", "--format=%T", "--partition=main").stdout.strip()

    def jobs(self) -> list[str]:
        """``ID STATE`` of all tasks that squeue knows."""
        found = self.ask("squeue", "--noheader", "--array", "--states=all", "--format=%i %T")
        return found.stdout.split("\n")[:-1]

    def wait(self, ready: Callable[[], bool], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > end:
                logs = [f.read_text()[-1500:] for f in self.folder.glob("slurm*.[lo]*[gt]")]
                raise TimeoutError("\n\n".join(logs))
            time.sleep(0.2)
