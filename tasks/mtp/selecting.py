"""Select: of all configurations that the explorations kept, the few that are worth a reference calculation.

The candidates are read twice: once to grade them, of which no more is kept than their rows, and once more to take those
that were chosen.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from db.errors import InputError
from db.records import Json
from tasks.model import Grader, predict_structure
from tasks.mtp.active_set import ActiveSet, enlarge, rows_of
from tasks.mtp.candidates import pool, sane, sanity_of, window_of
from tasks.mtp.cutting import cut, extrapolative
from tasks.mtp.data_sets import Sample, numbers_of, stream_samples, symbols_of, write_samples
from tasks.mtp.grading import open_grader
from tasks.mtp.model import ConfigurationGrader, NeighbourhoodGrader
from tasks.mtp.neighbours import NonsenseCellError

Floats = npt.NDArray[np.float64]

_METHODS = ("maxvol", "all", "highest")
#: of the method "highest", where the spec has no limit
_HIGHEST = 20
#: rows that need more are thinned; a row needs so much besides its numbers
_MOST_BYTES, _OVERHEAD = 128_000_000, 400


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen of one candidate.

    Attributes:
        place: of the candidate among all.
        gamma: of the candidate, or of the atom.
        atom: whose neighbourhood was chosen; None: the configuration was.
    """

    place: int
    gamma: float
    atom: int | None = None


@dataclass(slots=True)
class Graded:
    """What is kept of the candidates: one entry a configuration, or one an extrapolative neighbourhood.

    Attributes:
        choices: what each entry would be if it were chosen.
        windows: :func:`window_of` of each.
        rows: of each; none where the potential has no active set.
    """

    choices: list[Choice] = field(default_factory=list)
    windows: list[tuple[str, ...]] = field(default_factory=list)
    rows: list[Floats] = field(default_factory=list)

    def grades(self) -> Floats:
        """γ of each."""
        return np.array([choice.gamma for choice in self.choices])


def select(spec: Json, root: Path, where: Path) -> dict[str, Any]:
    """Choose, write selected.cfg into ``where``, and return the facts.

    Raises:
        InputError: a file or an option cannot be used.
        StorageError: the disk refuses.
    """
    symbols = symbols_of(spec)
    species = numbers_of(symbols)
    method = str(spec["method"])
    if method not in _METHODS:
        raise InputError(f"there is no method of selection {method!r}", next_step=f"use one of: {', '.join(_METHODS)}")
    grader = open_grader(spec, root, species)
    active = _active_set(grader)
    if method == "maxvol" and active is None:
        method = "highest"  # a committee knows no volume
    counts = {"candidates": 0, "too_close": 0, "bad_volume": 0, "duplicates": 0}
    known = {sample.structure.content_hash() for sample in stream_samples(root / spec["train"], symbols)}
    candidates = sane(pool(spec, root, symbols), sanity_of(spec), known, counts)
    above = float(spec["gamma_save"])
    graded, highest = _graded(grader, candidates, species, above, counts, with_rows=method == "maxvol")
    if method == "maxvol" and active is not None:
        rows = np.array(graded.rows).reshape(-1, len(active.matrix))
        graded.rows.clear()  # they need as much memory once more
        training = None
        if isinstance(grader, ConfigurationGrader):  # the places are offered to it once more, as MLIP-3 does
            known_ones = [sample.structure for sample in stream_samples(root / spec["train"], symbols)]
            training = rows_of(grader.evaluator, known_ones, species)
        chosen = list(enlarge(active, rows, training).entered)
    else:
        chosen = _above(graded, above) if method == "all" else _highest(graded, spec.get("limit") or _HIGHEST)
    samples = list(_taken([graded.choices[k] for k in chosen], pool(spec, root, symbols), spec.get("neighbourhoods")))
    samples = _limited(samples, spec.get("limit"))
    write_samples(where / "selected.cfg", samples, symbols)
    print(
        f"{counts['candidates']} candidates: {counts['too_close']} too close, {counts['bad_volume']} of a wrong "
        f"volume, {counts['duplicates']} duplicates; {len(samples)} selected ({method})",
        flush=True,
    )
    return {**counts, "selected": len(samples), "gamma_max": highest, "entered": len(chosen), "method": method}


def _active_set(grader: Grader) -> ActiveSet | None:
    return grader.active if isinstance(grader, ConfigurationGrader | NeighbourhoodGrader) else None


