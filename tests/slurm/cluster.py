"""A real SLURM cluster of several nodes on this one machine, for tests.

    python tests/slurm/cluster.py start FOLDER [--nodes 3] [--cpus 8] [--gpus 0] [--memory-mb 8000]
    python tests/slurm/cluster.py stop FOLDER

Everything it writes is in its folder, everything it listens on is its own: several clusters may live side by side, and
the machine's own /etc/slurm is neither read nor written. No root and no systemd is needed: jobs run as the
user who started it. All nodes share this machine's cores, /tmp and network; a node may claim more cores than there are.

What belongs to a cluster is found by a mark in the environment of each process (the cluster's name, which no other
cluster has), by descent and by session, never by the name of a program.
"""

import argparse
import contextlib
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from wire import Wire

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "sinfo", "scancel")
MARK = "TEST_CLUSTER"
NODE_MARK = "TEST_CLUSTER_NODE"
SEARCH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"

CONF = """\
# written by tests/slurm/cluster.py
ClusterName={name}
SlurmctldHost={host}({address})
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
# MPICH calls its shared memory by job and step: two clusters on one machine must not have the same jobs
FirstJobId={first_job}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
SlurmctldDebug=verbose
SlurmdDebug=verbose
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU={memory_per_cpu}
SlurmdParameters=config_overrides
MpiDefault=none
MailProg=/bin/true
PriorityType=priority/basic
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,sched_min_interval=0,bf_interval=1,batch_sched_delay=0
ReturnToService=2
JobRequeue=1
KillWait=5
SlurmdTimeout=20
SlurmctldTimeout=20
UnkillableStepTimeout=15
{gres_types}
{nodes}
{partitions}
{extra}
"""


class ClusterError(Exception):
    """The cluster did not do what it was told; the message has the end of the logs."""


