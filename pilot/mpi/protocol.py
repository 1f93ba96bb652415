"""What it takes to start an MPI program inside a slot. One module per launcher program stands behind this."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Slot:
    """The cores of one attempt.

    Attributes:
        ranks: MPI processes.
        threads: cores of each rank.
        cores: ``ranks * threads`` cores as the kernel numbers them; the first ``threads`` belong to rank 0. None
            at all on a node that was given more cores than it has: nothing is pinned there.
    """

    ranks: int
    threads: int
    cores: tuple[int, ...]

    def cores_of(self, rank: int) -> tuple[int, ...]:
        """The cores of one rank."""
        return self.cores[rank * self.threads : (rank + 1) * self.threads]


class MpiLauncher(Protocol):
    """How one launcher program is called."""

    name: str

    def found(self) -> str | None:
        """The version that is installed here, or None when there is none that we know how to call."""

    def wrap(self, command: Sequence[str], slot: Slot) -> tuple[list[str], dict[str, str]]:
        """What to start instead of ``command``, and what to add to the environment.

        Raises:
            PilotError: this launcher cannot start that in this slot.
        """
