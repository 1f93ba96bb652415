"""Open MPI 4 on this node only, each rank on cores of its own.

Open MPI's own ``--cpu-set`` is not used. It counts cores in the order of the hardware's tree and not as the
kernel numbers them, and where a core has two hardware threads it puts two ranks on one core and leaves the other
idle (seen with ``--display-map`` on synthetic topologies, 4.1.4). Instead each rank is an application of its own
in one world, and ``taskset`` gives it its cores: the kernel's numbers, and any number of threads.
"""

import os
import re
import shutil
from collections.abc import Mapping, Sequence

from db.errors import InputError
from pilot import host
from pilot.mpi.protocol import Slot

_VERSION = re.compile(r"\(Open ?MPI\)\s+(\d+)\.(\S+)")


class OpenMpi4:
    """``mpirun`` of Open MPI 4.

    Args:
        environ: of the tasks. The first Open MPI 4 on its PATH counts: there may be an ``mpirun`` of another MPI
            before it, as the wheel that our own ranks use brings one.
    """

    name = "openmpi4"

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._searched = False
        self._program: str | None = None
        self._version: str | None = None

    def found(self) -> str | None:
        """The version, or None; looked for once."""
        if not self._searched:
            self._searched = True
            for program in _programs("mpirun", self._environ.get("PATH", os.defpath)):
                answer = host.run([program, "--version"], timeout_s=20.0, env=self._environ)
                match = _VERSION.search(answer.stdout)
                if match is not None and match[1] == "4":
                    self._program, self._version = program, f"{match[1]}.{match[2]}"
                    break
        return self._version

    def wrap(self, command: Sequence[str], slot: Slot) -> tuple[list[str], dict[str, str]]:
        """``mpirun`` with one application for each rank, each on the cores of its rank.

        Raises:
            InputError: the slot has neither ``ranks * threads`` cores nor none (then nothing is pinned), or an
                argument of the command is a colon alone, which for Open MPI is the border between applications.
        """
        if slot.cores and len(slot.cores) != slot.ranks * slot.threads:
            raise InputError(f"{slot.ranks} ranks of {slot.threads} cores do not fit {len(slot.cores)} cores")
        if ":" in command:
            raise InputError("an argument that is only a colon cannot be passed through mpirun")
        argv = [self._program or "mpirun", "--mca", "plm", "isolated", "--mca", "ras", "^slurm"]
        argv += ["--host", f"localhost:{slot.ranks}", "--bind-to", "none"]
        if not slot.cores:
            argv += ["-np", str(slot.ranks), *command]
        for rank in range(slot.ranks if slot.cores else 0):
            if rank:
                argv.append(":")
            cores = ",".join(str(core) for core in slot.cores_of(rank))
            argv += ["-np", "1", "taskset", "-c", cores, *command]
        env: dict[str, str] = {}
        if os.geteuid() == 0:
            env = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        return argv, env


def _programs(name: str, path: str) -> list[str]:
    found = [shutil.which(name, path=folder) for folder in path.split(os.pathsep) if folder]
    return list(dict.fromkeys(program for program in found if program is not None))
