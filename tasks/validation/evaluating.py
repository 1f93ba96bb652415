"""Evaluate: errors on sets, lattice parameter, energy–volume curve and elastic constants, beside the reference's."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from db.errors import InputError
from db.records import Json, Structure
from pilot import host
from tasks.model import Model, Predictor, model, predict_structure, types_of
from tasks.mtp.data_sets import numbers_of, read_labelled, symbols_of
from tasks.mtp.errors_of_fit import Pair
from tasks.mtp.neighbours import NonsenseCellError
from tasks.validation.crystal import Crystal, crystal_of
from tasks.validation.curve import Points, apart, fit_curve, lattice_parameter, points_of
from tasks.validation.elastic import Constants, NoConstantsError
from tasks.validation.error_bars import gathered, half_width
from tasks.validation.parity import FILE as PARITY_FILE
from tasks.validation.parity import write_parity
from tasks.validation.sets import Seen, correlation, errors_on, look_at
from tasks.validation.strained_cells import atoms_would_move, constants_of_cells

#: what is measured on, each named for what it is, in this order in the log
SETS = ("train", "holdout", "test", "sample")
#: the training has measured its errors on the whole of its set: here a part of a large one will do
MOST_ATOMS: Mapping[str, float] = MappingProxyType({"train": 10_000})
#: so often one configuration is predicted to know how long it takes
_REPEATS = 9


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the spec asks, with its files read once for all members.

    Attributes:
        structure: the cell of the crystal, if any.
        elastic: whether elastic constants are wanted.
    """

    root: Path
    species: list[int]
    symbols: list[str]
    kind: Model
    structure: Structure | None
    elastic: bool
    holdout: Path | None


def evaluate(spec: Json, root: Path, where: Path) -> dict[str, Any]:
    """Compute the facts, and write what plots need to ``parity.npz`` in ``where``.

    All volumes and energies of ``eos`` are per atom (Å³, eV). ``bulk_modulus`` is that at the potential's own minimum,
    ``bulk_modulus_at_reference`` is fitted to the very points from which ``bulk_modulus_dft`` is.

    ``elastic`` are the constants at the potential's own minimum, with atoms that answer to the strain; ``elastic_dft``
    those of the reference's strained cells, whose atoms are where the strain puts them; ``elastic_at_reference`` what
    the potential says of those very cells: only these two compare like with like. Where a quantity that was asked for
    is None, ``reason`` or ``elastic_reason`` says why.

    Raises:
        InputError: a file cannot be used.
        StorageError: the disk refuses.
    """
    symbols = symbols_of(spec)
    species = numbers_of(symbols)
    kind = model(str(spec.get("model") or "motep"))
    predictor = kind.open(root / spec["potential"], species)
    sets = {
        name: look_at(predictor, root / spec[name], symbols, species, most_atoms=MOST_ATOMS.get(name, math.inf))
        for name in SETS
        if spec.get(name)
    }
    errors = {name: errors_on(name, sets[name]) if name in sets else None for name in SETS}
    points = read_labelled(root / spec["eos"], symbols) if spec.get("eos") else []
    strained = read_labelled(root / spec["elastic"], symbols) if spec.get("elastic") else []
    asked = _Asked(
        root,
        species,
        symbols,
        kind,
        _structure(spec, points),
        bool(strained or spec.get("elastic_strain")),
        root / spec["holdout"] if spec.get("holdout") else None,
    )
    crystal = crystal_of(predictor, asked.structure, species, elastic=asked.elastic)
    facts: dict[str, Any] = {
        **errors,
        "sample_correlation": correlation(sets.get("sample", [])),
        **_lattice(asked, crystal, points_of(predictor, points, species)),
        **_elastic(predictor, asked, crystal, strained),
        **_ensemble(spec, asked, errors["holdout"], crystal),
        "seconds_per_atom_step": _cost(predictor, asked, sets.get("holdout", [])),
    }
    write_parity(where / PARITY_FILE, sets)
    return facts


def _structure(spec: Json, points: Sequence[Pair]) -> Structure | None:
    lattice = spec.get("lattice")
    if lattice is not None:
        structure = Structure.from_json(lattice["structure"])
    elif points:
        structure = points[0][0]
    else:
        return None
    if not all(structure.pbc):
        raise InputError("the lattice wants a cell that is periodic in three directions", where="lattice")
    return structure


def _lattice(asked: _Asked, crystal: Crystal, points: Points | None) -> dict[str, Any]:
    """Lattice parameter, bulk modulus and curves, the potential's and the reference's."""
    mine = crystal.curve
    reference = None if points is None else fit_curve(points.volumes, points.reference)
    facts: dict[str, Any] = {
        "lattice_parameter": crystal.lattice_parameter,
        "lattice_parameter_dft": None,
        "bulk_modulus": None if mine is None else mine.bulk_modulus,
        "bulk_modulus_dft": None if reference is None else reference.bulk_modulus,
        "bulk_modulus_at_reference": None,
        "curve_difference": None,
        "eos": None
        if points is None
        else {"volumes": points.volumes, "energies": points.energies, "energies_dft": points.reference},
    }
    if points is not None:
        # fitted to few points far apart, a curve is another: so the potential's is fitted to the same ones, too
        same = fit_curve(points.volumes, points.energies)
        facts["bulk_modulus_at_reference"] = None if same is None else same.bulk_modulus
    if asked.structure is None:
        return facts
    if points is not None and mine is not None and reference is not None:
        facts["curve_difference"] = apart(points, mine, reference)
    if reference is not None:
        facts["lattice_parameter_dft"] = lattice_parameter(asked.structure, reference.volume)
    reason = crystal.reasons.get("reason", "")
    if reason:
        facts["reason"] = reason
    print(
        f"lattice parameter {_number(facts['lattice_parameter'])} Å (reference "
        f"{_number(facts['lattice_parameter_dft'])}), bulk modulus {_number(facts['bulk_modulus'])} GPa "
        f"(reference {_number(facts['bulk_modulus_dft'])}){'; ' + reason if reason else ''}",
        flush=True,
    )
    return facts


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.5g}"


