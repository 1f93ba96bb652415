"""A configuration of a file with its label, or with the reason why it has none; and what files say of themselves."""

import gzip
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from ase import Atoms

from db.records import Label, Structure
from tasks.formats.atoms import from_atoms, problem_of


@dataclass(frozen=True, slots=True)
class Frame:
    """One configuration of a file.

    Attributes:
        index: its number in the file, from 1.
        structure: None where not even that could be read.
        label: energy, forces and, where there is one, stress; None if they are missing or must not be trusted.
        problem: why there is no label, or "".
        energy: what the energy is: "free energy", or "energy" where the file has no other.
    """

    index: int
    structure: Structure | None
    label: Label | None
    problem: str = ""
    energy: str = "free energy"


@dataclass(frozen=True, slots=True)
class Telling:
    """What a file says of the calculation that made it.

    Attributes:
        engine: "vasp", "qe" or "" where the file does not say.
        version: of that program.
        settings: by the names that the engine's table in pilot.toml has, as far as the file tells.
    """

    engine: str = ""
    version: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


def opened(path: Path) -> IO[bytes]:
    """The bytes of a file, unpacked if its name ends in .gz."""
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def opened_text(path: Path) -> io.TextIOWrapper:
    """The text of a file, unpacked if its name ends in .gz."""
    return io.TextIOWrapper(opened(path), encoding="utf-8", errors="replace")


def frame_of(atoms: Atoms, index: int, problem: str = "") -> Frame:
    """A configuration that ASE has read; ``problem``: why its label must not be used."""
    try:
        structure, label = from_atoms(atoms)
        wrong = problem_of(structure, label)
    except (TypeError, ValueError) as error:
        return Frame(index, None, None, f"its numbers cannot be used ({error})")
    if wrong:
        return Frame(index, None, None, wrong)
    results: Mapping[str, Any] = {} if atoms.calc is None else atoms.calc.results
    if label is None and not problem:
        problem = "no energy" if results.get("energy") is None and "free_energy" not in results else "no forces"
        problem += _named_otherwise(atoms)
    kind = "free energy" if results.get("free_energy") is not None else "energy"
    return Frame(index, structure, None if problem else _with_virial(atoms, structure, label), problem, kind)


def _named_otherwise(atoms: Atoms) -> str:
    names = [name for name in (*atoms.info, *atoms.arrays) if "energ" in name.lower() or "force" in name.lower()]
    return f" (but {', '.join(sorted(names))}: call them energy and forces)" if names else ""


def _with_virial(atoms: Atoms, structure: Structure, label: Label | None) -> Label | None:
    """Of a file that gives the virial, −V·σ in eV, instead of the stress."""
    virial = atoms.info.get("virial")
    if label is None or label.stress is not None or virial is None or not all(structure.pbc):
        return label
    matrix = np.asarray(virial, dtype=float)
    if matrix.size != 9 or not np.isfinite(matrix).all():
        return label
    xx, yy, zz, yz, xz, xy = (float(-x / atoms.get_volume()) for x in matrix.reshape(9)[[0, 4, 8, 5, 2, 1]])
    return Label(label.energy, label.forces, (xx, yy, zz, yz, xz, xy))
