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

from ours import Cluster, Site, command, own_cluster, wait_until

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
        with own_cluster(place / "c", NODES, SLOTS // NODES) as cluster:
            if options.starts:
                starts(cluster, place, options.starts)
            if options.idle:
                idle(Site(place / "idle", cluster), options.idle)
    if options.pairs:
        with own_cluster(place / "g", NODES, CPUS, gpus=GPUS) as cluster:
            for churn in (False, True):
                pairs(Site(place / f"pairs-{churn}", cluster), options.pairs, churn=churn)


def starts(cluster: Cluster, place: Path, count: int) -> None:
    """Print the time from the batch script's first line to the first task, and its parts."""
    names = ("pilot is recorded", "ranks are started", "launchers up", "first is recorded", "first task runs")
    print("start of a pilot on 3 nodes, seconds: " + ", ".join(names) + "; all", flush=True)
    rows = []
    for number in range(count):
        site = Site(place / f"start-{number}", cluster)
        rows.append(one_start(site))
        again = "  its first ranks died, others were started" if "ranks died" in site.said() else ""
        print("  " + " ".join(f"{value:6.2f}" for value in rows[-1]) + again, flush=True)
    print(
        "median\n  " + " ".join(f"{statistics.median(column):6.2f}" for column in zip(*rows, strict=True)), flush=True
    )


def one_start(site: Site) -> list[float]:
    """The parts, and their sum."""
    site.make(says=STAMP)
    with site.pilot(NODES):
        # these files are there while the pilot lives; the journals are empty, so as old as their launchers
        (plan,) = site.folder.state.glob("world-*")
        written = plan.stat().st_mtime
        launched = max(path.stat().st_mtime for path in site.folder.state.glob("ends/*"))
    ((begun, first, directory),) = site.rows(
        "SELECT pilots.started_at, attempts.started_at, directory FROM pilots JOIN attempts ON pilot_id = pilots.id"
    )
    ran = stamps(site, directory)[0]
    moments = [float((site.root / "script-began").read_text()), begun, written, launched, first, ran]
    return [after - before for before, after in pairwise(moments)] + [ran - moments[0]]


def pairs(site: Site, count: int, *, churn: bool) -> None:
    """Print from the ends of parents to the starts of their children on another node.

    One node is the only one with a GPU left, the two others are the only ones with memory left; the tasks of a chain
    want a GPU and memory by turns.
    """
    site.make(resources={"gpus": 1, "memory_mb": 6 * MEMORY_MB // 8})
    with site.pilot(NODES, f"--gres=gpu:{GPUS}"):
        for _ in range(NODES - 1):
            site.wait_for_go(resources={"gpus": GPUS})
        site.wait_for_tasks(NODES)
        first = NODES + 1
        if churn:
            # as many chains as slots, each longer than the chain that is measured
            links = [command(["sleep", "1"], resources={"memory_mb": 1}) for _ in range(SLOTS)]
            links += [links[0] | {"after": [first + number]} for number in range(count // 2 * SLOTS)]
            site.add(links)
            first += len(links)
            wait_until(lambda: site.done() >= SLOTS, "nothing churns", site.said)
        wants = ({"gpus": 1, "memory_mb": 10}, {"memory_mb": MEMORY_MB // 2})
        line = ["/bin/sh", "-c", f"{STAMP}; sleep 0.2; {STAMP}"]
        chain = [
            command(line, resources=wants[number % 2], priority=100, after=[first + number - 1] if number else [])
            for number in range(count + 1)
        ]
        end = command(["touch", str(site.root / "chain-ended")], priority=100, after=[first + count])
        site.add([*chain, end])
        wait_until((site.root / "chain-ended").exists, "the chain does not end", site.said, 0.5)
        site.drain()
    ran = site.rows(
        f"SELECT node, directory FROM attempts WHERE task_id BETWEEN {first} AND {first + count} ORDER BY task_id"
    )
    moments = [(node, *stamps(site, directory)) for node, directory in ran]
    gaps = [child[1] - parent[2] for parent, child in pairwise(moments) if parent[0] != child[0]]
    print(
        f"parent to child on another node, {'while 24 tasks of sleep 1 churn' if churn else 'idle cluster'}: "
        f"{len(gaps)} pairs, median {statistics.median(gaps):.3f} s, 9 of 10 within {quantile(gaps, 0.9):.3f} s, "
        f"longest {max(gaps):.3f} s",
        flush=True,
    )


def idle(site: Site, seconds: float) -> None:
    """Print what each process of the pilot costs while all slots sleep."""
    site.make()
    with site.pilot(NODES):
        site.add([command(["sleep", str(seconds + 20)]) for _ in range(SLOTS - 1)])
        site.wait_for_tasks(SLOTS)
        time.sleep(5)
        before = processes(site)
        time.sleep(seconds)
        after = processes(site)
    print(f"CPU time of the pilot's processes while {SLOTS} tasks sleep for {seconds:.0f} s, % of a core")
    for pid, (name, used) in sorted(before.items(), key=lambda entry: entry[1][0]):
        if pid in after:
            print(f"  {name:24} {100 * (after[pid][1] - used) / seconds:6.2f}")


def processes(site: Site) -> dict[int, tuple[str, float]]:
    """The pilot's processes on all nodes: what each is, and the CPU seconds that it has used."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode().split("\0")
            environ = dict(part.split("=", 1) for part in (entry / "environ").read_text().split("\0") if "=" in part)
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            ours = ("pilot" in words and (entry / "cwd").readlink() == site.root) or any(
                str(site.root) in word for word in words
            )
        except (OSError, ValueError):
            continue
        known = {"srun", "pilot.ranks.rank", "pilot.agent.launcher", "pilot"}
        kinds = [word for word in (Path(words[0]).name, *words) if word in known]
        if ours and kinds:
            node = environ.get("PILOT_NODE") or environ.get("SLURMD_NODENAME", "")
            found[int(entry.name)] = (
                f"{kinds[0]} {node}",
                (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"),
            )
    return found


def stamps(site: Site, directory: str) -> list[float]:
    """What a task's `date`s have written."""
    return [float(line) for line in (site.root / directory / "stdout").read_text().split()]


def quantile(values: list[float], share: float) -> float:
    """The value that so large a share of them does not exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


if __name__ == "__main__":
    main()
