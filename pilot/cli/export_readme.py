"""README.txt of an export: what each file is, with counts, units, settings and errors. Pure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from db.dataset import Generation, Potential
from pilot.campaign.protocol import Protocol
from pilot.folder import Folder


@dataclass(frozen=True, slots=True)
class Content:
    """What was exported; ``counts`` by set."""

    folder: Folder
    protocol: Protocol
    counts: Mapping[str, int]
    generations: Sequence[Generation]


def readme(content: Content, potential: Potential | None) -> str:
    """The text."""
    protocol, counts = content.protocol, content.counts
    lines = [
        f"{protocol.campaign.name}: what `pilot export` wrote from {content.folder.root}",
        "",
        f"train.extxyz, train.db, train.cfg      the training set: {counts.get('train', 0)} structures",
        f"holdout.extxyz, holdout.cfg            {counts.get('holdout', 0)} structures that were never trained on",
        "provenance.csv                         where each structure comes from, in the order of the files",
    ]
    if potential is not None:
        lines += [
            "potential.mtp                          the newest potential, in the layout that MLIP-3 reads",
            "active.npz                             its active set (numpy): extrapolation grades are measured by it",
        ]
    lines += [
        "",
        "Species: types 0, 1, … in .cfg and .mtp are " + ", ".join(protocol.campaign.species) + ".",
        "Units: Å, eV, eV/Å. Energies are of the whole cell and consistent with the forces. Stress: eV/Å³ in .extxyz",
        "and .db (ASE's sign: negative under compression); in .cfg it is PlusStress, the virial in eV (opposite sign).",
        "",
        f"Labels: engine {protocol.label.engine}, settings {protocol.label_settings()}:",
        *_settings(protocol.label.settings()),
        "",
        *_potential(protocol, potential, content.generations),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _settings(settings: Mapping[str, Any]) -> list[str]:
    shown = {name: value for name, value in settings.items() if value not in (None, {}, [])}
    return [f"  {name} = {json.dumps(value, ensure_ascii=False)}" for name, value in shown.items()]


def _potential(protocol: Protocol, potential: Potential | None, generations: Sequence[Generation]) -> list[str]:
    if potential is None:
        return ["No potential has been trained yet."]
    train, trained_on = protocol.train, potential.facts.get("configurations", "?")
    made = next(g for g in generations if g.id == potential.generation)
    lines = [
        f"Potential: MTP of level {train.level}, radial basis from {train.min_dist:g} to {train.max_dist:g} Å,",
        f"trained in stage {made.stage + 1} generation {made.number} on {trained_on} configurations.",
    ]
    if potential.facts.get("worse"):
        lines.append("It is WORSE on the holdout than the one before.")
    for name in ("train", "holdout"):
        lines += _errors(name, potential.facts.get(name))
    evaluation = made.facts.get("evaluation", {})
    reference: Mapping[str, Any] = next((g.facts.get("evaluation", {}) for g in generations), {})
    lattice, dft = evaluation.get("lattice_parameter"), reference.get("lattice_parameter_dft")
    if lattice is not None:
        lines.append(f"Lattice parameter: {lattice:.4f} Å" + ("" if dft is None else f"; of the reference {dft:.4f} Å"))
    return lines


def _errors(name: str, errors: Mapping[str, Any] | None) -> list[str]:
    if not errors:
        return []
    force, energy = 1000 * errors["eps_F"], 1000 * errors["eps_E_per_atom"]
    component = 1000 * errors["rmse_force_component"]
    return [
        f"Errors on {name} ({errors['n']} structures):",
        f"  ε_F {force:.2f} meV/Å (RMS over the atoms of the force error, averaged over structures)",
        f"  ε_E {energy:.3f} meV/atom (mean absolute); force component {component:.2f} meV/Å (RMS)",
    ]
