"""Labels, the fit that waits for them, and what is asked of the potential afterwards. Pure."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from db.dataset import Candidate
from db.records import NewTask
from db.states import EdgeKind, TaskKind
from pilot.campaign.explorations import member_files
from pilot.campaign.protocol import (
    PRIORITY_OF_SAMPLES,
    Protocol,
    Source,
    key_of,
    questions_key,
    study_key,
    when_ended,
)


def label_task(protocol: Protocol, candidate: Candidate, stage: int, kpoints: list[int] | None) -> NewTask:
    """The task that labels a structure; a structure has one such task for given settings, whoever asks.

    Args:
        stage: decides the fidelity.
        kpoints: the grid of the cell; None: from the engine's k-spacing.
    """
    fidelity = protocol.fidelity(stage)
    grid = protocol.label.fidelity.get(fidelity or "", {}).get("kpoints", kpoints)
    # what was cut out of a large cell is a cluster in a box
    clustered = not any(candidate.structure.pbc)
    return NewTask(
        kind=TaskKind.LABEL,
        engine=protocol.label.engine,
        name=f"label {candidate.source}",
        spec={
            "structure": candidate.structure.to_json(),
            "species": protocol.campaign.species,
            "kpoints": [1, 1, 1] if clustered else grid,
            "settings": protocol.label.settings(fidelity),
        },
        key=f"label-{candidate.structure.content_hash()}-{protocol.label_settings(stage)}",
        size=len(candidate.structure.numbers),
    )


def sample_labels(protocol: Protocol, candidates: Sequence[Candidate], stage: int) -> list[NewTask]:
    """Labels of what was drawn to compare γ and error: they train nothing, and nothing waits for them."""
    kpoints = protocol.config.stages[stage].kpoints
    tasks = [label_task(protocol, candidate, stage, kpoints) for candidate in candidates]
    return [replace(task, priority=PRIORITY_OF_SAMPLES) for task in tasks]


def fit_tasks(
    protocol: Protocol, stage: int, number: int, labels: Sequence[NewTask], start: Source | None
) -> list[NewTask]:
    """The trainings of all members, and the evaluation of the potential.

    Args:
        start: what the fit begins from; None: nothing.
    """
    train = protocol.train
    after = when_ended(labels)
    fits = [
        NewTask(
            kind=TaskKind.TRAIN,
            engine=train.engine,
            name=f"train {_what(protocol)}" + (f", member {member + 1}" if member else ""),
            spec=_train_spec(protocol, start, member),
            key=key_of(TaskKind.TRAIN, stage, number, member),
            after=after,
        )
        for member in range(train.members)
    ]
    evaluation = NewTask(
        kind=TaskKind.EVALUATE,
        engine="evaluate",
        name="evaluate",
        spec=_evaluate_spec(protocol),
        key=key_of(TaskKind.EVALUATE, stage, number),
        after=((fits[0].key or "", EdgeKind.DONE), *when_ended(fits[1:])),
    )
    return [*fits, evaluation]


def study_tasks(protocol: Protocol, labels: Sequence[NewTask]) -> list[NewTask]:
    """For each level and seed a fit to the same data, and its evaluation, all side by side."""
    study = protocol.config.study
    tasks: list[NewTask] = []
    if study is None:
        return tasks
    after = when_ended(labels)
    for level in study.levels:
        for seed in range(1, study.seeds + 1):
            name = f"study level {level}" + (f" #{seed}" if study.seeds > 1 else "")
            fit = NewTask(
                kind=TaskKind.TRAIN,
                engine=protocol.train.engine,
                name=f"{name}: train",
                spec=_train_spec(protocol, None, seed - 1) | {"level": level},
                key=study_key(TaskKind.TRAIN, level, seed),
                # the largest ones last the longest: they go first
                size=level,
                after=after,
            )
            evaluation = NewTask(
                kind=TaskKind.EVALUATE,
                engine="evaluate",
                name=f"{name}: evaluate",
                spec=_evaluate_spec(protocol),
                key=study_key(TaskKind.EVALUATE, level, seed),
                size=level,
                after=((fit.key or "", EdgeKind.DONE),),
            )
            tasks += [fit, evaluation]
    return tasks


def questions_task(protocol: Protocol, stage: int, number: int, labels: Sequence[NewTask], source: Source) -> NewTask:
    """Asks how the errors of a sample go with γ, of the potential that graded it."""
    return NewTask(
        kind=TaskKind.EVALUATE,
        engine="evaluate",
        name="compare γ and error",
        spec={
            **protocol.model(),
            "species": protocol.campaign.species,
            "potential": f"{source.potential}/{protocol.potential_file}",
        },
        key=questions_key(stage, number),
        after=when_ended(labels),
    )


def _what(protocol: Protocol) -> str:
    return "pair functions" if protocol.train.engine == "pair" else f"level {protocol.train.level}"


def _train_spec(protocol: Protocol, start: Source | None, member: int) -> dict[str, Any]:
    train = protocol.train
    found: dict[str, Any] = {
        "start": None,
        "level": train.level,
        "species": protocol.campaign.species,
        "min_dist": train.min_dist,
        "max_dist": train.max_dist,
        "radial_basis_size": train.radial_basis_size,
        "weights": train.weights.model_dump(),
        "iterations": train.iterations if start else train.first_iterations,
        "seed": protocol.seed("train", *([member] if member else [])),
        **protocol.model(),
    }
    if start is not None:
        files = [f"{start.potential}/{protocol.potential_file}", *member_files(protocol, start)]
        found["start"] = files[member]
    if member:
        found["member"] = member
    if "neighbourhood" in protocol.grades():
        found["neighbourhoods"] = True
    if train.engine in {"mlip-3", "mlip-2"}:
        found["settings"] = train.mlip.model_dump()
    return found


def _evaluate_spec(protocol: Protocol) -> dict[str, Any]:
    found: dict[str, Any] = {
        "species": protocol.campaign.species,
        "lattice": {"structure": protocol.cells["reference"].to_json(), "a": protocol.crystal.a},
        **protocol.model(),
    }
    if protocol.config.validation.elastic:
        found["elastic_strain"] = protocol.config.validation.elastic_strain
    return found