def _elastic(predictor: Predictor, asked: _Asked, crystal: Crystal, strained: Sequence[Pair]) -> dict[str, Any]:
    """The elastic constants of both, each under the name of what it is."""
    found: dict[str, Constants | None] = {"elastic": crystal.constants}
    found |= {"elastic_at_reference": None, "elastic_dft": None}
    reason = crystal.reasons.get("elastic_reason", "")
    if strained:
        try:
            found["elastic_dft"], found["elastic_at_reference"] = _on_the_same_cells(predictor, asked, strained)
        except NoConstantsError as error:
            reason = f"{reason}; the reference's: {error}" if reason else f"the reference's: {error}"
    known = {name: constants for name, constants in found.items() if constants is not None}
    for name, constants in known.items():
        words = ", ".join(f"{key} {value:.4g}" for key, value in constants.named.items())
        print(f"{name.replace('_', ' ')}: {words} GPa{'' if constants.moduli['stable'] else '; UNSTABLE'}", flush=True)
    if reason:
        print(f"no elastic constants: {reason}", flush=True)
    facts: dict[str, Any] = {name: known[name].named if name in known else None for name in found}
    facts["elastic_moduli"] = {name: constants.moduli for name, constants in known.items()} or None
    facts["elastic_difference"] = None
    facts["elastic_clamped"] = atoms_would_move(strained) if strained else None
    mine, theirs = facts["elastic_at_reference"], facts["elastic_dft"]
    if mine is not None and theirs is not None:
        facts["elastic_difference"] = max(abs(mine[name] - theirs[name]) for name in theirs)
    return facts | ({"elastic_reason": reason} if reason else {})


def _on_the_same_cells(
    predictor: Predictor, asked: _Asked, strained: Sequence[Pair]
) -> tuple[Constants | None, Constants | None]:
    """The reference's constants and the potential's, from the very same cells."""
    pairs = [(structure, label.stress) for structure, label in strained if label.stress is not None]
    if not pairs:
        raise NoConstantsError("no strained cell has a stress")
    cells = [structure for structure, _ in pairs]
    theirs = constants_of_cells(cells, [np.array(stress) for _, stress in pairs])
    try:
        seen = [predict_structure(predictor, cell, asked.species).stress for cell in cells]
    except NonsenseCellError as error:
        raise InputError(f"a cell for elastic constants cannot be used: {error}", where="elastic") from error
    return theirs, constants_of_cells(cells, seen)


def _ensemble(spec: Json, asked: _Asked, errors: dict[str, Any] | None, crystal: Crystal) -> dict[str, Any]:
    """Each quantity of each member, and its error bar; the potential itself is the first member."""
    others = [path for path in spec.get("members") or [] if path != spec["potential"]]
    if not others:
        return {"members": None, "error_bars": None}
    found = [_quantities(errors, crystal), *(_of_member(path, asked) for path in others)]
    members = gathered(found)
    bars = {name: half_width(values) for name, values in members.items()}
    print(f"{len(found)} members: " + ", ".join(f"{n} ± {_number(b)}" for n, b in bars.items() if b), flush=True)
    return {"members": members, "error_bars": bars}


def _of_member(path: str, asked: _Asked) -> dict[str, float | None]:
    if not (asked.root / path).exists():
        print(f"{path} is not there: that member has not been trained", flush=True)
        return {}
    predictor = asked.kind.open(asked.root / path, asked.species)
    errors = None
    if asked.holdout is not None:
        errors = errors_on(f"holdout, {path}", look_at(predictor, asked.holdout, asked.symbols, asked.species))
    return _quantities(errors, crystal_of(predictor, asked.structure, asked.species, elastic=asked.elastic))


def _quantities(errors: dict[str, Any] | None, crystal: Crystal) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    if errors is not None:
        found |= {name: errors[name] for name in ("eps_F", "eps_E_per_atom")}
    if crystal.curve is not None:
        found |= {"lattice_parameter": crystal.lattice_parameter, "bulk_modulus": crystal.curve.bulk_modulus}
    if crystal.constants is not None:
        found |= crystal.constants.named
    return found


def _cost(predictor: Predictor, asked: _Asked, holdout: Sequence[Seen]) -> float | None:
    """Seconds of one evaluation of energy, forces and stress, an atom, on the largest cell of the holdout.

    The neighbours are kept, as they are along a trajectory from most steps to the next.
    """
    periodic = [one.structure for one in holdout if all(one.structure.pbc)]
    structure = max(periodic, key=lambda one: len(one.numbers), default=asked.structure)
    if structure is None:
        return None
    types = types_of(structure.numbers, asked.species)
    positions, cell = np.array(structure.positions, dtype=float), np.array(structure.cell, dtype=float)
    seconds = []
    try:
        for _ in range(_REPEATS):
            begin = host.monotonic()
            predictor.predict(types, positions, cell)
            seconds.append(host.monotonic() - begin)
    except NonsenseCellError:
        return None
    return statistics.median(seconds) / len(types)
