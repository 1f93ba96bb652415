"""Structures, labels, generations and potentials: what the campaign has learned."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, func, insert, select, update
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from db.records import Json, Label, Structure
from db.rows import pieces
from db.schema import generations, labels, meta, potentials, structures
from db.states import Role

#: keys of the meta table under which it stands what a name of settings means
_SETTINGS = "settings/"
#: so many labelled structures are held in memory at a time
_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Candidate:
    """A structure that is to be labelled.

    Attributes:
        structure: the atoms.
        role: what it is for (:class:`db.states.Role`).
        source: where it comes from, for people.
        grade: its extrapolation grade γ when it was selected.
    """

    structure: Structure
    role: str
    source: str
    grade: float | None = None


@dataclass(frozen=True, slots=True)
class Generation:
    """One turn of the loop.

    Attributes:
        stage: number of the stage, from 0.
        number: number of the generation in its stage, from 0; generation 0 of stage 0 is the initial data.
        outcome: "" while it runs, else what it showed.
        facts: γ, counts, errors; what the table of generations shows.
    """

    id: int
    stage: int
    number: int
    started_at: float
    ended_at: float | None = None
    outcome: str = ""
    facts: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Potential:
    """A trained potential: ``path`` is its folder, relative to the campaign's."""

    id: int
    generation: int
    path: str
    facts: Json


def add_generation(connection: Connection, stage: int, number: int, at: float) -> int:
    """Begin a generation; the id of the one that is there already if it was begun before."""
    found = connection.execute(
        select(generations.c.id).where(generations.c.stage == stage, generations.c.number == number)
    ).scalar_one_or_none()
    if found is not None:
        return int(found)
    made = connection.execute(insert(generations).values(stage=stage, number=number, started_at=at, facts={}))
    (generation_id,) = made.inserted_primary_key or (0,)
    return int(generation_id)


def note_generation(
    connection: Connection, generation_id: int, facts: Json, *, outcome: str | None = None, at: float
) -> None:
    """Add to what is known of a generation; with an ``outcome`` it has ended."""
    known = connection.execute(select(generations.c.facts).where(generations.c.id == generation_id)).scalar_one()
    values: dict[str, Any] = {"facts": known | dict(facts)}
    if outcome is not None:
        values |= {"outcome": outcome, "ended_at": at}
    connection.execute(update(generations).where(generations.c.id == generation_id).values(values))


def read_generations(connection: Connection) -> list[Generation]:
    """All generations in their order."""
    question = select(generations).order_by(generations.c.stage, generations.c.number)
    return [Generation(**row._mapping) for row in connection.execute(question)]


def read_generation(connection: Connection, generation_id: int) -> Generation:
    """One generation by its id."""
    row = connection.execute(select(generations).where(generations.c.id == generation_id)).one()
    return Generation(**row._mapping)


def is_known(connection: Connection, structure: Structure, settings: str | None = None) -> bool:
    """Whether the structure is recorded already, in whatever role.

    With ``settings``: what was only imported for training, with labels of other settings, is not known: it still may
    be labelled with these.
    """
    known = next(iter(find_known(connection, [structure.content_hash()]).values()), None)
    if known is None:
        return False
    imported_only = bool(known.labels) and all(label.imported for label in known.labels.values())
    return settings is None or settings in known.labels or known.role != Role.TRAIN or not imported_only


@dataclass(frozen=True, slots=True)
class KnownLabel:
    """A label that is recorded; ``source``: where it comes from, for people."""

    label: Label
    imported: bool
    source: str


@dataclass(frozen=True, slots=True)
class Known:
    """A structure that is recorded, with its labels by the name of their settings."""

    id: int
    role: str
    labels: dict[str, KnownLabel] = field(default_factory=dict)


