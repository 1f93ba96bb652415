"""The active set of neighbourhoods: rows are the ∂V/∂θ of single atoms (MLIP-3's paper, equations 9 and 10).

There are as many rows as atoms in the training set, tens of thousands and more, so they are made and looked at block
by block; no more than one block is in memory.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from db.errors import InputError
from db.records import Structure
from tasks.mtp.active_set import SWAP_THRESHOLD, ActiveSet, build, exchange, fingerprint
from tasks.mtp.evaluator import Evaluator

Floats = npt.NDArray[np.float64]
#: rows, with the configuration and the atom of each
Block = tuple[Floats, npt.NDArray[np.int64], npt.NDArray[np.int64]]

#: bytes of the rows of one block; a training set whose rows are fewer is looked at as a whole, as MLIP-3 does
BLOCK_BYTES = 64_000_000
#: each exchange makes the volume grow, so it ends; that it takes more passes than a few has not been seen
_MOST_PASSES = 50


def build_of_neighbourhoods(
    evaluator: Evaluator, structures: Sequence[Structure], species: Sequence[int], *, block_bytes: int = BLOCK_BYTES
) -> ActiveSet:
    """The active set of all neighbourhoods of a training set.

    The first block gives a set as :func:`tasks.mtp.active_set.build` finds it; the others are offered to it one by
    one, again and again until none of any block would enter. So no neighbourhood of the training set has a γ above
    1.001, as with one block; which of the many such sets it is depends on the blocks.

    Args:
        evaluator: of the potential.
        structures: at least one.
        species: atomic numbers in the order of the potential's types.
        block_bytes: rows are made until they need as much memory.

    Raises:
        InputError: a structure cannot be used.
        NonsenseCellError: a cell that cannot be one of matter.
    """
    most_rows = max(block_bytes // (8 * evaluator.parameters), 1)

    def blocks() -> Iterator[Block]:
        return _blocks(evaluator, structures, species, most_rows)

    first, *whole = _take(blocks(), 2)
    rows, configurations, atoms = first
    found = build(rows, evaluator.potential)
    chosen = found.indices
    seated = ActiveSet(
        found.matrix,
        found.inverse,
        np.where(chosen >= 0, configurations[chosen], -1),
        fingerprint(evaluator.potential),
        np.where(chosen >= 0, atoms[chosen], -1),
    )
    return _settle(seated, blocks) if whole else seated


def _take(blocks: Iterator[Block], count: int) -> list[Block]:
    return [block for block, _ in zip(blocks, range(count), strict=False)]


def _settle(active: ActiveSet, blocks: Callable[[], Iterator[Block]]) -> ActiveSet:
    """Offer all blocks until none of them changes anything."""
    for _ in range(_MOST_PASSES):
        changed = False
        for rows, configurations, atoms in blocks():
            if active.grades(rows).max() <= SWAP_THRESHOLD:
                continue
            matrix, seats, _after = exchange(active.matrix, active.inverse, rows)
            taken = seats >= 0
            changed = changed or bool(taken.any())
            inverse: Floats = np.asarray(np.linalg.inv(matrix), dtype=np.float64)
            active = ActiveSet(
                matrix,
                inverse,
                np.where(taken, configurations[seats], active.indices),
                active.potential,
                np.where(taken, atoms[seats], np.asarray(active.atoms)),
            )
        if not changed:
            break
    return active


def _blocks(
    evaluator: Evaluator, structures: Sequence[Structure], species: Sequence[int], most_rows: int
) -> Iterator[Block]:
    """All rows of all structures, in order, so many at a time that they fit; a structure is not divided."""
    waiting: list[Floats] = []
    whose: list[tuple[int, int]] = []
    for index, structure in enumerate(structures):
        evaluator.predict_structure(structure, species)
        rows = evaluator.rows()
        if not np.isfinite(rows).all():
            raise InputError(f"configuration {index + 1} gives no finite neighbourhoods", next_step="take it out")
        if waiting and len(whose) + len(rows) > most_rows:
            yield _packed(waiting, whose)
            waiting, whose = [], []
        waiting.append(rows)
        whose.extend((index, atom) for atom in range(len(rows)))
    if waiting:
        yield _packed(waiting, whose)


def _packed(rows: list[Floats], whose: list[tuple[int, int]]) -> Block:
    pairs = np.array(whose, dtype=np.int64)
    return np.concatenate(rows), pairs[:, 0], pairs[:, 1]
