"""Rank 0: the manager, and the agent of its node, behind the supervisor's pipe."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from pilot import host
from pilot.agent.agent import Agent
from pilot.agent.comm import MpiComm
from pilot.agent.peers import Peers
from pilot.config import read_config
from pilot.drain import Urgency
from pilot.folder import Folder
from pilot.lease import lease_of
from pilot.opening import open_database, status_of
from pilot.orders import DrainOrder, Orders, from_line
from pilot.ranks.plan import Plan
from pilot.session import manage
from pilot.terms import ends_of, terms_of


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
                self.put(DrainOrder("its supervisor has died", Urgency.NOW))
                break
            *lines, self._half = (self._half + content).split(b"\n")
            for line in lines:
                self.put(from_line(line))
        return super().take()


def manage_nodes(plan: Plan, agent: Agent, peers: Peers) -> str:
    """Be the manager of the plan's nodes; says why it ended.

    Raises:
        PilotError: see :func:`pilot.session.manage`.
    """
    folder = Folder(Path(plan.settings.root))
    config = read_config(folder.config).wishing(walltime=plan.walltime_s, cores=plan.cores)
    lease = lease_of(folder, plan.nonce)
    began_at = host.now()
    terms = terms_of(config, began_at=began_at, starts_at=plan.starts_at, ends=ends_of(plan.ends))
    terms = replace(terms, counts_from=plan.counts_from)
    with open_database(folder, config, lease, plan.settings.epoch) as opened:
        comm = MpiComm(agent, peers, plan.nodes, plan.silence_s)
        status = status_of(lease, plan.settings.epoch, began_at)
        return manage(opened, comm, PipedOrders(), terms, status)
