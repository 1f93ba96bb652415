"""Tasks over several nodes, and srun as a launcher, on a real SLURM: where the ranks are, on which cores.

All nodes are this machine, which may have two cores only: what is pinned is pinned to cores 0 and 1.
"""

import json
import os
from pathlib import Path

import pytest
from cluster import Cluster

from db.records import Share
from pilot.mpi.choose import Chooser
from pilot.mpi.protocol import Slot
from tests.mpis import MPIS, ROOT, Mpi, needed

pytestmark = pytest.mark.engine

ACROSS = Slot(4, 1, (1, 0), "n1", (Share("n3", (0, 1)),))
#: what each rank says: the node SLURM says it is on, its number and the size of the world, its cores, its marks
SAY = (
    "echo $SLURMD_NODENAME ${OMPI_COMM_WORLD_RANK:-${PMI_RANK:-$SLURM_PROCID}} "
    "${OMPI_COMM_WORLD_SIZE:-${PMI_SIZE:-$SLURM_NTASKS}} "
    "$(grep Cpus_allowed_list /proc/self/status | cut -f 2) "
    "$PILOT_ATTEMPT $PILOT_CAMPAIGN $PILOT_EPOCH $OMP_NUM_THREADS"
)
MARKS = {"PILOT_ATTEMPT": "7", "PILOT_CAMPAIGN": "abc", "PILOT_EPOCH": "2", "OMP_NUM_THREADS": "3"}
SAID = "7 abc 2 3"

#: run inside the job as the agent does, beside a step that holds all nodes, as the pilot's own ranks do
INSIDE = """
import json, os, subprocess, sys
sys.path.insert(0, {root!r})
from db.records import Share
from pilot.mpi.choose import Chooser
from pilot.mpi.protocol import Slot
from pilot.mpi.scrub import of_the_job, scrubbed
told = json.load(open(sys.argv[1]))
environ = scrubbed(os.environ) | told["environ"]
others = tuple(Share.from_json(share) for share in told["others"])
slot = Slot(told["ranks"], told["threads"], tuple(told["cores"]), told["node"], others)
chooser = Chooser(told["name"], environ, of_the_job(os.environ), told["extra"])
argv, added = chooser.choose(slot.ranks, told["command"][0], 1 + len(others)).wrap(told["command"], slot)
pilots = subprocess.Popen(["srun", "--overlap", "--ntasks-per-node=1", "sleep", "100"])
done = subprocess.run(argv, env=environ | added, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
pilots.terminate()
json.dump([done.returncode, done.stdout, done.stderr], open(sys.argv[1] + ".new", "w"))
os.rename(sys.argv[1] + ".new", sys.argv[1] + ".done")
"""


def in_a_job(
    cluster: Cluster,
    folder: Path,
    mpi: Mpi,
    slot: Slot,
    command: list[str],
    name: str = "",
    extra: tuple[str, ...] = (),
) -> list[str]:
    """Start it in a job of all nodes; what the ranks said, line by line."""
    told = {
        "name": name or mpi.name,
        "environ": mpi.environ(**MARKS),
        "ranks": slot.ranks,
        "threads": slot.threads,
        "cores": slot.cores,
        "node": slot.node,
        "others": [share.to_json() for share in slot.others],
        "command": command,
        "extra": extra,
    }
    (folder / "told").write_text(json.dumps(told))
    (folder / "inside.py").write_text(INSIDE.format(root=str(ROOT)))
    python = ROOT / ".venv" / "bin" / "python"
    script = folder / "job.sh"
    script.write_text(f"#!/bin/sh\nexec {python} {folder}/inside.py {folder}/told\n")
    job = cluster.submit(script, "-N3", "--exclusive", "-t", "5", cwd=folder)
    cluster.wait_for_job(job, "COMPLETED")
    code, out, err = json.loads((folder / "told.done").read_text())
    assert code == 0, err
    return sorted(out.splitlines())


