"""The manager's talk with agents on other nodes, over ranks that are played by queues: loss, return, goodbye."""

import secrets
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from agents import small_engine, until

from db.records import Resources
from db.states import Verdict
from pilot import host
from pilot.agent import comm as comm_module
from pilot.agent.agent import Agent
from pilot.agent.comm import Beat, Left, MpiComm, Report, serve
from pilot.agent.messages import Again, AgentSettings, Ended, Gone, Goodbye, Hello, Start, ToManager


class Post:
    """Queues between ranks."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.boxes: dict[int, list[tuple[int, Any]]] = defaultdict(list)


class QueuePeers:
    """One rank's end of the post."""

    def __init__(self, post: Post, rank: int) -> None:
        self._post = post
        self.rank = rank
        self.size = post.size
        self.deaf = False

    def send(self, rank: int, message: object) -> None:
        self._post.boxes[rank].append((self.rank, message))

    def arrived(self) -> list[tuple[int, Any]]:
        if self.deaf:
            return []
        taken, self._post.boxes[self.rank] = self._post.boxes[self.rank], []
        return taken

    def flush(self, patience_s: float) -> None:
        return


def agent(root: Path, node: str) -> Agent:
    return Agent(AgentSettings(str(root), secrets.token_hex(8), 1), small_engine, node)


@pytest.fixture
def post() -> Post:
    return Post(2)


class Bench:
    """A manager's comm on n1, and n2 played by the test."""

    def __init__(self, root: Path, post: Post, silence_s: float = 20.0) -> None:
        self.agent = agent(root, "n1")
        self.comm = MpiComm(self.agent, QueuePeers(post, 0), ["n1", "n2"], silence_s)
        self.there = QueuePeers(post, 1)
        self.heard: list[tuple[str, ToManager]] = []

    def turn(self) -> None:
        self.heard += self.comm.receive(0.05)

    def said(self, message: ToManager | Beat) -> None:
        self.there.send(0, Report("n2", message))

    def told(self) -> list[Any]:
        return [message for _, message in self.there.arrived() if not isinstance(message, Beat)]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comm_module, "BEAT_S", 0.05)
    monkeypatch.setattr(comm_module, "FIRST_S", 0.5)


def test_agents_here_and_there_are_heard_alike(tmp_path: Path, post: Post) -> None:
    bench = Bench(tmp_path, post)
    bench.said(Hello("n2", (0, 1), 100))
    until(lambda: len(bench.heard) == 2, bench.turn)
    assert {node for node, _ in bench.heard} == {"n1", "n2"}
    assert all(isinstance(message, Hello) for _, message in bench.heard)
    bench.agent.close()


def test_what_is_sent_to_a_node_reaches_its_rank(tmp_path: Path, post: Post) -> None:
    bench = Bench(tmp_path, post)
    bench.comm.send("n2", Goodbye())
    assert bench.told() == []  # nobody knows yet which rank it is
    bench.said(Hello("n2", (0,), 100))
    until(lambda: len(bench.heard) == 2, bench.turn)
    bench.comm.send("n2", Goodbye())
    assert bench.told() == [Goodbye()]
    bench.agent.close()


def test_a_silent_node_is_lost_and_begins_again_when_it_speaks(tmp_path: Path, post: Post, quick: None) -> None:
    bench = Bench(tmp_path, post, silence_s=0.3)
    bench.said(Hello("n2", (0,), 100))
    until(lambda: any(isinstance(message, Gone) for _, message in bench.heard), bench.turn)
    assert bench.comm.nodes() == ("n1",)
    bench.comm.send("n2", Goodbye())
    assert bench.told() == []
    # what it says now is of the time before: its attempts are run elsewhere
    bench.said(Beat())
    until(lambda: Again() in bench.told(), bench.turn)
    assert bench.comm.nodes() == ("n1", "n2")
    bench.there.send(0, Report("n2", Hello("n2", (0,), 100), life=1))
    until(lambda: sum(isinstance(message, Hello) for node, message in bench.heard if node == "n2") == 2, bench.turn)
    bench.agent.close()


def test_a_node_that_never_speaks_is_lost_too(tmp_path: Path, post: Post, quick: None) -> None:
    bench = Bench(tmp_path, post, silence_s=0.1)
    until(lambda: any(isinstance(message, Gone) and message.node == "n2" for _, message in bench.heard), bench.turn)
    bench.agent.close()


def test_closing_says_goodbye_and_waits_for_the_last_words(tmp_path: Path, post: Post) -> None:
    bench = Bench(tmp_path, post)
    bench.said(Hello("n2", (0,), 100))
    until(lambda: len(bench.heard) == 2, bench.turn)
    bench.there.send(0, Left("n2"))
    began = host.monotonic()
    bench.comm.close()
    assert host.monotonic() - began < 60.0
    assert Goodbye() in bench.told()


def test_an_agent_in_a_rank_of_its_own_serves_until_goodbye(tmp_path: Path, post: Post) -> None:
    manager = QueuePeers(post, 0)
    start = Start(7, 8, "small", {"argv": ["/bin/echo", "hi"]}, "attempts/7", Resources(), (), (), 0, None, None)
    manager.send(1, start)

    class Script(QueuePeers):
        def send(self, rank: int, message: object) -> None:
            super().send(rank, message)
            if isinstance(message, Report) and isinstance(message.message, Ended):
                manager.send(1, Goodbye())

    why = serve(agent(tmp_path, "n2"), Script(post, 1), 20.0)
    assert "goodbye" in why
    said = [message for _, message in manager.arrived()]
    ends = [report.message for report in said if isinstance(report, Report) and isinstance(report.message, Ended)]
    assert [(end.attempt_id, end.judgement.verdict) for end in ends] == [(7, Verdict.DONE)]
    assert said[-1] == Left("n2")


def test_an_agent_that_hears_nothing_ends_all_it_runs(tmp_path: Path, post: Post, quick: None) -> None:
    manager, there = QueuePeers(post, 0), QueuePeers(post, 1)
    argv = ["/bin/sh", "-c", "echo $$ > pid; exec sleep 1000"]
    manager.send(1, Start(1, 1, "small", {"argv": argv}, "attempts/1", Resources(), (), (), 0, None, None))
    why = serve(agent(tmp_path, "n2"), there, 0.6)
    assert "not heard" in why
    pid = tmp_path / "attempts" / "1" / "pid"
    assert not pid.exists() or host.process(int(pid.read_text())) is None
