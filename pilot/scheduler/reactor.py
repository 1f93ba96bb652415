"""The reactor: what follows from what happens. Pure: facts in, transitions and placements out.

The manager writes what comes out to the database and, once that is committed, acts on it. Nothing in here
knows the time, a file, a process or the database.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from db.errors import StateError
from db.records import Edge, Resources, Task, Transition
from db.states import Event, TaskKind, TaskState, Verdict
from pilot.durations import say_duration
from pilot.scheduler.graph import NO_PIECES, Entry, Graph
from pilot.scheduler.nodes import Node, Slot
from pilot.scheduler.policy import Clock, Placement, Policy, Running, must_have
from pilot.scheduler.pool import Pool
from pilot.scheduler.ready import Shape
from pilot.scheduler.times import LONGER, Times

#: How often a task may be tried again, by what went wrong. What interrupts a task from outside is not here:
#: it costs nothing.
DEFAULT_BUDGETS: dict[Verdict, int] = {
    Verdict.CRASHED: 2,
    Verdict.NOT_CONVERGED: 2,
    Verdict.OUT_OF_MEMORY: 1,
    Verdict.TIMEOUT: 1,
    Verdict.BAD_INPUT: 0,
    Verdict.INFRASTRUCTURE: 3,
}


#: How a task shows that no allocation like this one could hold it.
TOO_LONG = "longer than an allocation like this one"


@dataclass(slots=True)
class Outcome:
    """What follows from one event.

    Attributes:
        transitions: to be recorded.
        stop: tasks whose running attempts are to be ended (they were cancelled).
        tries: new counts of failed attempts, by task, to be recorded.
        resources: tasks that ask for more from now on, to be recorded.
    """

    transitions: list[Transition] = field(default_factory=list)
    stop: list[int] = field(default_factory=list)
    tries: dict[int, dict[Verdict, int]] = field(default_factory=dict)
    resources: dict[int, Resources] = field(default_factory=dict)


class Reactor:
    """Tasks, nodes, and the rules between them.

    Args:
        budgets: how often a task may be tried again, where that is not as in :data:`DEFAULT_BUDGETS`.
        times: what tasks have needed so far.
        pieces: the engines that can go on from where an interrupted attempt has stopped, each with the seconds after
            which it can.
    """

    def __init__(
        self,
        budgets: Mapping[Verdict, int] | None = None,
        times: Times | None = None,
        pieces: Mapping[str, float] = NO_PIECES,
    ) -> None:
        self.graph = Graph(pieces)
        self.pool = Pool()
        self.times = times or Times()
        self.running: dict[int, Running] = {}
        self._policy = Policy(self.pool, self.times)
        self._budgets = DEFAULT_BUDGETS | dict(budgets or {})

    def add(self, tasks: Iterable[Task], holding: Iterable[Edge]) -> None:
        """New tasks, with the edges that hold them back."""
        tasks = list(tasks)
        self.graph.add(tasks, holding)
        self.graph.count(tasks)

    def node_joined(self, node: Node) -> None:
        """A node is there, for the first time or again.

        What ran on an earlier node of its name holds nothing of it; see :meth:`node_lost` for the tasks.
        """
        self.pool.add(node)

    def schedule(self, clock: Clock) -> tuple[list[Placement], list[Transition]]:
        """Start what may start now."""
        placements = self._policy.choose(self.graph.ready, clock)
        transitions: list[Transition] = []
        for placement in placements:
            ends_at = None if placement.expected_s is None else clock.now + placement.expected_s
            self.running[placement.task_id] = Running(placement.slot, ends_at)
            transitions += self.graph.change(placement.task_id, Event.STARTED, _where(placement.slot))
        return placements, transitions

    def attempt_ended(
        self, task_id: int, verdict: Verdict, reason: str, wall_s: float | None, *, resumable: bool = False
    ) -> Outcome:
        """The attempt of a running task has ended and was judged.

        The slot is free again. A task that was cancelled meanwhile has no entry any more: only its slot counts.
        """
        self._free_slot(task_id)
        entry = self.graph.entries.get(task_id)
        if entry is None or entry.state is not TaskState.RUNNING:
            return Outcome()
        if verdict is Verdict.DONE:
            if wall_s is not None:
                self.times.learn(entry.shape.kind, entry.shape.size, entry.had_s + wall_s)
            return Outcome(self.graph.change(task_id, Event.SUCCEEDED))
        if verdict is Verdict.INTERRUPTED:
            self.interrupted(task_id, wall_s or 0.0, resumable=resumable)
            return Outcome(self.graph.change(task_id, Event.INTERRUPTED, reason))
        if verdict is Verdict.CANCELLED:
            return Outcome(self.graph.change(task_id, Event.CANCELLED, reason))
        return self._after_failure(entry, verdict, reason)

    def interrupted(self, task_id: int, wall_s: float, *, resumable: bool) -> None:
        """An attempt of an open task was ended after so long: what it had counts, or it needs longer than that."""
        entry = self.graph.entries[task_id]
        if resumable:
            entry.had_s += wall_s
        elif LONGER * wall_s > (self.expected_s(entry.shape) or 0.0):
            # few shapes, though each was interrupted at another moment
            entry.shape = replace(entry.shape, at_least_s=float(f"{wall_s:.1g}"))
            if entry.state is TaskState.READY:
                # as when a pilot begins: it must be looked for among tasks of its new shape
                self.graph.ready.add(task_id, entry.shape)

    def _after_failure(self, entry: Entry, verdict: Verdict, reason: str) -> Outcome:
        tries = dict(entry.tries or {})
        tries[verdict] = tries.get(verdict, 0) + 1
        outcome = Outcome(tries={entry.id: tries})
        if tries[verdict] > self._budgets.get(verdict, 0):
            outcome.transitions = self.graph.change(entry.id, Event.FAILED, f"{verdict}: {reason}")
            return outcome
        entry.tries = tries
        if verdict is Verdict.OUT_OF_MEMORY:
            self._ask_for_more_memory(entry, outcome)
        outcome.transitions = self.graph.change(entry.id, Event.RETRIED, f"{verdict}: {reason}")
        return outcome

    def _ask_for_more_memory(self, entry: Entry, outcome: Outcome) -> None:
        """Twice the memory on each node, or all that the largest nodes have."""
        resources = entry.shape.resources
        memory = self.pool.most_memory(resources)
        if memory is None:
            return
        had, most = memory
        wider = replace(resources, memory_mb=min(2 * had, most))
        entry.shape = replace(entry.shape, resources=wider)
        outcome.resources[entry.id] = wider

    def cancel(self, task_ids: Iterable[int], reason: str) -> Outcome:
        """End tasks for good. What runs is cancelled now; its process is ended by the caller.

        Raises:
            StateError: one of them has ended already; nothing is changed.
        """
        wanted = list(dict.fromkeys(task_ids))
        for task_id in wanted:
            if task_id not in self.graph.entries:
                raise StateError(
                    f"task {task_id} has ended already",
                    next_step=f"`pilot show {task_id}` tells how; nothing was changed",
                )
        outcome = Outcome()
        for task_id in wanted:
            if task_id in self.running:
                outcome.stop.append(task_id)
            outcome.transitions += self.graph.change(task_id, Event.CANCELLED, reason)
        return outcome

    def pardon(self, task_id: int, verdict: Verdict) -> Outcome:
        """One failure of an open task is not charged to it."""
        entry = self.graph.entries[task_id]
        tries = dict(entry.tries or {})
        tries[verdict] = tries.get(verdict, 0) - 1
        entry.tries = {verdict: count for verdict, count in tries.items() if count > 0}
        return Outcome(tries={task_id: entry.tries})

    def demand_ended(self, task_id: int) -> None:
        """Make sure that no attempt of a task holds a slot any more.

        Raises:
            StateError: its last attempt still is being ended.
        """
        if task_id in self.running:
            raise StateError(
                f"task {task_id} is still being ended",
                next_step=f"`pilot retry {task_id}` again in a moment; nothing was changed",
            )

    def revive(self, task: Task, needs: Iterable[tuple[Edge, TaskState]], children: Iterable[Edge]) -> Outcome:
        """Give a failed or cancelled task a fresh budget and another life.

        Raises:
            StateError: it neither failed nor was cancelled, or its last attempt still is being ended.
        """
        self.demand_ended(task.id)
        transitions = self.graph.revive(task, list(needs), list(children))
        return Outcome(transitions, tries={task.id: {}})

    def node_lost(self, name: str) -> list[int]:
        """A node is gone: the tasks that ran there or had a share of it, for the caller to end as interrupted.

        What they hold of other nodes is free again when they are ended.
        """
        self.pool.remove(name)
        return [task_id for task_id, held in self.running.items() if name in held.slot.nodes]

    def _free_slot(self, task_id: int) -> None:
        held = self.running.pop(task_id, None)
        if held is not None:
            self.pool.give_back(held.slot)

    def idle(self) -> bool:
        """Whether nothing runs and nothing could start, however long one waits for room."""
        return not self.running and not any(
            not self.pool.why_not(shape.resources) for shape in self.graph.ready.shapes()
        )

    def expected_s(self, shape: Shape) -> float | None:
        """Seconds that a task of this shape is expected to need; None: nobody knows."""
        return self.times.expected(shape.kind, shape.size, shape.time_request_s, shape.at_least_s)

    def could_start(self, task_id: int, clock: Clock) -> bool:
        """Whether a task would start if nothing else ran."""
        if task_id not in self.graph.ready:
            return False
        shape = self.graph.entries[task_id].shape
        return not self.pool.why_not(shape.resources) and not self.why_not_in_time(shape, clock)

    def why_not_in_time(self, shape: Shape, clock: Clock) -> str:
        """Why ready tasks of this shape do not start any more before the end; empty if they may."""
        expected = self.expected_s(shape)
        least = must_have(shape, expected, self.times, clock)
        if clock.allows(least):
            return ""
        needs = f"needs about {say_duration(expected)}"
        if not clock.ever_allows(least):
            return f"{needs}, {TOO_LONG} has for tasks ({say_duration(clock.whole_s)})"
        return f"ready: {needs}, more than is left of this allocation"

    def why_waiting(self, clock: Clock) -> dict[TaskKind, dict[str, int]]:
        """For each kind, the reasons why tasks of it do not run, with their numbers."""
        reasons: dict[TaskKind, dict[str, int]] = {}

        def say(kind: TaskKind, reason: str, number: int = 1) -> None:
            of_kind = reasons.setdefault(kind, {})
            of_kind[reason] = of_kind.get(reason, 0) + number

        for task_id in self.graph.doomed:
            say(self.graph.entries[task_id].shape.kind, "can never start: a task it needs has failed or was cancelled")
        for (kind, state), number in self.graph.counts.items():
            patient = number - sum(reasons.get(kind, {}).values())
            if state is TaskState.WAITING and patient > 0:
                say(kind, "waits for the tasks it needs", patient)
        for shape in self.graph.ready.shapes():
            impossible = self.pool.why_not(shape.resources) if self.pool.nodes else ""
            why_not = impossible or self.why_not_in_time(shape, clock)
            say(shape.kind, why_not or "ready: waits for free cores", self.graph.ready.count(shape))
        return reasons


def _where(slot: Slot) -> str:
    others = len(slot.shares) - 1
    return f"on {slot.node} and {others} more" if others else f"on {slot.node}"