def places(lines: list[str]) -> list[tuple[str, str]]:
    """(node, cores) of each rank, after a look at all else that it said."""
    words = [line.split(maxsplit=4) for line in lines]
    assert sorted(int(rank) for _, rank, *_ in words) == list(range(len(words)))
    assert {(int(size), marks) for _, _, size, _, marks in words} == {(len(words), SAID)}
    return sorted((node, cores) for node, _, _, cores, _ in words)


@pytest.mark.parametrize("name", [*MPIS, "srun"])
def test_every_rank_is_on_its_node_and_core_with_its_marks(cluster: Cluster, tmp_path: Path, name: str) -> None:
    mpi = needed("openmpi4" if name == "srun" else name)
    lines = in_a_job(cluster, tmp_path, mpi, ACROSS, ["/bin/sh", "-c", SAY], name)
    assert places(lines) == [("n1", "0"), ("n1", "1"), ("n3", "0"), ("n3", "1")]


@pytest.mark.parametrize("name", list(MPIS))
def test_the_ranks_on_two_nodes_form_one_world(cluster: Cluster, tmp_path: Path, name: str) -> None:
    mpi = needed(name)
    # the "nodes" share one /dev/shm under one host name, where Open MPI's shared memory would meet itself
    extra = {"openmpi4": ("--mca", "btl", "self,tcp"), "openmpi5": ("--mca", "btl", "self,tcp")}.get(name, ())
    lines = in_a_job(cluster, tmp_path, mpi, ACROSS, mpi.where("end"), extra=extra)
    assert [line.split()[:3] for line in lines] == [[str(rank), "4", "10"] for rank in range(4)]


def test_a_program_of_mpich_forms_a_world_under_srun(cluster: Cluster, tmp_path: Path) -> None:
    mpi = needed("mpich")
    lines = in_a_job(cluster, tmp_path, mpi, ACROSS, mpi.where(), "srun", ("--mpi=pmi2",))
    assert [line.split()[:3] for line in lines] == [[str(rank), "4", "10"] for rank in range(4)]


@pytest.mark.parametrize("node", ["n1", "n2"])
def test_srun_starts_on_one_node_and_these_cores_only(cluster: Cluster, tmp_path: Path, node: str) -> None:
    slot = Slot(2, 1, (1, 0), node)
    lines = in_a_job(cluster, tmp_path, needed("openmpi4"), slot, ["/bin/sh", "-c", SAY], "srun")
    assert places(lines) == [(node, "0"), (node, "1")]


@pytest.mark.parametrize("name", [*MPIS, "srun"])
@pytest.mark.parametrize("each", [1, 3])
def test_without_cores_the_ranks_are_spread_evenly_and_not_pinned(
    cluster: Cluster, tmp_path: Path, name: str, each: int
) -> None:
    mpi = needed("openmpi4" if name == "srun" else name)
    slot = Slot(2 * each, 1, (), "n1", (Share("n2", ()),))
    lines = in_a_job(cluster, tmp_path, mpi, slot, ["/bin/sh", "-c", SAY], name)
    assert [node for node, _ in places(lines)] == ["n1"] * each + ["n2"] * each


def test_a_head_that_is_not_the_first_node_and_ranks_of_two_threads(cluster: Cluster, tmp_path: Path) -> None:
    slot = Slot(3, 2, (0, 1), "n2", (Share("n3", (0, 1)), Share("n1", (1, 0))))
    for name in [*MPIS, "srun"]:
        folder = tmp_path / name
        folder.mkdir()
        mpi = needed("openmpi4" if name == "srun" else name)
        lines = in_a_job(cluster, folder, mpi, slot, ["/bin/sh", "-c", SAY], name)
        assert places(lines) == [("n1", "0-1"), ("n2", "0-1"), ("n3", "0-1")], name


def test_srun_is_found_where_slurm_conf_is_known_only_to_the_job(cluster: Cluster) -> None:
    environ = {"PATH": os.environ["PATH"]}
    assert Chooser("auto", environ, cluster.environ).findings()["srun"]
