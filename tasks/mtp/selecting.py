"""Select: of all configurations that the explorations kept, the few that are worth a reference calculation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from db.errors import InputError
from db.records import Json, Structure
from tasks.mtp.active_set import Enlarged, build, enlarge, load_active_set, rows_of
from tasks.mtp.data_sets import Sample, numbers_of, read_samples, symbols_of, write_samples
from tasks.mtp.evaluator import Evaluator, enclosing_cell, open_potential
from tasks.mtp.neighbours import NonsenseCellError, find_neighbours

Floats = npt.NDArray[np.float64]


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


def select(spec: Json, root: Path, where: Path) -> dict[str, Any]:
    """Choose, write selected.cfg into ``where``, and return the facts.

    Raises:
        InputError: a file or an option cannot be used.
        StorageError: the disk refuses.
    """
    symbols = symbols_of(spec)
    species = numbers_of(symbols)
    method = str(spec["method"])
    if method not in {"maxvol", "all"}:
        raise InputError(f"there is no method of selection {method!r}", next_step='use "maxvol" or "all"')
    potential = open_potential(root / spec["potential"], species)
    load_active_set(root / spec["active_set"], potential)  # refuses one of another potential
    training = [sample.structure for sample in read_samples(root / spec["train"], symbols)]
    counts = {"candidates": 0, "too_close": 0, "bad_volume": 0, "duplicates": 0}
    volume = spec.get("volume_per_atom")
    sanity = Sanity(spec.get("min_distance"), None if volume is None else (float(volume[0]), float(volume[1])))
    known = {structure.content_hash() for structure in training}
    candidates = list(_sane(_pool(spec, root, symbols), sanity, known, counts))
    evaluator = Evaluator(potential)
    candidates, rows = _graded(evaluator, candidates, species, counts)
    active = build(rows_of(evaluator, training, species), potential)
    found = enlarge(active, rows)
    chosen = _choose(found, method, float(spec["gamma_save"]), spec.get("limit"))
    samples = [_marked(candidates[k], float(found.grades[k])) for k in chosen]
    write_samples(where / "selected.cfg", samples, symbols)
    print(
        f"{counts['candidates']} candidates: {counts['too_close']} too close, {counts['bad_volume']} of a wrong "
        f"volume, {counts['duplicates']} duplicates; {len(samples)} selected ({method})",
        flush=True,
    )
    highest = float(found.grades.max(initial=0.0))
    return {**counts, "selected": len(samples), "gamma_max": highest, "entered": len(found.entered)}


def _pool(spec: Json, root: Path, symbols: Sequence[str]) -> Iterator[Sample]:
    """All candidates, each with the file it comes from."""
    for name in spec["candidates"]:
        for sample in read_samples(root / name, symbols):
            yield Sample(sample.structure, None, {**sample.features, "source": str(name)})


def _sane(pool: Iterator[Sample], sanity: Sanity, known: set[str], counts: dict[str, int]) -> Iterator[Sample]:
    """Those worth a look; the others are counted by what is wrong with them."""
    seen = set(known)
    for sample in pool:
        counts["candidates"] += 1
        complaint = sanity.complaint(sample.structure)
        content = sample.structure.content_hash()
        if complaint is None and content in seen:
            complaint = "duplicates"
        if complaint is not None:
            counts[complaint] += 1
            continue
        seen.add(content)
        yield sample


def _graded(
    evaluator: Evaluator, candidates: list[Sample], species: Sequence[int], counts: dict[str, int]
) -> tuple[list[Sample], Floats]:
    """Those whose b can be computed, and their b; atoms in one place give none."""
    kept, rows = [], []
    for sample in candidates:
        try:
            row = rows_of(evaluator, [sample.structure], species)[0]
        except NonsenseCellError:
            row = np.full(evaluator.parameters, np.nan)
        if np.isfinite(row).all():
            kept.append(sample)
            rows.append(row)
        else:
            counts["too_close"] += 1
    return kept, np.array(rows).reshape(-1, evaluator.parameters)


def _choose(found: Enlarged, method: str, gamma_save: float, limit: int | None) -> list[int]:
    """Indices of the chosen, in the order of the candidates; with a limit those of the highest γ."""
    if method == "all":
        chosen = np.flatnonzero(found.grades > max(gamma_save, 0.0))
    else:
        chosen = np.array(found.entered, dtype=int)
    if limit is not None and len(chosen) > limit:
        chosen = chosen[np.argsort(-found.grades[chosen], kind="stable")[:limit]]
    return sorted(int(k) for k in chosen)


def _marked(sample: Sample, gamma: float) -> Sample:
    return Sample(sample.structure, None, {**sample.features, "MV_grade": f"{gamma:.6f}"})
