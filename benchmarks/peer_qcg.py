"""What `peers.py` runs with QCG-PilotJob's own Python: COUNT times a command on SLOTS slots, from submission to end.

    ENV/bin/python benchmarks/peer_qcg.py FOLDER SLOTS COUNT -- COMMAND

A local manager with one virtual node. Each task writes stdout and stderr into files.
"""

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

from qcg.pilotjob.api.job import Jobs
from qcg.pilotjob.api.manager import LocalManager


def main() -> None:
    """Measure, and print one JSON line."""
    folder, slots, count, _, *command = sys.argv[1:]
    outputs = Path(folder) / "outputs"
    outputs.mkdir(parents=True)
    manager = LocalManager(
        ["--nodes", slots, "--wd", folder, "--log", "critical"],
        {"wdir": folder, "log_level": "critical", "poll_delay": 0.05},
    )
    try:
        run(manager, outputs, "first", 1, ["/bin/true"])
        elapsed = run(manager, outputs, "task", int(count), command)
    finally:
        manager.finish()
    print(json.dumps({"elapsed_s": elapsed, "version": version("qcg-pilotjob")}), flush=True)


def run(manager: LocalManager, outputs: Path, name: str, count: int, command: list[str]) -> float:
    """Seconds from the submission to the last end."""
    jobs = Jobs()
    for number in range(count):
        stem = str(outputs / f"{name}-{number}")
        jobs.add(
            name=f"{name}-{number}",
            exec=command[0],
            args=command[1:],
            stdout=f"{stem}.stdout",
            stderr=f"{stem}.stderr",
            numCores=1,
        )
    began = time.time()
    manager.submit(jobs)
    manager.wait4all()
    elapsed = time.time() - began
    states = {entry["data"]["status"] for entry in manager.status(jobs.job_names())["jobs"].values()}
    assert states == {"SUCCEED"}, states
    return elapsed


if __name__ == "__main__":
    main()
