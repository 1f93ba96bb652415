"""What it takes to start an MPI program inside a slot. One module per launcher program stands behind this."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from db.errors import InputError
from db.records import Share


@dataclass(frozen=True, slots=True)
class Slot:
    """The cores of one attempt.

    Attributes:
        ranks: MPI processes of the whole attempt, as many on each of its nodes.
        threads: cores of each rank.
        cores: of the head node (that of the agent which starts the attempt), as the kernel numbers them; the first
            ``threads`` belong to its first rank. None at all on a node that was given more cores than it has:
            nothing is pinned then.
        node: the head's name, as SLURM calls it; it may be left out where there are no ``others``.
        others: what the attempt holds on other nodes.
    """

    ranks: int
    threads: int
    cores: tuple[int, ...]
    node: str = ""
    others: tuple[Share, ...] = ()

    @property
    def shares(self) -> tuple[Share, ...]:
        """All nodes in the order in which SLURM counts them, n2 before n10: Open MPI 5 insists on it."""
        return tuple(sorted((Share(self.node, self.cores), *self.others), key=_counted))

    @property
    def ranks_per_node(self) -> int:
        """Ranks on each node."""
        return self.ranks // (1 + len(self.others))

    @property
    def pinned(self) -> bool:
        """Whether each rank has cores of its own."""
        return all(share.cores for share in self.shares)

    def cores_of(self, rank: int, share: Share | None = None) -> tuple[int, ...]:
        """The cores of a rank of one node, counted from 0 there; ``share`` None: of the head."""
        cores = self.cores if share is None else share.cores
        return cores[rank * self.threads : (rank + 1) * self.threads]

    def check(self, command: Sequence[str] = ()) -> None:
        """See that the numbers fit each other, and that the command can pass a launcher.

        Raises:
            InputError: they do not; or an argument of the command is a colon alone, which all launchers take for
                the border between two programs of one world.
        """
        nodes = 1 + len(self.others)
        if self.ranks < 1 or self.threads < 1 or self.ranks % nodes:
            raise InputError(
                f"{self.ranks} ranks of {self.threads} cores cannot be spread evenly over {nodes} nodes",
                where="the resources of the task",
                next_step=f"set ranks to a multiple of {nodes}, or nodes to a divisor of {self.ranks}",
            )
        if self.others and not all(share.node for share in self.shares):
            raise InputError("a slot on several nodes needs the name of each", where="the slot of the attempt")
        here = self.ranks_per_node
        for share in self.shares if self.pinned else ():
            if len(share.cores) != here * self.threads:
                raise InputError(
                    f"{here} ranks of {self.threads} cores do not fit {len(share.cores)} cores",
                    where=f"the slot on {share.node or 'this node'}",
                    next_step="this is a mistake of the pilot, not yours; see `pilot doctor`",
                )
        if ":" in command:
            raise InputError(
                "an argument that is only a colon cannot be passed through an MPI launcher",
                where=" ".join(command),
                next_step="put the command into a script, and start that",
            )


def _counted(share: Share) -> list[int | str]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", share.node)]


class MpiLauncher(Protocol):
    """How one launcher program is called."""

    name: str

    @property
    def place(self) -> int:
        """How far behind on the PATH it was found; the lower, the more it is what the user loaded."""

    def found(self) -> str | None:
        """The version that is installed here, or None when there is none that we know how to call."""

    def wrap(self, command: Sequence[str], slot: Slot) -> tuple[list[str], dict[str, str]]:
        """What to start instead of ``command``, and what to add to the environment.

        Raises:
            PilotError: this launcher cannot start that in this slot.
        """
