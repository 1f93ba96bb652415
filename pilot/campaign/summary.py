"""The campaign as the snapshot shows it."""

from typing import Any

from sqlalchemy import Connection

from db import dataset
from pilot.campaign.criteria import Turn
from pilot.campaign.protocol import Protocol
from pilot.snapshot import CampaignStatus, GenerationStatus


def summarise(connection: Connection, protocol: Protocol) -> CampaignStatus | None:
    """Where the campaign stands; None before it has begun."""
    history = dataset.read_generations(connection)
    if not history:
        return None
    rows = [_row(generation) for generation in history]
    current = history[-1]
    # of the labels that are learned from now: another fidelity has another one
    references = (g.facts.get("evaluation", {}).get("lattice_parameter_dft") for g in reversed(history))
    reference = next((found for found in references if found is not None), None)
    return CampaignStatus(
        name=protocol.campaign.name,
        stages=len(protocol.config.stages),
        stage=current.stage + 1,
        generation=current.number,
        state=_state(current),
        training_set=dataset.count_labels(connection, protocol.label_settings(current.stage)).get("train", 0),
        lattice_parameter_dft=reference,
        generations=rows,
    )


def _state(current: dataset.Generation) -> str:
    if current.outcome in {Turn.CONVERGED, Turn.NOT_CONVERGED, Turn.NOTHING_RAN, Turn.STUDIED}:
        return str(current.outcome)
    return "running"


def _row(generation: dataset.Generation) -> GenerationStatus:
    facts = generation.facts
    sweep: dict[str, Any] = facts.get("sweep", {})
    train: dict[str, Any] = facts.get("train", {})
    evaluation: dict[str, Any] = facts.get("evaluation", {})
    return GenerationStatus(
        stage=generation.stage + 1,
        number=generation.number,
        outcome=generation.outcome,
        why=facts.get("why", ""),
        explorations=sweep.get("wanted"),
        broke=sweep.get("broke"),
        gamma_max=sweep.get("gamma_max"),
        gamma_mean=sweep.get("gamma_mean"),
        preselected=sweep.get("preselected"),
        selected=sweep.get("selected"),
        labels=facts.get("labels"),
        labelled=facts.get("labelled"),
        labels_failed=facts.get("labels_failed"),
        training_set=train.get("configurations"),
        holdout=evaluation.get("holdout"),
        worse=bool(train.get("worse")),
        lattice_parameter=evaluation.get("lattice_parameter"),
    )
