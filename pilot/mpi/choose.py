"""Which MPI launcher starts a task."""

from collections.abc import Mapping

from db.errors import InputError, MissingError
from pilot.mpi.none import Direct
from pilot.mpi.openmpi4 import OpenMpi4
from pilot.mpi.protocol import MpiLauncher


class Chooser:
    """Knows the launchers that are installed and picks one for each task.

    Args:
        name: "auto", or the name of a launcher.
        environ: of the tasks.

    Raises:
        InputError: there is no launcher of that name.
    """

    def __init__(self, name: str, environ: Mapping[str, str]) -> None:
        self._direct = Direct()
        self._launchers: dict[str, MpiLauncher] = {
            launcher.name: launcher for launcher in (OpenMpi4(environ), self._direct)
        }
        if name != "auto" and name not in self._launchers:
            raise InputError(
                f"no MPI launcher is called {name!r}",
                where="the MPI launcher in pilot.toml",
                next_step=f"use one of: auto, {', '.join(self._launchers)}",
            )
        self._name = name

    def choose(self, ranks: int) -> MpiLauncher:
        """The launcher for a task of that many ranks; "auto" starts one rank directly, which is quicker.

        Raises:
            MissingError: more than one rank, and no launcher that we know is installed.
        """
        if self._name != "auto":
            return self._checked(self._launchers[self._name])
        if ranks == 1:
            return self._direct
        for launcher in self._launchers.values():
            if launcher is not self._direct and launcher.found() is not None:
                return launcher
        raise MissingError(
            f"{ranks} ranks are asked for, and no MPI launcher was found (looked for: mpirun of Open MPI 4)",
            where="the PATH of the tasks",
            next_step="load the module of the MPI that your programs were built with, or set ranks = 1",
        )

    def findings(self) -> dict[str, str | None]:
        """For each launcher the version found here; what is found is remembered."""
        return {name: launcher.found() for name, launcher in self._launchers.items()}

    @staticmethod
    def _checked(launcher: MpiLauncher) -> MpiLauncher:
        if launcher.found() is None:
            raise MissingError(
                f"the MPI launcher {launcher.name} is not installed",
                where="the PATH of the tasks",
                next_step='load its module, or set the MPI launcher to "auto"',
            )
        return launcher
