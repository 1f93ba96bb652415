"""How the manager and the agents reach each other: by MPI between nodes, or within one process on one node."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from pilot import host
from pilot.agent.agent import Agent
from pilot.agent.messages import Again, Gone, Goodbye, ToAgent, ToManager
from pilot.agent.peers import Peers
from pilot.agent.silence import Silence

#: Python goes on waiting after a signal whose handler returns: so no wait is longer than this
LONGEST_WAIT_S = 0.5
#: between two looks for messages, while there are some and while there are none: an idle rank burns no core
QUICK_S, CALM_S = 0.0005, 0.008
#: so often one says that one lives
BEAT_S = 2.0
#: how long an agent may take until it is first heard
FIRST_S = 90.0
#: So many times as long does an agent wait for the manager: held up by its disk it comes back, and if it is dead
#: the supervisor ends us.
_PATIENCE = 5
_LEAVE_S = 8.0


class Comm(Protocol):
    """The manager's side of the talk with its agents."""

    def send(self, node: str, message: ToAgent) -> None:
        """To one agent; what is sent to a node that is not there (any more) is dropped."""

    def receive(self, timeout_s: float) -> list[tuple[str, ToManager]]:
        """What the agents have reported, each with its node; waits at most ``timeout_s``, and never over 0.5 s."""

    def nodes(self) -> tuple[str, ...]:
        """The nodes that have an agent."""

    def close(self) -> None:
        """End all agents and what they run."""


