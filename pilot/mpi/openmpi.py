"""What Open MPI 4 and 5 have in common."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from pilot.mpi.search import Search


def search_mpirun(major: int, environ: Mapping[str, str]) -> Search:
    """The first ``mpirun`` of that major version."""
    version = re.compile(rf"\(Open ?MPI\)\s+({major}\.\S+)")
    # with that of another Open MPI it does not even say its version (seen with 4.1.4)
    return Search(["mpirun"], version, environ, without="OPAL_PREFIX")


def additions(mpirun: str, environ: Mapping[str, str]) -> dict[str, str]:
    """What every start adds to the environment."""
    added: dict[str, str] = {}
    if os.geteuid() == 0:
        added = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    prefix = environ.get("OPAL_PREFIX", "")
    if prefix and Path(prefix).resolve() not in Path(mpirun).absolute().parents:
        # of another Open MPI, as when we are ourselves a rank of version 5; empty means: not set
        added["OPAL_PREFIX"] = ""
    return added
