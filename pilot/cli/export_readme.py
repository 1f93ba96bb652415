"""README.txt of an export: what each file is, with counts, units, settings and errors. Pure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from db.dataset import Generation, Potential
from pilot.campaign.protocol import Protocol
from pilot.folder import Folder

_SETS = {
    "train": "the training set",
    "holdout": "set aside at the beginning: errors of each generation are measured on them",
    "test": "brought by the user to measure errors on",
    "sample": "drawn from explorations to compare γ and error",
    "eos": "points of the reference energy-volume curve",
    "elastic": "strained cells, for the reference's elastic constants",
}
_POTENTIAL = {
    "potential.mtp": "the newest potential, in the layout that MLIP-3 reads",
    "potential.almtp": "the same with its active set, as MLIP-3 keeps it",
    "potential.json": "the newest potential",
    "active.npz": "its active set (numpy): extrapolation grades are measured by it",
    "active-nbh.npz": "its active set of neighbourhoods",
}


@dataclass(frozen=True, slots=True)
class Content:
    """What was exported.

    Attributes:
        settings: the name of the present label settings; all others lie apart.
        counts: labels by settings and role.
        files: the names of what was written.
    """

    folder: Folder
    protocol: Protocol
    settings: str
    counts: Mapping[str, Mapping[str, int]]
    generations: Sequence[Generation]
    files: tuple[str, ...]


def readme(content: Content, potential: Potential | None) -> str:
    """The text."""
    protocol = content.protocol
    lines = [
        f"{protocol.campaign.name}: what `pilot export` wrote from {content.folder.root}",
        "",
        *_sets(content),
        _line("provenance.csv", "where each structure comes from, in the order of the files"),
        _line("settings.json", "what the names of label settings stand for"),
        *(_line(name, meaning) for name, meaning in _POTENTIAL.items() if name in content.files),
        "",
        "Species: types 0, 1, … in .cfg and .mtp are " + ", ".join(protocol.campaign.species) + ".",
        "Units: Å, eV, eV/Å. Energies are of the whole cell and consistent with the forces. Stress: eV/Å³ in .extxyz",
        "and .db (ASE's sign: negative under compression); in .cfg it is PlusStress, the virial in eV (opposite sign).",
        *_reference(protocol.label.atom_energies),
        "Beside each configuration (info of .extxyz, data of .db, features of .cfg): pilot_id (structure_id in",
        "provenance.csv), role, source, settings, engine; where there are such, generation (s1g03: stage 1, number 3)",
        "and grade (γ when it was selected; MV_grade in .cfg).",
        "",
        f"Labels: engine {protocol.label.engine}, settings {content.settings}:",
        *_settings(protocol.label.settings(_fidelity(protocol, content.settings))),
        *_others(content),
        "",
        *_potential(protocol, potential, content.generations),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _line(names: str, meaning: str) -> str:
    return f"{names:<39}{meaning}"


def _sets(content: Content) -> list[str]:
    lines = []
    for role, number in _in_order(content.counts.get(content.settings, {})):
        names = ", ".join(name for name in content.files if name.startswith(f"{role}."))
        lines.append(_line(names, f"{_SETS.get(role, role)}: {number} structures"))
    return lines


def _in_order(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return [(role, counts[role]) for role in _SETS if role in counts]


def _others(content: Content) -> list[str]:
    """The labels of other settings: of another fidelity, an older pilot.toml, or imported under a name."""
    others = {name: counts for name, counts in content.counts.items() if name != content.settings}
    if not others:
        return []
    lines = ["", "Labels of other settings lie apart in other-settings/; energies of the two must not be mixed:"]
    return lines + [
        f"  {name}: " + ", ".join(f"{number} {role}" for role, number in _in_order(counts))
        for name, counts in sorted(others.items())
    ]


def _reference(atom_energies: Mapping[str, float]) -> list[str]:
    if not atom_energies:
        return []
    shown = ", ".join(f"{symbol} {energy:g} eV" for symbol, energy in atom_energies.items())
    return [
        f"Energies here are those of the calculations; the potential was trained on what is left when {shown}",
        "is taken off for each atom.",
    ]


def _fidelity(protocol: Protocol, settings: str) -> str | None:
    """That of the stages whose labels have this name of settings."""
    stages = range(len(protocol.config.stages))
    return next((protocol.fidelity(n) for n in stages if protocol.label_settings(n) == settings), None)


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