def find_known(connection: Connection, hashes: Iterable[str]) -> dict[str, Known]:
    """Those of these structures that are recorded, by hash."""
    found: dict[str, Known] = {}
    of_label = (labels.c.settings, labels.c.attempt_id, labels.c.data.label("label"), labels.c.provenance)
    for piece in pieces(hashes):
        question = (
            select(structures.c.id, structures.c.hash, structures.c.role, structures.c.source, *of_label)
            .outerjoin(labels, labels.c.structure_id == structures.c.id)
            .where(structures.c.hash.in_(piece))
        )
        for row in connection.execute(question):
            known = found.setdefault(row.hash, Known(row.id, row.role))
            if row.settings is not None:
                origin = row.provenance or {}
                source = f"{origin['file']} #{origin['index']}" if "file" in origin else row.source
                known.labels[row.settings] = KnownLabel(Label.from_json(row.label), row.attempt_id is None, source)
    return found


@dataclass(frozen=True, slots=True)
class Brought:
    """A label that somebody brings, with its structure."""

    candidate: Candidate
    hash: str
    label: Label
    provenance: Json


def add_brought(connection: Connection, brought: Sequence[Brought], *, settings: str, at: float) -> None:
    """Record labels that were not made here, and the structures that are not there yet.

    None of these structures may have a label of these settings, and none may be among them twice.
    """
    if not brought:
        return
    rows = [_row_of(entry.candidate, entry.hash, None) for entry in brought]
    connection.execute(sqlite_insert(structures).on_conflict_do_nothing(index_elements=["hash"]), rows)
    ids: dict[str, int] = {}
    for piece in pieces(entry.hash for entry in brought):
        question = select(structures.c.hash, structures.c.id).where(structures.c.hash.in_(piece))
        ids |= {row.hash: row.id for row in connection.execute(question)}
    connection.execute(
        insert(labels),
        [
            {
                "structure_id": ids[entry.hash],
                "settings": settings,
                "attempt_id": None,
                "added_at": at,
                "data": entry.label.to_json(),
                "provenance": dict(entry.provenance),
            }
            for entry in brought
        ],
    )


def _row_of(candidate: Candidate, content_hash: str, generation: int | None) -> dict[str, Any]:
    return {
        "hash": content_hash,
        "atoms": len(candidate.structure.numbers),
        "role": candidate.role,
        "source": candidate.source,
        "generation": generation,
        "grade": candidate.grade,
        "data": candidate.structure.to_json(),
    }


def note_settings(connection: Connection, name: str, table: Json) -> None:
    """Keep what a name of settings stands for: once, the first time it is said."""
    values = {"key": f"{_SETTINGS}{name}", "value": json.dumps(dict(table), sort_keys=True)}
    connection.execute(sqlite_insert(meta).values(values).on_conflict_do_nothing())


def read_settings(connection: Connection) -> dict[str, dict[str, Any]]:
    """What the names of settings stand for, as far as it was kept."""
    question = select(meta).where(meta.c.key.startswith(_SETTINGS, autoescape=True))
    return {row.key.removeprefix(_SETTINGS): json.loads(row.value) for row in connection.execute(question)}


def add_structures(connection: Connection, candidates: Sequence[Candidate], generation: int | None) -> list[int | None]:
    """Record structures; None in the place of one whose like is there already, in whatever role."""
    found: list[int | None] = []
    for candidate in candidates:
        statement = (
            sqlite_insert(structures)
            .values(_row_of(candidate, candidate.structure.content_hash(), generation))
            .on_conflict_do_nothing(index_elements=["hash"])
            .returning(structures.c.id)
        )
        found.append(connection.execute(statement).scalar_one_or_none())
    return found


def read_structures(connection: Connection, roles: Sequence[str], wanted: str, own: Sequence[str]) -> list[Candidate]:
    """All structures of these roles, labelled or not, that have no label of the settings ``wanted``.

    Those are left out that are here only because they were imported with labels of other settings than ``own``, the
    campaign's. In the order in which they were recorded.
    """
    has = select(labels.c.id).where(labels.c.structure_id == structures.c.id)
    mine = has.where(labels.c.attempt_id.is_not(None) | labels.c.settings.in_(own))
    question = (
        select(structures)
        .where(structures.c.role.in_(roles), ~has.where(labels.c.settings == wanted).exists())
        .where(~has.exists() | mine.exists())
        .order_by(structures.c.id)
    )
    rows = connection.execute(question)
    return [Candidate(Structure.from_json(row.data), row.role, row.source, row.grade) for row in rows]


