"""Files of calculations that a user has: each configuration with its label, or why it cannot be one.

Read by ASE where it reads well, by our own readers where a whole file must not be lost for one bad step, and where
what was not converged must not pass for a label. The energy is always the one whose derivative the forces are: VASP's
free energy TOTEN (not the energy extrapolated to no smearing, which ASE calls the energy), QE's total energy (which is
F = E − TS), and of others the free energy where the file has one.
"""

import gzip
import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from ase import Atoms

from db.errors import InputError
from db.records import Label, Structure
from tasks.formats.atoms import READER_ERRORS, from_atoms, problem_of
from tasks.formats.cfg import read_cfg, to_label, to_structure
from tasks.formats.given_files import check_xyz


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


def kind_of(path: Path) -> str:
    """What a file is, by its content: "outcar", "vasprun", "pw.out", "pw.xml", "cfg", "xyz", "db", "json" or "".

    Raises:
        InputError: it cannot be read.
    """
    try:
        with opened(path) as file:
            head = file.read(4096)
    except (OSError, EOFError) as error:
        raise InputError(
            f"cannot read the file: {error}", where=str(path), next_step="check its name and its permissions"
        ) from error
    marks = {
        "cfg": head.lstrip().startswith(b"BEGIN_CFG"),
        "db": head.startswith(b"SQLite format 3"),
        "pw.xml": b"qes:espresso" in head,
        "vasprun": b"<modeling>" in head,
        "pw.out": b"Program PWSCF" in head,
        "outcar": head.lstrip()[:5] == b"vasp.",
        "xyz": _suffix(path) in {".xyz", ".extxyz"},
        "json": _suffix(path) == ".json" and b"{" in head,
    }
    return next((name for name, is_so in marks.items() if is_so), "")


def read_frames(path: Path, species: Sequence[str] = ()) -> Iterator[Frame]:
    """The configurations of a file one by one.

    Args:
        species: the elements of the types of a ``.cfg``.

    Raises:
        InputError: the file is none that is understood, or is broken at its beginning. Of what breaks off later the
            last frame tells.
    """
    from tasks.formats import qe_files, vasp_files

    kind = kind_of(path)
    match kind:
        case "outcar":
            return vasp_files.outcar_frames(path)
        case "vasprun":
            return vasp_files.vasprun_frames(path)
        case "pw.out":
            return qe_files.output_frames(path)
        case "pw.xml":
            return qe_files.xml_frames(path)
        case "cfg":
            return _cfg_frames(path, species)
    return _ase_frames(path, kind)


def tell(path: Path) -> Telling:
    """What a file says of how it was made; nothing where it does not."""
    from tasks.formats import qe_files, vasp_files

    match kind_of(path):
        case "outcar":
            return vasp_files.tell_outcar(path)
        case "vasprun":
            return vasp_files.tell_vasprun(path)
        case "pw.out":
            return qe_files.tell_output(path)
        case "pw.xml":
            return qe_files.tell_xml(path)
    return Telling()


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


def _cfg_frames(path: Path, species: Sequence[str]) -> Iterator[Frame]:
    for index in itertools.count(1):
        if index == 1:
            configurations = read_cfg(path)
        try:
            configuration = next(configurations)
        except StopIteration:
            return
        except InputError as error:
            if index == 1:
                raise
            yield Frame(index, None, None, f"{error.what} ({error.where}); what follows was not read")
            return
        structure, label = to_structure(configuration, species), to_label(configuration)
        wrong = problem_of(structure, label)
        if wrong:
            yield Frame(index, None, None, wrong)
        elif label is None:
            yield Frame(index, structure, None, "no energy" if configuration.energy is None else "no forces")
        else:
            # MLIP's energy is by definition the one of the forces
            yield Frame(index, structure, label)


def _ase_frames(path: Path, kind: str) -> Iterator[Frame]:
    import ase.io
    from ase.io.formats import UnknownFileTypeError

    if kind == "xyz" and path.suffix != ".gz":
        check_xyz(path)
    formats = {"xyz": "extxyz", "db": "db", "json": None, "": None}
    index = 0
    try:
        # a name may hold an @, after which ASE would look for an index
        images = ase.io.iread(str(path), index=":", format=formats[kind], do_not_split_by_at_sign=True)
        for atoms in images:
            index += 1
            yield frame_of(atoms, index)
    except (*READER_ERRORS, ase.io.ParseError, UnknownFileTypeError) as error:
        said = f"ASE cannot read the file ({type(error).__name__}: {str(error)[:200]})"
        if index == 0:
            raise InputError(
                said, where=str(path), next_step="check that the file is whole, or convert it to extxyz"
            ) from error
        yield Frame(index + 1, None, None, f"{said}; what follows was not read")


def _suffix(path: Path) -> str:
    return Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
