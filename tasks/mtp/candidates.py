"""The candidates of a selection, one by one from their files: there may be a hundred thousand."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from db.records import Json, Structure
from tasks.model import enclosing_cell
from tasks.mtp.data_sets import Sample, stream_samples
from tasks.mtp.neighbours import NonsenseCellError, find_neighbours

#: configurations of a trajectory in a window of so many steps are alike
_WINDOW = 100


@dataclass(frozen=True, slots=True)
class Sanity:
    """What a configuration must be like before anybody pays for its label.

    Attributes:
        min_distance: Å; None: any.
        volume_per_atom: Å³, from and to; None: any.
    """

    min_distance: float | None
    volume_per_atom: tuple[float, float] | None

    def complaint(self, structure: Structure) -> str | None:
        """``too_close`` or ``bad_volume``, or None for a sane configuration."""
        positions = np.array(structure.positions).reshape(-1, 3)
        reach = self.min_distance or 0.01
        cell = enclosing_cell(positions, np.array(structure.cell), structure.pbc, reach)
        volume = abs(float(np.linalg.det(cell))) / len(positions)
        if not np.isfinite(volume):
            return "bad_volume"
        if self.volume_per_atom is not None and all(structure.pbc):
            low, high = self.volume_per_atom
            if not low <= volume <= high:
                return "bad_volume"
        try:
            near = find_neighbours(positions, cell, reach)
        except NonsenseCellError:
            return "bad_volume"
        return None if near.blank.all() else "too_close"


def sanity_of(spec: Json) -> Sanity:
    """What a spec wants of candidates."""
    volume = spec.get("volume_per_atom")
    return Sanity(spec.get("min_distance"), None if volume is None else (float(volume[0]), float(volume[1])))


def pool(spec: Json, root: Path, symbols: Sequence[str]) -> Iterator[Sample]:
    """All candidates, each with the file that it comes from; the same ones in the same order every time.

    Raises:
        InputError: a file is not there, or not a ``.cfg`` file.
    """
    for name in spec["candidates"]:
        for sample in stream_samples(root / name, symbols):
            yield Sample(sample.structure, None, {**sample.features, "source": str(name)}, sample.grades)


def sane(
    samples: Iterator[Sample], sanity: Sanity, known: set[str], counts: dict[str, int]
) -> Iterator[tuple[int, Sample]]:
    """Those worth a look, with their places among all; the others are counted by what is wrong with them."""
    seen = set(known)
    for place, sample in enumerate(samples):
        counts["candidates"] += 1
        complaint = sanity.complaint(sample.structure)
        content = sample.structure.content_hash()
        if complaint is None and content in seen:
            complaint = "duplicates"
        if complaint is not None:
            counts[complaint] += 1
            continue
        seen.add(content)
        yield place, sample


def window_of(place: int, sample: Sample) -> tuple[str, ...]:
    """The same for configurations of one trajectory that are at most 100 steps apart, and so much alike."""
    step = sample.features.get("step", "")
    if not step.isdigit():
        return (str(place),)
    features = sample.features
    return features.get("source", ""), features.get("structure", ""), str(int(step) // _WINDOW)
