"""Which MPI launcher starts a task."""

import copy
from collections.abc import Mapping, Sequence

from db.errors import InputError, MissingError
from pilot.mpi import linked
from pilot.mpi.intelmpi import IntelMpi
from pilot.mpi.linked import library_of
from pilot.mpi.mpich import Mpich
from pilot.mpi.none import Direct
from pilot.mpi.openmpi4 import OpenMpi4
from pilot.mpi.openmpi5 import OpenMpi5
from pilot.mpi.protocol import MpiLauncher
from pilot.mpi.srun import Srun

#: what can be named in pilot.toml
LAUNCHERS: tuple[str, ...] = ("auto", "openmpi4", "openmpi5", "intelmpi", "mpich", "srun", "none")

#: for programs of each library the launchers that make one world of them, the better first; srun comes after all.
#: Intel MPI and MPICH start each other's programs; the two Open MPIs do not, reliably. See docs/mpi.md.
_FITTING: Mapping[str, tuple[str, ...]] = {
    linked.OPENMPI4: ("openmpi4",),
    linked.OPENMPI5: ("openmpi5",),
    linked.INTELMPI: ("intelmpi", "mpich"),
    linked.MPICH: ("mpich", "intelmpi"),
    linked.CRAY: (),
}
#: the first on the PATH is taken of these
_EITHER: Mapping[str | None, tuple[str, ...]] = {
    linked.OPENMPI: ("openmpi5", "openmpi4"),
    None: ("openmpi5", "openmpi4", "intelmpi", "mpich"),
}


class Chooser:
    """Knows the launchers that are installed and picks one for each task.

    Args:
        name: one of LAUNCHERS.
        environ: of the tasks.
        job: what :func:`pilot.mpi.scrub.of_the_job` kept of the SLURM job that we are in; empty: we are in none.
        extra: arguments for the launcher, beside its own, such as ``--mca btl ^openib``.

    Raises:
        InputError: there is no launcher of that name.
    """

    def __init__(
        self, name: str, environ: Mapping[str, str], job: Mapping[str, str] = {}, extra: Sequence[str] = ()
    ) -> None:
        self._environ = environ
        self._job = job
        self._direct = Direct()
        kinds = (OpenMpi4, OpenMpi5, IntelMpi, Mpich, Srun)
        made: list[MpiLauncher] = [*(kind(environ, job, extra) for kind in kinds), self._direct]
        self._launchers = {launcher.name: launcher for launcher in made}
        self._libraries: dict[str, str | None] = {}
        self._name = _known(name)

    def named(self, name: str) -> "Chooser":
        """Another chooser, which knows what this one has found: nothing is looked for again.

        Raises:
            InputError: there is no launcher of that name.
        """
        other = copy.copy(self)
        other._name = _known(name)
        return other

    def choose(self, ranks: int, program: str = "", nodes: int = 1) -> MpiLauncher:
        """The launcher for a task.

        "auto" starts one rank directly, which is quicker; more by a launcher of the MPI that the program is linked
        with; where that is not seen, by the first launcher on the PATH.

        Args:
            ranks: of the task, on all its nodes.
            program: what is started, to see what it is linked with.
            nodes: over which the ranks are spread.

        Raises:
            MissingError: the launcher that is named or needed is not installed; or the ranks are spread over nodes,
                and we are in no SLURM job.
        """
        if nodes > 1 and "SLURM_JOB_ID" not in self._job:
            raise MissingError(
                f"a task is to be spread over {nodes} nodes, and this is no SLURM job",
                where="the resources of the task",
                next_step="set nodes = 1, or submit the pilot to SLURM",
            )
        if self._name != "auto":
            return self._checked(self._launchers[self._name])
        if ranks == 1:
            return self._direct
        library = self._library_of(program)
        fitting = self._fitting(library)
        srun = self._launchers["srun"]
        if not fitting and "SLURM_JOB_ID" in self._job and srun.found() is not None:
            return srun
        if not fitting:
            raise _nothing_fits(ranks, program, library, self.findings())
        return fitting[0]

    def findings(self) -> dict[str, str | None]:
        """For each launcher the version found here; what is found is remembered."""
        return {name: launcher.found() for name, launcher in self._launchers.items()}

    def _fitting(self, library: str | None) -> list[MpiLauncher]:
        either = _EITHER.get(library, ())
        found = [self._launchers[name] for name in (*_FITTING.get(library or "", ()), *either)]
        found = [launcher for launcher in found if launcher.found() is not None]
        return sorted(found, key=lambda launcher: launcher.place) if either else found

    def _library_of(self, program: str) -> str | None:
        if program not in self._libraries:
            self._libraries[program] = library_of(program, self._environ) if program else None
        return self._libraries[program]

    @staticmethod
    def _checked(launcher: MpiLauncher) -> MpiLauncher:
        if launcher.found() is None:
            raise MissingError(
                f"the MPI launcher {launcher.name} is not installed",
                where="the PATH of the tasks",
                next_step='load its module, or set the MPI launcher to "auto"',
            )
        return launcher


def _known(name: str) -> str:
    if name not in LAUNCHERS:
        raise InputError(
            f"no MPI launcher is called {name!r}",
            where="the MPI launcher in pilot.toml",
            next_step=f"use one of: {', '.join(LAUNCHERS)}",
        )
    return name


def _nothing_fits(ranks: int, program: str, library: str | None, findings: Mapping[str, str | None]) -> MissingError:
    where = "the PATH of the tasks"
    there = [f"{name} {version}" for name, version in findings.items() if version and name not in ("none", "srun")]
    if library is None:
        return MissingError(
            f"{ranks} ranks are asked for, and no MPI launcher was found",
            where=f"{where}; looked for: mpirun of Open MPI 4 and 5, mpiexec of Intel MPI and MPICH",
            next_step="load the module of the MPI that your programs were built with, or set ranks = 1",
        )
    name = linked.NAMES[library]
    if library == linked.CRAY:
        step = "run inside a SLURM job, where srun starts it"
    else:
        step = f"load the module of {name} (module avail), or name another launcher: mpi = ..."
    return MissingError(
        f"{program} is linked with {name}, and no launcher of {name} was found",
        where=f"{where}; found there: {', '.join(there) or 'none'}",
        next_step=step,
    )
