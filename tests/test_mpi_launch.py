"""MPI inside a slot, with the real mpirun of Open MPI 4: where the ranks run, and that none outlives its attempt."""

import os
import shutil
import signal

import pytest

from db.errors import InputError, MissingError
from db.records import Resources
from db.states import Verdict
from pilot import host
from pilot.mpi.choose import Chooser
from pilot.mpi.none import Direct
from pilot.mpi.openmpi4 import OpenMpi4
from pilot.mpi.protocol import Slot
from tasks.protocol import Cause
from tests.agents import Bench, carriers, clean_environ, gone, numbers

CORES = host.usable_cores()
NOWHERE = {"PATH": "/nowhere"}
TWO = Resources(ranks=2)
#: rank, size, and the cores of that rank
WHERE = "echo $OMPI_COMM_WORLD_RANK $OMPI_COMM_WORLD_SIZE $(grep Cpus_allowed_list /proc/self/status | cut -f 2)"

needs_mpirun = [
    pytest.mark.engine,
    pytest.mark.skipif(OpenMpi4(os.environ).found() is None, reason="no Open MPI 4"),
    pytest.mark.skipif(len(CORES) < 2, reason="needs two cores"),
]


def real(test):
    """A test that starts the real mpirun."""
    for mark in needs_mpirun:
        test = mark(test)
    return test


@pytest.fixture
def bench(tmp_path):
    """As under mpirun, inside a job of SLURM whose nodes are not ours."""
    traces = {
        "OMPI_UNIVERSE_SIZE": "2",
        "OMPI_COMM_WORLD_RANK": "1",
        "PMIX_RANK": "1",
        "SLURM_JOBID": "1",
        "SLURM_JOB_ID": "1",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_NNODES": "2",
    }
    bench = Bench(tmp_path, environ=clean_environ(**traces))
    yield bench
    bench.comm.close()
    assert carriers(bench.campaign, tasks_only=False) == []


@real
@pytest.mark.parametrize("cores", [CORES[:2], CORES[1::-1]])
def test_each_rank_has_the_core_of_its_place(bench, cores):
    attempt = bench.shell(WHERE, mpi=True, resources=TWO, cores=cores)
    assert bench.wait(attempt).judgement.verdict is Verdict.DONE, bench.text(attempt, "stderr")
    lines = sorted(numbers(line) for line in bench.text(attempt).splitlines())
    assert lines == [[0, 2, cores[0]], [1, 2, cores[1]]]


def expanded(cores):
    """The kernel's list of cores: "0-2,5" → (0, 1, 2, 5)."""
    ends = [item.strip().split("-") for item in cores.split(",")]
    return tuple(core for end in ends for core in range(int(end[0]), int(end[-1]) + 1))


@real
def test_a_rank_of_two_threads_has_two_cores(tmp_path):
    slot = Slot(ranks=1, threads=2, cores=CORES[:2])
    launcher = OpenMpi4(os.environ)
    assert launcher.found()
    argv, env = launcher.wrap(["grep", "Cpus_allowed_list", "/proc/self/status"], slot)
    done = host.run(argv, timeout_s=60, env=clean_environ(**env))
    assert expanded(done.stdout.split(":")[1]) == CORES[:2]


@real
def test_two_tasks_side_by_side_share_no_core(bench):
    names = [bench.shell(WHERE, mpi=True, resources=Resources(ranks=1), cores=(core,)) for core in CORES[:2]]
    bench.wait(*names)
    assert [numbers(bench.text(name))[-1] for name in names] == list(CORES[:2])


@real
@pytest.mark.skipif(shutil.which("pw.x") is None, reason="no pw.x")
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_real_mpi_program_forms_one_world(bench, ranks):
    slot = {"resources": Resources(ranks=ranks), "cores": CORES[:ranks]}
    attempt = bench.start("pw.x", mpi=True, input="&control\n/\n", **slot)
    bench.wait(attempt)
    said = bench.text(attempt)
    assert said.count("Program PWSCF") == 1, bench.text(attempt, "stderr")
    assert f"running on {ranks:5d} processors" in said


