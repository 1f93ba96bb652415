"""Dispatch beside HyperQueue, QCG-PilotJob and Parsl: the same tasks, on as many slots, in turn, on one machine.

    python benchmarks/peers.py --place FOLDER [--rounds 3] [--true 2000] [--sleep 240] [--only NAME ...]

Each peer gets an environment of its own below FOLDER (venv and pip, made once) and is run by its own Python
(`peer_*.py`). Ours runs on this machine with as many virtual cores, and, where SLURM is installed, over three nodes of
a test cluster: ranks started by srun, the manager in one of them.

What is counted, for all alike: from just before the tasks are submitted to an executor that is up and has run a task,
to the end of the last. What is not: installing, starting, ending. Every task's stdout and stderr go into two files.
Ours alone records each transition durably before it is acted on, and makes a folder for each attempt.
`xargs -P` records nothing, writes no files, and is what the machine can start at all.

Quote the ratios of one run, not the rates.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ours import Site, command, lacking_programs, own_cluster

SLOTS = 24
HERE = Path(__file__).parent
#: a system, its package, and the script that its own Python runs
PEERS = {"hyperqueue": "hyperqueue", "qcg-pilotjob": "qcg-pilotjob setuptools", "parsl": "parsl"}
SCRIPTS = {"hyperqueue": "peer_hyperqueue.py", "qcg-pilotjob": "peer_qcg.py", "parsl": "peer_parsl.py"}

#: runs a command so many times, with its files in a folder that is not there yet; seconds from submission to last end
Run = Callable[[Path, int, list[str]], float]


@dataclass(frozen=True, slots=True)
class Load:
    """So many tasks of one kind, and how their time is to be read."""

    argv: list[str]
    count: int

    def figure(self, elapsed_s: float) -> float:
        """Tasks a second; of tasks that take a time, the share of the slots' time that they fill."""
        if self.argv[0] == "sleep":
            return self.count * float(self.argv[1]) / SLOTS / elapsed_s
        return self.count / elapsed_s

    def title(self) -> str:
        """For people."""
        what = "share of the slots' time" if self.argv[0] == "sleep" else "tasks/s"
        return f"{self.count} times `{' '.join(self.argv)}` on {SLOTS} slots: {what}"


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--place", required=True, type=Path, help="a folder on the disk that is to be measured")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--true", type=int, default=2000, help="so many times /bin/true")
    parser.add_argument("--sleep", type=int, default=240, help="so many times sleep 1")
    parser.add_argument("--only", nargs="*", help="of ours-local, ours-3-nodes, hyperqueue, qcg-pilotjob, parsl, xargs")
    options = parser.parse_args()
    place = options.place.resolve()
    place.mkdir(parents=True, exist_ok=True)
    loads = [Load(["/bin/true"], options.true), Load(["sleep", "1"], options.sleep)]
    lacking = lacking_programs()
    if lacking:
        print(f"no test cluster, as these are not installed: {', '.join(lacking)}")
        measure(systems(place, None, options.only), loads, options.rounds, place)
        return
    with own_cluster(place / f"c{os.getpid()}") as cluster:
        runs = systems(place, partial(of_ours, cluster), options.only)
        measure(runs, loads, options.rounds, place)


def systems(place: Path, on_nodes: Run | None, only: list[str] | None) -> dict[str, Run]:
    """All that can be had here, by name; ours first."""
    runs: dict[str, Run] = {"ours-local": partial(of_ours, None)}
    if on_nodes is not None:
        runs["ours-3-nodes"] = on_nodes
    runs |= {name: partial(of_peer, name, place / f"env-{name}") for name in PEERS} | {"xargs": of_xargs}
    chosen = {name: run for name, run in runs.items() if not only or name in only}
    for name in [name for name in PEERS if name in chosen]:
        try:
            make_environment(place / f"env-{name}", PEERS[name].split())
        except subprocess.CalledProcessError as error:
            print(f"{name} cannot be installed here: {error.stderr.strip().splitlines()[-1]}")
            del chosen[name]
    return chosen


def measure(runs: dict[str, Run], loads: list[Load], rounds: int, place: Path) -> None:
    """Each system in turn, round by round; then medians, and ours over each."""
    for load in loads:
        if not load.count:
            continue
        print(f"\n{load.title()}\n{'round':>6}" + "".join(f"{name:>14}" for name in runs), flush=True)
        figures: dict[str, list[float]] = {name: [] for name in runs}
        for number in range(1, rounds + 1):
            row = ""
            for name, run in runs.items():
                # removed by whoever has called us: a disk that is mounted with `discard` is slow for a while after
                files = place / f"{name}-{load.argv[0].strip('/').replace('/', '-')}-{number}-{os.getpid()}"
                figures[name].append(load.figure(run(files, load.count, load.argv)))
                row += f"{figures[name][-1]:14.3g}"
            print(f"{number:6}{row}", flush=True)
        print("median" + "".join(f"{statistics.median(found):14.3g}" for found in figures.values()))
        for ours in [name for name in runs if name.startswith("ours")]:
            ratios = {
                name: statistics.median(mine / theirs for mine, theirs in zip(figures[ours], found, strict=True))
                for name, found in figures.items()
                if name != ours
            }
            print(f"{ours} over: " + ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items()), flush=True)


def of_ours(cluster: object, files: Path, count: int, argv: list[str]) -> float:
    """A pilot on three nodes of the cluster, or on this machine with virtual cores."""
    site = Site(files, cluster)
    site.make("" if cluster is not None else f"[run]\ncores = {SLOTS}\n")
    with site.pilot():
        began = site.add([command(argv) for _ in range(count)])
    ((ended, done),) = site.rows("SELECT max(ended_at), count(*) FROM attempts WHERE verdict = 'done'")
    assert done == count + 1, f"{done} of {count + 1} are done"
    return ended - began


def of_peer(name: str, environment: Path, files: Path, count: int, argv: list[str]) -> float:
    """A peer, in its own environment."""
    environ = os.environ | {"PATH": f"{environment / 'bin'}:{os.environ['PATH']}", "TMPDIR": str(files.parent)}
    script = [str(environment / "bin" / "python"), str(HERE / SCRIPTS[name]), str(files), str(SLOTS), str(count), "--"]
    done = subprocess.run([*script, *argv], env=environ, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{name} ended with {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return float(found["elapsed_s"])


def of_xargs(_files: Path, count: int, argv: list[str]) -> float:
    """What the machine can start at all."""
    lines = "\n" * count
    began = time.perf_counter()
    subprocess.run(["xargs", "-d", r"\n", "-P", str(SLOTS), "-I{}", *argv], input=lines, text=True, check=True)
    return time.perf_counter() - began


def make_environment(folder: Path, packages: list[str]) -> None:
    """An environment with the packages, once."""
    if (folder / "installed").exists():
        return
    venv.create(folder, with_pip=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *packages], check=True, capture_output=True, text=True)
    frozen = subprocess.run([*pip[:3], "freeze"], check=True, capture_output=True, text=True).stdout
    (folder / "installed").write_text(frozen)
    print(f"{folder.name}: {', '.join(frozen.split())}", file=sys.stderr)


if __name__ == "__main__":
    main()
