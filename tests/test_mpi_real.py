"""Each launcher with its real MPI: where the ranks run, what reaches them, and that nothing goes through SLURM."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from db.records import Resources
from pilot import host
from pilot.mpi.protocol import Slot
from pilot.mpi.scrub import scrubbed
from tests.agents import Bench, carriers, gone
from tests.mpis import CORES, DIRT, MPIS, ROOT, Mpi, needed, run

pytestmark = pytest.mark.engine


@pytest.fixture(params=list(MPIS))
def mpi(request: pytest.FixtureRequest) -> Mpi:
    return needed(request.param)


def said(text: str) -> list[tuple[int, int, int, tuple[int, ...]]]:
    """(rank, size, sum, cores) of each rank, by rank."""
    lines = [line.split() for line in text.splitlines()]
    return sorted((int(a), int(b), int(c), tuple(int(core) for core in d.split(","))) for a, b, c, d, *_ in lines)


@pytest.mark.parametrize("cores", [CORES[:2], CORES[1::-1]])
def test_each_rank_has_the_core_of_its_place(mpi: Mpi, cores: tuple[int, ...]) -> None:
    done = mpi.run(mpi.where(), Slot(2, 1, cores))
    assert done.code == 0, done.stderr
    assert said(done.stdout) == [(0, 2, 3, cores[:1]), (1, 2, 3, cores[1:])]


def test_a_rank_of_two_threads_has_two_cores(mpi: Mpi) -> None:
    done = mpi.run(mpi.where(), Slot(1, 2, CORES[:2]))
    assert said(done.stdout) == [(0, 1, 1, CORES[:2])], done.stderr


def test_without_cores_nothing_is_pinned_and_more_ranks_than_cores_start(mpi: Mpi) -> None:
    ranks = len(CORES) + 1
    done = mpi.run(mpi.where(), Slot(ranks, 1, ()))
    assert said(done.stdout) == [(rank, ranks, ranks * (ranks + 1) // 2, CORES) for rank in range(ranks)], done.stderr


def test_two_tasks_side_by_side_share_no_core(mpi: Mpi, tmp_path: Path) -> None:
    # each is there until both are
    wait = f"touch {tmp_path}/$0; while [ $(ls {tmp_path} | wc -l) -lt 2 ]; do sleep 0.05; done; "
    command = ["/bin/sh", "-c", f"{wait} grep Cpus_allowed_list /proc/self/status"]
    with ThreadPoolExecutor() as pool:
        both = [pool.submit(mpi.run, [*command, f"task{core}"], Slot(1, 1, (core,))) for core in CORES[:2]]
    assert [both.result().stdout.split() for both in both] == [["Cpus_allowed_list:", str(core)] for core in CORES[:2]]


def test_nothing_is_started_through_slurm_or_ssh(mpi: Mpi, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    for name in ("srun", "ssh", "rsh"):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\necho {name} $* >> {calls}\nexit 1\n")
        program.chmod(0o755)
    watched = Mpi(mpi.name, mpi.python, f"{tmp_path}:{mpi.path}", mpi.variables)
    done = watched.run(mpi.where(), Slot(2, 1, CORES[:2]))
    assert len(said(done.stdout)) == 2, done.stderr
    assert not calls.exists(), calls.read_text()


def test_not_even_where_the_traces_of_a_job_are_left_in_the_environment(mpi: Mpi) -> None:
    left = {name: value for name, value in DIRT.items() if name.startswith("SLURM_")}
    environ = mpi.environ(**left)
    argv, added = mpi.launcher(environ).wrap(mpi.where(), Slot(2, 1, CORES[:2]))
    done = run(argv, environ | added)
    assert [line[0] for line in said(done.stdout)] == [0, 1], done.stderr


@pytest.mark.parametrize("outer", list(MPIS))
def test_it_starts_under_a_rank_of_any_mpi(mpi: Mpi, outer: str) -> None:
    around = needed(outer)
    inner = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
from pilot import host
from pilot.mpi.protocol import Slot
from pilot.mpi.scrub import scrubbed
from tests.mpis import MPIS, run
mpi = MPIS[{mpi.name!r}]
os.environ.pop("MPI4PY_LIBMPI", None)  # of the rank that we are
environ = scrubbed({{**os.environ, **mpi.environ()}})
argv, added = mpi.launcher(environ).wrap(mpi.where(), Slot(2, 1, {CORES[:2]}))
done = run(argv, environ | added)
print(done.stdout + done.stderr)
"""
    done = around.run([sys.executable, "-c", inner], Slot(1, 1, ()))
    assert said("\n".join(filter(None, done.stdout.splitlines()))) == [(0, 2, 3, CORES[:1]), (1, 2, 3, CORES[1:2])]


def test_input_folder_and_environment_reach_the_ranks(mpi: Mpi, tmp_path: Path) -> None:
    environ = scrubbed(mpi.environ(**DIRT)) | {"PILOT_ATTEMPT": "7", "OMP_NUM_THREADS": "3", "WORDS": "two words"}
    rank = "${OMPI_COMM_WORLD_RANK:-$PMI_RANK}"
    # reads to the end, and starts only then
    line = f'[ {rank} = 0 ] && cat; echo "$PILOT_ATTEMPT $OMP_NUM_THREADS $WORDS $PWD" "$@"'
    command = ["/bin/sh", "-c", line, "sh", "a b", "-n", "*"]
    argv, added = mpi.launcher(environ).wrap(command, Slot(2, 1, CORES[:2]))
    done = run(argv, environ | added, stdin="from the input\n", cwd=tmp_path)
    common = f"7 3 two words {tmp_path} a b -n *"
    assert sorted(done.stdout.splitlines()) == [common, common, "from the input"], done.stderr


def test_a_rank_that_fails_fails_the_task(mpi: Mpi) -> None:
    assert mpi.run(["/bin/sh", "-c", "exit 3"], Slot(2, 1, CORES[:2])).code not in (0, None)
    done = mpi.run([str(mpi.python), "-c", "from mpi4py import MPI; MPI.COMM_WORLD.Abort(5)"], Slot(2, 1, CORES[:2]))
    assert done.code not in (0, None)


def test_forty_ranks_have_their_cores(mpi: Mpi) -> None:
    cores = CORES[:2] * 20
    grep = ["grep", "Cpus_allowed_list", "/proc/self/status"]
    try:
        done = mpi.run(grep, Slot(40, 1, cores))
    except subprocess.TimeoutExpired:
        # on two busy cores Open MPI's mpirun, 4.1.4 and 5.0.11, has been seen to hang once all ranks had ended
        done = mpi.run(grep, Slot(40, 1, cores))
    assert sorted(int(line.split()[1]) for line in done.stdout.splitlines()) == sorted(cores), done.stderr


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_no_rank_outlives_its_attempt(mpi: Mpi, tmp_path: Path, end: str) -> None:
    bench = Bench(tmp_path, environ=mpi.environ(**DIRT))
    attempt = bench.shell("echo up; sleep 1000", mpi=True, resources=Resources(ranks=2), cores=CORES[:2])
    bench.until(lambda: bench.text(attempt).count("up") == 2)
    left = carriers(bench.campaign)
    if end == "stop":
        bench.stop(attempt, term_s=20.0)
    else:
        # MPICH gives each of its ranks a session of its own
        [launcher] = [pid for pid in left if (found := host.process(pid)) and found.ppid not in left]
        os.kill(launcher, signal.SIGKILL)
    bench.wait(attempt)
    bench.until(lambda: gone(left))
    bench.comm.close()
    assert carriers(bench.campaign, tasks_only=False) == []
