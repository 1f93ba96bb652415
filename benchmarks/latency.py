"""How long things take on three nodes of a test cluster (tests/slurm/cluster.py), and what an idle pilot costs.

    python benchmarks/latency.py --place FOLDER [--starts 5] [--pairs 100] [--idle 60]

start: from the first line of the batch script to the first task's own `date`, and where the time goes.
pairs: from a parent's last `date` to its child's first, the child on another node because only there is what it asks
    for; on an idle cluster, and while 24 tasks of `sleep 1` at a time churn beside it. Both `date`s and the shells that
    call them are counted.
idle: CPU time of each process of the pilot while 24 tasks sleep.

All nodes are this machine, so their clocks agree and they share its cores.
"""

import argparse
import os
import statistics
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from ours import Cluster, Site, command, test_cluster, wait_until

NODES, SLOTS = 3, 24
#: room for the churn on any one node, so that a child never waits for a core
CPUS, GPUS, MEMORY_MB = 32, 2, 8000
STAMP = "date +%s.%N"


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--place", required=True, type=Path, help="a folder on the disk that is to be measured")
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--idle", type=float, default=60.0, help="seconds")
    options = parser.parse_args()
    place = options.place.resolve() / str(os.getpid())
    if options.starts or options.idle:
        with test_cluster(place / "c", NODES, SLOTS // NODES) as cluster:
            if options.starts:
                starts(cluster, place, options.starts)
            if options.idle:
                idle(Site(place / "idle", cluster), options.idle)
    if options.pairs:
        with test_cluster(place / "g", NODES, CPUS, gpus=GPUS, memory_mb=MEMORY_MB) as cluster:
            for churn in (False, True):
                pairs(Site(place / f"pairs-{churn}", cluster), options.pairs, churn=churn)


def starts(cluster: Cluster, place: Path, count: int) -> None:
    """Print the time from the batch script's first line to the first task, and its parts."""
    names = ("pilot is recorded", "ranks are started", "launchers up", "first is recorded", "first task runs")
    print("start of a pilot on 3 nodes, seconds: " + ", ".join(names) + "; all", flush=True)
    rows = []
    for number in range(count):
        rows.append(one_start(Site(place / f"start-{number}", cluster)))
        print("  " + " ".join(f"{value:6.2f}" for value in rows[-1]), flush=True)
    print("median\n  " + " ".join(f"{statistics.median(column):6.2f}" for column in zip(*rows, strict=True)), flush=True)


def one_start(site: Site) -> list[float]:
    """The parts, and their sum."""
    site.make(first=f"{STAMP}; sleep 3")
    with site.pilot(NODES):
        # these files are there while the pilot lives; a journal is as old as its launcher
        (plan,) = site.folder.state.glob("world-*")
        journals = [path.stat() for path in site.folder.state.glob("ends/*")]
        written, launched = plan.stat().st_mtime, max(born(path, seen) for path, seen in journals_of(site, journals))
    ((begun, first, directory),) = site.rows(
        "SELECT pilots.started_at, attempts.started_at, directory FROM pilots JOIN attempts ON pilot_id = pilots.id"
    )
    ran = stamps(site, directory)[0]
    moments = [float((site.root / "script-began").read_text()), begun, written, launched, first, ran]
    return [after - before for before, after in pairwise(moments)] + [ran - moments[0]]


if __name__ == "__main__":
    main()
