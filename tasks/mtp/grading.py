"""Which potential an exploration or a selection asks, and what γ is to be, as its spec says."""

from collections.abc import Sequence
from pathlib import Path

from db.errors import InputError
from db.records import Json
from tasks.committee import open_committee
from tasks.model import Grader, Model, model

_GRADES = ("configuration", "neighbourhood", "committee")


def grade_of(spec: Json) -> str:
    """What γ is: of the configuration, the highest of its neighbourhoods, or the disagreement of a committee.

    Raises:
        InputError: there is no such grade.
    """
    grade = str(spec.get("grade", "configuration"))
    if grade not in _GRADES:
        raise InputError(f'there is no grade "{grade}"', where="grade", next_step=f"use one of: {', '.join(_GRADES)}")
    return grade


def model_of(spec: Json) -> Model:
    """The kind of its potential."""
    return model(str(spec.get("model", "motep")))


def open_grader(spec: Json, root: Path, species: Sequence[int], *, skin: float = 0.0) -> Grader:
    """The potential of a spec, and what it is graded by.

    Args:
        spec: of an exploration or a selection.
        root: the folder that its paths start from.
        species: atomic numbers in the order of the types.
        skin: Å to add to the cutoff of neighbour lists that are kept from step to step.

    Raises:
        InputError: a file cannot be used, or the potential has no such grade.
        MissingError: a file is not there.
    """
    kind = model_of(spec)
    main = root / spec["potential"]
    if main.name != kind.file or not main.is_file():
        raise InputError(
            f"there is no potential here, or its name is not {kind.file}",
            where=str(main),
            next_step="see `potentials/` in the campaign's folder",
        )
    if grade_of(spec) == "committee":
        return open_committee(kind, [main, *(root / path for path in spec.get("members", []))], species, skin=skin)
    return kind.grader(main.parent, species, grade_of(spec), skin=skin)
