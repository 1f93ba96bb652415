"""A SLURM that fails, is slow or talks nonsense costs an answer and nothing else."""

from pathlib import Path

import pytest

from db.errors import InputError, MissingError, PilotError, StateError
from pilot import host
from pilot.slurm import commands
from pilot.slurm.client import Slurm
from pilot.slurm.parse import COLUMN


class Fakes:
    """A folder of fake programs, the only one on the PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.slurm = Slurm({"PATH": f"{folder}:/bin:/usr/bin"}, run=self._run, question_s=5.0)

    def _run(self, argv, timeout_s, env=None):  # type: ignore[no-untyped-def]
        # whatever is installed on this machine stays out
        return host.run([str(self.folder / argv[0]), *argv[1:]], timeout_s, env)

    def program(self, name: str, stdout: str = "", stderr: str = "", code: int = 0, before: str = "") -> None:
        (self.folder / f"{name}.stdout").write_text(stdout)
        (self.folder / f"{name}.stderr").write_text(stderr)
        path = self.folder / name
        said = f'cat "{path}.stdout"; cat "{path}.stderr" >&2; exit {code}'
        path.write_text(f'#!/bin/sh\necho "$@" >> "{path}.asked"\n{before}\n{said}\n')
        path.chmod(0o755)

    def asked(self, name: str) -> list[str]:
        return (self.folder / f"{name}.asked").read_text().splitlines()


@pytest.fixture
def fakes(tmp_path: Path) -> Fakes:
    return Fakes(tmp_path)


def job(number: str = "7", end: str = "1795264991", name: str = "pilot", state: str = "RUNNING") -> str:
    return COLUMN.join((number, state, "1795261391", end, "n[1-2]", "None", name, "/work", "(null)")) + "\n"


def test_the_end_is_read(fakes: Fakes) -> None:
    fakes.program("squeue", job())
    assert fakes.slurm.end_time("7") == 1795264991.0
    assert fakes.slurm.living_nodes("7") == ("n1", "n2")
    assert fakes.slurm.last_trouble == ""


def test_the_end_comes_from_scontrol_when_squeue_has_none(fakes: Fakes) -> None:
    fakes.program("squeue", stderr="slurm_load_jobs error: Socket timed out on send/recv operation\n", code=1)
    fakes.program("scontrol", "JobId=7 JobState=RUNNING Restarts=0 EndTime=1795264991\n")
    assert fakes.slurm.end_time("7") == 1795264991.0


TROUBLES = {
    "socket": {"stderr": "slurm_load_jobs error: Socket timed out on send/recv operation\n", "code": 1},
    "garbage": {"stdout": "\x00\x1b[31m<html>502</html>\n"},
    "silent": {"code": 1},
    "slow": {"before": "exec sleep 60"},
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_trouble_is_no_answer_and_is_remembered(fakes: Fakes, trouble: str) -> None:
    fakes.slurm = Slurm({"PATH": "/bin:/usr/bin"}, run=fakes._run, question_s=0.3)
    for name in ("squeue", "scontrol", "sinfo"):
        fakes.program(name, **TROUBLES[trouble])  # type: ignore[arg-type]
    for answer in (
        fakes.slurm.end_time("7"),
        fakes.slurm.living_nodes("7"),
        fakes.slurm.job_is_over("7"),
        fakes.slurm.states(["7", "8"]),
        fakes.slurm.jobs_of("pilot"),
        fakes.slurm.partitions(),
        fakes.slurm.cluster_name(),
    ):
        assert answer is None
        assert fakes.slurm.last_trouble
    assert fakes.slurm.maintenance(["n1"]) is None


def test_no_slurm_at_all_is_no_answer(fakes: Fakes) -> None:
    assert fakes.slurm.end_time("7") is None
    assert "cannot run" in fakes.slurm.last_trouble
    assert fakes.slurm.signal("7", "USR2") is False
    assert fakes.slurm.mpi_types() is None


def test_an_answer_makes_the_trouble_forgotten(fakes: Fakes) -> None:
    assert fakes.slurm.living_nodes("7") is None
    fakes.program("squeue", job())
    assert fakes.slurm.living_nodes("7")
    assert fakes.slurm.last_trouble == ""


@pytest.mark.parametrize(
    ("state", "restarts", "over"),
    [
        ("RUNNING", 0, False),
        ("COMPLETING", 0, False),
        ("SUSPENDED", 0, False),
        ("PENDING", 0, False),
        ("COMPLETED", 0, True),
        ("TIMEOUT", 0, True),
        ("NODE_FAIL", 0, True),
        ("PENDING", 1, True),
        ("RUNNING", 1, True),
        ("COMPLETING", 1, False),
    ],
)
def test_a_run_of_a_job_is_over_when_none_of_its_processes_can_live(
    fakes: Fakes, state: str, restarts: int, over: bool
) -> None:
    fakes.program("scontrol", f"JobId=7 JobName=x JobState={state} Restarts={restarts} EndTime=Unknown\n")
    assert fakes.slurm.job_is_over("7") is over


def test_a_job_that_slurm_has_forgotten_is_over(fakes: Fakes) -> None:
    fakes.program("scontrol", stderr="slurm_load_jobs error: Invalid job id specified\n", code=1)
    assert fakes.slurm.job_is_over("7") is True
    fakes.program("squeue", stderr="slurm_load_jobs error: Invalid job id specified\n", code=1)
    assert fakes.slurm.states(["7"]) == {}


def test_a_job_of_another_cluster_is_never_called_over(fakes: Fakes) -> None:
    says = 'if [ "$*" = "show config" ]; then echo "ClusterName = here"; exit; fi'
    fakes.program("scontrol", stderr="slurm_load_jobs error: Invalid job id specified\n", code=1, before=says)
    assert fakes.slurm.job_is_over("7", cluster="there") is None
    assert "there" in fakes.slurm.last_trouble
    assert fakes.slurm.job_is_over("7", cluster="here") is True


def test_the_states_of_many_jobs_are_one_question(fakes: Fakes) -> None:
    fakes.program("squeue", f"1{COLUMN}RUNNING\n3{COLUMN}COMPLETED\n")
    assert fakes.slurm.states(["1", "2", "3"]) == {"1": "RUNNING", "3": "COMPLETED"}
    assert len(fakes.asked("squeue")) == 1
    assert fakes.slurm.states([]) == {}


def test_jobs_of_another_name_are_left_out(fakes: Fakes) -> None:
    fakes.program("squeue", job("7", state="RUNNING") + job("8", name="pilot,2") + job("9", "N/A", state="PENDING"))
    found = fakes.slurm.jobs_of("pilot", "anna")
    assert found is not None
    assert [(one.job_id, one.state, one.ends_at) for one in found] == [
        ("7", "RUNNING", 1795264991.0),
        ("9", "PENDING", None),
    ]
    assert "--user anna" in fakes.asked("squeue")[0]


def test_the_next_maintenance_of_our_nodes(fakes: Fakes) -> None:
    past, soon, later = (int(host.now()) + hours * 3600 for hours in (-5, 1, 2))
    window = "ReservationName={} StartTime={} EndTime={} Nodes={} Flags=MAINT\n"
    shown = window.format("a", past, past + 60, "n1") + window.format("b", soon, soon + 60, "n9")
    fakes.program("scontrol", shown + window.format("c", later, later + 60, "n[1-3]"))
    assert fakes.slurm.maintenance(["n2"]) == (later, later + 60)
    assert fakes.slurm.maintenance(["n7"]) is None
    assert fakes.slurm.last_trouble == ""


def test_a_job_is_handed_in(fakes: Fakes) -> None:
    fakes.program("sbatch", "Welcome to the machine\n77;test\n")
    assert fakes.slurm.submit(commands.sbatch("pilot.sh", dependency="singleton")) == "77"
    assert fakes.asked("sbatch") == ["--parsable --dependency=singleton pilot.sh"]


@pytest.mark.parametrize(
    ("said", "kind", "advice"),
    [
        ("Batch job submission failed: Invalid partition name specified", InputError, "sinfo"),
        (
            "Batch job submission failed: Invalid account or account/partition combination specified",
            InputError,
            "sacctmgr",
        ),
        (
            "Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)",
            InputError,
            "-t",
        ),
        (
            "Batch job submission failed: Job violates accounting/QOS policy (job submit limit, ...)",
            StateError,
            "squeue",
        ),
        ("Batch job submission failed: Socket timed out on send/recv operation", StateError, "before you try again"),
        ("Unable to open file pilot.sh", InputError, "ls -l"),
        ("something that nobody has seen before", InputError, "sbatch --parsable pilot.sh"),
    ],
)
def test_a_refusal_has_sbatchs_own_words_and_what_to_do(
    fakes: Fakes, said: str, kind: type[PilotError], advice: str
) -> None:
    fakes.program("sbatch", stderr=f"sbatch: error: {said}\n", code=1)
    with pytest.raises(kind) as caught:
        fakes.slurm.submit(commands.sbatch("pilot.sh"))
    assert said in caught.value.what
    assert advice in caught.value.next_step


def test_sbatch_that_prints_no_id_is_an_error(fakes: Fakes) -> None:
    fakes.program("sbatch", "done\n")
    with pytest.raises(PilotError, match="no job id"):
        fakes.slurm.submit(commands.sbatch("pilot.sh"))


def test_no_sbatch_is_an_error(fakes: Fakes) -> None:
    with pytest.raises(MissingError):
        fakes.slurm.submit(commands.sbatch("pilot.sh"))


def test_a_step_that_is_over_counts_as_ended(fakes: Fakes) -> None:
    fakes.program(
        "scancel", stderr="scancel: error: Kill job error on job step id 7.0: Invalid job id specified\n", code=1
    )
    assert fakes.slurm.end_step("7.0") is True
    fakes.program("scancel", stderr="scancel: error: Socket timed out\n", code=1)
    assert fakes.slurm.end_step("7.0") is False
