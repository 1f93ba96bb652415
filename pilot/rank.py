"""One rank of the pilot's own world, on one node: ``python -P -m pilot.rank PLAN``.

Rank 0 is the manager and the agent of its node; each other rank is the agent of its own. The launcher is started
before MPI. What is to be told to the supervisor goes to stdout, one JSON line each:

    {"ev": "joining", "library"}                        the MPI that is found here is about to be initialised
    {"ev": "ready", "pid", "start", "host", "step"}     rank 0 has joined the world
    {"ev": "log", "level", "said"}
    {"ev": "ended", "why"}                              the manager has come to its end, in order
    {"ev": "failed", "node", "kind", "what", "where", "next"}
"""

import contextlib
import json
import logging
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from db.errors import PilotError
from pilot import host
from pilot.agent.agent import Agent
from pilot.agent.comm import MpiComm, serve
from pilot.agent.messages import Gone
from pilot.agent.peers import Peers, join_world
from pilot.config import read_config
from pilot.folder import Folder
from pilot.lease import lease_of
from pilot.opening import open_database, status_of
from pilot.orders import DrainOrder, Orders, from_line
from pilot.plan import Plan, read_plan
from pilot.session import manage
from pilot.terms import terms_of
from tasks.registry import engine

log = logging.getLogger("pilot")


class PipedOrders(Orders):
    """The supervisor's orders, as they come in on stdin."""

    def __init__(self) -> None:
        super().__init__()
        self._half = b""
        self._open = True
        os.set_blocking(0, False)

    def take(self) -> list[DrainOrder | Any]:
        """See :class:`Orders`. When the pipe is closed, the supervisor is dead: all is to end."""
        while self._open:
            try:
                content = os.read(0, 65536)
            except BlockingIOError:
                break
            if not content:
                self._open = False
                self.put(DrainOrder("its supervisor has died", at_once=True))
                break
            *lines, self._half = (self._half + content).split(b"\n")
            for line in lines:
                self.put(from_line(line))
        return super().take()


class _Told(logging.Handler):
    """What is logged here goes to the log of the supervisor."""

    def emit(self, record: logging.LogRecord) -> None:
        _tell(ev="log", level=record.levelno, said=record.getMessage())


def _tell(**event: Any) -> None:
    # who does not hear us any more is not waited for
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(event).encode() + b"\n")


def _manage(plan: Plan, agent: Agent, peers: Peers) -> None:
    folder = Folder(Path(plan.settings.root))
    config = read_config(folder.config)
    wishes = {"walltime": plan.walltime_s, "cores": plan.cores}
    run = config.run.model_copy(update={key: value for key, value in wishes.items() if value is not None})
    config = config.model_copy(update={"run": run})
    lease = lease_of(folder, plan.nonce)
    began_at = host.now()
    terms = terms_of(config, began_at=began_at, starts_at=plan.starts_at, ends_at=plan.ends_at)
    with open_database(folder, config, lease, plan.settings.epoch) as opened:
        comm = MpiComm(agent, peers, plan.nodes, plan.silence_s)
        status = status_of(lease, plan.settings.epoch, began_at)
        why = manage(opened, comm, PipedOrders(), terms, status)
    _tell(ev="ended", why=why)


def _live(plan: Plan, node: str) -> None:
    agent = Agent(plan.settings, engine, node, grant=plan.nodes.get(node))
    peers = join_world(len(plan.nodes), lambda library: _tell(ev="joining", library=library))
    if peers.rank == 0:
        me = host.process(os.getpid())
        step = f"{os.environ.get('SLURM_JOB_ID', '')}.{os.environ.get('SLURM_STEP_ID', '')}"
        _tell(ev="ready", pid=os.getpid(), start=me.start if me else 0, host=host.hostname(), step=step)
        _manage(plan, agent, peers)
        return
    try:
        serve(agent, peers, plan.silence_s)
    except PilotError as error:
        # this node only: the others go on
        peers.send(0, Gone(node, "; ".join(str(error).splitlines())))
        peers.flush(2.0)
        agent.close()


def main() -> None:
    """Entry. Leaves without finalising MPI, which would wait for ranks that have died."""
    # at the end of a job SLURM sends SIGTERM to all: the supervisor hears it too, and has us drain in order
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(_Told())
    node = os.environ.get("SLURMD_NODENAME") or host.hostname()
    code = 0
    try:
        _live(read_plan(Path(sys.argv[1])), node)
    except PilotError as error:
        code = error.exit_code
        _tell(
            ev="failed", node=node, kind=type(error).__name__, what=error.what, where=error.where, next=error.next_step
        )
    except BaseException as error:
        code = 1
        traceback.print_exc()
        _tell(ev="failed", node=node, kind="", what=f"{type(error).__name__}: {error}", where=node, next="")
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
