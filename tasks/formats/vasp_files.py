"""OUTCAR and vasprun.xml that a user has: the steps that are converged and whole, and why the others are not.

ASE reads the numbers. What it does not look at is whether the electrons of a step were converged: VASP writes energy
and forces of a step that was given up after NELM as if nothing had happened.
"""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from db.errors import InputError
from tasks.formats.atoms import READER_ERRORS
from tasks.formats.frames import Frame, Telling, frame_of, opened, opened_text

_STEP = "FREE ENERGIE OF THE ION-ELECTRON SYSTEM"
_REACHED = "aborting loop because EDIFF is reached"
_NOT_CONVERGED = "the electrons were not converged (EDIFF was not reached)"
_CUT = "the file ends in the middle of this step"
_ITERATION = re.compile(r"Iteration\s+(\d{1,9})\(")
_FLOAT = r"([-+]?[0-9.]+(?:[EeDd][-+]?[0-9]+)?)"
_HEAD_BYTES = 400_000
_KEYS = {"encut": "ENCUT", "ismear": "ISMEAR", "sigma": "SIGMA", "ediff": "EDIFF"}


def outcar_frames(path: Path) -> Iterator[Frame]:
    """The ionic steps of an OUTCAR; its positions have five digits.

    Raises:
        InputError: its head cannot be read.
    """
    import ase.io
    from ase.io.vasp_parsers.vasp_outcar_parsers import outcarchunks

    converged, begun = _convergence(path)
    with opened_text(path) as file:
        chunks = outcarchunks(_Named(file, path))
        index = 0
        while True:
            index += 1
            if index > len(converged):
                # a step that has no end
                if begun > len(converged):
                    yield Frame(index, None, None, _CUT)
                return
            try:
                chunk = next(chunks)
            except StopIteration:
                return
            except (*READER_ERRORS, ase.io.ParseError) as error:
                raise _unreadable(path, error) from error
            try:
                atoms = chunk.build()
            except (*READER_ERRORS, ase.io.ParseError):
                yield Frame(index, None, None, _CUT)
                continue
            whole = atoms.calc is not None and {"free_energy", "forces"} <= atoms.calc.results.keys()
            bad = "" if converged[index - 1] else _NOT_CONVERGED
            yield frame_of(atoms, index, bad if whole else _CUT)


class _Named:
    """Lines with the name of their file: ASE asks for it."""

    def __init__(self, file: Any, path: Path) -> None:
        self._file = file
        self.name = str(path)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return str(next(self._file))

    def readline(self) -> str:
        return str(self._file.readline())


def _convergence(path: Path) -> tuple[list[bool], int]:
    """Whether EDIFF was reached before the end of each step; and how many steps have begun."""
    found: list[bool] = []
    reached, begun = False, 0
    with opened_text(path) as file:
        for line in file:
            if "Iteration" in line:
                reached = False
                step = _ITERATION.search(line)
                begun = int(step[1]) if step else begun
            elif _REACHED in line:
                reached = True
            elif _STEP in line:
                found.append(reached)
    return found, begun


def tell_outcar(path: Path) -> Telling:
    """What the head of an OUTCAR says."""
    head = _head(path)
    settings = {key: _number(rf"^\s*{name}\s*=\s*{_FLOAT}", head) for key, name in _KEYS.items()}
    smearing = re.search(rf"ISMEAR\s*=\s*(-?\d+)\s*;\s*SIGMA\s*=\s*{_FLOAT}", head)
    if smearing:
        settings |= {"ismear": float(smearing[1]), "sigma": float(smearing[2])}
    grid = re.search(r"generate k-points for:\s*(\d+)\s+(\d+)\s+(\d+)", head)
    potentials = re.findall(r"^\s*TITEL\s*=\s*(.*?)\s*$", head, re.MULTILINE) or re.findall(
        r"^ POTCAR:\s*(.*?)\s*$", head, re.MULTILINE
    )
    version = re.match(r"\s*(vasp\.\S+)", head)
    return Telling("vasp", version[1] if version else "", _settings(settings, potentials, grid and grid.groups()))


