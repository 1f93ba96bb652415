"""What a review of the ranks and their supervisor has found: nodes that go wrong, noise, stale files, no batch host."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from agents import until
from test_comm import Bench, Post, agent

from db import pilot_table
from db.states import PilotState
from pilot import host
from pilot.agent import comm as comm_module
from pilot.agent.comm import Beat, MpiComm, Report, resign
from pilot.agent.messages import Again, AgentSettings, Gone, Hello, Trouble
from pilot.config import Config
from pilot.folder import Folder
from pilot.lease import take_lease
from pilot.opening import open_database
from pilot.orders import DrainOrder, Orders
from pilot.ranks.forsaken import end_forsaken_job
from pilot.ranks.plan import Plan
from pilot.ranks.world import World
from pilot.ranks.worlds import Worlds
from pilot.slurm import parse
from pilot.slurm.allocation import Allocation, NodeGrant
from pilot.slurm.client import Slurm
from pilot.snapshot import NodeStatus, PilotStatus, Snapshot


@pytest.fixture
def post() -> Post:
    return Post(2)


def test_a_node_that_cannot_go_on_is_written_off_with_its_own_words(tmp_path: Path, post: Post) -> None:
    bench = Bench(tmp_path, post)
    bench.said(Hello("n2", (0,), 100))
    resign(agent(tmp_path, "n2"), bench.there, "no launcher here")
    until(lambda: ("n2", Gone("n2", "no launcher here")) in bench.heard, bench.turn)
    assert bench.comm.nodes() == ("n1",)
    bench.said(Gone("n2", "no launcher here"))
    bench.turn()
    assert sum(isinstance(message, Gone) for _, message in bench.heard) == 1
    assert Again() not in bench.told()
    bench.agent.close()


def test_what_a_node_said_before_it_began_again_counts_no_more(
    tmp_path: Path, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comm_module, "BEAT_S", 0.05)
    bench = Bench(tmp_path, post, silence_s=0.3)
    bench.said(Hello("n2", (0,), 100))
    until(lambda: any(isinstance(message, Gone) for _, message in bench.heard), bench.turn)
    bench.heard.clear()
    bench.said(Beat())
    # it had been under way when it was stopped: its cores are not free
    bench.said(Hello("n2", (0,), 100))
    bench.said(Trouble("n2", "stale"))
    until(lambda: Again() in bench.told(), bench.turn)
    bench.there.send(0, Report("n2", Hello("n2", (0, 1), 100), life=1))
    until(lambda: any(node == "n2" for node, _ in bench.heard), bench.turn)
    assert [message for node, message in bench.heard if node == "n2"] == [Hello("n2", (0, 1), 100)]
    bench.agent.close()


def test_the_last_words_of_all_are_waited_for_though_a_lost_node_has_left_too(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Post(3))
    comm = MpiComm(agent(tmp_path, "n1"), bench.there, ["n1", "n2", "n3"], 20.0)
    comm._rank_of = {"n2": 1, "n3": 2}
    comm._lost, comm._left = {"n2"}, {"n2"}
    waits: list[int] = []

    def hear() -> list[Any]:
        waits.append(1)
        comm._left.add("n3")
        return []

    comm._from_others = hear  # type: ignore[method-assign]
    comm.close()
    bench.agent.close()
    assert waits


def test_an_event_is_heard_behind_what_a_library_prints_without_an_end(tmp_path: Path) -> None:
    code = "import os; from pilot.ranks.rank import _tell; os.write(1, b'Loading ... '); _tell(ev='ended', why='done')"
    world = World([sys.executable, "-P", "-c", code], os.environ)
    events: list[dict[str, Any]] = []
    until(lambda: bool(events), lambda: events.extend(world.hear(0.1)))
    assert events == [{"ev": "ended", "why": "done"}]
    world.close()


def test_rank_0_has_ended_when_its_world_is_closed_whatever_became_of_srun() -> None:
    # a manager that has left the session of its srun, as slurmstepd starts it
    manager = (
        "import json, os, signal, time; os.setsid(); from pilot import host;"
        "me = host.process(os.getpid());"
        "print(json.dumps({'ev': 'ready', 'step': '', 'host': host.hostname(), 'pid': me.pid, 'start': me.start}),"
        "flush=True); signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(1000)"
    )
    srun = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {manager!r}]); time.sleep(1000)"
    world = World([sys.executable, "-c", srun], os.environ)
    until(lambda: world.manager is not None, lambda: world.hear(0.1))
    assert world.manager is not None
    assert not world.left
    world.close()
    seen = host.process(world.manager[0])
    assert seen is None or seen.zombie
    assert not world.left


@pytest.mark.parametrize(
    ("line", "nodes"),
    [
        ("srun: error: Task launch for StepId=7.0 failed on node n3: Communication connection failure", ("n3",)),
        ("srun: error: Task launch for 7.0 failed on node n3: Unspecified error", ("n3",)),
        ("srun: error: Node failure on n[3-4]", ("n3", "n4")),
        ("srun: error: n1: task 0: Killed", ()),
        ("srun: error: Node failure on [", ()),
    ],
)
def test_the_nodes_that_srun_does_not_reach_are_read(line: str, nodes: tuple[str, ...]) -> None:
    assert parse.unreached_nodes(line) == nodes


def test_the_plan_of_a_killed_pilot_does_not_stay(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.make()
    Plan("a", AgentSettings(str(tmp_path), "c", 1)).write(folder)
    path = Plan("b", AgentSettings(str(tmp_path), "c", 2)).write(folder)
    assert [entry.name for entry in folder.state.glob("world-*")] == [path.name]


class Supervised:
    """A supervisor's worlds of which the latest, pilot 7, has died."""

    def __init__(self, root: Path) -> None:
        self.folder = Folder(root)
        lease = take_lease(self.folder, "run")
        allocation = Allocation("1", 0, "", (NodeGrant("n1"), NodeGrant("n2")))
        self.worlds = Worlds(self.folder, Config(), lease, Orders(), allocation, None)
        self.worlds._epoch = 7
        self.worlds._slurm = Slurm({"PATH": "/nonexistent"}, lambda *_: host.Ran(1, "", ""))

    def publish(self, epoch: int, state: str = "active", at: float | None = None, remark: str = "") -> None:
        pilot = PilotStatus(epoch, state, "h", 1, "1", 0.0, remark=remark)
        nodes = [NodeStatus("n1", 1, 0, 1), NodeStatus("n2", 0, 0, 0, lost="silent")]
        self.folder.status.write_text(Snapshot(at or host.now(), "", pilot, nodes).to_json())

    def left(self) -> tuple[str, ...]:
        return self.worlds._nodes_that_are_left(("n1", "n2"), self.worlds._published())

    def drained(self, why: str) -> str:
        """What is known of the drain of a pilot that died after it had recorded this ("": nothing)."""
        folder, lease = self.folder, self.worlds._lease
        with open_database(folder, Config(), lease) as opened, opened.writer.transaction() as connection:
            at = host.now()
            self.worlds._epoch = pilot_table.begin_pilot(connection, host="h", pid=1, job_id="1", at=at)
            opened.writer.bind(self.worlds._epoch)
            if why:
                pilot_table.change_pilot(connection, self.worlds._epoch, PilotState.DRAINING, at=at, reason=why)
        return self.worlds._why_drained()


