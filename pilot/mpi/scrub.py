"""The environment in which tasks start: ours, without the traces of the MPI and the SLURM step that we run under.

A program that finds them believes that it is a rank of our world, or that it must start through SLURM. Pure.
"""

import re
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
    # what Intel MPI's launcher tells its ranks about the node
    "I_MPI_INFO_",
    "I_MPI_INTERNAL_",
    "PALS_",
    "SLURM_",
    "SLURMD_",
    "SRUN_",
)
_NAMES = frozenset(
    {
        "MPI_LOCALRANKID",
        "MPI_LOCALNRANKS",
        "I_MPI_MPIRUN",
        "OPAL_USER_PARAMS_GIVEN",
        # hydra sets it for its ranks; in a task that is no rank it would write each Fortran record by itself
        "GFORTRAN_UNBUFFERED_PRECONNECTED",
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
#: how messages travel inside a program: a site's module sets this, and it never concerns how ranks are started
_TUNING = re.compile(r"OMPI_MCA_(btl|pml|mtl|bml|osc|coll|io|fs|fbtl|fcoll|sharedfp|mpool|rcache)(_|$)")

#: of the job, as against one of its steps
_OF_THE_JOB = re.compile(r"SLURM_(CONF|JOBID|JOB_.*|NODELIST|NNODES|CLUSTER_NAME|WORKING_CLUSTER)")
_SAME = (
    ("SLURM_JOBID", "SLURM_JOB_ID"),
    ("SLURM_NODELIST", "SLURM_JOB_NODELIST"),
    ("SLURM_NNODES", "SLURM_JOB_NUM_NODES"),
)


def scrubbed(environ: Mapping[str, str]) -> dict[str, str]:
    """``environ`` without what would disturb an MPI program started on this node.

    What modules and users set stays: PATH, LD_LIBRARY_PATH, OPAL_PREFIX, I_MPI_ROOT, OMPI_MCA_btl, ….
    """
    return {name: value for name, value in environ.items() if not _disturbs(name)}


def of_the_job(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables with which ``srun`` finds the job that we are in, and none of the step that we are in.

    Empty outside a job. Where a step has its own value under an old name, the job's is put there.
    """
    if not environ.get("SLURM_JOB_ID"):
        return {}
    job = {name: value for name, value in environ.items() if _OF_THE_JOB.fullmatch(name)}
    for old, new in _SAME:
        if new in job:
            job[old] = job[new]
    return job


def _disturbs(name: str) -> bool:
    return (name in _NAMES or name.startswith(_PREFIXES)) and not _TUNING.match(name)
