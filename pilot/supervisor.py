"""The supervisor: takes the folder, sets up the manager and its agents, hears the signals, and tidies up.

On one node all lives in this process. In an allocation of several nodes the supervisor is the batch process, and the
manager and the agents are ranks that it starts (:mod:`pilot.ranks.worlds`).
"""

import contextlib
import logging
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from db.errors import InputError
from pilot import host
from pilot.agent.agent import Agent
from pilot.agent.comm import LocalComm
from pilot.config import Config
from pilot.drain import LEAST_RESERVE_S, TERM_S, Urgency, last_moment
from pilot.durations import say_duration
from pilot.end_watch import watched_end
from pilot.folder import Folder
from pilot.lease import Lease
from pilot.opening import agent_settings, begin_pilot, held_folder, open_database
from pilot.orders import DrainOrder, Orders
from pilot.ranks.worlds import Worlds, ends_at_the_start
from pilot.session import Observer, manage
from pilot.slurm.allocation import Allocation, NodeGrant, from_environment
from pilot.terms import terms_of
from tasks.registry import engine

log = logging.getLogger("pilot")

#: how signals are called, where that is not by their name, and what they mean
_SAID = {signal.SIGINT: "Ctrl-C", signal.SIGUSR2: "pilot drain"}
_MEANS = {
    signal.SIGINT: Urgency.WISH,
    signal.SIGUSR2: Urgency.WISH,
    signal.SIGUSR1: Urgency.WARNING,
    signal.SIGTERM: Urgency.HURRY,
}


def run_pilot(
    folder: Folder,
    config: Config,
    on_snapshot: Observer | None = None,
    on_held: Callable[[], None] = lambda: None,
) -> str:
    """Run a pilot until nothing is left to do, or it has drained; says why it ended.

    In an allocation it uses all its nodes; elsewhere this machine.

    Args:
        folder: of the campaign.
        config: its pilot.toml.
        on_snapshot: called with each snapshot.
        on_held: called once the folder is ours.

    Raises:
        HeldError: a pilot holds the folder.
        InputError: the wall time is too short to end in order.
        PilotError: the folder, the configuration or the allocation cannot be used; or the database, the disk or the
            lease was lost on the way.
    """
    _demand_time(config)
    allocation = from_environment(os.environ)
    orders = Orders()
    with held_folder(folder, "run") as lease, _signals(orders), _end_of(allocation, orders):
        on_held()
        if allocation is None:
            if shutil.which("sbatch") is not None:
                log.warning("this is no allocation: everything runs on this machine (`pilot submit` asks for one)")
            return _run_here(folder, config, lease, orders, None, on_snapshot)
        here = _this_node(allocation)
        if here is not None and (len(allocation.nodes) == 1 or config.run.world == "local"):
            return _run_here(folder, config, lease, orders, allocation, on_snapshot)
        return Worlds(folder, config, lease, orders, allocation, on_snapshot).run()


def _demand_time(config: Config) -> None:
    run = config.run
    if run.walltime is not None and last_moment(run.walltime, run.walltime, run.soft_stop) <= 0.0:
        least = run.soft_stop + TERM_S + LEAST_RESERVE_S
        raise InputError(
            f"{say_duration(run.walltime)} leaves no time for any task: to end in order takes {say_duration(least)}",
            where="--walltime, or run.walltime in pilot.toml",
            next_step="give it more time, or make run.soft_stop shorter",
        )


def _run_here(
    folder: Folder,
    config: Config,
    lease: Lease,
    orders: Orders,
    allocation: Allocation | None,
    observer: Observer | None,
) -> str:
    """The manager and the only agent in this process."""
    grant = None if allocation is None else _this_node(allocation)
    with open_database(folder, config, lease) as opened:
        status = begin_pilot(opened)
        log.info("pilot %d begins in %s", status.id, folder.root)
        agent = Agent(agent_settings(opened), engine, "" if grant is None else grant.name, grant=grant)
        terms = terms_of(
            config,
            began_at=status.started_at,
            starts_at=None if allocation is None else allocation.starts_at or host.began_at(),
            ends=ends_at_the_start(allocation),
        )
        return manage(opened, LocalComm(agent), orders, terms, status, observer)


def _this_node(allocation: Allocation) -> NodeGrant | None:
    """The node that we are on; None: we are on none of them (on a login node, with salloc)."""
    ours = {os.environ.get("SLURMD_NODENAME"), host.hostname()}
    return next((node for node in allocation.nodes if node.name in ours), None)


def _end_of(allocation: Allocation | None, orders: Orders) -> contextlib.AbstractContextManager[None]:
    if allocation is None:
        return contextlib.nullcontext()
    return watched_end(allocation, os.environ, orders)


@contextmanager
def _signals(orders: Orders) -> Iterator[None]:
    """Ctrl-C, SIGTERM, SIGUSR1 and SIGUSR2 drain; a second Ctrl-C or SIGTERM ends what runs at once.

    SIGUSR1 is SLURM's warning that the end is near, as the batch script asks for it; SIGUSR2 comes from `pilot drain`;
    SIGTERM from who will kill soon (scancel, a machine that is shut down).
    """
    heard: list[int] = []

    def drain(number: int, _frame: FrameType | None) -> None:
        again = number in heard and number in {signal.SIGINT, signal.SIGTERM}
        heard.append(number)
        sent = signal.Signals(number)
        orders.put(DrainOrder(_SAID.get(sent, sent.name), Urgency.NOW if again else _MEANS[sent]))

    before = {number: signal.signal(number, drain) for number in _MEANS}
    try:
        yield
    finally:
        for number, handler in before.items():
            with contextlib.suppress(ValueError):
                signal.signal(number, handler)
