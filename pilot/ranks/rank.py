"""One rank of the pilot's own world, on one node: ``python -P -m pilot.ranks.rank PLAN``.

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
from pilot.agent.comm import NOT_HEARD, resign, serve
from pilot.agent.peers import join_world
from pilot.folder import keep_mode
from pilot.ranks.forsaken import WITNESSES, end_forsaken_job
from pilot.ranks.plan import Plan, read_plan
from pilot.slurm.client import Slurm
from tasks.registry import engine

log = logging.getLogger("pilot")


class _Told(logging.Handler):
    """What is logged here goes to the log of the supervisor."""

    def emit(self, record: logging.LogRecord) -> None:
        _tell(ev="log", level=record.levelno, said=record.getMessage())


def _tell(**event: Any) -> None:
    # who does not hear us any more is not waited for
    with contextlib.suppress(OSError):
        # on a line of its own, whatever a library may have printed there before
        os.write(1, b"\n" + json.dumps(event).encode() + b"\n")


def _live(plan: Plan, node: str) -> None:
    keep_mode(Path(plan.settings.root))
    agent = Agent(plan.settings, engine, node, grant=plan.nodes.get(node))
    peers = join_world(len(plan.nodes), lambda library: _tell(ev="joining", library=library))
    if peers.rank == 0:
        me = host.process(os.getpid())
        step = f"{os.environ.get('SLURM_JOB_ID', '')}.{os.environ.get('SLURM_STEP_ID', '')}"
        _tell(ev="ready", pid=os.getpid(), start=me.start if me else 0, host=host.hostname(), step=step)
        # the database and the campaign are not for the many: on a shared disk their import takes its time
        from pilot.ranks.rank_zero import manage_nodes

        _tell(ev="ended", why=manage_nodes(plan, agent, peers))
        return
    try:
        why = serve(agent, peers, plan.silence_s)
    except PilotError as error:
        resign(agent, peers, "; ".join(str(error).splitlines()))
    except Exception as error:
        traceback.print_exc()
        resign(agent, peers, f"{type(error).__name__}: {error}")
    else:
        job_id = os.environ.get("SLURM_JOB_ID")
        if why == NOT_HEARD and job_id and peers.rank <= WITNESSES:
            # MPI is not used any more: now this rank may start programs
            end_forsaken_job(Slurm(os.environ), job_id)


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
