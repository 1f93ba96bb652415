"""The reactor: what follows from what happens. Pure: facts in, transitions and placements out.

The manager writes what comes out to the database and, once that is committed, acts on it. Nothing in here
knows the time, a file, a process or the database.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from db.errors import StateError
from db.records import Edge, Resources, Task, Transition
from db.states import Event, TaskKind, TaskState, Verdict
from pilot.scheduler.graph import Entry, Graph
from pilot.scheduler.nodes import Node, Slot
from pilot.scheduler.policy import Clock, Placement, Policy, Running
from pilot.scheduler.pool import Pool
from pilot.scheduler.times import Times

#: How often a task may be tried again, by what went wrong. What interrupts a task from outside is not here:
#: it costs nothing.
DEFAULT_BUDGETS: dict[Verdict, int] = {
    Verdict.CRASHED: 2,
    Verdict.NOT_CONVERGED: 1,
    Verdict.OUT_OF_MEMORY: 1,
    Verdict.TIMEOUT: 1,
    Verdict.BAD_INPUT: 0,
    Verdict.INFRASTRUCTURE: 3,
}


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
    """Tasks, nodes, and the rules between them."""

    def __init__(self, budgets: Mapping[Verdict, int] | None = None, times: Times | None = None) -> None:
        self.graph = Graph()
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

    def attempt_ended(self, task_id: int, verdict: Verdict, reason: str, wall_s: float | None) -> Outcome:
        """The attempt of a running task has ended and was judged.

        The slot is free again. A task that was cancelled meanwhile has no entry any more: only its slot counts.
        """
        self._free_slot(task_id)
        entry = self.graph.entries.get(task_id)
        if entry is None or entry.state is not TaskState.RUNNING:
            return Outcome()
        if verdict is Verdict.DONE:
            if wall_s is not None:
                self.times.learn(entry.shape.kind, entry.shape.size, wall_s)
            return Outcome(self.graph.change(task_id, Event.SUCCEEDED))
        if verdict is Verdict.INTERRUPTED:
            return Outcome(self.graph.change(task_id, Event.INTERRUPTED, reason))
        if verdict is Verdict.CANCELLED:
            return Outcome(self.graph.change(task_id, Event.CANCELLED, reason))
        return self._after_failure(entry, verdict, reason)

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
        """Whether nothing runs and nothing could start, however long one waits."""
        return not self.running and not any(
            not self.pool.why_never(shape.resources) for shape in self.graph.ready.shapes()
        )

    def why_waiting(self) -> dict[TaskKind, dict[str, int]]:
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
            why_never = self.pool.why_never(shape.resources) if self.pool.nodes else ""
            say(shape.kind, why_never or "ready: waits for free cores", self.graph.ready.count(shape))
        return reasons


def _where(slot: Slot) -> str:
    others = len(slot.shares) - 1
    return f"on {slot.node} and {others} more" if others else f"on {slot.node}"