def vasprun_frames(path: Path) -> Iterator[Frame]:
    """The ionic steps of a vasprun.xml.

    Raises:
        InputError: not even its head can be read.
    """
    import ase.io
    from ase.io.vasp import read_vasp_xml

    steps, whole = _xml_steps(path)
    try:
        with opened(path) as file:
            for index, atoms in enumerate(read_vasp_xml(file, index=slice(None)), 1):
                if index > len(steps):
                    break
                yield frame_of(atoms, index, "" if steps[index - 1] else _NOT_CONVERGED)
    except (*READER_ERRORS, ase.io.ParseError, ET.ParseError) as error:
        raise _unreadable(path, error) from error
    if not whole:
        yield Frame(len(steps) + 1, None, None, _CUT)


def _xml_steps(path: Path) -> tuple[list[bool], bool]:
    """Of each whole step whether it was converged; and whether the file is whole.

    A step was given up if it has as many SCF steps as NELM and the last of them changed the energy by more than EDIFF.
    """
    steps: list[bool] = []
    most, small = 60.0, 1e-4
    try:
        with opened(path) as file:
            for _, element in ET.iterparse(file):
                if element.tag == "i" and element.get("name") in {"NELM", "EDIFF"}:
                    value = _as_number(element.text)
                    most, small = (value, small) if element.get("name") == "NELM" else (most, value)
                elif element.tag == "calculation":
                    steps.append(_is_converged(element, most, small))
                    element.clear()
    except ET.ParseError:
        return steps, False
    return steps, True


def _is_converged(calculation: ET.Element, most: float, small: float) -> bool:
    energies = [_as_number(e.text) for e in calculation.findall("scstep/energy/i[@name='e_fr_energy']")]
    if len(energies) < 2:
        return len(energies) < most
    return len(energies) < most or abs(energies[-1] - energies[-2]) < small


def tell_vasprun(path: Path) -> Telling:
    """What the head of a vasprun.xml says."""
    head = _head(path)
    names = _KEYS | {"encut": "EN(?:CUT|MAX)"}
    settings = {key: _number(rf'<i [^>]*name="{name}"[^>]*>\s*{_FLOAT}', head) for key, name in names.items()}
    version = re.search(r'name="version"[^>]*>\s*(\S+?)\s*<', head)
    grid = re.search(r'<v [^>]*name="divisions"[^>]*>\s*(\d+)\s+(\d+)\s+(\d+)', head)
    potentials = re.findall(r"<c>\s*(PAW\S*\s[^<]*?|US\s[^<]*?)\s*</c>", head)
    told = _settings(settings, potentials, grid and grid.groups())
    return Telling("vasp", f"vasp.{version[1]}" if version else "", told)


def _settings(numbers: dict[str, float | None], potentials: list[str], grid: Any) -> dict[str, Any]:
    told: dict[str, Any] = {key: value for key, value in numbers.items() if value is not None}
    # "PAW_PBE Pb_d 06Sep2000": the second word is the name of the potential's folder
    names = [words[1] for words in (text.split() for text in potentials) if len(words) > 1]
    if names:
        told["potcars"] = {name.partition("_")[0]: name for name in names}
    if grid:
        told["kpoints"] = [int(number) for number in grid]
    return told


def _head(path: Path) -> str:
    with opened(path) as file:
        return file.read(_HEAD_BYTES).decode("utf-8", "replace")


def _number(pattern: str, text: str) -> float | None:
    found = re.search(pattern, text, re.MULTILINE)
    return None if found is None else _as_number(found[1])


def _as_number(text: str | None) -> float:
    try:
        return float((text or "").replace("D", "E"))
    except ValueError:
        return float("nan")


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(
        f"ASE cannot read the file ({type(error).__name__}: {str(error)[:200]})",
        where=str(path),
        next_step="check that the file is whole, or leave it out",
    )
