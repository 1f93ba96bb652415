"""Which node is bad: one on which tasks fail that have nothing to do with each other. Pure.

A node on which so many different tasks have failed in a row is quarantined: it gets nothing new, and the failures are
not charged to the tasks. That is a suspicion, which what becomes of these tasks elsewhere confirms or refutes: if they
end well there, the node is bad; if they fail there, too, they are bad themselves, the node is free again, and from
then on it takes twice as many to raise the suspicion against any node. So a thousand tasks with a slip of the pen
close no node for long, and a node that swallows tasks swallows only a few.

Never more than half of the nodes are suspected at a time, and never the last one that is open. What the machine itself
says is its fault (no room, no processes) needs no comparison: so many attempts in a row, of more than one task, and
even the last node takes nothing new.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto

from db.states import Verdict

#: so many different tasks that fail in a row raise the suspicion
IN_A_ROW = 4
#: so many of them that end well, or fail, elsewhere decide
PROOF = 2
#: so many tasks are remembered that a machine has refused now and then
REMEMBERED = 50
#: after so long a quarantined node is tried again, in seconds; the next failure closes it again
TERM_S = 3600.0


class Sign(Enum):
    """What the end of an attempt says of its node."""

    WELL = auto()
    """The program ran to its end there."""
    FAILED = auto()
    """It failed: the task's fault or the node's."""
    MACHINE = auto()
    """The machine itself has refused it."""


@dataclass(frozen=True, slots=True)
class End:
    """The end of an attempt as far as it tells of a node; ``said`` is the verdict with its reason."""

    node: str
    task: int
    sign: Sign
    verdict: Verdict
    said: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """What follows for a node.

    Attributes:
        node: its name.
        closed: whether it takes nothing new from now on; None: nothing changes in that.
        why: in words for people.
        pardoned: failures that are not to be charged: tasks with their verdicts, one for each attempt.
    """

    node: str
    closed: bool | None = None
    why: str = ""
    pardoned: tuple[tuple[int, Verdict], ...] = ()


@dataclass(slots=True)
class _Record:
    """What is known of a node.

    Attributes:
        row: the tasks that failed in a row, each with the verdicts of its attempts; the last ones only.
        own_fault: the same of tasks that fail elsewhere, too: they say nothing, unless the node proves to be bad.
        refused: those of them that the machine has refused, in a row.
        earlier: those that it had refused before something went well in between; the last ones only.
        since: when it was closed; None: it is open.
        by_its_word: it was closed because the machine itself refuses.
        why: the reason for that.
        proofs: how many of these tasks have ended well elsewhere since then.
        refutations: how many have failed elsewhere.
        on_trial: it was closed before, and has not done better yet.
    """

    row: dict[int, list[Verdict]] = field(default_factory=dict)
    own_fault: dict[int, list[Verdict]] = field(default_factory=dict)
    refused: dict[int, list[Verdict]] = field(default_factory=dict)
    earlier: dict[int, list[Verdict]] = field(default_factory=dict)
    since: float | None = None
    by_its_word: bool = False
    why: str = ""
    proofs: int = 0
    refutations: int = 0
    on_trial: bool = False

    def begin_anew(self) -> None:
        self.row.clear()
        self.own_fault.clear()
        for task, verdicts in self.refused.items():
            _keep(self.earlier, task, verdicts, REMEMBERED)
        self.refused.clear()
        self.since, self.by_its_word, self.why = None, False, ""
        self.proofs = self.refutations = 0

    @property
    def suspected(self) -> bool:
        """Closed, and neither proved to be bad nor by its own word."""
        return self.since is not None and not self.by_its_word and self.proofs < PROOF


class Health:
    """Hears how attempts end, and finds what is to be thought of their nodes."""

    def __init__(self, in_a_row: int = IN_A_ROW) -> None:
        self._records: dict[str, _Record] = {}
        self._there: set[str] = set()
        self._in_a_row = in_a_row
        #: tasks that have failed, each with the first node on which they did
        self._failed_on: dict[int, str] = {}
        #: tasks that have failed on several nodes: that is their own fault
        self._bad_tasks: set[int] = set()

    @property
    def closed(self) -> dict[str, str]:
        """The nodes that get nothing new, and why; those that are lost meanwhile among them."""
        return {name: record.why for name, record in self._records.items() if record.since is not None}

    def joined(self, node: str) -> None:
        """A node is there; what was known of it still holds."""
        self._there.add(node)
        self._records.setdefault(node, _Record())

    def lost(self, node: str) -> None:
        """A node is gone."""
        self._there.discard(node)

    def ended(self, end: End, now: float) -> list[Finding]:
        """An attempt on one node has ended at ``now`` (s); what follows."""
        record = self._records.setdefault(end.node, _Record())
        if end.sign is Sign.WELL:
            return list(self._ended_well(end, record))
        if end.sign is Sign.FAILED:
            first = self._failed_on.setdefault(end.task, end.node)
            if first != end.node:
                self._bad_tasks.add(end.task)
                return [*self._refuted(end.task, first), *self._failed(end, record, now)]
        return list(self._failed(end, record, now))

    def tried_again(self, now: float) -> list[Finding]:
        """Let nodes that have been closed for long have another chance."""
        found = []
        for name, record in self._records.items():
            if record.since is not None and now - record.since >= TERM_S:
                record.begin_anew()
                record.on_trial = True
                found.append(Finding(name, closed=False, why="it is tried again"))
        return found

    def _ended_well(self, end: End, record: _Record) -> Iterator[Finding]:
        first = self._failed_on.pop(end.task, None)
        self._bad_tasks.discard(end.task)
        accused = None if first in {None, end.node} else self._records.get(first or "")
        if accused is not None and end.task in accused.row and accused.since is not None:
            accused.proofs += 1
        if record.since is None or record.proofs < PROOF:
            was_closed = record.since is not None
            record.begin_anew()
            record.on_trial = False
            if was_closed:
                yield Finding(end.node, closed=False, why=f"task {end.task} has ended well there")

    def _refuted(self, task: int, first: str) -> Iterator[Finding]:
        """A task that had failed on one node has failed on another, too."""
        record = self._records[first]
        verdicts = record.row.pop(task, None)
        if verdicts is None:
            return
        _keep(record.own_fault, task, verdicts, self._in_a_row)
        if not record.suspected:
            return
        record.refutations += 1
        if record.refutations >= PROOF:
            record.begin_anew()
            self._in_a_row *= 2
            yield Finding(first, closed=False, why="its tasks fail on other nodes, too: the fault is theirs")

    def _failed(self, end: End, record: _Record, now: float) -> Iterator[Finding]:
        if record.since is not None:
            record.row.setdefault(end.task, []).append(end.verdict)
            yield Finding(end.node, pardoned=((end.task, end.verdict),))
            return
        if end.sign is Sign.MACHINE:
            _keep(record.refused, end.task, [end.verdict], self._in_a_row)
        else:
            record.refused.clear()
        bad_task = end.sign is Sign.FAILED and end.task in self._bad_tasks
        _keep(record.own_fault if bad_task else record.row, end.task, [end.verdict], self._in_a_row)
        enough = 1 if record.on_trial else self._in_a_row
        if _refuses(record):
            # a disk that fills up lets one through now and then
            record.by_its_word, row, pardoned = True, record.refused, _each(record.refused) + _each(record.earlier)
            record.earlier.clear()
        elif not bad_task and len(record.row) >= enough and self._may_be_suspected(end.node, enough):
            row, pardoned = record.row, _each(record.row) + _each(record.own_fault)
        else:
            return
        record.since = now
        record.why = f"{_tasks(len(row))} failed in a row (last: task {end.task}, {end.said})"
        yield Finding(end.node, closed=True, why=record.why, pardoned=pardoned)

    def _may_be_suspected(self, node: str, enough: int) -> bool:
        """Whether another node does better, as far as is known, and the suspects stay few."""
        others = [self._records[name] for name in self._there if name != node]
        suspected = sum(record.suspected for record in others)
        better = any(record.since is None and 2 * len(record.row) < max(2, enough) for record in others)
        return better and 2 * (suspected + 1) <= len(others) + 1


def _refuses(record: _Record) -> bool:
    """Whether the machine has refused so many attempts in a row, of more than one task."""
    attempts = len(_each(record.refused))
    return attempts > 0 if record.on_trial else len(record.refused) > 1 and attempts >= IN_A_ROW


def _tasks(number: int) -> str:
    return "a task" if number == 1 else f"{number} tasks"


def _keep(row: dict[int, list[Verdict]], task: int, verdicts: list[Verdict], most: int) -> None:
    """Add to a row, the latest last; of a long one only the end counts: there it goes wrong everywhere."""
    row[task] = [*row.pop(task, ()), *verdicts]
    while len(row) > most:
        del row[next(iter(row))]


def _each(row: dict[int, list[Verdict]]) -> tuple[tuple[int, Verdict], ...]:
    return tuple((task, verdict) for task, verdicts in row.items() for verdict in verdicts)
