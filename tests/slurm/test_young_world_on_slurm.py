"""A rank that dies before all have met: the others would wait for it for ever."""

import os
import signal
import sys
from pathlib import Path

import pytest
from cluster import Cluster
from command_line import wait_for
from pilots import Site

from pilot import host
from pilot.agent import monitor


def ranks(root: Path, node: str) -> list[int]:
    """The ranks of the folder's pilot on a node."""
    return [
        pid
        for pid in monitor.listed()
        if (words := _words(pid))[:1] == [sys.executable]
        and "pilot.ranks.rank" in words
        and words[-1].startswith(str(root))
        and monitor.environment(pid).get("SLURMD_NODENAME") == node
    ]


def _words(pid: int) -> list[str]:
    try:
        return host.read(f"/proc/{pid}/cmdline").decode().split("\0")[:-1]
    except OSError:
        return []


@pytest.mark.parametrize("node", ["n1", "n3"])
def test_the_ranks_are_started_again_at_once(cluster: Cluster, tmp_path: Path, node: str) -> None:
    site = Site(cluster, tmp_path)
    site.add("--count", "6", "--", "sleep", "0.2")
    job = site.submit()
    wait_for(lambda: bool(ranks(tmp_path, node)), "no rank is seen")
    # it still imports
    os.kill(ranks(tmp_path, node)[0], signal.SIGKILL)
    site.ends(job, timeout=100)  # and not only when nothing was heard for two minutes
    site.all_done_once(6)
    assert "the pilot's ranks died" in site.said()
    assert {entry["job_id"] for entry in site.allocations()} == {job}