def _graded(
    grader: Grader,
    candidates: Iterator[tuple[int, Sample]],
    species: Sequence[int],
    above: float,
    counts: dict[str, int],
    *,
    with_rows: bool,
) -> tuple[Graded, float]:
    """Those whose γ can be computed, and the highest γ; atoms in one place give none."""
    graded, highest = Graded(), 0.0
    for place, sample in candidates:
        try:
            grader.forget()
            predict_structure(grader, sample.structure, species)
            gamma, choices, rows = _entries(grader, place, above)
        except NonsenseCellError:
            gamma = np.nan
        if not np.isfinite(gamma):
            counts["too_close"] += 1
            continue
        highest = max(highest, gamma)
        # without MaxVol only the highest of a configuration can be chosen
        choices = choices if with_rows else choices[:1]
        graded.choices += choices
        graded.windows += [window_of(place, sample)] * len(choices)
        graded.rows += rows if with_rows else []
        if graded.rows and len(graded.rows) * (graded.rows[0].nbytes + _OVERHEAD) > _MOST_BYTES:
            graded = _thinned(graded, _active_set(grader))
    return graded, highest


def _thinned(graded: Graded, active: ActiveSet | None) -> Graded:
    """Those that would enter if there were no more; memory stays bounded, however many candidates there are.

    The others are unlikely to enter afterwards: with these in the active set their γ is not above 1.001.
    """
    if active is None:
        return graded
    some = enlarge(active, np.array(graded.rows)).entered
    return Graded([graded.choices[k] for k in some], [graded.windows[k] for k in some], [graded.rows[k] for k in some])


def _entries(grader: Grader, place: int, above: float) -> tuple[float, list[Choice], list[Floats]]:
    """γ of what was predicted last; what could be chosen of it, the highest first; and the rows of that."""
    if isinstance(grader, NeighbourhoodGrader):
        rows = grader.evaluator.rows()
        grades = grader.active.grades(rows)
        atoms = extrapolative(grades, above)
        return float(grades.max()), [Choice(place, float(grades[k]), k) for k in atoms], [rows[k].copy() for k in atoms]
    if isinstance(grader, ConfigurationGrader):
        row = grader.evaluator.row()
        gamma = grader.active.grade(row)
        return gamma, [Choice(place, gamma)], [row]
    gamma = grader.grade()
    return gamma, [Choice(place, gamma)], []


def _above(graded: Graded, above: float) -> list[int]:
    """All with a γ above the threshold."""
    return [int(k) for k in np.flatnonzero(graded.grades() > max(above, 0.0))]


def _highest(graded: Graded, limit: int) -> list[int]:
    """Those with the highest γ, one of each window of a trajectory at most."""
    chosen: list[int] = []
    windows = set()
    for k in np.argsort(-graded.grades(), kind="stable").tolist():
        if len(chosen) == limit:
            break
        if graded.windows[k] not in windows:
            windows.add(graded.windows[k])
            chosen.append(k)
    return sorted(chosen)


def _taken(chosen: Sequence[Choice], samples: Iterator[Sample], table: Json | None) -> Iterator[Sample]:
    """The chosen ones from the files, neighbourhoods cut out as ``table`` says, in the order of the candidates."""
    waiting: dict[int, list[Choice]] = {}
    for choice in chosen:
        waiting.setdefault(choice.place, []).append(choice)
    numbers: Counter[str] = Counter()
    for place, sample in enumerate(samples):
        numbers[sample.features["source"]] += 1
        for choice in waiting.pop(place, ()):
            taken = _piece(sample, choice, numbers[sample.features["source"]], table)
            yield taken
            if "box" not in taken.features:  # the whole: once is enough
                break
        if not waiting:
            return


def _piece(sample: Sample, choice: Choice, number: int, table: Json | None) -> Sample:
    """What becomes of one that was chosen; ``number`` is its own in its file, from 1."""
    features = {**sample.features, "MV_grade": f"{choice.gamma:.6f}"}
    if choice.atom is None:
        return Sample(sample.structure, None, features)
    features["nbh_of"] = f"{number}/{sample.features['source']}"
    features["nbh_atom"] = str(choice.atom + 1)
    if table is None:
        return Sample(sample.structure, None, features)
    piece = cut(sample.structure, choice.atom, float(table["radius"]), float(table["vacuum"]))
    if not piece.whole:
        features["box"] = " ".join(repr(length) for length in piece.box)
    return Sample(piece.structure, None, features)


def _limited(samples: Sequence[Sample], limit: int | None) -> list[Sample]:
    """No cluster twice, and with a limit those of the highest γ; in the same order."""
    different = list({sample.structure.content_hash(): sample for sample in reversed(samples)}.values())[::-1]
    if limit is None or len(different) <= limit:
        return different
    grades = np.array([float(sample.features["MV_grade"]) for sample in different])
    return [different[k] for k in sorted(np.argsort(-grades, kind="stable")[:limit].tolist())]
