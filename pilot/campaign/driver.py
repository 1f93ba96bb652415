"""The campaign's hands: reads what is recorded, asks the planner, writes what the planner says.

Everything that is inserted because a task has ended is inserted in the transaction that records that end: no
crash can come between them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection

from db import dataset, progress
from db.attempt_table import read_events
from db.dataset import Candidate
from db.errors import InputError
from db.records import Attempt, NewTask, Structure, Task
from db.states import TaskKind, TaskState
from pilot.campaign import cells, criteria, planner
from pilot.campaign.criteria import Decision, Sweep, Turn
from pilot.campaign.files import publish_potential, read_selected, write_set
from pilot.campaign.planner import Generation, Paths, Protocol
from pilot.campaign.refusals import refuse_crystal, refuse_other_campaign
from pilot.config import Config
from pilot.folder import Folder
from tasks import registry
from tasks.protocol import Judgement

#: A campaign whose newest generation says so has come to its end, until pilot.toml allows more.
ENDS = frozenset({Turn.CONVERGED, Turn.NOT_CONVERGED, Turn.NOTHING_RAN})
_TOO_MANY = "more than label.max_failed"


@dataclass(slots=True)
class FollowUps:
    """What follows from an event in the campaign.

    Attributes:
        tasks: to be inserted.
        release: tasks that need not wait any longer for what they still wait for.
        cancel: tasks that must not start, with the reason.
        said: for the log.
    """

    tasks: list[NewTask] = field(default_factory=list)
    release: list[int] = field(default_factory=list)
    cancel: list[tuple[int, str]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Moment:
    """The transaction in which something has become known, its time, and what follows."""

    connection: Connection
    at: float
    follow_ups: FollowUps = field(default_factory=FollowUps)


def protocol_of(config: Config, folder: Folder) -> Protocol | None:
    """What planning needs; None in a folder without a campaign.

    Raises:
        InputError: the crystal cannot be built, a species is none, or the label engine's settings are wrong.
    """
    if config.campaign is None or config.crystal is None or config.label is None or config.train is None:
        return None
    species, label = config.campaign.species, config.label
    unknown = [symbol for symbol in species if not cells.is_element(symbol)]
    wrong = [f"{symbol!r} is no chemical symbol" for symbol in unknown]
    wrong = wrong or registry.problems(label.engine, label.settings(), species, folder.root)
    if wrong:
        where = f"campaign.species or [label.{label.engine}] in {folder.config}"
        raise InputError("; ".join(wrong), where=where, next_step="mend it, then check with `pilot doctor`")
    unit = {name: cells.unit_cell(config.crystal, species, folder.root, name) for name in ("primitive", "conventional")}
    refuse_crystal(unit["primitive"], species, config.train, folder)
    return Protocol(config, config.campaign, config.crystal, config.label, config.train, unit)


class Driver:
    """Drives the campaign of one folder."""

    def __init__(self, folder: Folder, protocol: Protocol) -> None:
        self.folder = folder
        self.protocol = protocol

    def begin(self, connection: Connection, at: float) -> FollowUps:
        """Begin the campaign, or go on where its last generation left it (pilot.toml may allow more now)."""
        moment = Moment(connection, at)
        history = dataset.read_generations(connection)
        refuse_other_campaign(connection, self.folder, self.protocol, history)
        if not history:
            _insert(moment, planner.initial_generation(self.protocol))
            first = self._paths(0, 0, to_be_trained=True)
            _insert(moment, planner.exploring_generation(self.protocol, 0, 1, first))
            moment.follow_ups.said.append("the campaign begins: initial data, first potential, first exploration")
        elif history[-1].outcome in ENDS:
            self._try_to_go_on(moment, history)
        return moment.follow_ups

    def _try_to_go_on(self, moment: Moment, history: list[dataset.Generation]) -> None:
        """The campaign had stopped; a new pilot is the user's word that the cause is mended, or more is allowed."""
        last = history[-1]
        decision = self._decide(last.stage, self._sweeps(history, last.stage))
        if decision.turn is Turn.NOTHING_RAN:
            decision = Decision(Turn.SAME_STAGE, "explored again, as nothing ran the last time")
        if decision.turn in {Turn.CONVERGED, Turn.NOT_CONVERGED}:
            return
        _note_decision(moment, last, decision)
        self._go_on(moment, last, decision, self._paths_after(moment.connection, last))
        moment.follow_ups.said.append(f"the campaign goes on: {decision.why}")

    def read_result(self, connection: Connection, task: Task, attempt: Attempt) -> list[Candidate]:
        """What a task that seems to have succeeded has left in its files: what was selected; a potential is published.

        To be asked before the success is recorded: what this raises for files that are broken costs the task.

        Raises:
            StorageError: the disk refuses; that is no fault of the task.
        """
        if task.generation is None or task.kind not in {TaskKind.SELECT, TaskKind.TRAIN}:
            return []
        now = dataset.read_generation(connection, task.generation)
        if task.kind is TaskKind.SELECT:
            return read_selected(attempt, self.folder, self.protocol, f"s{now.stage + 1}g{now.number:02d}")
        published = self.folder.root / self.folder.potential(now.stage, now.number)
        publish_potential(self.folder.root / attempt.directory, published)
        return []

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
            self._selected(moment, generation, attempt, selected)
        elif task.kind is TaskKind.TRAIN:
            self._trained(moment, generation, attempt)
        elif task.kind is TaskKind.EVALUATE:
            dataset.note_generation(connection, generation.id, {"evaluation": dict(attempt.facts)}, at=at)
        return moment.follow_ups

    def labels_changed(self, connection: Connection, generation_id: int, at: float) -> FollowUps:
        """Labels of a generation have ended: does training begin now, or never?"""
        follow_ups = FollowUps()
        counts = progress.count_states(connection, generation_id, TaskKind.LABEL)
        train = progress.only_task(connection, generation_id, TaskKind.TRAIN)
        total, done = sum(counts.values()), counts[TaskState.DONE]
        failed = counts[TaskState.FAILED] + counts[TaskState.CANCELLED]
        dataset.note_generation(
            connection, generation_id, {"labels": total, "labelled": done, "labels_failed": failed}, at=at
        )
        if train is None or train.state is not TaskState.WAITING:
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
            follow_ups.cancel.append((train.id, why))
            follow_ups.said.append(
                f"{why}: training is called off; mend the cause, `pilot retry --failed`, `pilot retry {train.id}`"
            )
        elif said is criteria.Progress.ENOUGH:
            follow_ups.release.append(train.id)
        return follow_ups

    def called_off(self, connection: Connection, generations: Iterable[int]) -> list[int]:
        """The trainings of these generations that were called off because too many of their labels had failed."""
        found = []
        for generation in sorted(generations):
            train = progress.only_task(connection, generation, TaskKind.TRAIN)
            if train is not None and train.state is TaskState.CANCELLED:
                *_, (_, _, why) = read_events(connection, train.id)
                found += [train.id] if _TOO_MANY in why else []
        return found

    def complete_spec(self, connection: Connection, task: Task) -> dict[str, Any]:
        """The spec of a task that is about to start, with what is known only now; writes the files it names."""
        spec = dict(task.spec)
        if task.generation is None:
            return spec
        generation = dataset.read_generation(connection, task.generation)
        place = self.folder.generation(generation.stage, generation.number)
        if task.kind is TaskKind.SELECT:
            spec["candidates"] = [
                f"{attempt.directory}/preselected.cfg"
                for attempt in progress.done_attempts(connection, task.generation, TaskKind.EXPLORE)
            ]
        elif task.kind is TaskKind.TRAIN:
            spec["train"] = write_set(connection, self.folder, self.protocol, "train", place)
            spec["holdout"] = write_set(connection, self.folder, self.protocol, "holdout", place)
        elif task.kind is TaskKind.EVALUATE:
            potential = self.folder.potential(generation.stage, generation.number)
            spec["potential"] = f"{potential}/pot.mtp"
            spec["holdout"] = write_set(connection, self.folder, self.protocol, "holdout", place)
            spec["eos"] = write_set(connection, self.folder, self.protocol, "eos", place)
        return spec

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
        return planner.user_labels(self.protocol, fresh), len(ids) - len(fresh)

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
        dataset.add_label(
            moment.connection,
            Structure.from_json(task.spec["structure"]).content_hash(),
            judgement.label,
            # those that it was planned with: pilot.toml may have changed since
            settings=planner.settings_of(task.key) or self.protocol.label_settings(),
            attempt_id=attempt.id,
            at=moment.at,
        )

    def _selected(
        self, moment: Moment, now: dataset.Generation, attempt: Attempt, selected: Sequence[Candidate]
    ) -> None:
        """The number of labels is known: insert them, the fit that waits for them, and what comes after it."""
        connection, stage, number = moment.connection, now.stage, now.number
        fresh = [c for c in selected if not dataset.is_known(connection, c.structure)]
        sweep = {**progress.explored(connection, now.id), "selected": len(fresh), "select": dict(attempt.facts)}
        dataset.note_generation(connection, now.id, {"sweep": sweep}, at=moment.at)
        decision = self._decide(stage, self._sweeps(dataset.read_generations(connection), stage))
        _note_decision(moment, now, decision)
        paths = self._newest_paths(connection)
        if fresh:
            start = f"{paths.potential}/pot.mtp"
            _insert(moment, planner.learning_generation(self.protocol, stage, number, fresh, start))
            paths = self._paths(stage, number, to_be_trained=True)
        said = f"stage {stage + 1} generation {number}: {len(fresh)} selected; {decision.why}"
        if not fresh and sweep["broke"]:
            said += f"; nothing new is learned: {_why_nothing_selected(attempt)}"
        moment.follow_ups.said.append(said)
        self._go_on(moment, now, decision, paths)

    def _go_on(self, moment: Moment, now: dataset.Generation, decision: Decision, paths: Paths) -> None:
        if decision.turn is Turn.SAME_STAGE:
            _insert(moment, planner.exploring_generation(self.protocol, now.stage, now.number + 1, paths))
        elif decision.turn is Turn.NEXT_STAGE:
            _insert(moment, planner.exploring_generation(self.protocol, now.stage + 1, 1, paths))

    def _trained(self, moment: Moment, now: dataset.Generation, attempt: Attempt) -> None:
        path = self.folder.potential(now.stage, now.number)
        facts = attempt.facts
        dataset.add_potential(moment.connection, now.id, path, attempt_id=attempt.id, facts=facts, at=moment.at)
        dataset.note_generation(moment.connection, now.id, {"train": dict(facts)}, at=moment.at)
        if facts.get("worse"):
            name = f"stage {now.stage + 1} generation {now.number}"
            moment.follow_ups.said.append(f"{name}: the new potential is worse on the holdout than the last")

    def _decide(self, stage: int, sweeps: list[Sweep]) -> Decision:
        config = self.protocol.config
        return criteria.decide(
            config.stages, stage, sweeps, config.explore.clean_sweeps, self.protocol.campaign.if_not_converged
        )

    def _sweeps(self, history: list[dataset.Generation], stage: int) -> list[Sweep]:
        recorded = [g.facts["sweep"] for g in history if g.stage == stage and "sweep" in g.facts]
        return [Sweep(s["wanted"], s["done"], s["broke"], s["selected"]) for s in recorded]

    def _paths(self, stage: int, number: int, *, to_be_trained: bool) -> Paths:
        key = planner.key_of(TaskKind.TRAIN, stage, number) if to_be_trained else None
        return Paths(self.folder.potential(stage, number), self.folder.generation(stage, number), key)

    def _paths_after(self, connection: Connection, last: dataset.Generation) -> Paths:
        """Those of the potential that a generation still trains, else of the newest there is."""
        train = progress.only_task(connection, last.id, TaskKind.TRAIN)
        if train is None or train.state is TaskState.DONE:
            return self._newest_paths(connection)
        return self._paths(last.stage, last.number, to_be_trained=True)

    def _newest_paths(self, connection: Connection) -> Paths:
        newest = dataset.read_potentials(connection)[-1]
        generation = dataset.read_generation(connection, newest.generation)
        return self._paths(generation.stage, generation.number, to_be_trained=False)


def _why_nothing_selected(attempt: Attempt) -> str:
    facts = attempt.facts
    return (
        f"of {facts.get('candidates', 0)} candidates {facts.get('too_close', 0)} had atoms too close, "
        f"{facts.get('bad_volume', 0)} a wrong volume, {facts.get('duplicates', 0)} were known"
    )


def _note_decision(moment: Moment, generation: dataset.Generation, decision: Decision) -> None:
    facts = {"why": decision.why}
    dataset.note_generation(moment.connection, generation.id, facts, outcome=decision.turn, at=moment.at)


def _insert(moment: Moment, new: Generation) -> None:
    generation_id = dataset.add_generation(moment.connection, new.stage, new.number, moment.at)
    dataset.add_structures(moment.connection, new.candidates, generation_id)
    moment.follow_ups.tasks += [replace(task, generation=generation_id) for task in new.tasks]
