"""A node that falls silent: nobody closes its connections, packets just vanish."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from cluster import Cluster, missing_programs, start_cluster
from command_line import wait_for
from pilots import Site
from wire import Wire, new_wire, why_not

from pilot.agent import monitor

IMPATIENT = '[run]\nsilence = "5 s"\n'
# UCX sees that all nodes are one machine and would use its memory, and looks for devices in the wrong /sys
BY_WIRE = "export MPIR_CVAR_CH4_NETMOD=ofi FI_PROVIDER=tcp MPIR_CVAR_NOLOCAL=1"


@pytest.fixture
def apart() -> Iterator[tuple[Cluster, Wire]]:
    """A cluster whose node n3 is a host of its own as far as the network goes."""
    if why := why_not() or ", ".join(missing_programs()):
        pytest.skip(why)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True))
        wire = stack.enter_context(new_wire())
        cluster = start_cluster(Path(folder), nodes=3, apart=wire)
        stack.callback(cluster.stop)
        yield cluster, wire


def left_on_n3(root: Path) -> int:
    """How many processes of the campaign live on node n3."""
    campaign = str(root)
    found = (monitor.environment(pid) for pid in monitor.listed())
    return sum(env.get("PWD", "").startswith(campaign) and env.get(monitor.NODE) == "n3" for env in found)


def test_a_node_that_falls_silent_costs_what_ran_there_and_ends_its_tasks_by_itself(
    apart: tuple[Cluster, Wire], tmp_path: Path
) -> None:
    cluster, wire = apart
    site = Site(cluster, tmp_path, IMPATIENT)
    site.add("--count", "60", "--", "sleep", "1.5")
    job = site.submit(before=BY_WIRE)
    wait_for(lambda: site.count("done") > 10, "nothing is done")
    assert left_on_n3(tmp_path) > 0
    wire.cut()
    wait_for(lambda: "node n3 is lost" in site.said(), "the silence is not noticed")
    site.ends(job)
    site.all_done_once(60)
    assert "tasks that ran there: 8" in site.said()
    wait_for(lambda: left_on_n3(tmp_path) == 0, "what is cut off goes on for ever")


def test_a_node_that_speaks_again_joins_again(apart: tuple[Cluster, Wire], tmp_path: Path) -> None:
    cluster, wire = apart
    site = Site(cluster, tmp_path, IMPATIENT)
    site.add("--count", "200", "--", "sleep", "1.5")
    job = site.submit(before=BY_WIRE)
    wait_for(lambda: site.count("done") > 10, "nothing is done")
    wire.cut()
    wait_for(lambda: "node n3 is lost" in site.said(), "the silence is not noticed")
    wire.mend()
    wait_for(lambda: site.said().count("node n3: 8 cores") == 2, "it does not join again")
    site.ends(job)
    site.all_done_once(200)
