"""A pilot on several nodes of a real SLURM: it runs, drains, loses nodes and ranks, and goes on in the next job."""

import itertools
import json
import os
import signal
import sys
from pathlib import Path

import pytest
from cluster import Cluster
from command_line import wait_for
from pilots import Site

from pilot import host
from pilot.agent import monitor
from pilot.cli.app import run
from pilot.cli.presence import look

# a node's loss is to be noticed quickly here
IMPATIENT = '[run]\nsilence = "5 s"\n'


def sleepers(site: Site, count: int, seconds: float) -> None:
    site.add("--count", str(count), "--", "sleep", str(seconds))


def test_the_tasks_fill_all_nodes_and_the_share_of_useful_time_is_known(cluster: Cluster, tmp_path: Path) -> None:
    site = Site(cluster, tmp_path)
    sleepers(site, 48, 0.5)
    site.ends(site.submit())
    site.all_done_once(48)
    assert set(site.attempts_by_node()) == {"n1", "n2", "n3"}
    (allocation,) = site.allocations()
    assert allocation["nodes"] == {"n1": 8, "n2": 8, "n3": 8}
    assert allocation["reserved_core_s"] > 24.0
    assert run(["status", "--allocations", "--folder", str(tmp_path)]) == 0
    assert not [path.name for path in (tmp_path / "state").glob("world-*")]


def test_a_drain_from_the_login_node_and_the_next_job_goes_on(cluster: Cluster, tmp_path: Path) -> None:
    site = Site(cluster, tmp_path)
    sleepers(site, 60, 1.0)
    first = site.submit()
    wait_for(lambda: site.count("done") > 0, "nothing is done")
    assert run(["drain", "--folder", str(tmp_path)]) == 0
    site.ends(first)
    assert 0 < site.count("done") < 60
    site.ends(site.submit())
    site.all_done_once(60)
    assert [entry["state"] for entry in site.allocations()] == ["ended", "ended"]


def test_the_signal_that_slurm_sends_before_the_end_drains(cluster: Cluster, tmp_path: Path) -> None:
    site = Site(cluster, tmp_path)
    sleepers(site, 80, 1.0)
    job = site.submit()
    wait_for(lambda: site.count("done") > 0, "nothing is done")
    cluster.run("scancel", "--batch", "--signal", "USR1", job)
    site.ends(job)
    assert "drained (SIGUSR1)" in site.said()
    assert site.count("running") == 0


def test_a_lost_node_costs_only_what_ran_there(cluster: Cluster, tmp_path: Path) -> None:
    site = Site(cluster, tmp_path, IMPATIENT)
    sleepers(site, 60, 1.5)
    job = site.submit()
    wait_for(lambda: site.count("done") > 10, "nothing is done")
    cluster.kill_node("n3")
    wait_for(lambda: "node n3 is lost" in site.said(), "the loss is not noticed")
    snapshot = site.snapshot()
    assert snapshot is not None
    site.ends(job)
    site.all_done_once(60)
    assert site.rows("SELECT count(*) FROM attempts WHERE verdict = 'interrupted' AND node <> 'n3'") == [(0,)]
    assert [entry["state"] for entry in site.allocations()] == ["ended"], site.said()


def test_the_death_of_rank_0_costs_a_restart_in_the_same_allocation(cluster: Cluster, tmp_path: Path) -> None:
    site = Site(cluster, tmp_path)
    sleepers(site, 48, 1.0)
    job = site.submit()
    wait_for(lambda: site.count("done") > 0, "nothing is done")
    (manager,) = ranks_on("n1", tmp_path)
    os.kill(manager, signal.SIGKILL)
    site.ends(job)
    site.all_done_once(48)
    assert [entry["state"] for entry in site.allocations()] == ["lost", "ended"]
    assert {entry["job_id"] for entry in site.allocations()} == {job}


def test_a_killed_pilot_is_followed_by_the_next_job(cluster: Cluster, tmp_path: Path) -> None:
    site = Site(cluster, tmp_path)
    sleepers(site, 48, 1.0)
    first = site.submit()
    wait_for(lambda: site.count("done") > 0, "nothing is done")
    cluster.run("scancel", "--full", "--signal", "KILL", first)
    cluster.wait_for_job(first, "FAILED", "CANCELLED", "COMPLETED")
    site.ends(site.submit())
    site.all_done_once(48)


def test_a_second_pilot_says_who_holds_the_folder_and_ends_in_order(cluster: Cluster, tmp_path: Path) -> None:
    site = Site(cluster, tmp_path)
    sleepers(site, 8, 6.0)
    first = site.submit(nodes=2)
    wait_for(lambda: look(site.folder).alive, "no pilot comes to life")
    second = site.submit(nodes=1)
    cluster.wait_for_job(second, "COMPLETED")
    assert f"job {first}" in site.said()
    site.ends(first)
    site.all_done_once(8)


def test_a_task_over_several_nodes_runs_beside_small_ones(cluster: Cluster, tmp_path: Path) -> None:
    site = Site(cluster, tmp_path)
    sleepers(site, 24, 0.5)
    where = "echo $SLURMD_NODENAME"
    site.add("--ranks", "4", "--nodes", "2", "--mpi", "--", "/bin/sh", "-c", where)
    sleepers(site, 24, 0.5)
    site.ends(site.submit())
    site.all_done_once(49)
    ((directory, others),) = site.rows("SELECT directory, others FROM attempts WHERE others <> '[]'")
    nodes = (tmp_path / directory / "stdout").read_text().split()
    assert len(nodes) == 4
    assert len(set(nodes)) == 2
    assert others


