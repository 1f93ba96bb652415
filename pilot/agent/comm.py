"""How the manager and the agents reach each other: by MPI between nodes, or within one process on one node."""

from typing import Protocol

from pilot import host
from pilot.agent.agent import Agent
from pilot.agent.messages import Goodbye, ToAgent, ToManager

#: Python goes on waiting after a signal whose handler returns: so no wait is longer than this
LONGEST_WAIT_S = 0.5


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
