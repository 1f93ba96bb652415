"""A bench for tests of the agent and its launcher: a real launcher, real processes, a small engine."""

import os
import secrets
import select
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from db.errors import InputError
from db.records import Json, Resources
from db.states import Verdict
from pilot import host
from pilot.agent import monitor
from pilot.agent.agent import Agent
from pilot.agent.comm import LocalComm
from pilot.agent.messages import AgentSettings, Ended, Hello, Start, Stop, ToManager, Trouble
from tasks.protocol import Cause, Command, Engine, Exit, Finding, Judgement, Work

PATIENCE_S = 60.0
ROOT = Path(__file__).parent.parent


class SmallEngine:
    """Does what the spec says: argv, mpi, cwd, env, input (for stdin), refuse, stumble, soft, join."""

    name = "small"
    writes_input = True

    def prepare(self, work: Work) -> Command:
        spec = work.spec
        if "refuse" in spec:
            raise InputError(spec["refuse"], where="here", next_step="do better")
        if "input" in spec:
            (work.directory / "input").write_text(spec["input"])
        return Command(
            argv=tuple(spec["argv"]),
            mpi=spec.get("mpi", False),
            env=spec.get("env", {}),
            cwd=spec.get("cwd"),
            stdin="input" if "input" in spec else None,
            stderr="stdout" if spec.get("join") else "stderr",
        )

    def judge(self, work: Work, end: Exit) -> Judgement:
        if "stumble" in work.spec:
            raise work.spec["stumble"]("garbage")
        if end.cause is Cause.LOST:
            return Judgement(Verdict.DONE if (work.directory / "result").exists() else Verdict.INTERRUPTED)
        return Judgement(Verdict.DONE if end.code == 0 and end.cause is None else Verdict.CRASHED)

    def stop_softly(self, work: Work) -> bool:
        if work.spec.get("soft"):
            (work.directory / "stop").touch()
        return bool(work.spec.get("soft"))

    def soften(self, spec: Json, verdict: Verdict, tries: int, reason: str) -> Json | None:
        return None

    def find(self, settings: Json) -> Finding:
        return Finding("small", "here", ok=True)


def small_engine(name: str) -> Engine:
    """The only engine of the bench."""
    if name != "small":
        raise InputError(f"no engine is called {name}")
    return SmallEngine()


class Bench:
    """A campaign folder with one agent."""

    node = "here"

    def __init__(self, root: Path, epoch: int = 1, campaign: str = "", environ: Mapping[str, str] | None = None):
        self.root = root
        self.campaign = campaign or secrets.token_hex(8)
        settings = AgentSettings(str(root), self.campaign, epoch)
        self.agent = Agent(settings, small_engine, self.node, environ)
        self.comm = LocalComm(self.agent)
        self.ended: dict[int, Ended] = {}
        self.troubles: list[Trouble] = []
        self.hellos: list[Hello] = []
        self._last = 0

    def start(self, *argv: str, **spec: Any) -> int:
        """Start a command; ``cores``, ``gpus``, ``limit_s``, ``memory_mb``, ``resources`` are for the slot."""
        self._last += 1
        start = Start(
            attempt_id=self._last,
            task_id=1000 + self._last,
            engine=spec.pop("engine", "small"),
            directory=spec.pop("directory", f"attempts/{self._last}"),
            resources=spec.pop("resources", Resources()),
            cores=tuple(spec.pop("cores", host.usable_cores()[:1])),
            gpus=tuple(spec.pop("gpus", ())),
            memory_mb=spec.pop("memory_mb", 0),
            time_limit_s=spec.pop("limit_s", None),
            time_left_s=None,
            spec={"argv": argv, **spec},
        )
        self.comm.send(self.node, start)
        return self._last

    def shell(self, line: str, **spec: Any) -> int:
        return self.start("/bin/sh", "-c", line, **spec)

    def stop(self, attempt: int, cause: Cause = Cause.CANCEL, **how: Any) -> None:
        self.comm.send(self.node, Stop(attempt, cause, **how))

    def turn(self, timeout_s: float = 0.05) -> None:
        for _, message in self.comm.receive(timeout_s):
            self._take(message)

    def _take(self, message: ToManager) -> None:
        match message:
            case Ended():
                assert message.attempt_id not in self.ended, "reported twice"
                self.ended[message.attempt_id] = message
            case Trouble():
                self.troubles.append(message)
            case Hello():
                self.hellos.append(message)

    def until(self, true: Callable[[], object]) -> None:
        until(true, self.turn)

    def wait(self, *attempts: int) -> Ended:
        """The last one's end, when all have ended."""
        self.until(lambda: all(attempt in self.ended for attempt in attempts))
        return self.ended[attempts[-1]]

    def path(self, attempt: int, name: str) -> Path:
        return self.root / "attempts" / str(attempt) / name

    def text(self, attempt: int, name: str = "stdout") -> str:
        try:
            return self.path(attempt, name).read_text()
        except FileNotFoundError:
            return ""

    def launcher(self) -> int:
        self.until(lambda: self.agent._link.was_ready)
        return self.agent._link.pid


def until(true: Callable[[], object], turn: Callable[[], object] = lambda: select.select([], [], [], 0.02)) -> None:
    """Turn until it is true; fails when that takes too long."""
    deadline = host.monotonic() + PATIENCE_S
    while not true():
        assert host.monotonic() < deadline, "waited too long"
        turn()


def carriers(campaign: str, tasks_only: bool = True) -> list[int]:
    """The processes of a campaign: tasks, or launchers too."""
    environments = ((pid, monitor.environment(pid)) for pid in monitor.listed())
    return [
        pid
        for pid, env in environments
        if env.get(monitor.CAMPAIGN) == campaign and (monitor.ATTEMPT in env or not tasks_only)
    ]


def gone(pids: Iterable[int]) -> bool:
    """None of them is alive; a zombie is not."""
    return not monitor.scan(pids)


def numbers(text: str) -> list[int]:
    return [int(word) for word in text.split()]


def clean_environ(**more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **more}