def add_label(
    connection: Connection,
    content_hash: str,
    label: Label,
    *,
    settings: str,
    attempt_id: int | None,
    at: float,
    provenance: Json | None = None,
) -> bool:
    """Record the label of the structure with this hash; False if it has one with these settings already.

    ``provenance``: engine, version, file …: what tells others where it comes from.
    """
    question = select(structures.c.id).where(structures.c.hash == content_hash)
    statement = (
        sqlite_insert(labels)
        .values(
            structure_id=connection.execute(question).scalar_one(),
            settings=settings,
            attempt_id=attempt_id,
            added_at=at,
            data=label.to_json(),
            provenance=dict(provenance or {}),
        )
        .on_conflict_do_nothing()
        .returning(labels.c.id)
    )
    return connection.execute(statement).scalar_one_or_none() is not None


def read_labelled(
    connection: Connection, role: str, settings: str | None = None
) -> Iterator[tuple[Structure, Label, dict[str, Any]]]:
    """The labelled structures of a role in the order in which they were recorded, with their provenance."""
    question = (
        select(structures, labels.c.data.label("label"), labels.c.attempt_id, labels.c.settings, labels.c.provenance)
        .join(labels, labels.c.structure_id == structures.c.id)
        .where(structures.c.role == role)
        .order_by(structures.c.id)
    )
    if settings is not None:
        question = question.where(labels.c.settings == settings)
    # a few at a time: a set may be larger than memory
    for row in connection.execute(question.execution_options(yield_per=_AT_ONCE)):
        about = {
            "structure_id": row.id,
            "role": row.role,
            "source": row.source,
            "generation": row.generation,
            "grade": row.grade,
            "attempt": row.attempt_id,
            "settings": row.settings,
            "provenance": row.provenance,
        }
        yield Structure.from_json(row.data), Label.from_json(row.label), about


def newest_label(connection: Connection) -> int:
    """The id of the label that was recorded last; labels are never changed, so nothing is new while it is the same."""
    return int(connection.execute(select(func.max(labels.c.id))).scalar_one() or 0)


def count_labels(connection: Connection, settings: str | None = None, *, made_here: bool = False) -> dict[str, int]:
    """How many labels there are of the structures of each role; ``made_here``: those that were not imported."""
    question = select(structures.c.role, func.count()).join(labels, labels.c.structure_id == structures.c.id)
    if settings is not None:
        question = question.where(labels.c.settings == settings)
    if made_here:
        question = question.where(labels.c.attempt_id.is_not(None))
    return {str(row[0]): int(row[1]) for row in connection.execute(question.group_by(structures.c.role))}


def count_by_settings(connection: Connection) -> dict[str, dict[str, int]]:
    """How many labels there are, by the name of their settings and the role of their structures."""
    question = (
        select(labels.c.settings, structures.c.role, func.count())
        .join(labels, labels.c.structure_id == structures.c.id)
        .group_by(labels.c.settings, structures.c.role)
    )
    found: dict[str, dict[str, int]] = {}
    for settings, role, number in connection.execute(question):
        found.setdefault(settings, {})[role] = number
    return found


def add_potential(
    connection: Connection, generation: int, path: str, *, attempt_id: int, facts: Mapping[str, Any], at: float
) -> None:
    """Record the potential that a generation has trained."""
    connection.execute(
        insert(potentials).values(
            generation=generation, path=path, attempt_id=attempt_id, facts=dict(facts), added_at=at
        )
    )


def read_potentials(connection: Connection) -> list[Potential]:
    """All potentials, oldest first."""
    question = select(potentials).order_by(potentials.c.id)
    return [Potential(row.id, row.generation, row.path, row.facts) for row in connection.execute(question)]
