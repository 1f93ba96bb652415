"""A real SLURM reads the scripts of all sites, runs what is handed in, and keeps chains to one allocation at a time."""

import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster, missing_programs, start_cluster
from command_line import wait_for

from pilot.cli.batch_queue import BatchQueue, waits
from pilot.cli.site_files import job_name, script_text
from pilot.cli.sites import find_site, sites
from pilot.cli.submitting import end_chain, queue_next
from pilot.folder import Folder

NAMES = sorted(sites())
#: All partitions that the scripts name; one node that is as large as any.
PARTITIONS = ("main", "dcgp_fua_prod", "dcgp_fua_dbg MaxTime=30", "boost_fua_prod", "dcgp_usr_prod", "standard")


@pytest.fixture(scope="module")
def all_sites() -> Iterator[Cluster]:
    """One node with everything that any of the sites has."""
    if missing := missing_programs():
        pytest.skip(f"no SLURM here: {', '.join(missing)} not installed")
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as folder:
        started = start_cluster(Path(folder), nodes=1, cpus=256, partitions=PARTITIONS, memory_mb=780_000, gpus=4)
        try:
            started.run("scontrol", "update", "node=n1", "availablefeatures=cpu", "activefeatures=cpu")
            yield started
        finally:
            started.stop()


@pytest.mark.parametrize("name", NAMES)
def test_slurm_understands_the_script_of_every_site(name: str, all_sites: Cluster, tmp_path: Path) -> None:
    (tmp_path / "pilot.sh").write_text(script_text(find_site(name), tmp_path, "FUA39_TEST", "true"))
    job = all_sites.run("sbatch", "--parsable", "--hold", "pilot.sh", cwd=tmp_path)
    try:
        told = all_sites.job(job)
        assert told["JobName"] == job_name(tmp_path)
        assert told["Account"].lower() == "fua39_test"
        assert told["WorkDir"] == str(tmp_path)
        assert told["Dependency"].startswith("singleton")
        assert told["StdOut"] == str(tmp_path / f"pilot-{job}.out")
        assert (told["OverSubscribe"], told["Requeue"], told["NumNodes"]) == ("NO", "1", "1-1")
        assert told["TimeLimit"] in {"1-00:00:00", "2-00:00:00", "3-00:00:00"}
        # where a site has no partitions to name, its scripts name none, and the cluster's default is taken
        named = find_site(name).partition
        assert told["Partition"] == ("main" if named.startswith("qos ") or not named else named)
    finally:
        all_sites.run("scancel", job)
    # that it could start: partition, cores, memory and GPUs are there at once
    asked = subprocess.run(
        ["sbatch", "--test-only", "pilot.sh"],
        env=all_sites.environ, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert asked.returncode == 0, asked.stderr
    assert "to start at" in asked.stderr


def pilot(cluster: Cluster, folder: Path, *argv: str, code: int = 0) -> str:
    """Type a command; what it says."""
    environ = cluster.environ | {"COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pilot", *argv],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, f"pilot {' '.join(argv)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def made_folder(cluster: Cluster, root: Path, last_line: str = "exec pilot run") -> Folder:
    """A folder for the cluster, with one task; its script ends with this line."""
    root.mkdir()
    pilot(cluster, root, "init", "--site", "generic", "--account", "none")
    script = root / "pilot.sh"
    script.write_text(script.read_text().replace("exec pilot run", last_line))
    pilot(cluster, root, "add", "--", "/bin/true")
    return Folder(root)


def test_a_folder_is_submitted_and_its_task_is_run(cluster: Cluster, tmp_path: Path) -> None:
    folder = made_folder(cluster, tmp_path / "my campaign")
    said = pilot(cluster, folder.root, "submit", "--dry-run")
    assert "# SLURM says: Job " in said
    said = pilot(cluster, folder.root, "submit")
    assert said.startswith("submitted: job ")
    job = said.split()[2]
    cluster.wait_for_job(job)
    output = (folder.root / f"pilot-{job}.out").read_text()
    assert "tasks: 1 done" in output, output
    assert "nothing is left to do" in pilot(cluster, folder.root, "status")
    assert "nothing was submitted: all tasks have ended" in pilot(cluster, folder.root, "submit")


def test_a_signal_to_the_script_reaches_the_pilot_which_drains(cluster: Cluster, tmp_path: Path) -> None:
    """As SLURM sends it before the end (--signal=B:USR1@180): the script has become the pilot, by exec."""
    folder = made_folder(cluster, tmp_path / "drained")
    folder.config.write_text('[run]\ndrain_wait = "1 s"\nsoft_stop = "1 s"\n')
    pilot(cluster, folder.root, "add", "--", "sleep", "600")
    job = pilot(cluster, folder.root, "submit").split()[2]
    wait_for(lambda: bool(json.loads(pilot(cluster, folder.root, "status", "--json"))["running"]), "nothing runs")
    cluster.run("scancel", "--batch", "--signal=USR1", job)
    cluster.wait_for_job(job)
    assert "draining (SIGUSR1" in folder.log.read_text()
    assert "1 ready" in (folder.root / f"pilot-{job}.out").read_text()
    # what is left is for the next allocation
    assert "--dependency=singleton" in pilot(cluster, folder.root, "submit", "--dry-run")


def test_the_second_of_a_folder_is_refused_or_waits_behind_the_first(cluster: Cluster, tmp_path: Path) -> None:
    folder = made_folder(cluster, tmp_path / "one", "exec sleep 600")
    other = made_folder(cluster, tmp_path / "other", "exec sleep 600")
    first = pilot(cluster, folder.root, "submit").split()[2]
    cluster.wait_for_job(first, "RUNNING")
    assert f"job {first} of this folder runs already" in pilot(cluster, folder.root, "submit", code=5)
    # another folder is none of its business
    elsewhere = pilot(cluster, other.root, "submit").split()[2]
    cluster.wait_for_job(elsewhere, "RUNNING")
    second = pilot(cluster, folder.root, "submit", "--chain").split()[2]
    assert f"job {second} of this folder waits" in pilot(cluster, folder.root, "submit", "--chain", code=5)
    assert cluster.job(second)["JobState"] == "PENDING"
    assert cluster.job(second)["Reason"] == "Dependency"
    # only what waits is taken out
    queue = BatchQueue(cluster.environ)
    names = [job_name(folder.root)]
    assert {(job.job_id, waits(job)) for job in queue.jobs(folder.root, names)} == {(first, False), (second, True)}
    queue.cancel(first)
    assert cluster.job(first)["JobState"] == "RUNNING"
    queue.cancel(second)
    wait_for(lambda: waiting(queue, folder) == [], "it is not taken out")
    cluster.run("scancel", first, elsewhere)


def waiting(queue: BatchQueue, folder: Folder) -> list[str]:
    """The ids of the folder's jobs that wait."""
    return [job.job_id for job in queue.jobs(folder.root, [job_name(folder.root)]) if waits(job)]


#: What `pilot run` does in an allocation of a chain; the first allocation does nothing else.
ALLOCATION = """\
import os, subprocess, sys
from pathlib import Path
from pilot.cli.submitting import end_chain, queue_next
from pilot.folder import Folder
folder, log = Folder(Path.cwd()), Path("chain.log")
first = not log.exists()
with log.open("a") as file:
    print(os.environ["SLURM_JOB_ID"], os.environ["SLURM_JOB_NUM_NODES"], queue_next(folder, os.environ), file=file)
    environ = {name: value for name, value in os.environ.items() if name != "PILOT_CHAIN"}
    first or subprocess.run([sys.executable, "-P", "-m", "pilot", "run"], env=environ, check=False)
    print(end_chain(folder, os.environ), file=file, flush=True)
"""


def test_a_chain_goes_on_by_itself_until_nothing_is_left(cluster: Cluster, tmp_path: Path) -> None:
    folder = made_folder(cluster, tmp_path / "chain", f"exec {shlex.quote(sys.executable)} -P allocation.py")
    (folder.root / "allocation.py").write_text(ALLOCATION)
    assert "each allocation queues the next one" in pilot(cluster, folder.root, "submit", "--chain", "--", "--nodes=2")
    queue, log = BatchQueue(cluster.environ), folder.root / "chain.log"
    # the first queues the second, which does the work, and takes the third out of the queue
    try:
        wait_for(lambda: log.exists() and log.read_text().count("\n") >= 4, "the chain does not go on")
        wait_for(lambda: queue.jobs(folder.root, [job_name(folder.root)]) == [], "the chain does not end")
    except AssertionError as error:
        told = [
            path.read_text() for path in (log, folder.log, *sorted(folder.root.glob("pilot-*.out"))) if path.exists()
        ]
        raise AssertionError("\n".join([str(error), cluster.run("squeue", "--all"), *told])) from error
    one, nothing, two, end = log.read_text().splitlines()
    assert nothing == ""
    second, third = one.split()[-1], two.split()[-1]
    assert one.split()[1:] == ["2", *f"the next allocation is queued: job {second}".split()]
    assert two == f"{second} 2 the next allocation is queued: job {third}"
    assert end == f"job {third} was taken out of the queue: all tasks have ended"
    assert cluster.job(third)["JobState"] == "CANCELLED"


def test_the_environment_of_the_job_is_not_handed_on(cluster: Cluster, tmp_path: Path) -> None:
    folder = made_folder(cluster, tmp_path / "env", "env > environment; exec true")
    inside = cluster.environ | {"SLURM_JOB_ID": "1", "SLURM_RESTART_COUNT": "7", "OMPI_X": "1", "PILOT_CHAIN": "3:1"}
    said = queue_next(folder, inside | {"SLURM_NTASKS": "99", "PILOT_CHAIN_OPTIONS": "--comment=a,b"})
    job = said.split()[-1]
    cluster.wait_for_job(job, "COMPLETED")
    lines = (folder.root / "environment").read_text().splitlines()
    assert "PILOT_CHAIN=0:2" in lines
    assert "PILOT_CHAIN_OPTIONS=--comment=a,b" in lines
    assert not [line for line in lines if line.startswith(("SLURM_RESTART_COUNT=", "OMPI_X=", "SLURM_NTASKS=99"))]
    assert end_chain(folder, inside) == ""
