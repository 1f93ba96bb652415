"""Files of calculations that a user has: each configuration with its label, or why it cannot be one.

Read by ASE where it reads well, by our own readers where a whole file must not be lost for one bad step, and where
what was not converged must not pass for a label. The energy is always the one whose derivative the forces are: VASP's
free energy TOTEN (not the energy extrapolated to no smearing, which ASE calls the energy), QE's total energy (which is
F = E − TS), and of others the free energy where the file has one.
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from db.errors import InputError
from tasks.formats import qe_files, vasp_files
from tasks.formats.atoms import READER_ERRORS, problem_of
from tasks.formats.cfg import read_cfg, to_label, to_structure
from tasks.formats.frames import Frame, Telling, frame_of, opened
from tasks.formats.given_files import check_xyz


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
