"""What pw.x has left for a user: its output (one or many steps) and its XML.

The total energy is F = E − TS, the one that the forces belong to. The stress is printed with the sign opposite to
ASE's.
"""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers
from ase.units import create_units

from db.errors import InputError
from db.records import Label, Structure, Vector
from tasks.formats.atoms import READER_ERRORS, problem_of
from tasks.formats.frames import Frame, Telling, frame_of, opened, opened_text

#: as ASE's reader of the output has them, so that a label is the same by either way
_UNITS = create_units("2006")
_BOHR, _HARTREE = float(_UNITS["Bohr"]), float(_UNITS["Hartree"])
_RY = _HARTREE / 2
_FLOAT = r"([-+]?[0-9.]+(?:[EeDd][-+]?[0-9]+)?)"
_ENERGY = re.compile(r"^!!? +total energy", re.MULTILINE)
_ACCURACY = re.compile(rf"estimated scf accuracy\s+<\s*{_FLOAT}\s+Ry")
_THRESHOLD = re.compile(rf"(?:scf convergence threshold|convergence threshold|new conv_thr)\s*=\s*{_FLOAT}")
_NOT_CONVERGED = "the electrons were not converged"
_CUT = "the output ends in the middle of this step"


def output_frames(path: Path) -> Iterator[Frame]:
    """The steps of an output of pw.x (scf, relax, md).

    Raises:
        InputError: it cannot be read, or is of more than one run.
    """
    import ase.io
    from ase.io.espresso import read_espresso_out

    with opened_text(path) as file:
        text = file.read()
    if text.count("Program PWSCF") > 1:
        raise InputError("the output of more than one run", where=str(path), next_step="cut it into one file a run")
    steps = _converged_steps(text)
    given_up = text.count("convergence NOT achieved")
    index = 0
    try:
        with opened_text(path) as file:
            images = read_espresso_out(file, index=slice(None), results_required=False)
            # behind the last energy may stand a structure of which the run had not got the energy yet
            for index, (atoms, converged) in enumerate(zip(images, steps, strict=False), 1):
                results = {} if atoms.calc is None else atoms.calc.results
                cut = "" if "forces" in results else _CUT if "JOB DONE" not in text else "no forces (tprnfor)"
                yield frame_of(atoms, index, cut if converged else _NOT_CONVERGED)
    except (*READER_ERRORS, ase.io.ParseError) as error:
        if index == 0 and not given_up:
            raise InputError(
                f"{_CUT}, before its first energy"
                if "JOB DONE" not in text
                else f"ASE cannot read the output ({type(error).__name__}: {str(error)[:200]})",
                where=str(path),
                next_step="check that the file is whole, or leave it out",
            ) from error
    if given_up:
        yield Frame(index + 1, None, None, _NOT_CONVERGED)
    elif "JOB DONE" not in text:
        yield Frame(index + 1, None, None, _CUT)
    elif index == 0:
        yield Frame(1, None, None, "no energy")


def _converged_steps(text: str) -> list[bool]:
    """Of each total energy whether the accuracy printed below it is within the threshold that holds there."""
    places = [found.start() for found in _ENERGY.finditer(text)]
    thresholds = [(found.start(), _number(found[1])) for found in _THRESHOLD.finditer(text)]
    steps = []
    for place, end in pairwise([*places, len(text)]):
        accuracy = _ACCURACY.search(text, place, end)
        below = [value for at, value in thresholds if at < place]
        # the threshold is printed with two digits, the accuracy with eight places
        is_so = accuracy is not None and bool(below) and _number(accuracy[1]) <= 1.1 * below[-1] + 1e-8
        steps.append(is_so and "convergence NOT achieved" not in text[place:end].split("Self-consistent")[0])
    return steps


def tell_output(path: Path) -> Telling:
    """What the head of an output says."""
    with opened(path) as file:
        head = file.read(100_000).decode("utf-8", "replace")
    version = re.search(r"Program PWSCF v\.?\s*(\S+)", head)
    told: dict[str, Any] = {}
    for key, pattern in (
        ("ecutwfc", rf"kinetic-energy cutoff\s*=\s*{_FLOAT}"),
        ("ecutrho", rf"charge density cutoff\s*=\s*{_FLOAT}"),
        ("degauss", rf"smearing, width \(Ry\)=\s*{_FLOAT}"),
    ):
        found = re.search(pattern, head)
        if found:
            told[key] = _number(found[1])
    names = re.findall(r"PseudoPot\. #\s*\d+ for (\w+)\s+read from file:\s*(\S+)", head)
    if names:
        told["pseudopotentials"] = {symbol: Path(name).name for symbol, name in names}
    functional = re.search(r"Exchange-correlation\s*=\s*(.*?)\s*(?:\(|$)", head, re.MULTILINE)
    if functional:
        told["functional"] = functional[1]
    return Telling("qe", version[1] if version else "", told)


