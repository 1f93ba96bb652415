"""Where a campaign stands: which potential is in use, and what its sweeps have shown so far."""

from collections.abc import Sequence

from sqlalchemy import Connection

from db import dataset, progress
from db.states import Role, TaskKind, TaskState
from pilot.campaign import criteria
from pilot.campaign.checks import Shown, shown_by
from pilot.campaign.criteria import Decision, Sweep
from pilot.campaign.protocol import Protocol, Source, key_of
from pilot.folder import Folder


def decide(connection: Connection, protocol: Protocol, stage: int) -> Decision:
    """How the campaign goes on after the sweeps of a stage that are recorded."""
    config = protocol.config
    history = dataset.read_generations(connection)
    settings = protocol.label_settings(stage)
    # one that was asked for, and of which every label failed, is not the same as none: then nothing is known
    has_holdout = config.initial.holdout or dataset.count_labels(connection, settings).get(Role.HOLDOUT, 0)
    sweeps = {g.id: _sweep(g, history) for g in history if "sweep" in g.facts}
    alike = [sweeps[g.id].shown for g in history if g.id in sweeps and measured_with(protocol, g) == settings]
    return criteria.decide(
        config.stages,
        stage,
        [sweeps[g.id] for g in history if g.stage == stage and g.id in sweeps],
        protocol.explore(stage).clean_sweeps,
        protocol.campaign.if_not_converged,
        config.converge,
        _on_the_same_holdout(alike) if has_holdout else None,
    )


def measured_with(protocol: Protocol, generation: dataset.Generation) -> str:
    """The name of the label settings against which the potential of a sweep was evaluated.

    Errors against labels of different settings say nothing of how the error goes: they are never compared.
    """
    stage, _ = generation.facts.get("of") or (generation.stage, 0)
    return protocol.label_settings(stage)


def _on_the_same_holdout(shown: Sequence[Shown]) -> list[float | None]:
    """The force errors, without those before the holdout became another: one that was imported, or labelled late."""
    return [one.force_error for one in shown if one.force_error is None or one.holdout == shown[-1].holdout]


def source_of(folder: Folder, stage: int, number: int, *, to_be_trained: bool) -> Source:
    """The potential of a generation."""
    return Source(stage, number, folder.potential(stage, number), folder.generation(stage, number), to_be_trained)


def source_after(connection: Connection, folder: Folder, last: dataset.Generation) -> Source:
    """The potential that a generation still trains, else the newest there is."""
    fit = progress.task_with_key(connection, key_of(TaskKind.TRAIN, last.stage, last.number))
    if fit is None or fit.state is TaskState.DONE:
        return newest_source(connection, folder)
    return source_of(folder, last.stage, last.number, to_be_trained=True)


def newest_source(connection: Connection, folder: Folder) -> Source:
    """The potential of the latest generation that has trained one: others may have been trained late."""
    trained = {potential.generation for potential in dataset.read_potentials(connection)}
    *_, last = (g for g in dataset.read_generations(connection) if g.id in trained)
    return source_of(folder, last.stage, last.number, to_be_trained=False)


def _sweep(generation: dataset.Generation, history: Sequence[dataset.Generation]) -> Sweep:
    """A sweep with what its potential had shown."""
    facts = generation.facts["sweep"]
    of = tuple(generation.facts.get("of") or ())
    evaluations = [g.facts.get("evaluation", {}) for g in history if (g.stage, g.number) == of]
    shown = shown_by(evaluations[0] if evaluations else {})
    return Sweep(facts["wanted"], facts["done"], facts["broke"], facts["selected"], shown)