class LocalComm:
    """One node: the agent lives in the manager's process, and is driven by :meth:`receive`."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def send(self, node: str, message: ToAgent) -> None:
        """At once to our agent, if it is the one that is meant."""
        if node == self._agent.node:
            self._agent.handle(message)

    def receive(self, timeout_s: float) -> list[tuple[str, ToManager]]:
        """What our agent has to report.

        Raises:
            MissingError: the launcher cannot be started on this node.
        """
        reports = self._agent.poll(min(timeout_s, LONGEST_WAIT_S))
        return [(self._agent.node, report) for report in reports]

    def nodes(self) -> tuple[str, ...]:
        """Our node."""
        return (self._agent.node,)

    def close(self) -> None:
        """End all that runs, gently if it goes quickly."""
        self._agent.handle(Goodbye())
        deadline = host.monotonic() + 5.0
        while not self._agent.finished and host.monotonic() < deadline:
            self._agent.poll(LONGEST_WAIT_S)
        self._agent.close()


@dataclass(frozen=True, slots=True)
class Beat:
    """Either way: the sender lives."""


@dataclass(frozen=True, slots=True)
class Report:
    """Agent → manager, as it travels: each message says which node it is from.

    ``life`` is how often the agent had begun again when it said so: what it said before is of no use any more.
    """

    node: str
    message: ToManager | Beat
    life: int = 0


@dataclass(frozen=True, slots=True)
class Left:
    """Agent → manager: all has ended here, and this is my last word."""

    node: str


class MpiComm:
    """Many nodes: the agent of our own node lives in this process (rank 0), the others are ranks.

    Args:
        agent: of this node.
        peers: the other ranks.
        nodes: all nodes that should have an agent.
        silence_s: a node that is not heard for so long is lost.
    """

    def __init__(self, agent: Agent, peers: Peers, nodes: Iterable[str], silence_s: float) -> None:
        self._own = LocalComm(agent)
        self._agent = agent
        self._peers = peers
        self._others = [node for node in nodes if node != agent.node]
        self._rank_of: dict[str, int] = {}
        self._lives: Counter[str] = Counter()
        self._silence = Silence(self._others, silence_s, max(FIRST_S, silence_s), host.monotonic())
        self._lost: set[str] = set()
        self._left: set[str] = set()
        self._beat_at = 0.0

    def send(self, node: str, message: ToAgent) -> None:
        """See :class:`Comm`."""
        if node == self._agent.node:
            self._agent.handle(message)
        elif node in self._rank_of and node not in self._lost:
            self._peers.send(self._rank_of[node], message)

    def receive(self, timeout_s: float) -> list[tuple[str, ToManager]]:
        """See :class:`Comm`.

        Raises:
            MissingError: the launcher cannot be started on this node.
        """
        deadline = host.monotonic() + min(timeout_s, LONGEST_WAIT_S)
        pause_s = 0.0
        while True:
            reports = self._own.receive(pause_s) + self._from_others()
            now = host.monotonic()
            reports += self._on_time(now)
            if reports or now >= deadline:
                return reports
            pause_s = min(deadline - now, CALM_S, max(QUICK_S, 2 * pause_s))

    def nodes(self) -> tuple[str, ...]:
        """See :class:`Comm`."""
        return (self._agent.node, *(node for node in self._others if node not in self._lost))

    def close(self) -> None:
        """End all that runs everywhere, and wait a while for the last words."""
        for node in self._others:
            self.send(node, Goodbye())
        self._own.close()
        deadline = host.monotonic() + _LEAVE_S
        while not self._left >= (self._rank_of.keys() - self._lost) and host.monotonic() < deadline:
            self._from_others()
            host.pause(CALM_S)

    def _from_others(self) -> list[tuple[str, ToManager]]:
        reports: list[tuple[str, ToManager]] = []
        for rank, said in self._peers.arrived():
            if isinstance(said, Left):
                self._left.add(said.node)
                self._silence.forget(said.node)
            else:
                reports += self._heard(rank, said)
        return reports

    def _heard(self, rank: int, said: Report) -> list[tuple[str, ToManager]]:
        """What the manager has to know of it."""
        self._rank_of[said.node] = rank
        was_lost = said.node in self._lost
        if isinstance(said.message, Gone):
            self._lost.add(said.node)
            self._silence.forget(said.node)
            return [] if was_lost else [(said.node, said.message)]
        self._silence.heard(said.node)
        if was_lost:
            # it was only slow: what it ran is under way elsewhere, so it has to begin anew
            self._lost.discard(said.node)
            self._lives[said.node] += 1
            self._peers.send(rank, Again())
        if isinstance(said.message, Beat) or said.life < self._lives[said.node]:
            return []
        return [(said.node, said.message)]

    def _on_time(self, now: float) -> list[tuple[str, ToManager]]:
        self._silence.listen(now)
        if now < self._beat_at:
            return []
        self._beat_at = now + BEAT_S
        for node, rank in self._rank_of.items():
            if node not in self._lost and node not in self._left:
                self._peers.send(rank, Beat())
        gone: list[tuple[str, ToManager]] = []
        for node, silent_s in self._silence.lost():
            self._lost.add(node)
            gone.append((node, Gone(node, f"nothing was heard of it for {silent_s:.0f} s")))
        return gone


#: why an agent ended that was not told to
NOT_HEARD = "the manager is not heard any more"


def serve(agent: Agent, peers: Peers, silence_s: float) -> str:
    """The life of an agent in a rank of its own: until the manager says goodbye or is not heard any more.

    Returns:
        why it ended.

    Raises:
        MissingError: the launcher cannot be started on this node; see :func:`resign`.
    """
    patience_s = _PATIENCE * silence_s
    silence = Silence(["manager"], patience_s, max(FIRST_S, patience_s), host.monotonic())
    beat_at, pause_s, life = 0.0, QUICK_S, 0
    while not agent.finished:
        arrived = [message for rank, message in peers.arrived() if rank == 0]
        for message in arrived:
            silence.heard("manager")
            life += isinstance(message, Again)
            if not isinstance(message, Beat):
                agent.handle(message)
        reports: list[ToManager | Beat] = [*agent.poll(pause_s)]
        now = host.monotonic()
        silence.listen(now)
        if silence.lost():
            agent.close()
            return NOT_HEARD
        if now >= beat_at:
            beat_at = now + BEAT_S
            reports.append(Beat())
        for report in reports:
            peers.send(0, Report(agent.node, report, life))
        pause_s = QUICK_S if arrived or len(reports) > 1 else min(CALM_S, 2 * pause_s)
    agent.close()
    peers.send(0, Left(agent.node))
    peers.flush(2.0)
    return "the manager said goodbye"


def resign(agent: Agent, peers: Peers, why: str) -> None:
    """Leave because this node cannot go on, and tell the manager: the other nodes go on."""
    peers.send(0, Report(agent.node, Gone(agent.node, why)))
    peers.flush(2.0)
    agent.close()