@real
@pytest.mark.parametrize("term_s", [20.0, 0.0])
def test_a_stop_leaves_no_rank(bench, term_s):
    attempt = bench.shell("echo up; sleep 1000", mpi=True, resources=TWO, cores=CORES[:2])
    bench.until(lambda: bench.text(attempt).count("up") == 2)
    left = carriers(bench.campaign)
    assert len(left) >= 5
    bench.stop(attempt, Cause.DRAIN, term_s=term_s)
    assert bench.wait(attempt).end.cause is Cause.DRAIN
    assert gone(left)


@real
def test_when_mpirun_itself_is_killed_no_rank_is_left(bench):
    attempt = bench.shell("echo $PPID; sleep 1000", mpi=True, resources=TWO, cores=CORES[:2])
    bench.until(lambda: len(bench.text(attempt).split()) == 2)
    left = carriers(bench.campaign)
    os.kill(numbers(bench.text(attempt))[0], signal.SIGKILL)
    assert bench.wait(attempt).end.signal == signal.SIGKILL
    assert gone(left)


@real
def test_the_time_of_the_ranks_is_counted(bench):
    burn = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; times"
    attempt = bench.shell(burn, mpi=True, resources=TWO, cores=CORES[:2])
    end = bench.wait(attempt).end
    # the shells print "0m0.120000s …"; mpirun and the ranks' start come on top
    ranks = [float(word[2:-1]) for word in bench.text(attempt).split() if word.startswith("0m")]
    assert end.cpu_s >= sum(ranks) * 0.9


def test_two_ranks_without_a_launcher_are_refused(tmp_path):
    bench = Bench(tmp_path, environ=clean_environ(PATH="/nowhere"))
    judgement = bench.wait(bench.start("true", mpi=True, resources=TWO, cores=(0, 1))).judgement
    bench.comm.close()
    assert judgement.verdict is Verdict.BAD_INPUT
    assert "2 ranks" in judgement.reason
    assert "next:" in judgement.reason


def test_one_rank_is_started_directly():
    chooser = Chooser("auto", os.environ)
    assert chooser.choose(1).name == "none"
    assert chooser.findings()["none"] == "direct start"
    argv, env = Direct().wrap(["pw.x", "-in", "a"], Slot(1, 4, (0, 1, 2, 3)))
    assert argv == ["pw.x", "-in", "a"]
    assert env == {"OMPI_MCA_ess_singleton_isolated": "1"}
    with pytest.raises(InputError, match="2 ranks"):
        Direct().wrap(["pw.x"], Slot(2, 1, (0, 1)))


def test_a_launcher_that_is_named_is_used_or_missed():
    with pytest.raises(InputError, match="exotic"):
        Chooser("exotic", os.environ)
    with pytest.raises(MissingError, match="openmpi4"):
        Chooser("openmpi4", NOWHERE).choose(1)
    with pytest.raises(MissingError, match="2 ranks"):
        Chooser("auto", NOWHERE).choose(2)
    assert Chooser("none", os.environ).choose(2).name == "none"


def test_the_mpirun_of_another_mpi_is_passed_over(tmp_path):
    for folder, version in (("mpich", "HYDRA build details:"), ("open5", "mpirun (Open MPI) 5.0.3")):
        (tmp_path / folder).mkdir()
        program = tmp_path / folder / "mpirun"
        program.write_text(f"#!/bin/sh\necho '{version}'\n")
        program.chmod(0o755)
    (tmp_path / "open4").mkdir()
    program = tmp_path / "open4" / "mpirun"
    program.write_text("#!/bin/sh\necho 'mpirun (Open MPI) 4.1.6'\n")
    program.chmod(0o755)
    path = [str(tmp_path / name) for name in ("mpich", "open5", "open4")]
    launcher = OpenMpi4({"PATH": os.pathsep.join([*path, "/bin"])})
    assert launcher.found() == "4.1.6"
    argv, _ = launcher.wrap(["a"], Slot(2, 2, (4, 5, 8, 9)))
    assert argv[0] == str(program)
    assert " ".join(argv).endswith("-np 1 taskset -c 4,5 a : -np 1 taskset -c 8,9 a")


def test_a_slot_of_the_wrong_size_or_a_lone_colon_is_refused():
    with pytest.raises(InputError, match="3 cores"):
        OpenMpi4(os.environ).wrap(["a"], Slot(2, 2, (0, 1, 2)))
    with pytest.raises(InputError, match="colon"):
        OpenMpi4(os.environ).wrap(["a", ":", "b"], Slot(1, 1, (0,)))
