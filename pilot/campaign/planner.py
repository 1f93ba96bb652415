"""The small-cell protocol as planning: which tasks a generation consists of. Pure: records in, records out.

Algorithms 1–3 of the Pb report: initial data, then for each cell size generations of explore → select → label →
train until no exploration exceeds γ_break. What runs when is the scheduler's business: here are only tasks, what
they need, and what they are to do. The sweeps stand in :mod:`pilot.campaign.explorations`.
"""

from collections.abc import Sequence

from db.dataset import Candidate
from db.records import NewTask
from db.states import Role
from pilot.campaign import cells
from pilot.campaign.elastic_cells import elastic_cells
from pilot.campaign.fits import fit_tasks, label_task, questions_task, sample_labels, study_tasks
from pilot.campaign.protocol import Generation, Protocol, Source, as_configured


def initial_generation(protocol: Protocol) -> Generation:
    """The initial data, and the first fit; of a study all fits.

    The data are strained cells, the fixed holdout, the reference energy–volume curve and the cells from which the
    reference's elastic constants follow.
    """
    candidates = _initial_candidates(protocol)
    kpoints = protocol.config.initial.kpoints
    labels = [label_task(protocol, candidate, 0, kpoints) for candidate in candidates]
    fits = study_tasks(protocol, labels) if protocol.config.study else fit_tasks(protocol, 0, 0, labels, start=None)
    return Generation(0, 0, candidates, as_configured(protocol, [*labels, *fits]))


def learning_generation(
    protocol: Protocol, stage: int, number: int, selected: Sequence[Candidate], start: Source
) -> Generation:
    """The labels of what was selected, the fit that waits for them, and its evaluation."""
    kpoints = protocol.config.stages[stage].kpoints
    labels = [label_task(protocol, candidate, stage, kpoints) for candidate in selected]
    fit = fit_tasks(protocol, stage, number, labels, start)
    return Generation(stage, number, list(selected), as_configured(protocol, labels + fit))


def relabelling_generation(protocol: Protocol, stage: int, known: Sequence[Candidate]) -> Generation:
    """All that is known is labelled anew with the fidelity of a stage, and a potential is trained on it from nothing.

    Low-fidelity labels find the configurations that matter, high-fidelity ones are learned from (stages 1 and 2 of the
    melting point of aluminium in the MLIP-2 paper).
    """
    labels = [label_task(protocol, candidate, stage, None) for candidate in known]
    fit = fit_tasks(protocol, stage, 0, labels, start=None)
    return Generation(stage, 0, [], as_configured(protocol, labels + fit))


def sampling(protocol: Protocol, stage: int, number: int, sample: Sequence[Candidate], source: Source) -> Generation:
    """The labels of a sample of a sweep, and the task that compares its errors with γ."""
    labels = sample_labels(protocol, sample, stage)
    question = questions_task(protocol, stage, number, labels, source)
    return Generation(
        stage, number, list(sample), as_configured(protocol, [question]), loose=as_configured(protocol, labels)
    )


def user_labels(protocol: Protocol, candidates: Sequence[Candidate], stage: int = 0) -> list[NewTask]:
    """The label tasks of structures that a user brings: they belong to no generation."""
    return as_configured(protocol, [label_task(protocol, candidate, stage, None) for candidate in candidates])


def _initial_candidates(protocol: Protocol) -> list[Candidate]:
    initial, validation = protocol.config.initial, protocol.config.validation
    cell = cells.repeated(protocol.cells[initial.cell], initial.repeat)
    # in the same cell and on the same k-points: the curve is that of the calculations that are learned from
    reference = cell if protocol.crystal.composition is None else protocol.cells["reference"]
    found = [
        Candidate(
            cells.strained(
                protocol.occupied(cell, role, i),
                initial.strain,
                initial.rattle,
                protocol.seed("initial", role, i),
            ),
            role,
            f"initial {role} {i + 1}",
        )
        for role, count in ((Role.TRAIN, initial.train), (Role.HOLDOUT, initial.holdout))
        for i in range(count)
    ]
    if initial.eos_points:
        found += [
            Candidate(cells.scaled(reference, factor), Role.EOS, f"energy-volume curve, a × {factor:.4f}")
            for factor in cells.lattice_scales(initial.eos_points, initial.eos_range)
        ]
    if validation.elastic:
        found += [
            Candidate(structure, Role.ELASTIC, f"elastic constants, {about}")
            for structure, about in elastic_cells(reference, validation.elastic_strain)
        ]
    # the unstrained cell is of the curve, too: what is the same is labelled once, in the first of its roles
    return list({candidate.structure.content_hash(): candidate for candidate in reversed(found)}.values())[::-1]
