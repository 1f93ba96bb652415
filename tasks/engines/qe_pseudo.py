"""Pseudopotential files: which one belongs to an element, and what its header says."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ase.data import chemical_symbols

from db.errors import InputError

DEBIAN_FOLDER = "/usr/share/espresso/pseudo"
_HEADER_BYTES = 200_000
_ELEMENT = re.compile(r'\belement="\s*([A-Za-z]{1,2})\s*"|^\s*([A-Z][a-z]?)\s+Element\b', re.MULTILINE)
_VALENCE = re.compile(r'\bz_valence="\s*([\d.eE+-]+)\s*"|^\s*([\d.]+)\s+Z valence\b', re.MULTILINE)
_CUTOFF = re.compile(r"minimum cutoff for wavefunctions:\s*([\d.]+)\s*Ry")


def folder_of(given: str | None, root: Path | None) -> Path:
    """Where to look: the folder given, else $ESPRESSO_PSEUDO, else Debian's folder.

    Args:
        given: ``pseudo_dir`` of the settings; relative to the campaign folder.
        root: the campaign folder.
    """
    if given:
        return ((root or Path()) / Path(given).expanduser()).absolute()
    return Path(os.environ.get("ESPRESSO_PSEUDO") or DEBIAN_FOLDER).absolute()


def find(folder: Path, given: Mapping[str, str], species: Sequence[str]) -> dict[str, Path]:
    """The file of each element.

    Args:
        folder: where the files are.
        given: element → name of its file.
        species: the elements wanted.

    Raises:
        InputError: an element is unknown, has no file named, or its file does not exist or says that it is
            of another element.
    """
    found = {}
    for symbol in species:
        if symbol not in chemical_symbols[1:]:
            raise InputError(
                f'there is no element "{symbol}"', where="species", next_step='write symbols, for instance "Li"'
            )
        found[symbol] = _file(folder, given.get(symbol), symbol)
    return found


def element_of(path: Path) -> str | None:
    """The element that a file says it is for; None where its header does not say."""
    found = _ELEMENT.search(_header(path))
    return (found.group(1) or found.group(2)) if found else None


def suggested_cutoff(path: Path) -> float | None:
    """The least cutoff for wave functions (Ry) that a file suggests for itself; None where it does not."""
    found = _CUTOFF.search(_header(path))
    value = float(found.group(1)) if found else 0.0
    return value if value > 0.0 else None


def valence_of(path: Path) -> float | None:
    """The number of electrons that a file leaves to the valence; None where its header does not say."""
    found = _VALENCE.search(_header(path))
    return float(found.group(1) or found.group(2)) if found else None


def _file(folder: Path, name: str | None, symbol: str) -> Path:
    if not name:
        raise _error(f"no pseudopotential is named for {symbol}", folder, symbol)
    path = folder / name
    if not path.is_file():
        raise _error(f"the pseudopotential {name} of {symbol} does not exist", folder, symbol)
    other = element_of(path)
    if other not in {None, symbol}:
        raise _error(f"the pseudopotential {name} named for {symbol} is of {other}", folder, symbol)
    return path


def _error(what: str, folder: Path, symbol: str) -> InputError:
    key = f"label.qe.pseudopotentials.{symbol}"
    there = beginning_with(symbol, folder)
    if there:
        hint = f"set {key} to one of those there: {', '.join(there)}"
    else:
        hint = (
            f"no file there begins with {symbol}: put one there and name it in {key}, "
            "or set label.qe.pseudo_dir to the folder that has it"
        )
    return InputError(what, where=str(folder), next_step=hint)


def beginning_with(symbol: str, folder: Path) -> list[str]:
    """Names of the files in ``folder`` that begin with the symbol and not with a longer one (C, not Co)."""
    if not folder.is_dir():
        return []
    names = (path.name for path in folder.iterdir())
    return sorted(
        name
        for name in names
        if name.lower().startswith(symbol.lower()) and not name[len(symbol) : len(symbol) + 1].isalpha()
    )


def _header(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(_HEADER_BYTES).decode(errors="replace")