@dataclass(slots=True)
class Cluster:
    """A cluster that lives in ``folder``; ``name`` is its mark. Its last node is ``apart``, if anything is."""

    folder: Path
    name: str
    nodes: tuple[str, ...]
    apart: Wire | None = None
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def conf(self) -> Path:
        return self.folder / "slurm.conf"

    @property
    def environ(self) -> dict[str, str]:
        """The environment in which sbatch, srun and the others speak to this cluster, and to no other."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "SBATCH_", "SRUN_"))}
        return clean | {"SLURM_CONF": str(self.conf)}

    def run(self, *argv: str, timeout: float = 60, cwd: Path | None = None) -> str:
        """What a SLURM program says, without the white space round it.

        Raises:
            ClusterError: it ended with another code than 0.
        """
        done = subprocess.run(
            argv, env=self.environ, cwd=cwd, timeout=timeout, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise ClusterError(f"{' '.join(argv)}: code {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout.strip()

    def submit(self, script: str | Path, *options: str, cwd: Path | None = None) -> str:
        """Hand in a batch script (a path, or a shell command); the job's id."""
        what = [str(script)] if isinstance(script, Path) else ["--wrap", script]
        output = [] if any(option.startswith(("-o", "--output")) for option in options) else ["-o", "job-%j.out"]
        return self.run("sbatch", "--parsable", *output, *options, *what, cwd=cwd or self.folder)

    def job(self, job_id: str) -> dict[str, str]:
        """What ``scontrol show job`` says, key by key; empty when SLURM has forgotten the job."""
        with contextlib.suppress(ClusterError):
            words = self.run("scontrol", "show", "job", "-o", job_id).split(" ")
            return dict(word.split("=", 1) for word in words if "=" in word)
        return {}

    def job_state(self, job_id: str) -> str:
        """PENDING, RUNNING, COMPLETING, COMPLETED, …; "" when SLURM has forgotten the job."""
        return self.job(job_id).get("JobState", "")

    def wait_for_job(self, job_id: str, *states: str, timeout: float = 60) -> str:
        """Wait until the job is in one of the states; without states: until it is over."""
        alive = ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "REQUEUED")

        def reached() -> bool:
            state = self.job_state(job_id)
            return state in states if states else state not in alive

        self._wait(reached, timeout, f"job {job_id} is {self.job_state(job_id)}, not {states or 'over'}")
        return self.job_state(job_id)

    def requeue(self, job_id: str) -> None:
        """Put a running job back into the queue, to start again at once (SLURM alone would wait for two minutes)."""
        self.run("scontrol", "requeue", job_id)
        self._wait(lambda: self.job_state(job_id) == "PENDING", 30, f"job {job_id} does not leave its nodes")
        self.run("scontrol", "update", f"JobId={job_id}", "StartTime=now")

    def node_state(self, node: str) -> str:
        """idle, mixed, allocated, down, down*, …"""
        return self.run("sinfo", "-h", "-n", node, "-N", "-o", "%T").split("\n")[0].strip()

    def wait_for_node(self, node: str, *states: str, timeout: float = 60) -> None:
        self._wait(lambda: self.node_state(node) in states, timeout, f"node {node} is not {states}")

    def start(self, timeout: float = 60) -> None:
        """Start the daemons; return when all nodes are idle.

        Raises:
            ClusterError: they did not come up; what was started is ended again.
        """
        try:
            self._start_munged()
            self._start_daemon("slurmctld", ["slurmctld", "-D", "-f", str(self.conf)])
            for node in self.nodes:
                self.restart_node(node, wait=False)
            for node in self.nodes:
                self.wait_for_node(node, "idle", timeout=timeout)
        except BaseException:
            self.stop()
            raise

    def kill_node(self, node: str) -> None:
        """The node dies: its slurmd, its steps and all their processes end by SIGKILL, and nothing else does.

        SLURM finds out by itself after SlurmdTimeout (about 30 s); ``down`` tells it at once.
        """
        self._kill(lambda environ: self._is_of(environ, node))
        if (daemon := self.daemons.pop(node, None)) is not None:
            daemon.wait(10)

    def restart_node(self, node: str, *, wait: bool = True) -> None:
        """Start the slurmd of a node again; a node that is down comes back."""
        inside = self.apart.inside if self.apart is not None and node == self.nodes[-1] else []
        self._start_daemon(node, [*inside, *_program("slurmd"), "-D", "-N", node, "-f", str(self.conf)], node=node)
        if wait:
            self.wait_for_node(node, "idle", "mixed", "allocated")

    def down(self, node: str, reason: str = "test") -> None:
        """Tell SLURM that the node is dead: its steps and (without --no-kill) its jobs end.

        A node whose slurmd lives comes back by itself when it next speaks (ReturnToService=2): kill it first.
        """
        self.run("scontrol", "update", f"NodeName={node}", "State=DOWN", f"Reason={reason}")

    def resume(self, node: str) -> None:
        """Tell SLURM that the node may be used again; nothing to do when it came back by itself."""
        try:
            self.run("scontrol", "update", f"NodeName={node}", "State=RESUME")
        except ClusterError:
            if self.node_state(node) not in {"idle", "mixed", "allocated"}:
                raise

    def cancel_all(self, timeout: float = 60) -> None:
        """End all jobs and wait until they are gone."""
        jobs = self.run("squeue", "-h", "-o", "%A").split()
        if jobs:
            self.run("scancel", *jobs)
        self._wait(lambda: not self.run("squeue", "-h", "-o", "%A %T"), timeout, "jobs are left")

    def heal(self) -> None:
        """End all jobs and bring back all nodes."""
        dead = [node for node in self.nodes if node not in self.daemons]
        for node in dead:
            self.down(node)  # else SLURM waits for it to say that the jobs are gone
        self.cancel_all()
        for node in self.nodes:
            if node in dead:
                self.restart_node(node, wait=False)
            if "idle" not in self.node_state(node):
                self.resume(node)
            self.wait_for_node(node, "idle")

    def stop(self) -> None:
        """End every process of the cluster, jobs first. May be called twice."""
        self._kill(lambda environ: self._is_of(environ, None))
        for daemon in self.daemons.values():
            daemon.wait(10)
        self.daemons.clear()

    def logs(self, lines: int = 15) -> str:
        """The last lines of each log."""
        parts = []
        for path in sorted(self.folder.glob("*.log")):
            parts += [f"--- {path.name}", *path.read_text(errors="replace").splitlines()[-lines:]]
        return "\n".join(parts)

    def _is_of(self, environ: Mapping[str, str], node: str | None) -> bool:
        """Whether a process with this environment is the cluster's (and the node's): daemon, stepd or part of a job."""
        if self.name not in (environ.get(MARK), environ.get("SLURM_CLUSTER_NAME")):
            return False
        return node is None or node in (environ.get(NODE_MARK), environ.get("SLURMD_NODENAME"))

    def _kill(self, ours: Callable[[Mapping[str, str]], bool]) -> None:
        """Stop, then kill, all processes that ``ours`` knows by their environment, and their offspring."""
        while found := _family(ours):
            stopped: set[int] = set()
            while new := found - stopped:  # a stopped process starts no other behind our back
                for pid in new:
                    _send(pid, signal.SIGSTOP)
                stopped |= new
                found = _family(ours)
            for pid in stopped:
                _send(pid, signal.SIGKILL)
            time.sleep(0.05)

    def _start_munged(self) -> None:
        at = self.folder
        log = at / "munged.log"
        options = ["--socket", at / "munge.socket", "--key-file", at / "munge.key", "--pid-file", at / "munged.pid"]
        options += ["--log-file", log, "--seed-file", at / "munge.seed", "--num-threads", "2"]
        self._start_daemon("munged", ["munged", "--foreground", "--force", *map(str, options)])
        self._wait((at / "munge.socket").exists, 10, "munged does not come up")

    def _start_daemon(self, name: str, argv: Sequence[str], node: str = "") -> None:
        with (self.folder / f"{name}.out").open("ab") as output:
            self.daemons[name] = subprocess.Popen(
                [*_program(argv[0]), *argv[1:]],
                env=self.environ | {MARK: self.name} | ({NODE_MARK: node} if node else {}),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _wait(self, condition: Callable[[], bool], timeout: float, otherwise: str) -> None:
        deadline = time.monotonic() + timeout
        while True:
            with contextlib.suppress(ClusterError):  # slurmctld may not answer yet
                if condition():
                    return
            if time.monotonic() > deadline:
                raise ClusterError(f"{otherwise} (after {timeout:.0f} s)\n{self.logs()}")
            time.sleep(0.1)


def _program(name: str) -> list[str]:
    found = shutil.which(name, path=SEARCH)
    if found is None:
        raise ClusterError(f"{name} is not installed")
    return [found]


def start_cluster(
    folder: Path,
    nodes: int = 3,
    cpus: int = 8,
    *,
    partitions: Sequence[str] = ("main",),
    memory_mb: int = 8000,
    gpus: int = 0,
    extra: Sequence[str] = (),
    apart: Wire | None = None,
) -> Cluster:
    """Write the configuration of a new cluster, start it and wait until all its nodes are idle.

    Args:
        folder: where it lives; made if it is not there. Keep its path short (sockets: 108 characters in all).
        nodes: how many; they are called n1, n2, …
        cpus: of each node, whether this machine has them or not.
        partitions: their names, each of all nodes; the first is the default. "short Nodes=n1 MaxTime=10" also works.
        memory_mb: RealMemory of each node (SLURM means MiB).
        gpus: of each node; no real ones (files that are called like them).
        extra: more lines of slurm.conf.
        apart: the network in which the last node lives; None: all share this machine's.

    Raises:
        ClusterError: it did not come up.
    """
    folder = folder.resolve()
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    cluster = Cluster(folder, f"test{secrets.token_hex(4)}", tuple(f"n{k + 1}" for k in range(nodes)), apart)
    (folder / "munge.key").write_bytes(secrets.token_bytes(128))
    (folder / "munge.key").chmod(0o600)
    (folder / "slurm.conf").write_text(_configuration(cluster, cpus, partitions, memory_mb, gpus, extra))
    if gpus:
        for number in range(gpus):
            (folder / f"gpu{number}").symlink_to("/dev/null")  # SLURM wants a device
        (folder / "gres.conf").write_text(f"NodeName=n[1-{nodes}] Name=gpu File={folder}/gpu[0-{gpus - 1}]\n")
    record = {key: value for key, value in asdict(cluster).items() if key not in {"daemons", "apart"}}
    (folder / "cluster.json").write_text(json.dumps(record, default=str))
    cluster.start()
    return cluster


def cluster_at(folder: Path) -> Cluster:
    """The cluster that was started in ``folder``, perhaps by another process."""
    found = json.loads((folder / "cluster.json").read_text())
    return Cluster(Path(found["folder"]), found["name"], tuple(found["nodes"]))


def missing_programs() -> list[str]:
    """What is not installed of the programs that a cluster needs."""
    return [name for name in PROGRAMS if shutil.which(name, path=SEARCH) is None]


def _configuration(
    cluster: Cluster, cpus: int, partitions: Sequence[str], memory_mb: int, gpus: int, extra: Sequence[str]
) -> str:
    host = socket.gethostname().partition(".")[0]
    ports = _free_ports(1 + len(cluster.nodes))
    here = "127.0.0.1" if cluster.apart is None else cluster.apart.here
    addresses = {} if cluster.apart is None else {cluster.nodes[-1]: cluster.apart.there}
    sockets = 2 if cpus % 2 == 0 else 1
    shape = f"CPUs={cpus} Sockets={sockets} CoresPerSocket={cpus // sockets} ThreadsPerCore=1 RealMemory={memory_mb}"
    shape += f" Gres=gpu:{gpus}" if gpus else ""
    return CONF.format(
        name=cluster.name,
        folder=cluster.folder,
        host=host,
        address=here,
        port=ports[0],
        user=_user(),
        first_job=1 + 1000 * secrets.randbelow(50_000),
        memory_per_cpu=memory_mb // cpus,
        gres_types="GresTypes=gpu" if gpus else "",
        nodes="\n".join(
            f"NodeName={node} NodeAddr={addresses.get(node, here)} NodeHostname={host} Port={port} {shape}"
            for node, port in zip(cluster.nodes, ports[1:], strict=True)
        ),
        partitions="\n".join(
            f"PartitionName={text if 'Nodes=' in text else f'{text} Nodes=ALL'}"
            f"{' Default=YES' if first else ''}{'' if 'MaxTime=' in text else ' MaxTime=INFINITE'} State=UP"
            for first, text in ((k == 0, text) for k, text in enumerate(partitions))
        ),
        extra="\n".join(extra),
    )


def _user() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


def _free_ports(count: int) -> list[int]:
    """Ports on which nobody listens, below those that the kernel gives to clients."""
    held: list[socket.socket] = []
    try:
        for port in random.sample(range(20000, 30000), 2000):
            candidate = socket.socket()
            try:
                candidate.bind(("", port))
            except OSError:
                candidate.close()
                continue
            held.append(candidate)
            if len(held) == count:
                return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()
    raise ClusterError("no free ports")


def _family(ours: Callable[[Mapping[str, str]], bool]) -> set[int]:
    """The living processes that ``ours`` knows, all that descend from them, and all of the sessions they lead."""
    parent: dict[int, int] = {}
    session: dict[int, int] = {}
    family: set[int] = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError, IndexError):
            stat = (entry / "stat").read_bytes()
            fields = stat[stat.rfind(b")") + 2 :].split()
            if fields[0] in {b"Z", b"X"}:
                continue
            pid = int(entry.name)
            parent[pid], session[pid] = int(fields[1]), int(fields[3])
            if ours(_environ_of(entry)):
                family.add(pid)
    grown = True
    while grown:
        more = {pid for pid in parent if parent[pid] in family or session[pid] in family} - family
        family |= more
        grown = bool(more)
    return family


def _environ_of(entry: Path) -> dict[str, str]:
    try:
        text = (entry / "environ").read_bytes().decode(errors="replace")
    except OSError:
        return {}
    return dict(item.split("=", 1) for item in text.split("\0") if "=" in item)


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description="A SLURM cluster of several nodes on this machine, for tests.")
    parser.add_argument("verb", choices=["start", "stop"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--cpus", type=int, default=8)
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--memory-mb", type=int, default=8000)
    given = parser.parse_args(arguments)
    if given.verb == "stop":
        cluster_at(given.folder).stop()
        return
    cluster = start_cluster(given.folder, given.nodes, given.cpus, memory_mb=given.memory_mb, gpus=given.gpus)
    print(f"export SLURM_CONF={cluster.conf}")


if __name__ == "__main__":
    main(sys.argv[1:])
