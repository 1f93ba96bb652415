"""Pair potentials behind the protocol of :mod:`tasks.model`: the example of another kind of potential."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from db.errors import InputError
from tasks.pair.potential import PairPredictor, read_pair_potential
from tasks.registry import POTENTIALS

_FILES = POTENTIALS["pair"]


@dataclass(frozen=True, slots=True)
class PairModel:
    """See :class:`tasks.model.Model`."""

    file: str = _FILES.file
    files: tuple[str, ...] = _FILES.files
    optional: tuple[str, ...] = _FILES.optional
    active_sets: bool = False

    def open(self, path: Path, species: Sequence[int], *, skin: float = 0.0) -> PairPredictor:
        """Read a trained potential.

        Raises:
            MissingError: there is none.
            InputError: it is none, or one for other species.
        """
        return PairPredictor(read_pair_potential(path, species), skin=skin)

    def grader(self, folder: Path, species: Sequence[int], grade: str, *, skin: float = 0.0) -> NoReturn:  # noqa: ARG002
        """There is none.

        Raises:
            InputError: always.
        """
        raise InputError(
            f'a pair potential has no active set, so there is no grade by "{grade}"',
            where=str(folder),
            next_step='set explore.grade = "committee" and train.members = 4',
        )


MODEL = PairModel()
