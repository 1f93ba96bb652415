"""`pilot doctor --allocation` in allocations of a real SLURM."""

from pathlib import Path

import pytest
from cluster import Cluster
from command_line import wait_for
from pilots import PILOT

from pilot import host
from pilot.agent import monitor

#: as many cores as every machine has, so that SLURM grants what the kernel lets us use, and tasks are pinned
PINNED = ("-N3", f"-c{min(8, len(host.usable_cores()))}")


def doctor(cluster: Cluster, folder: Path, *options: str, before: str = "", code: int = 0) -> str:
    """Submit it, wait, and see that nothing of it is left; what it said."""
    job = start(cluster, folder, *options, before=before)
    return end(cluster, folder, job, code)


def start(cluster: Cluster, folder: Path, *options: str, before: str = "") -> str:
    script = folder / "doctor.sh"
    script.write_text(f"#!/bin/bash\n{before}\n{PILOT} doctor --allocation\necho code $?\n")
    return cluster.submit(script, *options, "-t", "5", "--output=doctor.out", cwd=folder)


def end(cluster: Cluster, folder: Path, job: str, code: int) -> str:
    cluster.wait_for_job(job, "COMPLETED", "FAILED", timeout=200)
    said = (folder / "doctor.out").read_text()
    assert said.endswith(f"code {code}\n"), said
    assert "Traceback" not in said
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []
    wait_for(lambda: left_over(folder) == [], "something of it still runs")
    return said


def left_over(folder: Path) -> list[int]:
    """What works in this folder, or was started by a probe."""

    def is_ours(pid: int) -> bool:
        environ = monitor.environment(pid)
        return environ.get("SLURM_SUBMIT_DIR") == str(folder) or environ.get(monitor.CAMPAIGN, "")[:7] == "doctor-"

    return [pid for pid in monitor.listed() if is_ours(pid)]


def line(said: str, start: str) -> str:
    """The line that says how something is: "pass n[1-3]"."""
    found = [one.strip() for one in said.splitlines() if " ".join(one.split()).startswith(start)]
    assert len(found) == 1, f"{start} is there {len(found)} times in\n{said}"
    return found[0]


def test_three_nodes_are_looked_at_and_all_is_well(cluster: Cluster, tmp_path: Path) -> None:
    said = doctor(cluster, tmp_path, *PINNED)
    line(said, "pass n[1-3]")
    line(said, "pass renames")
    line(said, "pass links of 3 at once, one won")
    line(said, "pass locks")
    for name in ("srun", "none"):
        assert "each on its own cores" in line(said, f"pass {name} 2" if name == "srun" else "pass none")
    assert "3 ranks, MPICH" in line(said, "pass srun 3")
    assert "ms — the pilot uses this" in " ".join(said.split())
    assert "3 ranks, MPICH" in line(said, "pass mpiexec")
    assert "fail" not in said


@pytest.mark.skipif(len(host.usable_cores()) == 8, reason="here the kernel shows just what SLURM grants")
def test_where_slurm_and_the_kernel_disagree_it_says_that_nothing_is_pinned(cluster: Cluster, tmp_path: Path) -> None:
    said = doctor(cluster, tmp_path, "-N3", "--exclusive")
    assert "SLURM grants 8 and the kernel lets us use" in line(said, "warn cores")
    assert "cannot be compared" in line(said, "warn none")


def test_one_node_needs_no_world_and_a_task_that_is_too_large_fails(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "pilot.toml").write_text("[resources.label]\nranks = 4000\n[resources.train]\nranks = 2\nnodes = 2\n")
    said = doctor(cluster, tmp_path, "-N1", PINNED[1], code=3)
    line(said, "pass n1")
    line(said, "pass one node")
    assert "4000 cores" in line(said, "fail label")
    line(said, "fail train")
    assert "explore 1 core" in line(said, "pass fit")
    assert "[resources.label]" in said


def test_the_wrong_mpi_is_named_with_the_way_that_works(cluster: Cluster, tmp_path: Path) -> None:
    said = doctor(cluster, tmp_path, *PINNED, before="export MPI4PY_LIBMPI=libmpi.so.40", code=3)
    assert "mpi4py uses Open MPI" in line(said, "fail srun")
    assert 'run.world = "mpirun"' in said
    assert "3 ranks, Open MPI" in line(said, "pass mpirun")


def test_a_node_that_dies_is_named_and_the_others_are_looked_at(cluster: Cluster, tmp_path: Path) -> None:
    job = start(cluster, tmp_path, *PINNED, before="until [ -e dead ]; do sleep 0.1; done")
    cluster.wait_for_job(job, "RUNNING")
    cluster.kill_node("n3")
    (tmp_path / "dead").touch()
    said = end(cluster, tmp_path, job, 3)
    assert "no answer" in line(said, "fail n3")
    line(said, "pass n[1-2]")
    assert "2 ranks" in line(said, "pass srun 2 ranks")
