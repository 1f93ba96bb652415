"""What `pilot doctor --allocation` starts: ``python -P -m pilot.probes.probe nodes FOLDER`` or ``world SIZE``.

*nodes* looks at its node, at the disk that all share, and starts probes with each launcher; it never touches MPI.
*world* is a rank of a world like the pilot's own, and starts nothing. What is found goes to stdout, one JSON line each:

    {"ev": "here", "node", "host", "boot", "step", "now", "cores", "memory_mb", "gpus", "domains", "pinned", "seen"}
    {"ev": "blind", "node", "step", "what"}             the folder is not there
    {"ev": "locks", "node", "locks": {"flock", "fcntl"}}
    {"ev": "wrote", "node"}                             a file of this node lies in the folder
    {"ev": "sees", "node", "now"}                       the file that the doctor has put there is seen
    {"ev": "linked", "node", "link"}                    "won" (one may), "lost", or what went wrong
    {"ev": "launchers", "node", "found": {name: version}}
    {"ev": "probed", "node", …}                         see :class:`pilot.probes.launch.Pair`
    {"ev": "done", "node"}
    {"ev": "joining", "library", "step"}                as in :mod:`pilot.ranks.rank`, and so is "ready"
    {"ev": "world", "nodes", "round_trip_s"}
    {"ev": "failed", "node", "what", "next"}
"""

import contextlib
import json
import os
import signal
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from db.errors import MissingError, PilotError
from db.files import write_whole
from pilot import host
from pilot.agent.grant import what_is_ours
from pilot.agent.messages import Hello
from pilot.agent.peers import MpiPeers, join_world
from pilot.probes.disk import GO, from_node, try_link, try_locks, wait_for_file
from pilot.probes.launch import Settings, probe_launchers
from pilot.slurm.allocation import NodeGrant

#: so long the file that the doctor puts into the folder is waited for
GO_S = 45.0
#: so long the ranks of a world are waited for once it stands
WORLD_S = 30.0
#: nothing that the doctor has started lives longer
LONGEST_S = 600
_LOOK_S = 0.0005
_ROUNDS = 20


@dataclass(frozen=True, slots=True)
class ProbePlan:
    """What the doctor writes down for the nodes.

    Attributes:
        mark: carried by all that is started, as PILOT_CAMPAIGN.
        grants: what SLURM gave of each node.
        env, mpi_extra, hyperthreads: as in pilot.toml, under [run].
        steps_on: the nodes that try srun as a launcher of tasks: each probe of it is a step of the job.
    """

    mark: str
    grants: dict[str, NodeGrant]
    env: dict[str, str] = field(default_factory=dict)
    mpi_extra: tuple[str, ...] = ()
    hyperthreads: bool = False
    steps_on: tuple[str, ...] = ()

    def write(self, folder: Path) -> None:
        """Into the folder of this diagnosis.

        Raises:
            StorageError: it cannot be written.
        """
        write_whole(folder / "plan.json", json.dumps(asdict(self)))


def read_plan(folder: Path) -> ProbePlan:
    """Read what :meth:`ProbePlan.write` wrote.

    Raises:
        OSError: it is not there.
    """
    data = json.loads((folder / "plan.json").read_text())
    for name in ("mpi_extra", "steps_on"):
        data[name] = tuple(data[name])
    for grant in data["grants"].values():
        grant["gpus"] = None if grant["gpus"] is None else tuple(grant["gpus"])
    return ProbePlan(**data | {"grants": {name: NodeGrant(**grant) for name, grant in data["grants"].items()}})


def _tell(ev: str, **event: Any) -> None:
    # who does not hear us any more is not waited for
    with contextlib.suppress(OSError):
        os.write(1, json.dumps({"ev": ev, "node": node_name(), **event}).encode() + b"\n")


def node_name() -> str:
    """This node, as SLURM calls it."""
    return os.environ.get("SLURMD_NODENAME") or host.hostname()


