"""The end of an attempt as it counts: whose fault a loss is, whether its result is of use, what the next changes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from db.dataset import Candidate
from db.errors import PilotError, StorageError
from db.records import Attempt, Json, Task
from db.states import TaskState, Verdict
from pilot.agent.judging import STUMBLES
from pilot.agent.losses import as_its_fault, was_lost
from pilot.agent.messages import Ended
from pilot.memory import Memory, Running
from tasks.protocol import Judgement
from tasks.registry import engine
from tasks.texts import printable


@dataclass(frozen=True, slots=True)
class Finished:
    """An attempt that has ended, with what counts of it.

    Attributes:
        task: as it was started.
        attempt: as it is to be recorded.
        judgement: its verdict is that of the attempt.
        selected: what a selection has chosen.
    """

    task: Task
    attempt: Attempt
    judgement: Judgement
    selected: Sequence[Candidate] = ()


class Reckoning:
    """What the ends of one turn count as. To be made before the first of them is taken out of the memory."""

    def __init__(self, memory: Memory, connection: Connection, at: float) -> None:
        self._memory = memory
        self._connection = connection
        self._at = at
        self._suspects = memory.suspects.among(memory.running_tasks()) if memory.suspects else set[int]()

    def of(self, entry: Running, told: Ended) -> Finished:
        """The end of an attempt, as it counts.

        Raises:
            StorageError: the disk refuses what its result should become.
        """
        message = self._blamed(entry.task.id, told)
        end = _finished(entry, message, self._at)
        if message.judgement.verdict is not Verdict.DONE or not self._is_wanted(entry.task):
            return end
        try:
            return replace(end, selected=self._result(end))
        except StorageError:
            raise
        except (PilotError, *STUMBLES) as error:
            # a task that has left broken files must not end the pilot, and each after it that looks at them
            reason = printable(" ".join(f"its result cannot be used: {error}".split()))
            failed = replace(message.judgement, verdict=Verdict.CRASHED, reason=reason, label=None)
            return _finished(entry, replace(message, judgement=failed), self._at)

    def _blamed(self, task_id: int, message: Ended) -> Ended:
        """A loss is the fault of the only suspect that ran."""
        lost = was_lost(message)
        losses = self._memory.suspects.ended(task_id, message.judgement.verdict, lost=lost)
        return as_its_fault(message, losses) if lost and self._suspects == {task_id} else message

    def _is_wanted(self, task: Task) -> bool:
        """Whether it was not cancelled meanwhile."""
        entry = self._memory.reactor.graph.entries.get(task.id)
        return entry is not None and entry.state is TaskState.RUNNING

    def _result(self, end: Finished) -> Sequence[Candidate]:
        driver = self._memory.driver
        return () if driver is None else driver.read_result(self._connection, end.task, end.attempt)


def softened(task: Task, judgement: Judgement, tries: int) -> tuple[Json | None, str]:
    """Where the engine offers a remedy for what went wrong, the spec for the next attempt; what is to be said of it."""
    if judgement.remedy is not None:
        return {**task.spec, **judgement.remedy}, "tried again with what its own files suggest"
    try:
        softer = engine(task.engine).soften(task.spec, judgement.verdict, tries, judgement.reason)
    except (PilotError, *STUMBLES) as error:
        return None, f"tried again as it was, as the remedy fails: {type(error).__name__}: {error}"
    return (None, "") if softer is None else (dict(softer), "tried again with softer settings")


def _finished(entry: Running, message: Ended, at: float) -> Finished:
    end, judgement = message.end, message.judgement
    attempt = replace(
        entry.attempt,
        ended_at=at,
        verdict=judgement.verdict,
        reason=judgement.reason,
        exit_code=end.code,
        signal=end.signal,
        wall_s=end.wall_s,
        cpu_s=end.cpu_s,
        peak_mb=end.peak_mb,
        facts=dict(judgement.facts),
        resumable=judgement.resumable and judgement.verdict is Verdict.INTERRUPTED,
        files=message.files,
        bytes=message.bytes,
    )
    return Finished(entry.task, attempt, judgement)
