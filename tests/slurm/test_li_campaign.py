"""The campaign of `make demo` in several short allocations on three nodes: the same answer as on one machine.

Real pw.x by real mpirun, LAMMPS, motep. What is compared is byte for byte: all is made from the same seeds, and each
label is a run of one rank.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cluster import Cluster
from pilots import Site
from started_pilot import until

from pilot.cli.app import run
from pilot.slurm.commands import submit_environ

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(shutil.which("ld1.x") is None, reason="Quantum ESPRESSO is not installed"),
]

#: what is less than in the example, so that it does not take a quarter of an hour
LESS = {"holdout = 12": "holdout = 4", "eos_points = 7": "eos_points = 5", "steps = 5000": "steps = 2000"} | {
    "first_iterations = 400": "first_iterations = 150"
}
#: what differs else: one rank a label but by mpirun, one core a node, and times that fit into two minutes
SHORT = """
[run]
cores = 1
soft_stop = "2 s"

[resources.label]
mpi = "openmpi4"
time_request = "3 s"

[resources.train]
time_request = "20 s"

[resources.explore]
time_request = "10 s"

[resources.select]
time_request = "5 s"

[resources.evaluate]
time_request = "5 s"
"""


def campaign(folder: Path) -> None:
    """The example, with its pseudopotential made."""
    assert run(["init", str(folder), "--example", "li-laptop"]) == 0
    text = (folder / "pilot.toml").read_text()
    text = text[: text.index("[resources.label]")] + SHORT
    for usual, less in LESS.items():
        assert usual in text
        text = text.replace(usual, less)
    (folder / "pilot.toml").write_text(text)
    with (folder / "pseudo" / "Li.ld1.in").open() as source:
        subprocess.run(["ld1.x"], stdin=source, cwd=folder / "pseudo", stdout=subprocess.DEVNULL, check=True)


def potentials(folder: Path) -> dict[str, bytes]:
    """The potentials that were trained, by generation."""
    return {path.parent.name: path.read_bytes() for path in sorted((folder / "potentials").glob("*/*.mtp"))}


def test_several_allocations_give_the_answer_of_one_machine(cluster: Cluster, tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    campaign(there)
    campaign(here)
    site = Site(cluster, there, (there / "pilot.toml").read_text())
    first = site.submit("-t", "2")
    # a fast machine would end the campaign in one allocation
    until(lambda: site.count("done") >= 20, seconds=110)
    assert run(["drain", "--folder", str(there)]) == 0
    site.ends(first, timeout=200)
    for _ in range(12):
        if site.count("ready") + site.count("waiting") == 0:
            break
        site.ends(site.submit("-t", "2"), timeout=200)
    assert len(site.allocations()) > 1
    argv = [sys.executable, "-P", "-m", "pilot", "run", "--plain", "--cores", "2"]
    subprocess.run(argv, cwd=here, stdout=subprocess.DEVNULL, check=True, env=submit_environ(cluster.environ))
    assert potentials(there) == potentials(here)
    assert len(potentials(there)) > 1
    ((tasks,),) = site.rows("SELECT count(*) FROM tasks")
    site.all_done_once(tasks)
    used = site.rows("SELECT DISTINCT node FROM attempts")
    assert {node for (node,) in used} == {"n1", "n2", "n3"}
    assert run(["status", "--allocations", "--folder", str(there)]) == 0
