"""The environment in which tasks start: ours, without the traces of the MPI and the SLURM step that we run under.

A program that finds them believes that it is a rank of our world, or that it must start through SLURM. Pure.
"""

from collections.abc import Mapping

_PREFIXES = (
    "OMPI_",
    "PMIX_",
    "PMI_",
    "PMI2_",
    "PRTE_",
    "ORTE_",
    "HYDRA_",
    "HYDI_",
    "MPIEXEC_",
    "I_MPI_HYDRA_",
    "I_MPI_PMI",
    "I_MPI_PIN",
    "PALS_",
    "SLURM_",
    "SLURMD_",
    "SRUN_",
)
_NAMES = frozenset(
    {
        "MPI_LOCALRANKID",
        "MPI_LOCALNRANKS",
        # pinning meant for us would tie all tasks to the same cores
        "KMP_AFFINITY",
        "GOMP_CPU_AFFINITY",
        "OMP_PLACES",
        "OMP_PROC_BIND",
        # the marks of another pilot, when this one was itself started by a task
        "PILOT_ATTEMPT",
        "PILOT_CAMPAIGN",
        "PILOT_EPOCH",
        "PILOT_NODE",
    }
)


def scrubbed(environ: Mapping[str, str]) -> dict[str, str]:
    """``environ`` without what would disturb an MPI program started on this node.

    What modules and users set stays: PATH, LD_LIBRARY_PATH, OPAL_PREFIX, I_MPI_ROOT, ….
    """
    return {name: value for name, value in environ.items() if name not in _NAMES and not name.startswith(_PREFIXES)}
