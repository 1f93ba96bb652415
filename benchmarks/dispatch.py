"""How fast tasks are dispatched: N times /bin/true in 8 slots, every transition durable, beside ``xargs -P 8``.

    python benchmarks/dispatch.py --tasks 2000 --rounds 3 --place .

Both are measured in turn, in one run, on one machine: quote the ratio, not the rates. ``xargs`` keeps no record of
anything; it is what this machine can start at all.
"""

import argparse
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from db.records import NewTask
from db.states import TaskKind
from pilot import host
from pilot.config import Config, read_config
from pilot.folder import Folder
from pilot.opening import held_folder, open_database
from pilot.supervisor import run_pilot

SLOTS = 8


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--place", default=".", help="a folder on the disk that is to be measured")
    options = parser.parse_args()
    ratios = []
    print(f"{'round':>5} {'pilot tasks/s':>14} {'xargs tasks/s':>14} {'ratio':>6}")
    # the folders are removed at the end only: a disk that is mounted with `discard` is slow for a while after that
    with tempfile.TemporaryDirectory(dir=options.place) as place:
        for number in range(1, options.rounds + 1):
            ours, theirs = rate_of_pilot(Path(place) / str(number), options.tasks), rate_of_xargs(options.tasks)
            ratios.append(ours / theirs)
            print(f"{number:5d} {ours:14.0f} {theirs:14.0f} {ratios[-1]:6.2f}", flush=True)
    print(f"median ratio {statistics.median(ratios):.2f}")


def rate_of_pilot(place: Path, count: int) -> float:
    """Tasks per second from the start of a pilot to its end, start-up and last snapshot included."""
    place.mkdir()
    folder = Folder(place)
    folder.config.write_text(f"[run]\ncores = {SLOTS}\n")
    config = read_config(folder.config)
    add(folder, config, count)
    began = time.perf_counter()
    run_pilot(folder, config)
    return count / (time.perf_counter() - began)


def add(folder: Folder, config: Config, count: int) -> None:
    """Insert the tasks."""
    spec = {"argv": ["/bin/true"], "cwd": None, "env": {}, "mpi": False, "shell": False}
    with (
        held_folder(folder, "benchmark") as lease,
        open_database(folder, config, lease) as opened,
        opened.ledger.turn(host.now()) as turn,
    ):
        turn.add([NewTask(TaskKind.COMMAND, "command", "true", spec) for _ in range(count)])


def rate_of_xargs(count: int) -> float:
    """Tasks per second of ``xargs -P 8 -n 1 /bin/true``."""
    lines = "\n".join(str(number) for number in range(count))
    began = time.perf_counter()
    subprocess.run(["xargs", "-P", str(SLOTS), "-n", "1", "/bin/true"], input=lines, text=True, check=True)
    return count / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
