"""One SLURM cluster for all tests that need one."""

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
from cluster import Cluster, missing_programs, start_cluster


@pytest.fixture(scope="session")
def running_cluster() -> Iterator[Cluster]:
    """Started when first asked for, stopped at the end, after Ctrl-C and after a polite kill of pytest as well."""
    if missing := missing_programs():
        pytest.skip(f"no SLURM here: {', '.join(missing)} not installed (Debian: apt-get install slurm-wlm munge)")

    def leave(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, leave)
    try:
        # sockets live there: the path must be short
        with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as folder:
            started = start_cluster(Path(folder), nodes=3, cpus=8, partitions=("main", "short MaxTime=10"), gpus=2)
            try:
                yield started
            finally:
                started.stop()
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.fixture
def cluster(running_cluster: Cluster) -> Iterator[Cluster]:
    """A cluster of nodes n1, n2, n3 (8 cores, 8000 MiB, 2 GPUs each), all idle, in which no job is left afterwards."""
    yield running_cluster
    running_cluster.heal()
