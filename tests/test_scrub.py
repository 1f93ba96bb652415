"""The environment of tasks: what is taken away and what stays."""

import pytest

from pilot.mpi.scrub import of_the_job, scrubbed

DIRT = [
    "OMPI_UNIVERSE_SIZE",
    "OMPI_MCA_plm_slurm_args",
    "OMPI_MCA_rmaps_base_oversubscribe",
    "OMPI_MCA_orte_hnp_uri",
    "OMPI_MCA_ess",
    "OMPI_MCA_pmix",
    "OPAL_USER_PARAMS_GIVEN",
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
    "I_MPI_INFO_STATE",
    "I_MPI_INTERNAL_MEM_POLICY",
    "I_MPI_MPIRUN",
    "GFORTRAN_UNBUFFERED_PRECONNECTED",
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
    "I_MPI_FABRICS",
    "OMPI_MCA_btl",
    "OMPI_MCA_btl_tcp_if_include",
    "OMPI_MCA_pml",
    "MPIR_CVAR_NOLOCAL",
    "UCX_TLS",
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


def test_of_a_job_its_steps_are_left_behind():
    job = {
        "SLURM_CONF": "/etc/slurm.conf",
        "SLURM_JOB_ID": "17",
        "SLURM_JOB_NODELIST": "n[1-3]",
        "SLURM_JOB_NUM_NODES": "3",
        "SLURM_JOB_CPUS_PER_NODE": "8(x3)",
        "SLURM_CLUSTER_NAME": "c",
    }
    # under srun the old names speak of the step
    step = {"SLURM_JOBID": "17", "SLURM_NODELIST": "n2", "SLURM_NNODES": "1"}
    dropped = (
        "SLURM_STEP_ID SLURM_STEP_NODELIST SLURM_CPU_BIND SLURM_CPU_BIND_TYPE SLURM_MEM_PER_NODE SLURM_MEM_PER_CPU "
        "SLURM_NTASKS SLURM_NTASKS_PER_NODE SLURM_TASKS_PER_NODE SLURM_CPUS_PER_TASK SLURM_DISTRIBUTION SLURM_PROCID "
        "SLURM_LOCALID SLURM_NODEID SLURM_NO_KILL SLURM_EXPORT_ENV SLURM_HINT SLURM_EXACT SLURMD_NODENAME PATH"
    )
    environ = job | step | dict.fromkeys(dropped.split(), "x")
    assert of_the_job(environ) == job | {"SLURM_JOBID": "17", "SLURM_NODELIST": "n[1-3]", "SLURM_NNODES": "3"}


def test_outside_a_job_there_is_nothing_to_keep():
    assert of_the_job({"SLURM_CONF": "/etc/slurm.conf", "PATH": "/bin"}) == {}
