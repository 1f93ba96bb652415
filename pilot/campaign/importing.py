"""Labels that users bring: sorted into new ones, duplicates and conflicts, and recorded as what they are.

A label that was made elsewhere with the settings of this campaign is as good as one of its own: it is trained on, and
its structure is never labelled again with these settings. Labels of other settings are kept apart under a name.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from db import dataset
from db.dataset import Brought, Candidate, Known
from db.errors import InputError
from db.records import Label, Structure
from db.states import Role
from pilot.campaign import cells
from pilot.campaign.protocol import Protocol

#: what `--settings` is called where the labels are like those of the campaign; with a fidelity: "this/NAME"
THIS = "this"
#: what can be imported; the other roles are the campaign's own
ROLES = (Role.TRAIN, Role.HOLDOUT, Role.TEST)
#: two labels of a structure that differ by more, eV per atom and eV/Å, were not made with the same settings
ENERGY_SLACK, FORCE_SLACK = 1e-3, 1e-2
#: so many conflicts are told in full
_TOLD = 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
_OWN = re.compile(r"(qe|vasp|ase)-[0-9a-f]{12}")


@dataclass(slots=True)
class Sorted:
    """What is to be done with the labels that somebody brings.

    Attributes:
        new: to be recorded.
        duplicates: how many are there already, with the same settings and numbers.
        conflicts: of those that are there with other numbers, which of whom and by how much.
        elsewhere: how many labels are of a structure that has another role, and keeps it.
    """

    new: list[Brought] = field(default_factory=list)
    duplicates: int = 0
    conflicts: list[str] = field(default_factory=list)
    elsewhere: int = 0


def settings_name(protocol: Protocol, given: str, stage: int) -> tuple[str, dict[str, Any] | None]:
    """The name of settings under which labels are recorded, and what it stands for where that is this campaign's.

    Args:
        given: "this", "this/FIDELITY", or a name.
        stage: the present one: "this" is what it labels with.

    Raises:
        InputError: no such fidelity, or a name that cannot be one.
    """
    if given == THIS or given.startswith(f"{THIS}/"):
        wanted = given.partition("/")[2]
        stages = (
            [n for n in range(len(protocol.config.stages)) if protocol.fidelity(n) == wanted] if wanted else [stage]
        )
        if not stages:
            raise InputError(
                f"no stage labels with the fidelity {wanted!r}",
                where="--settings",
                next_step="write this, or this/NAME with a name of [label.fidelity] that a stage has",
            )
        table = protocol.label.settings(protocol.fidelity(stages[0]))
        return protocol.label_settings(stages[0]), {"engine": protocol.label.engine, "table": table}
    if not _NAME.fullmatch(given) or _OWN.fullmatch(given):
        raise InputError(
            f"{given!r} cannot be a name of settings",
            where="--settings",
            next_step="letters, digits, dots, dashes, as pbe-520eV; names like qe-0123456789ab are the campaign's own",
        )
    return given, None


def refuse_strangers(protocol: Protocol, numbers: Mapping[int, str]) -> None:
    """Refuse species that the campaign does not know; ``numbers``: atomic numbers, each with where it was found.

    Raises:
        InputError: there are such.
    """
    known = {cells.atomic_number(symbol) for symbol in protocol.campaign.species}
    strangers = {number: where for number, where in sorted(numbers.items()) if number not in known}
    if strangers:
        names = ", ".join(cells.symbol(number) for number in strangers)
        raise InputError(
            f"this campaign does not know {names}: its species are {', '.join(protocol.campaign.species)}",
            where="; ".join(f"{cells.symbol(number)}: {where}" for number, where in strangers.items()),
            next_step="leave those files out, or add the species to campaign.species: nothing was added",
        )


def sort_out(
    known: Mapping[str, Known], brought: Sequence[Brought], settings: str, here: dict[str, Brought] | None = None
) -> Sorted:
    """Compare labels with those that are recorded, and with each other.

    Args:
        known: what is recorded of these structures, by hash.
        here: what was new among those that were looked at before; grows.
    """
    here = {} if here is None else here
    found = Sorted()
    for entry in brought:
        before = known.get(entry.hash)
        there = None if before is None else before.labels.get(settings)
        found.elsewhere += before is not None and before.role != entry.candidate.role
        if entry.hash in here:
            _compare(found, entry, here[entry.hash].label, here[entry.hash].candidate.source)
        elif there is not None:
            _compare(found, entry, there.label, there.source)
        else:
            here[entry.hash] = entry
            found.new.append(entry)
    return found


def _compare(found: Sorted, entry: Brought, label: Label, source: str) -> None:
    energy = abs(entry.label.energy - label.energy) / len(label.forces)
    force = max(
        (
            abs(a - b)
            for one, two in zip(entry.label.forces, label.forces, strict=True)
            for a, b in zip(one, two, strict=True)
        ),
        default=0.0,
    )
    if energy <= ENERGY_SLACK and force <= FORCE_SLACK:
        found.duplicates += 1
    else:
        found.conflicts.append(
            f"{entry.candidate.source} and {source}: the same structure, {1000 * energy:.1f} meV/atom and "
            f"{1000 * force:.0f} meV/Å apart"
        )


def import_labels(
    arguments: Mapping[str, Any], protocol: Protocol | None, connection: Connection, at: float
) -> dict[str, Any]:
    """Record the labels of a request, and say what became of them; nothing that is there already is changed.

    Raises:
        InputError: there is no campaign, it does not know a species, or the role or the settings are none.
    """
    if protocol is None:
        raise no_campaign()
    role = Role(arguments["role"])
    if role not in ROLES:
        raise InputError(f"labels cannot be imported as {role}", next_step="train, holdout or test")
    name, table = settings_name(protocol, str(arguments["settings"]), present_stage(connection))
    brought = list(_brought(arguments["items"], role))
    refuse_strangers(protocol, {z: b.candidate.source for b in brought for z in set(b.candidate.structure.numbers)})
    found = sort_out(dataset.find_known(connection, {entry.hash for entry in brought}), brought, name)
    dataset.add_brought(connection, found.new, settings=name, at=at)
    dataset.note_settings(connection, name, table or {"told": arguments.get("told", [])})
    said = f"{len(found.new)} labels imported as {role}, settings {name}"
    counts = {"added": len(found.new), "duplicates": found.duplicates, "conflicts": len(found.conflicts)}
    told = {"told": found.conflicts[:_TOLD], "elsewhere": found.elsewhere, "settings": name}
    return {"ok": True, "said": said} | counts | told


def present_stage(connection: Connection) -> int:
    """The stage that the campaign has come to, from 0."""
    history = dataset.read_generations(connection)
    return history[-1].stage if history else 0


def no_campaign() -> InputError:
    """There is nothing to import for."""
    return InputError(
        "this folder has no campaign: there is nothing to train on labels",
        where="pilot.toml",
        next_step="write [campaign] into pilot.toml; `pilot init --example li-small-cell` shows how",
    )


def item_of(structure: Structure, label: Label, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """A label as a request carries it; of its provenance, ``file`` and ``index`` are needed."""
    return {"structure": structure.to_json(), "label": label.to_json(), "provenance": dict(provenance)}


def brought_of(item: Mapping[str, Any], role: Role) -> Brought:
    """The inverse of :func:`item_of`.

    Raises:
        ValueError: forces of another number of atoms.
    """
    structure, label = Structure.from_json(item["structure"]), Label.from_json(item["label"])
    if len(label.forces) != len(structure.numbers):
        raise ValueError(f"forces of {len(label.forces)} of {len(structure.numbers)} atoms")
    provenance = dict(item["provenance"])
    source = f"{provenance['file']} #{provenance['index']}"
    return Brought(Candidate(structure, role, source), structure.content_hash(), label, provenance)


def _brought(items: Sequence[str | Mapping[str, Any]], role: Role) -> Iterator[Brought]:
    for item in items:
        yield brought_of(json.loads(item) if isinstance(item, str) else item, role)