def test_a_node_that_an_earlier_pilot_has_lost_is_used(tmp_path: Path) -> None:
    supervised = Supervised(tmp_path)
    supervised.publish(6)
    assert supervised.left() == ("n1", "n2")
    supervised.publish(7)
    assert supervised.left() == ("n1",)


def test_a_status_of_another_version_does_not_end_the_pilot(tmp_path: Path) -> None:
    supervised = Supervised(tmp_path)
    supervised.folder.status.write_text(json.dumps({"schema": 0}))
    assert supervised.left() == ("n1", "n2")


def test_a_drain_outlives_the_death_of_rank_0_whoever_has_asked_for_it(tmp_path: Path) -> None:
    supervised = Supervised(tmp_path)
    assert supervised.drained("pilot drain") == "pilot drain"
    assert supervised.drained("") == ""
    # not yet obeyed
    supervised.worlds._note(DrainOrder("SIGUSR1"))
    assert supervised.drained("") == "SIGUSR1"
    # long ago, and taken back since
    supervised.worlds._drained_at -= 3600
    assert supervised.drained("") == ""


class NeverReady:
    """A world that does not come to life, and is heard once a minute; orders are told to nobody."""

    def __init__(self) -> None:
        self.ready, self.library = False, ""
        self.last_words: list[str] = []
        self.unreached: set[str] = set()
        self.now = host.now()
        self.looks = 0

    def hear(self, _: float) -> list[dict[str, Any]]:
        self.looks += 1
        self.now += 60.0
        return []

    def tell(self, _: object) -> None: ...

    def is_over(self) -> bool:
        return self.looks > 3


def test_a_drain_is_not_forgotten_while_nobody_can_have_obeyed_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervised, world = Supervised(tmp_path), NeverReady()
    monkeypatch.setattr("pilot.ranks.worlds._LAST_WORDS_S", 0.0)
    monkeypatch.setattr(host, "now", lambda: world.now)
    supervised.worlds._orders.put(DrainOrder("SIGTERM"))
    assert supervised.worlds._watch(world).died  # type: ignore[arg-type]
    assert supervised.drained("") == "SIGTERM"


HEADLESS = "JobId=5 JobName=x JobState={} BatchFlag={} NodeList={} BatchHost=n1 NumNodes=2"


@pytest.mark.parametrize(
    ("state", "flag", "nodes", "headless"),
    [
        ("RUNNING", "1", "n[2-3]", True),
        ("RUNNING", "1", "n[1-3]", False),
        ("RUNNING", "0", "n[2-3]", False),
        ("COMPLETING", "1", "n[2-3]", False),
        ("RUNNING", "1", "(null)", False),
    ],
)
def test_a_job_without_the_node_of_its_batch_process_is_known(
    state: str, flag: str, nodes: str, headless: bool
) -> None:
    assert parse.job_status(HEADLESS.format(state, flag, nodes), "5", float).headless is headless


def test_only_a_job_whose_batch_process_is_lost_is_ended_by_its_ranks() -> None:
    asked: list[str] = []

    def slurm(nodes: str) -> Slurm:
        def run(argv: Any, timeout_s: float, env: Any) -> host.Ran:
            asked.append(argv[0])
            return host.Ran(0, HEADLESS.format("RUNNING", "1", nodes) if argv[0] == "scontrol" else "", "")

        return Slurm({}, run)

    assert not end_forsaken_job(slurm("n[1-3]"), "5", patience_s=0.05, every_s=0.02)
    assert "scancel" not in asked
    assert end_forsaken_job(slurm("n[2-3]"), "5")
    assert asked[-1] == "scancel"