def test_a_task_over_several_nodes_is_run_again_when_one_of_them_is_lost(cluster: Cluster, tmp_path: Path) -> None:
    site = Site(cluster, tmp_path, IMPATIENT)
    marker = tmp_path / "second"
    # the first attempt hangs, the second ends
    line = f"mkdir {marker} 2>/dev/null && touch {marker}/begun; [ -e {marker}/lost ] || sleep 1000"
    site.add("--ranks", "2", "--nodes", "2", "--mpi", "--", "/bin/sh", "-c", line)
    job = site.submit()
    wait_for(lambda: (marker / "begun").exists(), "it does not begin")
    wait_for(lambda: len(site.rows("SELECT id FROM attempts")) == 1, "it is not published")
    ((head, others),) = site.rows("SELECT node, others FROM attempts")
    (marker / "lost").touch()
    (other,) = json.loads(others)
    assert other["node"] != head
    cluster.kill_node(other["node"])
    site.ends(job)
    site.all_done_once(1)
    assert site.rows("SELECT verdict FROM attempts ORDER BY id") == [("interrupted",), ("done",)]


def test_a_pilot_that_is_started_on_the_login_node_works_on_the_nodes_of_salloc(
    cluster: Cluster, tmp_path: Path
) -> None:
    site = Site(cluster, tmp_path)
    site.add("--count", "6", "--shell", "--", "echo $SLURMD_NODENAME")
    cluster.run("salloc", "-N2", "--exclusive", sys.executable, "-P", "-m", "pilot", "run", cwd=tmp_path)
    site.all_done_once(6)
    assert set(site.attempts_by_node()) <= {"n1", "n2"}


def test_a_job_that_is_queued_again_goes_on(cluster: Cluster, tmp_path: Path) -> None:
    site = Site(cluster, tmp_path)
    sleepers(site, 48, 1.0)
    job = site.submit("--requeue")
    wait_for(lambda: site.count("done") > 0, "nothing is done")
    cluster.requeue(job)
    site.ends(job)
    site.all_done_once(48)
    assert {entry["job_id"] for entry in site.allocations()} == {job}


def test_the_end_of_the_allocation_is_known_and_followed(cluster: Cluster, tmp_path: Path) -> None:
    site = Site(cluster, tmp_path, '[run]\nsoft_stop = "1 s"\n')
    site.add("--count", "2000", "--time-request", "2 s", "--", "sleep", "1")
    job = site.submit("-t", "1")
    site.ends(job)
    assert "the end of the allocation is near" in site.said() or "fits into the time" in site.said()
    assert site.count("running") == 0
    assert site.count("ready") > 0


def test_gpus_are_given_out_by_their_numbers_and_never_twice(cluster: Cluster, tmp_path: Path) -> None:
    site = Site(cluster, tmp_path)
    site.add("--count", "12", "--gpus", "1", "--shell", "--", "echo $CUDA_VISIBLE_DEVICES; sleep 1")
    site.ends(site.submit("--gres=gpu:2"))
    site.all_done_once(12)
    seen: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for node, directory, begin, end in site.rows("SELECT node, directory, started_at, ended_at FROM attempts"):
        gpu = (tmp_path / directory / "stdout").read_text().strip()
        seen.setdefault((node, gpu), []).append((begin, end))
    assert seen.keys() == {(node, gpu) for node in ("n1", "n2", "n3") for gpu in ("0", "1")}
    for times in seen.values():
        assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(sorted(times)))


def test_a_wrong_mpi_is_named_with_the_cure(cluster: Cluster, tmp_path: Path) -> None:
    site = Site(cluster, tmp_path)
    sleepers(site, 2, 0.1)
    job = site.submit(before="export MPI4PY_LIBMPI=libmpi.so.40")
    cluster.wait_for_job(job, "FAILED", "COMPLETED")
    assert "Open MPI" in site.said()
    assert "MPI4PY_LIBMPI" in site.said()
    assert "Traceback" not in site.said()
    assert site.count("done") == 0


@pytest.mark.parametrize("world", ["mpiexec", "mpirun", "local"])
def test_the_ranks_can_be_started_in_other_ways(cluster: Cluster, tmp_path: Path, world: str) -> None:
    site = Site(cluster, tmp_path, f'[run]\nworld = "{world}"\n')
    sleepers(site, 24, 0.3)
    as_root = "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1"
    site.ends(site.submit(before=as_root))
    site.all_done_once(24)
    (allocation,) = site.allocations()
    assert len(allocation["nodes"]) == (1 if world == "local" else 3), site.said()


def ranks_on(node: str, root: Path) -> list[int]:
    """The ranks of the folder's pilot on a node."""
    found = []
    for pid in monitor.listed():
        try:
            words = host.read(f"/proc/{pid}/cmdline").split(b"\0")
        except OSError:
            continue
        ours = b"pilot.ranks.rank" in words and any(str(root).encode() in word for word in words)
        if ours and words[0] == sys.executable.encode() and monitor.environment(pid).get("SLURMD_NODENAME") == node:
            found.append(pid)
    return found
