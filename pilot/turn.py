"""A turn: what is done in one transaction, in the reactor and in the database at once.

What is to be acted on (start this, end that) is collected and comes out only after the commit.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from sqlalchemy import Connection

from db import attempt_table, task_table
from db.errors import InputError, MissingError, StateError
from db.records import Attempt, Edge, NewTask, Task, Transition
from db.states import TERMINAL, Event, TaskKind, TaskState, Verdict
from pilot.agent.messages import Ended
from pilot.campaign.follow_ups import FollowUps
from pilot.memory import Actions, Memory, Running
from pilot.reckoning import Finished, Reckoning, softened
from pilot.scheduler.policy import Clock, Placement
from pilot.scheduler.reactor import Outcome
from tasks.protocol import Judgement


class Turn:
    """What is done in one transaction. See :meth:`pilot.ledger.Ledger.turn`."""

    def __init__(self, memory: Memory, connection: Connection, epoch: int, at: float) -> None:
        self.connection = connection
        self.actions = Actions()
        self._memory = memory
        self._reactor = memory.reactor
        self._epoch = epoch
        self.at = at
        self._transitions: list[Transition] = []

    def flush(self) -> None:
        """Write the transitions so far: before the database is asked about states, and at the end of the turn."""
        transitions, self._transitions = self._transitions, []
        task_table.record_transitions(self.connection, transitions, self.at, self._epoch)

    def begin_campaign(self) -> None:
        """Let the campaign begin, or go on."""
        if self._memory.driver is not None:
            self._follow(self._memory.driver.begin(self.connection, self.at))

    def end_attempts(self, ended: Iterable[Ended]) -> None:
        """Attempts have ended and were judged: record them, and all that follows."""
        finished: list[Finished] = []
        outcomes: list[Outcome] = []
        reckoning = Reckoning(self._memory, self.connection, self.at)
        for told in ended:
            # an end that is reported twice counts once
            entry = self._memory.running.pop(told.attempt_id, None)
            if entry is None:
                continue
            end = reckoning.of(entry, told)
            outcome = self._reactor.attempt_ended(
                entry.task.id,
                end.judgement.verdict,
                end.judgement.reason,
                end.attempt.wall_s,
                resumable=end.attempt.resumable,
            )
            self._soften(entry.task, end.judgement, outcome)
            self._remember_where_to_go_on(end.attempt)
            finished.append(end)
            outcomes.append(outcome)
        attempt_table.record_ends(self.connection, [end.attempt for end in finished])
        self._record(*outcomes)
        self._follow_all(finished)

    def cancel(self, task_ids: Sequence[int], reason: str) -> None:
        """End tasks for good; attempts under way are stopped after the commit.

        Raises:
            StateError: one of them has ended; nothing is changed.
            MissingError: one of them does not exist; nothing is changed.
        """
        self._demand(task_ids)
        outcome = self._reactor.cancel(task_ids, reason)
        self._record(outcome)
        self._go_on_nowhere(task_ids)
        by_task = self._memory.running_tasks()
        self.actions.stop += [by_task[task_id].attempt.id for task_id in outcome.stop if task_id in by_task]
        self._labels_changed(task_table.read_tasks(self.connection, task_ids).values())

    def retry(self, task_ids: Sequence[int]) -> None:
        """Bring failed or cancelled tasks back with a fresh budget.

        Raises:
            StateError: one of them neither failed nor was cancelled; nothing is changed.
            MissingError: one of them does not exist; nothing is changed.
        """
        self.flush()
        self._demand(task_ids)
        tasks = task_table.read_tasks(self.connection, task_ids)
        for task in tasks.values():
            if task.state not in TERMINAL or task.state is TaskState.DONE:
                raise StateError(
                    f"task {task.id} is {task.state}: only failed or cancelled tasks can be tried again",
                    next_step=f"`pilot show {task.id}`; nothing was changed",
                )
            # all of them are looked at before the first is changed
            self._reactor.demand_ended(task.id)
        # parents first, so that their children are held by them
        for task_id in sorted(tasks):
            self._memory.attempts_of[task_id] = attempt_table.count_attempts(self.connection, task_id)
            into = task_table.read_edges_into(self.connection, [task_id])
            states = task_table.states_of(self.connection, [edge.parent for edge in into])
            needs = [(edge, states[edge.parent]) for edge in into]
            children = task_table.read_edges_from(self.connection, [task_id])
            self._record(self._reactor.revive(tasks[task_id], needs, children))
            self.flush()

    def pardon(self, failures: Collection[tuple[int, Verdict]]) -> None:
        """Failures that were the fault of a node are not charged; who has failed for good by them lives again."""
        if not failures:
            return
        self.flush()
        ended: set[int] = set()
        for task_id, verdict in failures:
            if task_id in self._reactor.graph.entries:
                self._record(self._reactor.pardon(task_id, verdict))
            else:
                ended.add(task_id)
        states = task_table.states_of(self.connection, ended)
        revived = [task_id for task_id in sorted(ended) if states.get(task_id) is TaskState.FAILED]
        self.retry(revived)
        if self._memory.driver is not None and revived:
            tasks = task_table.read_tasks(self.connection, revived).values()
            generations = {task.generation for task in tasks if task.generation is not None}
            self.retry(self._memory.driver.called_off(self.connection, generations))

    def add(self, new: Sequence[NewTask]) -> list[Task]:
        """Insert tasks.

        Raises:
            MissingError: one needs a task that does not exist.
            InputError: they need each other in a circle, or one needs more than any node has.
        """
        self.flush()
        self._refuse_too_large(new)
        inserted, holding = task_table.insert_tasks(self.connection, new, self.at)
        self._reactor.add(inserted, holding)
        self._doom_new(holding)
        return inserted

    def start(self, clock: Clock) -> None:
        """Start what may start now."""
        with self._reactor.graph.ready.without(self._held_back(clock)):
            placements, transitions = self._reactor.schedule(clock)
        if not placements:
            return
        self._record(Outcome(transitions))
        tasks = task_table.read_tasks(self.connection, [placement.task_id for placement in placements])
        for placement in placements:
            task = tasks[placement.task_id]
            attempt = self._new_attempt(placement)
            if self._memory.driver is not None:
                task = replace(task, spec=self._memory.driver.complete_spec(self.connection, task))
            entry = Running(attempt, task, previous=self._memory.resume_from.get(task.id, ""))
            self._memory.running[attempt.id] = entry
            self.actions.start.append(entry)
        attempt_table.record_starts(self.connection, [entry.attempt for entry in self.actions.start])

    def _held_back(self, clock: Clock) -> list[int]:
        """Ready tasks that must wait until it is known of others whether they take their nodes with them."""
        suspects = self._memory.suspects
        if not suspects:
            return []
        ready = {task_id for task_id in suspects if self._reactor.could_start(task_id, clock)}
        return suspects.held_back(ready, self._memory.running_tasks())

    def _remember_where_to_go_on(self, attempt: Attempt) -> None:
        """An attempt that was interrupted before it had anything to go on from takes nothing from those before."""
        if attempt.resumable:
            # what it went on from itself is of no use any more
            self._go_on_nowhere([attempt.task_id])
            self._memory.resume_from[attempt.task_id] = attempt.directory
        if attempt.verdict is not Verdict.INTERRUPTED or attempt.task_id not in self._reactor.graph.entries:
            self._go_on_nowhere([attempt.task_id])

    def _go_on_nowhere(self, task_ids: Iterable[int]) -> None:
        """These tasks have ended, or begin afresh: what their attempts kept is for nobody."""
        kept = (self._memory.resume_from.pop(task_id, None) for task_id in task_ids)
        self.actions.discard += [directory for directory in kept if directory is not None]

    def _new_attempt(self, placement: Placement) -> Attempt:
        attempt_id = self._memory.next_attempt_id()
        number = self._memory.attempts_of.get(placement.task_id, 0) + 1
        self._memory.attempts_of[placement.task_id] = number
        return Attempt(
            id=attempt_id,
            task_id=placement.task_id,
            pilot_id=self._epoch,
            number=number,
            node=placement.slot.node,
            cores=placement.slot.shares[0].cores,
            gpus=placement.slot.gpus,
            directory=self._memory.folder.attempt(attempt_id),
            started_at=self.at,
            others=placement.slot.shares[1:],
        )

    def _follow_all(self, finished: list[Finished]) -> None:
        for end in finished:
            if end.task.id not in self._reactor.graph.entries:
                self._memory.attempts_of.pop(end.task.id, None)
                self._memory.suspects.forget(end.task.id)
        driver = self._memory.driver
        if driver is None:
            return
        self.flush()
        for end in finished:
            # a task that was cancelled while it ran may still end well: its result is kept out
            if end.judgement.verdict is Verdict.DONE and self._is_done(end.task.id):
                self._follow(
                    driver.task_ended(self.connection, end.task, end.attempt, end.judgement, end.selected, self.at)
                )
        self._labels_changed(end.task for end in finished)

    def _is_done(self, task_id: int) -> bool:
        return task_table.states_of(self.connection, [task_id]).get(task_id) is TaskState.DONE

    def _labels_changed(self, tasks: Iterable[Task]) -> None:
        if self._memory.driver is None:
            return
        self.flush()
        generations = {task.generation for task in tasks if task.kind is TaskKind.LABEL}
        for generation in sorted(number for number in generations if number is not None):
            self._follow(self._memory.driver.labels_changed(self.connection, generation, self.at))

    def _follow(self, follow_ups: FollowUps) -> None:
        if follow_ups.tasks:
            self.add(follow_ups.tasks)
        for task_id in follow_ups.release:
            task_table.drop_edges_into(self.connection, task_id)
            self._record(Outcome(self._reactor.graph.release(task_id, "enough of what it needs is done")))
        for task_id, why in follow_ups.cancel:
            self._record(self._reactor.cancel([task_id], why))
            self._go_on_nowhere([task_id])
        self.actions.said += follow_ups.said

    def _record(self, *outcomes: Outcome) -> None:
        for outcome in outcomes:
            self._transitions += outcome.transitions
            for task_id, tries in outcome.tries.items():
                task_table.record_change(self.connection, task_id, tries=tries)
            for task_id, resources in outcome.resources.items():
                task_table.record_change(self.connection, task_id, memory_mb=resources.memory_mb)

    def _soften(self, task: Task, judgement: Judgement, outcome: Outcome) -> None:
        """Where the engine offers a remedy for what went wrong, the next attempt uses it."""
        if not any(transition.event is Event.RETRIED for transition in outcome.transitions):
            return
        softer, said = softened(task, judgement, outcome.tries[task.id][judgement.verdict])
        if softer is not None:
            task_table.record_change(self.connection, task.id, spec=softer)
        if said:
            self.actions.said.append(f"task {task.id} ({task.name}): {judgement.verdict}; {said}")

    def _doom_new(self, holding: Sequence[Edge]) -> None:
        states = task_table.states_of(self.connection, {edge.parent for edge in holding})
        self._reactor.graph.doom((edge, states[edge.parent]) for edge in holding)

    def _demand(self, task_ids: Sequence[int]) -> None:
        known = task_table.states_of(self.connection, task_ids)
        for task_id in task_ids:
            if task_id not in known:
                raise MissingError(
                    f"there is no task {task_id}", next_step="`pilot status --tasks` lists them; nothing was changed"
                )

    def _refuse_too_large(self, new: Sequence[NewTask]) -> None:
        if not self._reactor.pool.nodes:
            return
        for task in new:
            why = self._reactor.pool.why_never(task.resources)
            if why and task.generation is None:
                raise InputError(
                    f"this can never run here: it {why}",
                    where=task.name,
                    next_step="ask for fewer ranks, threads, GPUs or less memory; nothing was added",
                )
