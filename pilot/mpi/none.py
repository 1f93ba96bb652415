"""One rank, started directly: an MPI program that finds no launcher is a world of its own."""

from collections.abc import Sequence

from db.errors import InputError
from pilot.mpi.protocol import Slot


class Direct:
    """No launcher at all; one rank only."""

    name = "none"
    place = 0

    def found(self) -> str | None:
        """Always there."""
        return "direct start"

    def wrap(self, command: Sequence[str], slot: Slot) -> tuple[list[str], dict[str, str]]:
        """The command itself.

        Raises:
            InputError: more than one rank is asked for.
        """
        if slot.ranks != 1 or slot.others:
            raise InputError(
                f"{slot.ranks} ranks cannot be started without an MPI launcher",
                where="mpi launcher = none",
                next_step='set the MPI launcher to "auto", or ranks = 1',
            )
        # without this Open MPI starts a daemon beside the program, which costs more than the program's start
        return list(command), {"OMPI_MCA_ess_singleton_isolated": "1"}
