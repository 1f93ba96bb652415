"""The campaign by generation: what each explored, labelled and trained, and what its potential is worth. Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from db.dataset import Generation
from db.records import Json
from db.states import TaskKind
from pilot.campaign.protocol import key_of, questions_key
from pilot.report.figure import number
from pilot.report.records import Done, Ran, Records


@dataclass(frozen=True, slots=True)
class Gamma:
    """γ over all MD steps of a sweep; of several explorations together.

    Attributes:
        steps: over which mean and standard deviation are taken.
        broke: explorations that ended above γ_break.
    """

    explorations: int
    broke: int
    steps: int
    highest: float | None
    mean: float | None
    std: float | None


@dataclass(frozen=True, slots=True)
class Turn:
    """One generation.

    Attributes:
        count: over all stages, from 0: the horizontal axis of the figures.
        stage: from 1.
        number: in its stage.
        labelled: successful reference calculations (DFT runs); ``label_runs`` counts all attempts at them.
        training_set: configurations that its potential was trained on.
        evaluation: facts of the evaluation of its potential; {} without one.
        fitted: facts of its training; {} before it is done.
        asked: facts of the comparison of γ and errors, over a sample of its explorations' queries, of the potential
            with which they explored; {} without one.
    """

    count: int
    id: int
    stage: int
    number: int
    outcome: str
    why: str
    gamma: Gamma
    label_runs: int
    labelled: int
    labels: int
    training_set: int | None
    selected: int | None
    evaluation: Json = field(default_factory=dict)
    fitted: Json = field(default_factory=dict)
    asked: Json = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What people call it."""
        return f"s{self.stage}g{self.number}"

    def error(self, among: str, measure: str) -> float | None:
        """An error measure on the holdout, the sample …, in eV and Å."""
        facts = self.asked if among == "sample" else self.evaluation
        found = facts.get(among) or (self.fitted.get("train") if among == "train" else None)
        return number((found or {}).get(measure))

    def bar(self, measure: str) -> float | None:
        """Half width of the 95 % interval that the ensemble gives; None without one."""
        return number((self.evaluation.get("error_bars") or {}).get(measure))


def turns(records: Records) -> list[Turn]:
    """All generations in their order."""
    explored: dict[int, list[Done]] = {}
    for done in records.explored:
        explored.setdefault(done.generation or 0, []).append(done)
    evaluated = {done.key: done.facts for done in records.evaluated}
    runs: dict[int, list[Ran]] = {}
    for ran in records.ran:
        if ran.kind == "label" and ran.generation is not None:
            runs.setdefault(ran.generation, []).append(ran)
    return [
        _turn(count, generation, explored.get(generation.id, []), runs.get(generation.id, []), evaluated)
        for count, generation in enumerate(records.generations)
    ]


def _turn(
    count: int,
    generation: Generation,
    explored: Sequence[Done],
    runs: Sequence[Ran],
    evaluated: Mapping[str, Json],
) -> Turn:
    facts = generation.facts
    train: Mapping[str, Any] = facts.get("train") or {}
    sweep: Mapping[str, Any] = facts.get("sweep") or {}
    configurations = number(train.get("configurations"))
    selected = number(sweep.get("selected"))
    stage, within = generation.stage, generation.number
    evaluation = facts.get("evaluation") or evaluated.get(key_of(TaskKind.EVALUATE, stage, within)) or {}
    return Turn(
        count=count,
        id=generation.id,
        stage=generation.stage + 1,
        number=generation.number,
        outcome=generation.outcome,
        why=str(facts.get("why", "")),
        gamma=pooled(done.facts for done in explored),
        label_runs=len(runs),
        labelled=sum(run.verdict == "done" for run in runs),
        labels=len({run.task for run in runs}),
        training_set=None if configurations is None else int(configurations),
        selected=None if selected is None else int(selected),
        evaluation=evaluation,
        fitted=train,
        asked=evaluated.get(questions_key(stage, within)) or (evaluation if evaluation.get("sample") else {}),
    )


def pooled(explored: Iterable[Json]) -> Gamma:
    """γ of several explorations as if they were one: each step counts the same."""
    count = broke = 0
    weights = total = squares = 0.0
    highest: float | None = None
    for facts in explored:
        count += 1
        broke += bool(facts.get("broke"))
        top = number(facts.get("gamma_max"))
        if top is not None:
            highest = top if highest is None else max(highest, top)
        steps, mean = number(facts.get("steps")), number(facts.get("gamma_mean"))
        spread = number(facts.get("gamma_std")) or 0.0
        if steps is None or mean is None:
            continue
        # a run that ended at once has seen one configuration
        seen = max(steps, 1.0)
        weights += seen
        total += seen * mean
        squares += seen * (spread**2 + mean**2)
    if not weights:
        return Gamma(count, broke, 0, highest, None, None)
    mean = total / weights
    return Gamma(count, broke, int(weights), highest, mean, math.sqrt(max(squares / weights - mean**2, 0.0)))


def stage_starts(all_turns: Sequence[Turn]) -> list[tuple[int, int]]:
    """The stages, each with the count of its first generation."""
    found: dict[int, int] = {}
    for turn in all_turns:
        found.setdefault(turn.stage, turn.count)
    return sorted(found.items())


def newest_evaluation(all_turns: Sequence[Turn]) -> Turn | None:
    """The latest generation whose potential was evaluated."""
    return next((turn for turn in reversed(all_turns) if turn.evaluation), None)
