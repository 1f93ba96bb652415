"""What ends an allocation before its time limit does: a window for maintenance, and a user's word."""

from pathlib import Path

from cluster import Cluster
from command_line import wait_for
from pilots import Site

from pilot.cli.app import run

QUICK = "[run]\nsoft_stop = 1\n"


def test_a_window_for_maintenance_that_was_made_while_we_run_ends_us_before_it_begins(
    cluster: Cluster, tmp_path: Path
) -> None:
    site = Site(cluster, tmp_path, QUICK)
    site.add("--", "sleep", "1000")
    # SLURM is asked when the pilot begins, and every two minutes
    job = site.submit(before="while [ ! -e announced ]; do sleep 0.1; done")
    cluster.wait_for_job(job, "RUNNING")
    window = "reservationname=works starttime=now+50 duration=10 user=root nodes=n2 flags=maint,ignore_jobs"
    cluster.run("scontrol", "create", "reservation", *window.split())
    try:
        (tmp_path / "announced").touch()
        site.ends(job)
        assert "(maintenance)" in site.said()
        assert "drained (maintenance is near)" in site.said()
        assert site.rows("SELECT state FROM tasks") == [("ready",)]
    finally:
        cluster.run("scontrol", "delete", "reservationname=works")


def test_until_the_time_by_which_to_end_what_fits_still_starts(cluster: Cluster, tmp_path: Path) -> None:
    site = Site(cluster, tmp_path, QUICK)
    site.add("--count", "200", "--time-request", "1 s", "--", "sleep", "1")
    first = site.submit()
    wait_for(lambda: site.count("done") > 0, "nothing is done")
    assert run(["drain", "--by", "+25 s", "--folder", str(tmp_path)]) == 0
    site.ends(first)
    assert 0 < site.count("done") < 200
    assert "nothing that is left fits into the time that is left" in site.said()
