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
    with LocalCluster(str(Path(folder) / "server"), WorkerConfig(cores=int(slots))) as cluster:
        client = cluster.client()
        run(client, outputs, 1, ["/bin/true"])
        elapsed = run(client, outputs, int(count), command)
    print(json.dumps({"elapsed_s": elapsed, "version": version("hyperqueue")}))


def run(client, outputs: Path, count: int, command: list[str]) -> float:
    """Seconds from the submission to the last end."""
    job = Job(default_workdir=outputs)
    for _ in range(count):
        job.program(command)
    began = time.time()
    client.wait_for_jobs([client.submit(job)])
    return time.time() - began


if __name__ == "__main__":
    main()