def _step() -> str:
    step = os.environ.get("SLURM_STEP_ID", "")
    return f"{os.environ.get('SLURM_JOB_ID', '')}.{step}" if step.isdigit() else ""


def look_at_node(folder: Path) -> None:
    """All that one node has to tell."""
    try:
        plan = read_plan(folder)
    except OSError as error:
        _tell("blind", step=_step(), what=error.strerror or str(error))
        return
    hello = what_is_ours(node_name(), plan.grants.get(node_name()), hyperthreads=plan.hyperthreads)
    _tell_of(hello)
    _look_at_disk(folder)
    launching = Settings(
        environ=os.environ,
        site_env=plan.env,
        mpi_extra=plan.mpi_extra,
        mark=plan.mark,
        skip=() if node_name() in plan.steps_on else ("srun",),
    )
    with probe_launchers(launching, hello) as (found, pairs):
        _tell("launchers", found=found)
        for pair in pairs:
            _tell("probed", **asdict(pair))
    _tell("done")


def _tell_of(hello: Hello) -> None:
    seen = {"host": host.hostname(), "boot": host.boot_id(), "step": _step(), "now": host.now()}
    _tell("here", **asdict(hello) | seen | {"seen": len(host.usable_cores())})


def _look_at_disk(folder: Path) -> None:
    _tell("locks", locks=try_locks(folder))
    mine = folder / from_node(node_name())
    write_whole(mine, node_name())
    _tell("wrote")
    if wait_for_file(folder / GO, GO_S):
        _tell("sees", now=host.now())
    _tell("linked", link=try_link(mine))


def be_a_rank(size: int) -> None:
    """Join a world, send some messages to and fro, and leave.

    Raises:
        MissingError: there is no world of that size, or not all ranks are heard.
    """
    peers = join_world(size, lambda library: _tell("joining", library=library, step=_step()))
    if peers.rank != 0:
        _answer(peers)
        return
    me = host.process(os.getpid())
    _tell("ready", pid=os.getpid(), start=me.start if me else 0, host=host.hostname(), step=_step())
    nodes, round_trip_s = _call_all(peers)
    _tell("world", nodes=nodes, round_trip_s=round_trip_s)
    for rank in range(1, size):
        peers.send(rank, None)
    peers.flush(2.0)


def _answer(peers: MpiPeers) -> None:
    deadline = host.monotonic() + 2 * WORLD_S
    while host.monotonic() < deadline:
        for rank, message in peers.arrived():
            if message is None:
                return
            peers.send(rank, node_name())
        host.pause(_LOOK_S)


def _call_all(peers: MpiPeers) -> tuple[list[str], float]:
    """The nodes of all ranks, and how long a message takes there and back, at the best."""
    nodes, best = {0: node_name()}, float("inf")
    deadline = host.monotonic() + WORLD_S
    for _ in range(_ROUNDS):
        began = host.monotonic()
        waiting = set(range(1, peers.size))
        for rank in waiting:
            peers.send(rank, "who are you?")
        while waiting:
            for rank, name in peers.arrived():
                nodes[rank] = name
                waiting.discard(rank)
            if host.monotonic() > deadline:
                raise MissingError(f"{len(waiting)} of {peers.size} ranks did not answer within {WORLD_S:.0f} s")
            host.pause(_LOOK_S)
        best = min(best, host.monotonic() - began)
    return [nodes[rank] for rank in sorted(nodes)], best


def main() -> None:
    """Entry. Leaves without finalising MPI, as the pilot's ranks do."""
    # whoever has started us may have died
    signal.alarm(LONGEST_S)
    what, given = sys.argv[1:3]
    code = 0
    try:
        if what == "nodes":
            look_at_node(Path(given))
        else:
            be_a_rank(int(given))
    except PilotError as error:
        code = error.exit_code
        _tell("failed", what=error.what, next=error.next_step)
    except Exception as error:
        code = 1
        _tell("failed", what=f"{type(error).__name__}: {error}", next="")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
