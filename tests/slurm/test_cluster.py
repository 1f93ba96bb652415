"""On a real SLURM: what we believe of it is so."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster import Cluster, cluster_at

from db.errors import InputError, PilotError
from pilot import host
from pilot.slurm import commands
from pilot.slurm.allocation import Allocation, from_environment
from pilot.slurm.client import Slurm
from pilot.slurm.hostlist import hosts

PYTHON = Path(sys.executable)

#: what a rank of a world does: says where it is and what it has, and stays
RANK = """
import os, pathlib, sys, time
from mpi4py import rc
rc.finalize = False
from mpi4py import MPI
world, node = MPI.COMM_WORLD, os.environ["SLURMD_NODENAME"]
gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "-")
pathlib.Path(f"rank.{node}").write_text(f"{world.rank} {world.size} {gpus}")
time.sleep(float(sys.argv[1]))
os._exit(0)
"""
#: what the batch process does: becomes the world, in the environment that pilot gives it
WORLD = """
import json, os, sys
from pilot.mpi.scrub import of_the_job, scrubbed
from pilot.slurm.commands import srun_world
argv = srun_world(sys.argv[1].split(","), [sys.executable, "rank.py", sys.argv[2]])
os.execvpe("srun", argv, scrubbed(os.environ) | of_the_job(os.environ))
"""


def wait_for(condition: Callable[[], object], what: str, timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def script(folder: Path, *lines: str) -> Path:
    path = folder / "job.sh"
    path.write_text("\n".join(("#!/bin/bash", *lines, "")))
    return path


@pytest.fixture
def slurm(cluster: Cluster) -> Slurm:
    return Slurm(cluster.environ)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rank.py").write_text(RANK)
    (tmp_path / "world.py").write_text(WORLD)
    return tmp_path


def granted(cluster: Cluster, folder: Path, *options: str) -> Allocation:
    """The allocation as a batch job with these options reads it."""
    dump = f"{PYTHON} -c 'import json, os; print(json.dumps(dict(os.environ)))' > part && mv part environ.json"
    job = cluster.submit(script(folder, dump, "exec sleep 300"), *options, cwd=folder)
    wait_for((folder / "environ.json").exists, f"job {job} says nothing: {cluster.job(job)}")
    found = from_environment(json.loads((folder / "environ.json").read_text()))
    assert found is not None
    assert found.job_id == job
    return found


def test_whole_nodes_are_read_inside_the_job(cluster: Cluster, folder: Path) -> None:
    found = granted(cluster, folder, "-N3", "--exclusive", "-J", "my pilot", "-t", "5", "--gpus-per-node=2")
    assert found.node_names == ("n1", "n2", "n3")
    assert (found.name, found.partition, found.cluster, found.restart) == ("my pilot", "main", cluster.name, 0)
    assert [(node.cpus, node.memory_mb) for node in found.nodes] == [(8, 8388)] * 3
    assert [node.gpus for node in found.nodes] == [(0, 1), None, None]


def test_parts_of_nodes_are_read_inside_the_job(cluster: Cluster, folder: Path) -> None:
    # 6 cores on one node leave 2 there, so that another job of 10 gets unequal shares
    cluster.submit("sleep 300", "-w", "n1", "-n6", "--mem=1000")
    found = granted(cluster, folder, "-w", "n[1-2]", "-N2", "-n10", "--mem=500")
    assert [(node.name, node.cpus, node.memory_mb) for node in found.nodes] == [("n1", 2, 524), ("n2", 8, 524)]


def test_a_hostlist_is_what_slurm_takes_it_for(cluster: Cluster) -> None:
    for text in ("n[1-3,7],m05,r[01-02]c[1-2]", "n[098-101]", "a,b[3],c-[1-2]"):
        assert hosts(text) == tuple(cluster.run(*commands.show_hostnames(text)).split())


def test_the_end_is_read_and_follows_the_administrator(cluster: Cluster, slurm: Slurm) -> None:
    job = cluster.submit("sleep 300", "-N2", "-t", "5")
    cluster.wait_for_job(job, "RUNNING")
    first = slurm.end_time(job)
    assert first is not None
    assert 0 < first - host.now() <= 300
    cluster.run("scontrol", "update", f"JobId={job}", "TimeLimit=9")
    assert slurm.end_time(job) == first + 240


def test_the_end_does_not_depend_on_the_zone(cluster: Cluster) -> None:
    job = cluster.submit("sleep 300", "-t", "5")
    cluster.wait_for_job(job, "RUNNING")
    ends = {Slurm(cluster.environ | {"TZ": zone}).end_time(job) for zone in ("UTC", "Europe/Rome", "Asia/Tokyo")}
    assert len(ends) == 1
    assert None not in ends


def test_a_signal_reaches_what_the_batch_script_has_become(cluster: Cluster, slurm: Slurm, folder: Path) -> None:
    program = folder / "hears.py"
    program.write_text(
        "import pathlib, signal\n"
        "signal.signal(signal.SIGUSR2, lambda *_: pathlib.Path('heard').touch())\n"
        "pathlib.Path('ready').touch()\n"
        "signal.pause()\n"
    )
    job = cluster.submit(script(folder, "sleep 1000 &", f"exec {PYTHON} {program}"), cwd=folder)
    wait_for((folder / "ready").exists, "the job does not start")
    assert slurm.signal(job, "USR2")
    cluster.wait_for_job(job, "COMPLETED")
    assert (folder / "heard").exists()
    assert not slurm.signal("999999", "USR2")


def test_a_job_is_over_when_slurm_says_so_and_not_before(cluster: Cluster, slurm: Slurm) -> None:
    job = cluster.submit("sleep 300", "-N2")
    assert slurm.job_is_over(job, cluster=cluster.name) is False
    cluster.wait_for_job(job, "RUNNING")
    assert slurm.job_is_over(job) is False
    assert slurm.job_is_over(job, cluster="another") is None
    cluster.run("scancel", job)
    wait_for(lambda: slurm.job_is_over(job), "the job does not end")
    assert slurm.states([job, "999999"]) == {job: "CANCELLED"}
    assert slurm.job_is_over("999999") is True


def test_a_run_before_the_requeue_is_over_and_the_one_after_is_not(
    cluster: Cluster, slurm: Slurm, folder: Path
) -> None:
    job = cluster.submit(script(folder, "echo ${SLURM_RESTART_COUNT:-0} >> runs", "exec sleep 300"), cwd=folder)
    wait_for((folder / "runs").exists, "the job does not start")
    cluster.requeue(job)
    wait_for(lambda: (folder / "runs").read_text() == "0\n1\n", "the job does not start again", timeout=150)
    assert slurm.job_is_over(job, restart=0) is True
    assert slurm.job_is_over(job, restart=1) is False


def test_the_queue_is_read(cluster: Cluster, slurm: Slurm, folder: Path) -> None:
    argv = commands.sbatch(
        str(script(folder, "sleep 300")),
        dependency="singleton",
        extra=["-J", "odd |name, x", "-D", str(folder), "--comment", "of pilot", "-t", "5"],
    )
    running, waiting = slurm.submit(argv), slurm.submit(argv)
    cluster.submit("sleep 300", "-J", "odd |name")
    cluster.wait_for_job(running, "RUNNING")
    found = slurm.jobs_of("odd |name, x")
    assert found is not None
    first, second = sorted(found, key=lambda job: int(job.job_id))
    assert (first.job_id, first.state, first.folder, first.comment) == (running, "RUNNING", str(folder), "of pilot")
    assert first.starts_at is not None
    assert first.ends_at == first.starts_at + 300
    assert (second.job_id, second.state, second.reason) == (waiting, "PENDING", "Dependency")


def test_a_refusal_is_in_sbatchs_own_words(cluster: Cluster, slurm: Slurm, folder: Path) -> None:
    path = str(script(folder, "true"))
    with pytest.raises(InputError, match="invalid partition specified: nowhere") as caught:
        slurm.submit(commands.sbatch(path, extra=["-p", "nowhere"]))
    assert "sinfo" in caught.value.next_step
    with pytest.raises(InputError, match=r"node count|configuration is not available") as caught:
        slurm.submit(commands.sbatch(path, extra=["-N", "3", "--mem=1T"]))
    assert "sinfo" in caught.value.next_step
    with pytest.raises(PilotError, match="Unable to open file"):
        slurm.submit(commands.sbatch("nothing.sh"))
    assert "to start at" in slurm.rehearse(commands.sbatch(path, test_only=True))
    assert slurm.jobs_of("job.sh") == ()


def test_maintenance_is_seen_by_those_whom_it_concerns(cluster: Cluster, slurm: Slurm) -> None:
    assert slurm.maintenance(["n1", "n2", "n3"]) is None
    make = ("scontrol", "create", "reservation", "user=root", "starttime=now+1hours", "duration=30")
    cluster.run(*make, "reservationname=part", "flags=maint,ignore_jobs", "nodes=n[2-3]")
    cluster.run(*make, "reservationname=course", "flags=ignore_jobs", "nodes=n1")
    try:
        window = slurm.maintenance(["n1", "n2"])
        assert window is not None
        assert window[1] - window[0] == 1800
        assert 0 < window[0] - host.now() <= 3600
        assert slurm.maintenance(["n1"]) is None
    finally:
        for name in ("part", "course"):
            cluster.run("scontrol", "delete", f"reservationname={name}")


def test_the_machine_is_described(cluster: Cluster, slurm: Slurm) -> None:
    found = {partition.name: partition for partition in slurm.partitions() or ()}
    assert (found["main"].limit_s, found["main"].nodes, found["main"].cpus) == (None, 3, 8)
    assert (found["short"].limit_s, found["short"].gres) == (600, "gpu:2")
    assert slurm.cluster_name() == cluster.name
    assert "pmi2" in (slurm.mpi_types() or ())


@pytest.mark.parametrize(
    "options",
    [
        ("-N3", "--exclusive", "--gpus-per-node=2"),
        ("-N3", "--ntasks-per-node=2", "-c", "4", "--gres=gpu:2"),
        ("-N3", "-n", "24", "--export=NONE", "--gpus-per-node=2", "--mem-per-cpu=1000"),
    ],
)
def test_a_world_has_all_that_the_job_has_and_takes_it_from_nobody(
    cluster: Cluster, folder: Path, options: tuple[str, ...]
) -> None:
    start = f"{PYTHON} world.py n1,n2,n3 120"
    job = cluster.submit(script(folder, f"exec {start}"), *options, cwd=folder)
    ranks = [folder / f"rank.{node}" for node in cluster.nodes]
    wait_for(lambda: all(path.exists() and path.read_text() for path in ranks), f"no world: {cluster.job(job)}")
    assert sorted(path.read_text() for path in ranks) == ["0 3 0,1", "1 3 0,1", "2 3 0,1"]
    [step] = [line for line in cluster.run("scontrol", "show", "step", job, "-o").splitlines() if f"{job}.0 " in line]
    assert "CPUs=24 " in step
    assert "mem=24000M" in step
    # a step that wants all of a node starts beside it, at once
    task = ("srun", f"--jobid={job}", "--exact", "-N1", "-n1", "-c8", "--mem=8000", "--gpus-per-node=2", "-w", "n2")
    assert cluster.run(*task, "printenv", "SLURMD_NODENAME", timeout=20) == "n2"


def test_a_lost_node_ends_only_its_own_rank(cluster: Cluster, slurm: Slurm, folder: Path) -> None:
    lines = (f"{PYTHON} world.py n1,n2,n3 20 2> first.err", "echo $? > first", "rm rank.n*")
    again = (f"{PYTHON} world.py n1,n2 0 2> second.err", "echo $? > second")
    job = cluster.submit(script(folder, *lines, *again), "-N3", "--exclusive", "--no-kill", cwd=folder)
    wait_for((folder / "rank.n3").exists, f"no world: {cluster.job(job)}")
    cluster.kill_node("n3")
    cluster.down("n3")
    wait_for(lambda: slurm.living_nodes(job) == ("n1", "n2"), "SLURM does not see that the node is lost")
    assert cluster.job_state(job) == "RUNNING"
    # the ranks that are left come to their own end, and the nodes that are left can have another world
    cluster.wait_for_job(job, "COMPLETED", timeout=90)
    assert (folder / "second").read_text() == "0\n"
    assert sorted(path.read_text()[:3] for path in folder.glob("rank.n*")) == ["0 2", "1 2"]


def test_a_step_is_ended_on_all_nodes(cluster: Cluster, slurm: Slurm, folder: Path) -> None:
    job = cluster.submit(
        script(folder, f"{PYTHON} world.py n1,n2,n3 300", "touch ended", "sleep 300"), "-N3", cwd=folder
    )
    wait_for(lambda: len(list(folder.glob("rank.n*"))) == 3, f"no world: {cluster.job(job)}")
    assert slurm.end_step(f"{job}.0")
    wait_for((folder / "ended").exists, "srun does not return")
    assert slurm.end_step(f"{job}.0")
    assert cluster.job_state(job) == "RUNNING"


def test_a_node_that_dies_takes_its_processes_and_no_others(cluster: Cluster, folder: Path) -> None:
    # a task in a session and an environment of its own, as a launcher starts it
    line = "env -i /usr/bin/setsid /bin/sleep 500 & echo $! > pid.$SLURMD_NODENAME; wait"
    job = cluster.submit(script(folder, f"srun --no-kill -W0 -N2 bash -c '{line}'"), "-N2", "-k", cwd=folder)
    pids = [folder / f"pid.n{number}" for number in (1, 2)]
    wait_for(lambda: all(path.exists() and path.read_text() for path in pids), f"no tasks: {cluster.job(job)}")
    first, second = (int(path.read_text()) for path in pids)
    cluster.kill_node("n2")
    wait_for(lambda: (seen := host.process(second)) is None or seen.zombie, "its process lives")
    found = host.process(first)
    assert found is not None
    assert not found.zombie


def test_a_cluster_is_found_again_by_its_folder(cluster: Cluster) -> None:
    assert cluster.name in cluster_at(cluster.folder).run("scontrol", "show", "config")
