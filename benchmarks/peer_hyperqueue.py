"""What `peers.py` runs with HyperQueue's own Python: COUNT times a command on SLOTS slots, from submission to end.

    ENV/bin/python benchmarks/peer_hyperqueue.py FOLDER SLOTS COUNT -- COMMAND

The wheel `hyperqueue` brings server and executor of HyperQueue as one library; both run in this process, without a
journal. Each task writes stdout and stderr into files, as HyperQueue does by default.
"""

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig


def main() -> None:
    """Measure, and print one JSON line."""
    folder, slots, count, _, *command = sys.argv[1:]
    outputs = Path(folder) / "outputs"
    outputs.mkdir(parents=True)
    with LocalCluster(worker_config=WorkerConfig(cores=int(slots))) as cluster:
        client = cluster.client()
        run(client, outputs, 1, ["/bin/true"])
        elapsed = run(client, outputs, int(count), command)
    print(json.dumps({"elapsed_s": elapsed, "version": version("hyperqueue")}))


def run(client, outputs: Path, count: int, command: list[str]) -> float:
    """Seconds from the submission to the last end.

    The client looks once a second whether all is done; so a last task, which needs all others, writes the time.
    """
    job = Job(default_workdir=outputs)
    tasks = [job.program(command) for _ in range(count)]
    end = outputs / f"end-{count}"
    job.program(["/bin/sh", "-c", f"date +%s.%N > {end}"], deps=tasks)
    began = time.time()
    client.wait_for_jobs([client.submit(job)])
    return float(end.read_text()) - began


if __name__ == "__main__":
    main()
