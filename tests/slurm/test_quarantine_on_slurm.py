"""A bad node among good ones in an allocation of a real SLURM."""

from pathlib import Path

import pytest
from cluster import Cluster
from command_line import wait_for
from pilots import Site

from pilot.cli.app import run


def test_a_node_on_which_all_fails_is_named_and_no_task_pays_for_it(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = Site(cluster, tmp_path, "[retries]\ncrashed = 0\n")
    # n2 swallows tasks: they fail there at once, and it has room again
    site.add("--count", "40", "--shell", "--", '[ "$PILOT_NODE" != n2 ] || exit 1; sleep 3')
    job = site.submit()
    wait_for(lambda: quarantined(site) == ["n2"], "it is not shown")
    assert run(["status", "--folder", str(tmp_path)]) == 0
    assert "node n2 is quarantined: 4 tasks failed in a row" in " ".join(capsys.readouterr().out.split())
    site.ends(job)
    assert "node n2 is quarantined: 4 tasks failed in a row (last: task" in site.said()
    # with a budget of none, each that had failed there would have failed for good
    site.all_done_once(40)
    ((failures,),) = site.rows("SELECT count(*) FROM attempts WHERE verdict = 'crashed'")
    assert 4 <= failures <= 16
    assert site.rows("SELECT count(*) FROM attempts WHERE verdict = 'crashed' AND node <> 'n2'") == [(0,)]


def quarantined(site: Site) -> list[str]:
    """The nodes that are shown as such."""
    snapshot = site.snapshot()
    return [] if snapshot is None else [node.name for node in snapshot.nodes if node.quarantined]
