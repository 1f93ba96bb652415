"""What the launchers have in common that are programs on the PATH of the tasks."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from pilot.mpi.search import Search


class Installed(ABC):
    """A launcher that is looked for; what it is called with, each says for itself.

    Args:
        environ: of the tasks.
        job: the variables of the SLURM job that we are in.
        extra: arguments for the launcher.
    """

    name: str

    def __init__(self, environ: Mapping[str, str], job: Mapping[str, str] = {}, extra: Sequence[str] = ()) -> None:
        self._environ = environ
        self._job = job
        self._extra = extra
        self._search = self._looked_for()

    @abstractmethod
    def _looked_for(self) -> Search:
        """How its program is found."""

    @property
    def place(self) -> int:
        """How far behind on the PATH it is."""
        return self._search.place

    def found(self) -> str | None:
        """The version, or None; looked for once."""
        return self._search.version