def xml_frames(path: Path) -> Iterator[Frame]:
    """The last step of an XML file of pw.x (``data-file-schema.xml`` or ``PREFIX.xml``): more it does not hold whole.

    Raises:
        InputError: it is no XML.
    """
    output = _root(path).find("output")
    problem = _CUT if output is None else _xml_problem(output)
    if output is None or problem == _CUT:
        yield Frame(1, None, None, problem)
        return
    structure = _xml_structure(output)
    label = None if problem else _xml_label(output)
    wrong = problem_of(structure, label)
    yield Frame(1, None, None, wrong) if wrong else Frame(1, structure, label, problem)


def _xml_problem(output: ET.Element) -> str:
    if output.find("atomic_structure") is None or output.find("total_energy/etot") is None:
        return _CUT
    if (output.findtext("convergence_info/scf_conv/convergence_achieved") or "").strip() != "true":
        return _NOT_CONVERGED
    return "" if output.find("forces") is not None else "no forces (tprnfor)"


def _xml_structure(output: ET.Element) -> Structure:
    # species may be called Fe1 or Fe_up
    atoms = output.findall("atomic_structure/atomic_positions/atom")
    symbols = [re.sub(r"[^A-Za-z].*$", "", atom.get("name", "")).capitalize()[:2] for atom in atoms]
    numbers = tuple(int(atomic_numbers.get(s, atomic_numbers.get(s[:1], 0))) for s in symbols)
    a, b, c = (_rows(output.findtext(f"atomic_structure/cell/{name}"), _BOHR)[0] for name in ("a1", "a2", "a3"))
    return Structure(numbers, tuple(_rows(atom.text, _BOHR)[0] for atom in atoms), (a, b, c))


def _xml_label(output: ET.Element) -> Label:
    stress = None
    text = output.findtext("stress")
    if text:
        x, y, z = _rows(text, -_HARTREE / _BOHR**3)
        stress = (x[0], y[1], z[2], y[2], x[2], x[1])
    energy = float(output.findtext("total_energy/etot") or "nan") * _HARTREE
    return Label(energy, _rows(output.findtext("forces"), _HARTREE / _BOHR), stress)


def _rows(text: str | None, unit: float) -> tuple[Vector, ...]:
    numbers = np.array((text or "").split(), dtype=float).reshape(-1, 3) * unit
    return tuple((x, y, z) for x, y, z in numbers.tolist())


def tell_xml(path: Path) -> Telling:
    """What an XML file says."""
    root = _root(path)
    creator = root.find("general_info/creator")
    told: dict[str, Any] = {}
    for key, place in (("ecutwfc", "output/basis_set/ecutwfc"), ("ecutrho", "output/basis_set/ecutrho")):
        if root.findtext(place):
            told[key] = round(2 * float(root.findtext(place) or "nan"), 6)
    smearing = root.find("output/band_structure/smearing")
    if smearing is not None and smearing.get("degauss"):
        told["degauss"] = round(2 * float(smearing.get("degauss", "nan")), 8)
    names = {s.get("name", ""): s.findtext("pseudo_file") or "" for s in root.findall("output/atomic_species/species")}
    if names:
        told["pseudopotentials"] = names
    grid = root.find("output/band_structure/starting_k_points/monkhorst_pack")
    if grid is not None:
        told["kpoints"] = [int(grid.get(name, "0")) for name in ("nk1", "nk2", "nk3")]
    return Telling("qe", "" if creator is None else creator.get("VERSION", ""), told)


def _root(path: Path) -> ET.Element:
    try:
        with opened(path) as file:
            return ET.parse(file).getroot()
    except (ET.ParseError, OSError) as error:
        raise InputError(
            f"the XML cannot be read ({error})", where=str(path), next_step="check that the run has ended"
        ) from error


def _number(text: str) -> float:
    return float(text.replace("D", "E").replace("d", "e"))
