"""What a review of pilots on several nodes has tried: held-up ranks, dead nodes at the start, no batch host."""

import os
import signal
from pathlib import Path

from cluster import Cluster
from command_line import wait_for
from pilots import Site
from test_pilot_on_slurm import IMPATIENT, ranks_on, sleepers

from pilot.cli.app import run


def test_a_rank_that_was_held_up_joins_anew_and_nothing_is_done_twice(cluster: Cluster, tmp_path: Path) -> None:
    site = Site(cluster, tmp_path, IMPATIENT)
    sleepers(site, 60, 6.0)
    job = site.submit()
    wait_for(lambda: site.count("running") == 24, "nothing runs")
    (rank,) = ranks_on("n2", tmp_path)
    os.kill(rank, signal.SIGSTOP)
    wait_for(lambda: "node n2 is lost" in site.said(), "the loss is not noticed")
    os.kill(rank, signal.SIGCONT)
    wait_for(lambda: site.said().count("node n2: 8 cores") == 2, "it does not join anew")
    site.ends(job)
    site.all_done_once(60)
    assert site.rows("SELECT DISTINCT node FROM attempts WHERE verdict = 'interrupted'") == [("n2",)]
    assert site.rows("SELECT count(*) FROM attempts WHERE node = 'n2' AND verdict = 'done'") > [(0,)]


def test_a_manager_that_was_held_up_still_has_its_nodes(cluster: Cluster, tmp_path: Path) -> None:
    site = Site(cluster, tmp_path, IMPATIENT)
    marker = tmp_path / "go"
    site.add("--count", "24", "--shell", "--", f"until [ -e {marker} ]; do sleep 0.2; done")
    job = site.submit()
    wait_for(lambda: site.count("running") == 24, "nothing runs")
    (manager,) = ranks_on("n1", tmp_path)
    os.kill(manager, signal.SIGSTOP)
    # longer than `silence`: told by a clock that is not ours
    cluster.run("sleep", "8")
    os.kill(manager, signal.SIGCONT)
    marker.touch()
    site.ends(job)
    site.all_done_once(24)
    assert "is lost" not in site.said()
    assert site.rows("SELECT count(*) FROM attempts") == [(24,)]


def test_a_node_that_is_dead_before_its_rank_starts_is_left_out(cluster: Cluster, tmp_path: Path) -> None:
    site = Site(cluster, tmp_path)
    sleepers(site, 16, 0.5)
    job = site.submit(before=f"touch begun; until [ -e {tmp_path}/go ]; do sleep 0.1; done")
    wait_for((tmp_path / "begun").exists, "the job does not begin")
    cluster.kill_node("n3")
    (tmp_path / "go").touch()
    site.ends(job)
    site.all_done_once(16)
    assert "n3 cannot be reached" in site.said()
    assert [sorted(entry["nodes"]) for entry in site.allocations()] == [[], ["n1", "n2"]]


def drains(site: Site) -> bool:
    snapshot = site.snapshot()
    return snapshot is not None and snapshot.pilot is not None and snapshot.pilot.state == "draining"


def test_a_drain_is_not_forgotten_when_rank_0_dies(cluster: Cluster, tmp_path: Path) -> None:
    site = Site(cluster, tmp_path)
    sleepers(site, 48, 5.0)
    job = site.submit()
    wait_for(lambda: site.count("running") == 24, "nothing runs")
    assert run(["drain", "--folder", str(tmp_path)]) == 0
    wait_for(lambda: drains(site), "it is not published")
    (manager,) = ranks_on("n1", tmp_path)
    os.kill(manager, signal.SIGKILL)
    site.ends(job)
    assert len(site.allocations()) == 1
    assert "the pilot's ranks died" in site.said()


def test_a_job_that_has_lost_its_batch_process_ends_and_the_next_goes_on(cluster: Cluster, tmp_path: Path) -> None:
    site = Site(cluster, tmp_path, IMPATIENT)
    sleepers(site, 32, 4.0)
    first = site.submit()
    wait_for(lambda: site.count("running") == 24, "nothing runs")
    cluster.kill_node("n1")
    cluster.down("n1")
    cluster.wait_for_job(first, "CANCELLED")
    site.ends(site.submit("--nodelist=n2,n3", nodes=2))
    site.all_done_once(32)
