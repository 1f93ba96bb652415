"""The campaign's hands: reads what is recorded, asks the planner, writes what the planner says.

Everything that is inserted because a task has ended is inserted in the transaction that records that end: no
crash can come between them.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection

from db import dataset, progress
from db.attempt_table import read_events
from db.dataset import Candidate
from db.errors import InputError
from db.records import Attempt, NewTask, Structure, Task
from db.states import TERMINAL, Role, TaskKind, TaskState
from pilot.campaign import cells, criteria, explorations, planner, standing
from pilot.campaign.criteria import Decision, Turn
from pilot.campaign.files import Written
from pilot.campaign.follow_ups import FollowUps, Moment, insert, note_decision
from pilot.campaign.protocol import Protocol, Source, member_of, questions_key, settings_of, study_of
from pilot.campaign.provenance import provenance_of, settings_record
from pilot.campaign.refusals import refuse_nothing_to_learn, refuse_other_campaign, refuse_other_model
from pilot.campaign.results import read_result
from pilot.campaign.specs import complete_spec
from pilot.folder import Folder
from tasks.protocol import Judgement

#: A campaign whose newest generation says so has come to its end, until pilot.toml allows more.
ENDS = frozenset({Turn.CONVERGED, Turn.NOT_CONVERGED, Turn.NOTHING_RAN})
#: What is labelled anew when the fidelity of the labels changes.
RELABELLED = (Role.TRAIN, Role.HOLDOUT, Role.EOS, Role.ELASTIC)
_TOO_MANY = "more than label.max_failed"


class Driver:
    """Drives the campaign of one folder."""

    def __init__(self, folder: Folder, protocol: Protocol) -> None:
        self.folder = folder
        self.protocol = protocol
        self._written: Written = {}

    def begin(self, connection: Connection, at: float) -> FollowUps:
        """Begin the campaign, or go on where its last generation left it (pilot.toml may allow more now)."""
        moment = Moment(connection, at)
        history = dataset.read_generations(connection)
        refuse_other_campaign(connection, self.folder, self.protocol, history)
        refuse_other_model(connection, self.folder, self.protocol)
        refuse_nothing_to_learn(connection, self.folder, self.protocol, history)
        if self.protocol.config.study is not None:
            # levels that were added since are new, all others have their tasks already
            insert(moment, planner.initial_generation(self.protocol))
            if history and not history[0].outcome and not self._new_points(moment):
                # what ended last may have failed
                self._end_study(moment, history[0])
        elif not history:
            insert(moment, planner.initial_generation(self.protocol))
            self._explore(moment, 0, 1, standing.source_of(self.folder, 0, 0, to_be_trained=True))
            moment.follow_ups.said.append("the campaign begins: initial data, first potential, first exploration")
        elif history[-1].outcome in ENDS:
            self._try_to_go_on(moment, history)
        return moment.follow_ups

    def _try_to_go_on(self, moment: Moment, history: list[dataset.Generation]) -> None:
        """The campaign had stopped; a new pilot is the user's word that the cause is mended, or more is allowed."""
        last = history[-1]
        decision = standing.decide(moment.connection, self.protocol, last.stage)
        if decision.turn is Turn.NOTHING_RAN:
            decision = Decision(Turn.SAME_STAGE, "explored again, as nothing ran the last time")
        if decision.turn in {Turn.CONVERGED, Turn.NOT_CONVERGED}:
            if decision.turn != last.outcome:
                # [converge] says something else now, or what was not known has been evaluated since
                note_decision(moment, last, decision)
                moment.follow_ups.said.append(decision.why)
            return
        note_decision(moment, last, decision)
        self._go_on(moment, last, decision, standing.source_after(moment.connection, self.folder, last))
        moment.follow_ups.said.append(f"the campaign goes on: {decision.why}")

    def read_result(self, connection: Connection, task: Task, attempt: Attempt) -> list[Candidate]:
        """What a task that seems to have succeeded has left in its files: what was selected; a potential is published.

        To be asked before the success is recorded: what this raises for files that are broken costs the task.

        Raises:
            StorageError: the disk refuses; that is no fault of the task.
        """
        return read_result(connection, self.folder, self.protocol, task, attempt)

    def task_ended(
        self,
        connection: Connection,
        task: Task,
        attempt: Attempt,
        judgement: Judgement,
        selected: Sequence[Candidate],
        at: float,
    ) -> FollowUps:
        """A task of the campaign has succeeded; record what it found, and insert what follows.

        Args:
            selected: what :meth:`read_result` has found.
        """
        moment = Moment(connection, at)
        if task.kind is TaskKind.LABEL:
            self._label_done(moment, task, attempt, judgement)
        if task.generation is None:
            return moment.follow_ups
        generation = dataset.read_generation(connection, task.generation)
        if task.kind is TaskKind.SELECT:
            self._selected(moment, generation, task, attempt, selected)
        elif task.kind is TaskKind.TRAIN and study_of(task.key) is None and not member_of(task.key):
            self._trained(moment, generation, attempt)
        elif task.kind is TaskKind.EVALUATE:
            self._evaluated(moment, generation, task, attempt)
        return moment.follow_ups

    def labels_changed(self, connection: Connection, generation_id: int, at: float) -> FollowUps:
        """Labels of a generation have ended: does training begin now, or never?"""
        follow_ups = FollowUps()
        counts = progress.count_states(connection, generation_id, TaskKind.LABEL)
        fits = progress.tasks_of_kind(connection, generation_id, TaskKind.TRAIN)
        waiting = [fit for fit in fits if fit.state is TaskState.WAITING]
        total, done = sum(counts.values()), counts[TaskState.DONE]
        failed = counts[TaskState.FAILED] + counts[TaskState.CANCELLED]
        dataset.note_generation(
            connection, generation_id, {"labels": total, "labelled": done, "labels_failed": failed}, at=at
        )
        if not waiting:
            return follow_ups
        label = self.protocol.label
        generation = dataset.read_generation(connection, generation_id)
        # the initial data are whole: the holdout and the reference curve are among them; and after the last
        # generation there is no other fit that late labels could count in
        whole = generation.number == 0 or generation.outcome in ENDS
        quorum = 1.0 if whole else label.quorum
        said = criteria.progress_of_labels(total, done, failed, quorum=quorum, max_failed=label.max_failed)
        if said is criteria.Progress.TOO_MANY_FAILED:
            why = f"{failed} of {total} labels failed, {_TOO_MANY} = {label.max_failed:g} allows"
            follow_ups.cancel += [(fit.id, why) for fit in waiting]
            again = " ".join(str(fit.id) for fit in waiting)
            follow_ups.said.append(
                f"{why}: training is called off; mend the cause, `pilot retry --failed`, `pilot retry {again}`"
            )
        elif said is criteria.Progress.ENOUGH:
            follow_ups.release += [fit.id for fit in waiting]
        return follow_ups

    def called_off(self, connection: Connection, generations: Iterable[int]) -> list[int]:
        """The trainings of these generations that were called off because too many of their labels had failed."""
        found = []
        for generation in sorted(generations):
            for fit in progress.tasks_of_kind(connection, generation, TaskKind.TRAIN):
                if fit.state is TaskState.CANCELLED:
                    *_, (_, _, why) = read_events(connection, fit.id)
                    found += [fit.id] if _TOO_MANY in why else []
        return found

    def complete_spec(self, connection: Connection, task: Task) -> dict[str, Any]:
        """The spec of a task that is about to start, with what is known only now; writes the files it names."""
        return complete_spec(connection, self.folder, self.protocol, task, self._written)

    def add_labels(
        self, connection: Connection, structures: Iterable[tuple[Structure, str]]
    ) -> tuple[list[NewTask], int]:
        """Label tasks for structures that the user brings, and how many of them are known already.

        Raises:
            InputError: a structure has a species that the campaign does not know.
        """
        candidates = [Candidate(structure, "train", source) for structure, source in structures]
        self._refuse_strangers(candidates)
        ids = dataset.add_structures(connection, candidates, None)
        fresh = [candidate for candidate, known in zip(candidates, ids, strict=True) if known is not None]
        history = dataset.read_generations(connection)
        stage = history[-1].stage if history else 0
        return planner.user_labels(self.protocol, fresh, stage), len(ids) - len(fresh)

    def _refuse_strangers(self, candidates: list[Candidate]) -> None:
        known = {cells.atomic_number(symbol) for symbol in self.protocol.campaign.species}
        for candidate in candidates:
            strangers = set(candidate.structure.numbers) - known
            if strangers:
                names = ", ".join(cells.symbol(number) for number in sorted(strangers))
                raise InputError(
                    f"this campaign does not know {names}: its species are {', '.join(self.protocol.campaign.species)}",
                    where=candidate.source,
                    next_step="leave that structure out: nothing was added",
                )

    def _label_done(self, moment: Moment, task: Task, attempt: Attempt, judgement: Judgement) -> None:
        if judgement.label is None:
            return
        # those that it was planned with: pilot.toml may have changed since
        settings = settings_of(task.key) or self.protocol.label_settings()
        dataset.add_label(
            moment.connection,
            Structure.from_json(task.spec["structure"]).content_hash(),
            judgement.label,
            settings=settings,
            attempt_id=attempt.id,
            at=moment.at,
            provenance=provenance_of(task, attempt, judgement),
        )
        dataset.note_settings(moment.connection, settings, settings_record(task))

    def _selected(
        self, moment: Moment, now: dataset.Generation, task: Task, attempt: Attempt, found: Sequence[Candidate]
    ) -> None:
        """The number of labels is known: insert them, the fit that waits for them, and what comes after it."""
        connection, stage, number = moment.connection, now.stage, now.number
        settings = self.protocol.label_settings(stage)
        fresh = [c for c in found if not dataset.is_known(connection, c.structure, settings)]
        selected = [candidate for candidate in fresh if candidate.role == Role.TRAIN]
        sample = [candidate for candidate in fresh if candidate.role == Role.SAMPLE]
        sweep = {**progress.explored(connection, now.id), "selected": len(selected), "select": dict(attempt.facts)}
        facts = {"sweep": sweep, "of": task.spec.get("of")}
        dataset.note_generation(connection, now.id, facts, at=moment.at)
        decision = standing.decide(connection, self.protocol, stage)
        note_decision(moment, now, decision)
        source = used = standing.newest_source(connection, self.folder)
        if selected:
            insert(moment, planner.learning_generation(self.protocol, stage, number, selected, used))
            source = standing.source_of(self.folder, stage, number, to_be_trained=True)
        if sample:
            insert(moment, planner.sampling(self.protocol, stage, number, sample, used))
        said = f"stage {stage + 1} generation {number}: {len(selected)} selected; {decision.why}"
        if not selected and sweep["broke"]:
            said += f"; nothing new is learned: {_why_nothing_selected(attempt)}"
        moment.follow_ups.said.append(said)
        self._go_on(moment, now, decision, source)

    def _go_on(self, moment: Moment, now: dataset.Generation, decision: Decision, source: Source) -> None:
        if decision.turn is Turn.SAME_STAGE:
            self._explore(moment, now.stage, now.number + 1, source)
        elif decision.turn is Turn.NEXT_STAGE:
            following = now.stage + 1
            if self.protocol.label_settings(following) != self.protocol.label_settings(now.stage):
                own = [self.protocol.label_settings(earlier) for earlier in range(following)]
                wanted = self.protocol.label_settings(following)
                known = dataset.read_structures(moment.connection, RELABELLED, wanted, own)
                insert(moment, planner.relabelling_generation(self.protocol, following, known))
                source = standing.source_of(self.folder, following, 0, to_be_trained=True)
                moment.follow_ups.said.append(f"stage {following + 1}: {len(known)} structures are labelled anew")
            self._explore(moment, following, 1, source)

    def _explore(self, moment: Moment, stage: int, number: int, source: Source) -> None:
        insert(moment, explorations.exploring_generation(self.protocol, stage, number, source))

    def _trained(self, moment: Moment, now: dataset.Generation, attempt: Attempt) -> None:
        path = self.folder.potential(now.stage, now.number)
        facts = attempt.facts
        dataset.add_potential(moment.connection, now.id, path, attempt_id=attempt.id, facts=facts, at=moment.at)
        dataset.note_generation(moment.connection, now.id, {"train": dict(facts)}, at=moment.at)
        if facts.get("worse"):
            name = f"stage {now.stage + 1} generation {now.number}"
            moment.follow_ups.said.append(f"{name}: the new potential is worse on the holdout than the last")

    def _evaluated(self, moment: Moment, now: dataset.Generation, task: Task, attempt: Attempt) -> None:
        facts, point = dict(attempt.facts), study_of(task.key)
        if point is not None:
            dataset.note_generation(moment.connection, now.id, {point: facts}, at=moment.at)
            self._end_study(moment, now)
        elif task.key == questions_key(now.stage, now.number):
            dataset.note_generation(moment.connection, now.id, {"questions": facts}, at=moment.at)
        else:
            dataset.note_generation(moment.connection, now.id, {"evaluation": facts}, at=moment.at)

    def _new_points(self, moment: Moment) -> bool:
        """Whether the study has points that have no tasks yet."""
        keys = [task.key or "" for task in moment.follow_ups.tasks]
        return any(study_of(key) and progress.task_with_key(moment.connection, key) is None for key in keys)

    def _end_study(self, moment: Moment, now: dataset.Generation) -> None:
        """A study has ended when none of its points is open any more; one without a potential never will be."""
        points = progress.count_states(moment.connection, now.id, TaskKind.EVALUATE)
        fits = progress.count_states(moment.connection, now.id, TaskKind.TRAIN)
        lost = fits[TaskState.FAILED] + fits[TaskState.CANCELLED]
        if sum(points.values()) <= lost + sum(points[state] for state in TERMINAL):
            said = f"{points[TaskState.DONE]} of {sum(points.values())} points of the study are done"
            note_decision(moment, now, Decision(Turn.STUDIED, said))
            moment.follow_ups.said.append(said)


def _why_nothing_selected(attempt: Attempt) -> str:
    facts = attempt.facts
    return (
        f"of {facts.get('candidates', 0)} candidates {facts.get('too_close', 0)} had atoms too close, "
        f"{facts.get('bad_volume', 0)} a wrong volume, {facts.get('duplicates', 0)} were known"
    )
