"""What `peers.py` runs with Parsl's own Python: COUNT times a command on SLOTS slots, from submission to end.

    ENV/bin/python benchmarks/peer_parsl.py FOLDER SLOTS COUNT -- COMMAND

One HighThroughputExecutor with one process for each slot, no checkpoints. The app starts the command without a shell
and writes stdout and stderr into files; that is quicker than Parsl's `bash_app`, which starts a shell besides.
"""

import json
import sys
import time
from concurrent.futures import wait
from pathlib import Path

import parsl
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.providers import LocalProvider


@parsl.python_app
def start(command, stem):
    """Run the command to its end."""
    import subprocess

    with open(f"{stem}.stdout", "wb") as out, open(f"{stem}.stderr", "wb") as err:  # noqa: PTH123
        return subprocess.call(command, stdout=out, stderr=err)


def main() -> None:
    """Measure, and print one JSON line."""
    folder, slots, count, _, *command = sys.argv[1:]
    outputs = Path(folder) / "outputs"
    outputs.mkdir(parents=True)
    executor = HighThroughputExecutor(
        label="local",
        address="127.0.0.1",
        max_workers_per_node=int(slots),
        cores_per_worker=1e-6,
        provider=LocalProvider(init_blocks=1, max_blocks=1),
    )
    config = Config(executors=[executor], run_dir=str(Path(folder) / "runinfo"), strategy="none", usage_tracking=0)
    with parsl.load(config):
        # all processes are up when so many tasks that take a while have been through
        wait([start(["sleep", "0.5"], outputs / f"first-{number}") for number in range(2 * int(slots))])
        began = time.time()
        futures = [start(command, outputs / str(number)) for number in range(int(count))]
        wait(futures)
        elapsed = time.time() - began
        assert all(future.result() == 0 for future in futures)
    print(json.dumps({"elapsed_s": elapsed, "version": parsl.__version__}))


if __name__ == "__main__":
    main()
