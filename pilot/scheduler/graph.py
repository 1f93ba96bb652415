"""The tasks that have not ended and the edges between them. Pure.

Only what a decision needs is in memory, a few hundred bytes a task: what a task is to do stays in the database.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from db.errors import StateError
from db.records import Edge, Task, Transition
from db.states import TERMINAL, Event, TaskKind, TaskState, Verdict, after, dooms, releases
from pilot.scheduler.ready import Ready, Shape

NO_PIECES: Mapping[str, float] = MappingProxyType({})


@dataclass(slots=True)
class Entry:
    """One open task.

    Attributes:
        needs: how many edges still hold it back.
        children: the edges that lead on from it.
        tries: attempts that failed by themselves, by verdict.
        had_s: how long interrupted attempts have run from which the next one goes on.
    """

    id: int
    state: TaskState
    shape: Shape
    needs: int = 0
    children: list[Edge] | None = None
    tries: dict[Verdict, int] | None = None
    had_s: float = 0.0


class Graph:
    """The open tasks. Each change of state goes through :meth:`change` and comes back as a transition.

    Args:
        pieces: the engines that can go on from where an interrupted attempt has stopped, each with the seconds after
            which it can.
    """

    def __init__(self, pieces: Mapping[str, float] = NO_PIECES) -> None:
        self._pieces = pieces
        self.entries: dict[int, Entry] = {}
        self.ready = Ready()
        self.counts: Counter[tuple[TaskKind, TaskState]] = Counter()
        self._causes: dict[int, set[int]] = {}

    @property
    def doomed(self) -> dict[int, int]:
        """Open tasks that can never start as things stand, each with a parent because of which."""
        return {task_id: min(causes) for task_id, causes in self._causes.items()}

    def add(self, tasks: Iterable[Task], holding: Iterable[Edge]) -> None:
        """Add open tasks and the edges that hold them back.

        ``counts`` is not changed for tasks that were counted when the database was read: see
        :meth:`count`.
        """
        shapes: dict[Shape, Shape] = {}
        for task in tasks:
            shape = self._shape(task)
            # one object a shape: a hundred thousand tasks share it
            shape = shapes.setdefault(shape, shape)
            self.entries[task.id] = Entry(task.id, task.state, shape, tries=dict(task.tries) or None)
            if task.state is TaskState.READY:
                self.ready.add(task.id, shape)
        for edge in holding:
            self.entries[edge.child].needs += 1
            parent = self.entries.get(edge.parent)
            if parent is not None:
                _lead_on(parent, edge)
                if edge.parent in self._causes:
                    self._mark_doomed(edge.child, edge.parent)

    def count(self, tasks: Iterable[Task]) -> None:
        """Count tasks that are new."""
        self.counts.update((task.kind, task.state) for task in tasks)

    def doom(self, edges: Iterable[tuple[Edge, TaskState]]) -> None:
        """Mark the tasks behind edges whose parent has ended in the wrong way, and those behind them."""
        for edge, parent_state in edges:
            if edge.child in self.entries and dooms(edge.kind, parent_state):
                self._mark_doomed(edge.child, edge.parent)

    def change(self, task_id: int, event: Event, detail: str = "") -> list[Transition]:
        """Take a task along the transition table, and its children with it where that sets them free.

        Raises:
            StateError: the table has no such transition, or the task is not open.
        """
        entry = self.entries.get(task_id)
        if entry is None:
            raise StateError(f"task {task_id} has ended: it cannot be {event}")
        transitions = [self._move(entry, event, detail)]
        if entry.state in TERMINAL:
            transitions += self._after_end(entry)
        return transitions

    def release(self, task_id: int, why: str) -> list[Transition]:
        """Let a waiting task wait no longer for what it still waits for."""
        entry = self.entries.get(task_id)
        if entry is None or entry.state is not TaskState.WAITING:
            return []
        entry.needs = 0
        return [self._move(entry, Event.RELEASED, why)]

    def revive(self, task: Task, needs: Iterable[tuple[Edge, TaskState]], children: Iterable[Edge]) -> list[Transition]:
        """Bring a failed or cancelled task back: waiting, and ready at once if its needs are met.

        Args:
            task: as the database has it.
            needs: its edges to its parents, each with the state of the parent.
            children: its edges to its children; those that are ready in spite of it are held again.
        """
        state = after(Event.REVIVED, task.state)
        holding = [edge for edge, parent in needs if not releases(edge.kind, parent)]
        entry = Entry(task.id, state, self._shape(task))
        self.entries[task.id] = entry
        self.counts[task.kind, task.state] -= 1
        self.counts[task.kind, state] += 1
        transitions = [Transition(task.id, Event.REVIVED, task.state, state)]
        entry.needs = len(holding)
        for edge in holding:
            parent = self.entries.get(edge.parent)
            if parent is not None:
                _lead_on(parent, edge)
                if edge.parent in self._causes:
                    self._mark_doomed(task.id, edge.parent)
        transitions += self._hold_children(entry, task.state, children)
        self.doom(needs)
        if entry.needs == 0:
            transitions.append(self._move(entry, Event.RELEASED))
        return transitions

    def _hold_children(self, entry: Entry, was: TaskState, children: Iterable[Edge]) -> list[Transition]:
        transitions: list[Transition] = []
        for edge in children:
            child = self.entries.get(edge.child)
            if child is None or child.state not in {TaskState.WAITING, TaskState.READY}:
                continue
            _lead_on(entry, edge)
            if releases(edge.kind, was):
                child.needs += 1
            if child.state is TaskState.READY:
                transitions.append(self._move(child, Event.HELD, f"task {entry.id} was revived"))
            self._pardon(edge.child, entry.id)
        return transitions

    def _move(self, entry: Entry, event: Event, detail: str = "") -> Transition:
        before = entry.state
        entry.state = after(event, before)
        kind = entry.shape.kind
        self.counts[kind, before] -= 1
        self.counts[kind, entry.state] += 1
        if before is TaskState.READY:
            self.ready.remove(entry.id)
        if entry.state is TaskState.READY:
            self.ready.add(entry.id, entry.shape)
        return Transition(entry.id, event, before, entry.state, detail)

    def _after_end(self, entry: Entry) -> list[Transition]:
        del self.entries[entry.id]
        self._causes.pop(entry.id, None)
        transitions: list[Transition] = []
        for edge in entry.children or ():
            child = self.entries.get(edge.child)
            # one that did not wait any longer when its parent was revived is not held by it
            if child is None or child.state is not TaskState.WAITING:
                continue
            if releases(edge.kind, entry.state):
                self._pardon(edge.child, entry.id)
                child.needs -= 1
                if child.needs == 0:
                    transitions.append(self._move(child, Event.RELEASED))
            else:
                self._mark_doomed(edge.child, entry.id)
        return transitions

    def _shape(self, task: Task) -> Shape:
        piece_s = self._pieces.get(task.engine)
        return Shape(task.priority, task.kind, task.resources, task.size, task.time_request_s, piece_s=piece_s)

    def _mark_doomed(self, task_id: int, because_of: int) -> None:
        stack = [(task_id, because_of)]
        while stack:
            current, cause = stack.pop()
            entry = self.entries.get(current)
            if entry is None:
                continue
            causes = self._causes.setdefault(current, set())
            if not causes:
                stack += [(edge.child, current) for edge in entry.children or ()]
            causes.add(cause)

    def _pardon(self, task_id: int, cause: int) -> None:
        """A parent dooms a task no longer; when none does, neither does the task those behind it."""
        stack = [(task_id, cause)]
        while stack:
            current, parent = stack.pop()
            causes = self._causes.get(current)
            if causes is None:
                continue
            causes.discard(parent)
            if not causes:
                del self._causes[current]
                stack += [(edge.child, current) for edge in self.entries[current].children or ()]


def _lead_on(entry: Entry, edge: Edge) -> None:
    if entry.children is None:
        entry.children = []
    entry.children.append(edge)
