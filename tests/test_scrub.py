"""The environment of tasks: what is taken away and what stays."""

import pytest

from pilot.mpi.scrub import scrubbed

DIRT = [
    "OMPI_UNIVERSE_SIZE",
    "OMPI_MCA_plm_slurm_args",
    "PMIX_RANK",
    "PMI_FD",
    "PMI2_JOBID",
    "PRTE_MCA_plm_slurm_args",
    "ORTE_X",
    "HYDRA_BOOTSTRAP",
    "HYDRA_LAUNCHER_EXTRA_ARGS",
    "HYDI_CONTROL_FD",
    "MPIEXEC_TIMEOUT",
    "MPI_LOCALRANKID",
    "MPI_LOCALNRANKS",
    "I_MPI_HYDRA_BOOTSTRAP",
    "I_MPI_PMI_LIBRARY",
    "I_MPI_PIN",
    "I_MPI_PIN_DOMAIN",
    "PALS_RANKID",
    "SLURM_JOBID",
    "SLURM_JOB_ID",
    "SLURM_NODELIST",
    "SLURM_NO_KILL",
    "SLURMD_NODENAME",
    "SRUN_DEBUG",
    "KMP_AFFINITY",
    "GOMP_CPU_AFFINITY",
    "OMP_PLACES",
    "OMP_PROC_BIND",
    "PILOT_ATTEMPT",
    "PILOT_CAMPAIGN",
    "PILOT_EPOCH",
    "PILOT_NODE",
]
KEPT = [
    "PATH",
    "HOME",
    "LD_LIBRARY_PATH",
    "OPAL_PREFIX",
    "I_MPI_ROOT",
    "FI_PROVIDER",
    "OMP_NUM_THREADS",
    "ESPRESSO_PSEUDO",
    "MY_SLURM",
]


@pytest.mark.parametrize("name", DIRT)
def test_taken_away(name):
    assert scrubbed({name: "x", "PATH": "/bin"}) == {"PATH": "/bin"}


@pytest.mark.parametrize("name", KEPT)
def test_kept(name):
    assert scrubbed({name: "x"}) == {name: "x"}


def test_the_given_environment_is_not_touched():
    environ = {"SLURM_JOB_ID": "1"}
    assert scrubbed(environ) == {}
    assert environ == {"SLURM_JOB_ID": "1"}
