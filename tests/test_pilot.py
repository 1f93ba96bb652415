"""A real pilot on real processes: drains, signals, requests while it runs, ends in time."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from folders import make_folder
from started_pilot import SLEEP, Started, ask, given, put, until

from pilot import host
from pilot.config import read_config
from pilot.folder import Folder
from pilot.mailbox import Request
from pilot.opening import apply_without_pilot
from pilot.snapshot import read_snapshot
from pilot.supervisor import run_pilot


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return make_folder(tmp_path / "campaign", "[run]\ncores = 4\nsoft_stop = 1\n")


def test_commands_run_in_the_order_of_their_edges(folder: Folder) -> None:
    place = folder.root / "order"
    put(
        folder,
        "add",
        tasks=[
            given("sh", "-c", f"echo a >> {place}"),
            given("sh", "-c", f"echo b >> {place}", after=[1]),
            given("false"),
            given("sh", "-c", f"echo c >> {place}", after_ended=[3], after=[2]),
            given("sh", "-c", f"echo never >> {place}", after=[3]),
        ],
    )
    assert run_pilot(folder, read_config(folder.config)) == "nothing is left that could run"
    assert place.read_text().split() == ["a", "b", "c"]
    seen = read_snapshot(folder)
    assert seen is not None
    assert seen.tasks == {"command": {"done": 3, "failed": 1, "waiting": 1}}
    assert seen.why_waiting == {"command": {"can never start: a task it needs has failed or was cancelled": 1}}
    # the cause is mended: the failed one is retried, and what waited for it goes on
    (folder.root / "mended").touch()
    put(folder, "cancel", tasks=[5])
    put(folder, "retry", tasks=[3, 5])
    seen = read_snapshot(folder)
    assert seen is not None
    assert seen.tasks == {"command": {"done": 3, "ready": 1, "waiting": 1}}


def test_the_first_signal_drains_and_the_second_ends_at_once(folder: Folder, started: Callable[..., Started]) -> None:
    put(folder, "add", tasks=[given(*SLEEP), given(*SLEEP), given("true", after=[1])])
    pilot = started(folder)
    pilot.wait_for_running(2)
    pilot.process.send_signal(signal.SIGINT)
    until(lambda: (seen := pilot.status()) and seen.pilot and seen.pilot.state == "draining")
    assert pilot.process.poll() is None
    pilot.process.send_signal(signal.SIGINT)
    assert pilot.wait() == 130
    seen = pilot.status()
    assert seen is not None
    # they were interrupted, not failed: nothing is charged, and they run again
    assert seen.tasks == {"command": {"ready": 2, "waiting": 1}}
    assert not [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == SLEEP]
    assert not folder.lease.exists()


def test_a_drain_lets_finish_and_starts_nothing(folder: Folder, started: Callable[..., Started]) -> None:
    tasks = [given("sleep", "2") for _ in range(4)] + [given("true") for _ in range(3)]
    put(folder, "add", tasks=tasks)
    pilot = started(folder)
    pilot.wait_for_running(4)
    assert ask(folder, "drain", now=False)["ok"]
    assert pilot.wait() == 0
    seen = pilot.status()
    assert seen is not None
    assert seen.tasks == {"command": {"done": 4, "ready": 3}}


def test_a_drain_can_be_undone(folder: Folder, started: Callable[..., Started]) -> None:
    put(folder, "add", tasks=[given("sleep", "3"), given("true", after=[1])])
    pilot = started(folder)
    pilot.wait_for_running(1)
    assert ask(folder, "drain", now=False)["ok"]
    assert ask(folder, "resume")["ok"]
    assert not ask(folder, "resume")["ok"]
    assert pilot.wait() == 0
    seen = pilot.status()
    assert seen is not None
    assert seen.tasks == {"command": {"done": 2}}


def test_requests_are_applied_while_it_runs(folder: Folder, started: Callable[..., Started]) -> None:
    put(folder, "add", tasks=[given(*SLEEP)])
    pilot = started(folder)
    pilot.wait_for_running(1)
    assert ask(folder, "add", tasks=[given("true"), given("sleep", "500", resources={"ranks": 3})])["tasks"] == [2, 3]
    too_large = ask(folder, "add", tasks=[given("true", resources={"ranks": 99})])
    assert not too_large["ok"]
    assert "needs 99 cores on one node; the largest node has 4 cores" in str(too_large["said"])
    assert not ask(folder, "cancel", tasks=[77])["ok"]
    assert not ask(folder, "no such verb")["ok"]
    assert ask(folder, "cancel", tasks=[1, 3])["ok"]
    assert pilot.wait() == 0
    seen = pilot.status()
    assert seen is not None
    assert seen.tasks == {"command": {"done": 1, "cancelled": 2}}


def test_a_request_is_applied_once_however_often_it_is_found(folder: Folder) -> None:
    request = Request("1-once", "add", {"tasks": [given("true")]})
    config = read_config(folder.config)
    assert apply_without_pilot(folder, config, request) == apply_without_pilot(folder, config, request)
    seen = read_snapshot(folder)
    assert seen is not None
    assert seen.tasks == {"command": {"ready": 1}}


def test_before_the_end_nothing_starts_and_what_runs_is_stopped(
    tmp_path: Path, started: Callable[..., Started]
) -> None:
    folder = make_folder(tmp_path, "[run]\ncores = 1\nsoft_stop = 1\nwalltime = 600\n")
    # an allocation like this one could hold them, but not what is left of it
    tasks = [given(*SLEEP, priority=60), given("true", time_request_s=100.0)]
    put(folder, "add", tasks=tasks)
    put(folder, "drain", by=host.now() + 30.0)
    pilot = started(folder)
    pilot.wait_for_running(1)
    assert pilot.wait() == 0
    seen = pilot.status()
    assert seen is not None
    assert seen.tasks == {"command": {"ready": 2}}


def test_a_killed_command_runs_again_and_its_first_process_is_gone(
    folder: Folder, started: Callable[..., Started]
) -> None:
    marker = folder.root / "ran"
    put(
        folder,
        "add",
        tasks=[given("sh", "-c", f"echo x >> {marker}; [ $(wc -l < {marker}) -gt 1 ] || " + " ".join(SLEEP))],
    )
    pilot = started(folder)
    until(marker.exists)
    os.kill(pilot.process.pid, signal.SIGKILL)
    pilot.process.wait()
    assert started(folder).wait() == 0
    assert marker.read_text() == "x\nx\n"
    assert not [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == SLEEP]


def test_a_task_over_its_time_limit_is_ended_and_its_neighbour_goes_on(folder: Folder) -> None:
    put(folder, "add", tasks=[given(*SLEEP, time_limit_s=1.0), given("sleep", "3")])
    folder.config.write_text("[run]\ncores = 2\n[retries]\ntimeout = 0\n")
    run_pilot(folder, read_config(folder.config))
    seen = read_snapshot(folder)
    assert seen is not None
    assert seen.tasks == {"command": {"done": 1, "failed": 1}}
    assert "timeout" in seen.failures[0].why
