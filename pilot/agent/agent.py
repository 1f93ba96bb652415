"""The agent of a node: prepares attempts, hands them to its launcher, and lets their engines judge them."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from db.errors import MissingError, PilotError, StorageError
from db.files import make_folder, storage_error
from db.states import Verdict
from pilot import contents, host
from pilot.agent import journal, monitor
from pilot.agent.grant import what_is_ours
from pilot.agent.judging import STUMBLES, judge
from pilot.agent.launcher_link import LauncherLink, LinkSettings
from pilot.agent.losses import marked_lost
from pilot.agent.messages import Again, AgentSettings, Ended, Goodbye, Start, Stop, Sweep, ToAgent, ToManager, Trouble
from pilot.mpi.choose import Chooser
from pilot.mpi.protocol import Slot
from pilot.mpi.scrub import of_the_job, scrubbed
from pilot.slurm.allocation import NodeGrant
from tasks.protocol import Cause, Command, Engine, Exit, Judgement, Work
from tasks.texts import printable

#: so many launchers in a row that die before they are ready mean that none will ever start
_TRIES = 3


@dataclass(frozen=True, slots=True)
class _Handed:
    """An attempt that the launcher has."""

    work: Work
    engine: Engine
    since: float


class Agent:
    """One node. Nothing in it waits but :meth:`poll`.

    Args:
        settings: of the campaign.
        engine_of: the engine of a name; raises PilotError when there is none.
        node: the node's name; "": what the machine calls itself.
        environ: the environment from before any MPI; None: ours, now.
        grant: what SLURM gave us of it; None: all that we see.

    Raises:
        StorageError: the folder of the journal cannot be made.
    """

    def __init__(
        self,
        settings: AgentSettings,
        engine_of: Callable[[str], Engine],
        node: str = "",
        environ: Mapping[str, str] | None = None,
        grant: NodeGrant | None = None,
    ) -> None:
        self.node = node or host.hostname()
        self._engine_of = engine_of
        self._root = Path(settings.root)
        self._most_output = settings.max_output_mb * host.MB
        found = os.environ if environ is None else environ
        self._site_env = {name: str(value) for name, value in settings.site_env.items()}
        self._env = scrubbed(found) | self._site_env
        self._mpi = Chooser("auto", self._env, of_the_job(found), settings.mpi_extra)
        # now: what we may use is not what an MPI may bind us to later
        self._hello = what_is_ours(self.node, grant, hyperthreads=settings.hyperthreads)
        self._link_settings = LinkSettings(
            environ=self._env,
            campaign_id=settings.campaign_id,
            epoch=settings.epoch,
            node=self.node,
            journal=journal.ends_file(self._root, settings.epoch, self.node),
        )
        self._link = self._new_link()
        # now, as looking means to start `mpirun --version`, and from here on we may become a rank
        self._mpi.findings()
        self._handed: dict[int, _Handed] = {}
        self._outbox: list[ToManager] = []
        self._greeted = False
        self._leaving = False
        self._failures = 0

    @property
    def finished(self) -> bool:
        """All has ended, the launcher too, and all was reported."""
        return self._leaving and not self._link.alive and not self._outbox

    def handle(self, message: ToAgent) -> None:
        """Do what the manager asks; what comes of it is reported by :meth:`poll`."""
        match message:
            case Start():
                self._start(message)
            case Stop():
                self._stop(message)
            case Sweep():
                mark = str(message.attempt_id)
                monitor.end_marked(lambda env: env.get(monitor.ATTEMPT) == mark and self._is_ours(env))
            case Again():
                self._begin_again()
            case Goodbye():
                self._leaving = True
                self._link.send({"op": "bye"})

    def poll(self, timeout_s: float) -> list[ToManager]:
        """What there is to report, waiting at most ``timeout_s`` for the first of it.

        Raises:
            MissingError: the launcher cannot be started on this node.
        """
        self._link.flush()
        for message in self._link.read(0.0 if self._outbox else timeout_s):
            if message["ev"] == "ended":
                self._ended(int(message["id"]), journal.exit_of(message), machine=message.get("machine", False))
            else:
                self._outbox.append(Trouble(self.node, message["text"]))
        if not self._link.alive and (self._handed or not self._leaving):
            self._launcher_died()
        if self._link.was_ready and not self._greeted:
            # only now: the launcher has swept away what a dead pilot left running here
            self._greeted = True
            self._outbox.insert(0, self._hello)
        reports, self._outbox = self._outbox, []
        return reports

    def close(self) -> None:
        """End everything at once, without reports."""
        self._leaving = True
        self._link.close()

    def _start(self, start: Start) -> None:
        directory = self._root / start.directory
        previous = self._root / start.previous if start.previous else None
        work = Work(self._root, directory, start.attempt_id, start.spec, start.resources, start.time_left_s, previous)
        try:
            engine = self._engine_of(start.engine)
            if engine.writes_input:
                make_folder(str(directory))
            command = engine.prepare(work)
            message = self._message(start, command, directory) | {"make": not engine.writes_input}
        except StorageError as error:
            self._not_started(start, Verdict.INFRASTRUCTURE, _in_one_line(error))
        except PilotError as error:
            self._not_started(start, Verdict.BAD_INPUT, _in_one_line(error))
        except OSError as error:
            reason = _in_one_line(storage_error(error, directory))
            self._not_started(start, Verdict.INFRASTRUCTURE, reason)
        except STUMBLES as error:
            reason = f"the input could not be made: {type(error).__name__}: {error}"
            self._not_started(start, Verdict.BAD_INPUT, reason)
        else:
            self._handed[start.attempt_id] = _Handed(work, engine, host.monotonic())
            self._link.send(message)

    def _message(self, start: Start, command: Command, directory: Path) -> dict[str, Any]:
        resources = start.resources
        argv = list(command.argv)
        env = {"OMP_NUM_THREADS": str(resources.threads if command.mpi else resources.cores)}
        if start.gpus:
            env["CUDA_VISIBLE_DEVICES"] = ",".join(str(gpu) for gpu in start.gpus)
        if command.mpi:
            slot = Slot(resources.ranks, resources.threads, start.cores, self.node, start.others)
            launcher = self._mpi.named(start.mpi).choose(resources.ranks, argv[0], resources.nodes)
            argv, added = launcher.wrap(argv, slot)
            env.update(added)
        env.update(self._site_env)
        env.update(command.env)
        return {
            "op": "start",
            "id": start.attempt_id,
            "argv": argv,
            "cwd": None if command.cwd is None else str(command.cwd),
            "dir": str(directory),
            "env": env,
            "cores": start.cores,
            "stdin": command.stdin,
            "stdout": command.stdout,
            "stderr": command.stderr,
            "memory_mb": start.memory_mb,
            "limit_s": start.time_limit_s,
            "most_output": self._most_output,
        }

    def _not_started(self, start: Start, verdict: Verdict, reason: str) -> None:
        end = Exit(cause=Cause.NOT_STARTED, message=reason)
        held = contents.count(self._root / start.directory)
        # it may quote what a user has asked for
        self._outbox.append(Ended(start.attempt_id, end, Judgement(verdict, printable(reason)), *held))

    def _is_ours(self, env: Mapping[str, str]) -> bool:
        return env.get(monitor.CAMPAIGN) == self._link_settings.campaign_id

    def _begin_again(self) -> None:
        """End all that runs, without a word of it: the manager has given it up; then greet as at the start."""
        self._link.close()
        self._handed.clear()
        self._outbox.clear()
        self._greeted = False
        self._link = self._new_link()

    def _stop(self, stop: Stop) -> None:
        handed = self._handed.get(stop.attempt_id)
        if handed is None:
            return
        soft = stop.soft and _asked_softly(handed)
        self._link.send(
            {
                "op": "stop",
                "id": stop.attempt_id,
                "cause": stop.cause,
                "after_s": stop.soft_s if soft else 0.0,
                "term_s": stop.term_s,
            }
        )

    def _ended(self, attempt_id: int, end: Exit, *, machine: bool = False, lost: bool = False) -> None:
        handed = self._handed.pop(attempt_id, None)
        if handed is None:
            return
        if machine:
            judgement = Judgement(Verdict.INFRASTRUCTURE, printable(end.message))
        else:
            judgement = judge(handed.engine, handed.work, end)
        message = Ended(attempt_id, end, judgement, *contents.count(handed.work.directory))
        self._outbox += marked_lost([message], "the launcher of its node died") if lost else [message]

    def _launcher_died(self) -> None:
        self._failures = 0 if self._link.was_ready else self._failures + 1
        killed = self._link.end_orphans()
        # what it wrote down before it died counts, though we may not have heard of it
        seen = journal.read_ends(self._link_settings.journal)
        now = host.monotonic()
        for attempt_id, handed in list(self._handed.items()):
            lost = Exit(cause=Cause.LOST, wall_s=now - handed.since)
            self._ended(attempt_id, seen.get(attempt_id, lost), lost=attempt_id not in seen)
        if self._leaving:
            return
        text = f"the launcher died and was started again; {killed} processes that it had started were ended"
        self._outbox.append(Trouble(self.node, text))
        if self._failures >= _TRIES:
            raise MissingError(
                "the launcher ends as soon as it is started",
                where=self.node,
                next_step="type `python -P -m pilot.agent.launcher /tmp/ends` there to see what it says",
            )
        self._link = self._new_link()

    def _new_link(self) -> LauncherLink:
        try:
            return LauncherLink(self._link_settings)
        except OSError as error:
            raise storage_error(error, self._link_settings.journal) from error


def _asked_softly(handed: _Handed) -> bool:
    try:
        return handed.engine.stop_softly(handed.work)
    except (PilotError, *STUMBLES):
        # it has other ways to end
        return False


def _in_one_line(error: PilotError) -> str:
    return "; ".join(str(error).splitlines())
