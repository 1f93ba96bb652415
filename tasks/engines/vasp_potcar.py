"""POTCAR files of the user's licence: where they are, and what their headers say.

They are never shipped, and copied nowhere but into the folder of an attempt while it runs.
"""

import gzip
import hashlib
import os
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ase.data import chemical_symbols

from db.errors import InputError

FOLDER_VARIABLE = "VASP_POTCAR_DIR"
_TITEL = re.compile(rb"^[ \t]*TITEL[ \t]*=[ \t]*(.*?)[ \t\r]*$", re.MULTILINE)
_ENMAX = re.compile(rb"\bENMAX[ \t]*=[ \t]*([\d.]+)")
_SET_FOLDER = (
    f"set label.vasp.potcar_dir, or ${FOLDER_VARIABLE}, to the folder that holds NAME/POTCAR of each potential"
)


@dataclass(frozen=True, slots=True)
class Potcar:
    """One potential.

    Attributes:
        path: where it lies.
        titel: what it calls itself, as ``PAW_PBE Pb_d 06Sep2000``.
        enmax: the cutoff that it wants, eV; None where it does not say.
        digest: SHA-256 of its content, not compressed.
    """

    path: Path
    titel: str
    enmax: float | None
    digest: str


def folder_of(given: str | None, root: Path | None) -> Path:
    """Where to look: the folder given (relative to the campaign folder), else $VASP_POTCAR_DIR.

    Raises:
        InputError: neither is there.
    """
    if given:
        return ((root or Path()) / Path(given).expanduser()).absolute()
    named = os.environ.get(FOLDER_VARIABLE)
    if not named:
        raise InputError(
            "no folder of POTCAR files is named",
            where=f"label.vasp.potcar_dir and ${FOLDER_VARIABLE}",
            next_step=_SET_FOLDER,
        )
    return Path(named).expanduser().absolute()


def find(given: str | None, root: Path | None, names: Mapping[str, str]) -> dict[str, Potcar]:
    """The potential of each element.

    Args:
        given: ``potcar_dir`` of the settings.
        root: the campaign folder.
        names: element → name of its potential.

    Raises:
        InputError: an element is unknown, or its POTCAR is not there, cannot be read or is of another element.
    """
    strange = [symbol for symbol in names if symbol not in chemical_symbols[1:]]
    if strange:
        raise InputError(
            f'there is no element "{strange[0]}"', where="species", next_step='write symbols, for instance "Li"'
        )
    folder = folder_of(given, root)
    return {symbol: _read(folder, name, symbol) for symbol, name in names.items()}


def content(path: Path) -> bytes:
    """The text of a POTCAR; it may be compressed.

    Raises:
        InputError: it cannot be read.
    """
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if path.suffix == ".gz" else data
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path.name} cannot be read: {error}", where=str(path), next_step="mend its permissions, or copy it anew"
        ) from error


def joined(potcars: Iterable[Potcar]) -> bytes:
    """The POTCAR of a run: those of its species, one behind the other.

    Raises:
        InputError: one of them cannot be read.
    """
    return b"".join(content(potcar.path) for potcar in potcars)


def titles(potcars: Iterable[Potcar]) -> str:
    """What may be kept of them: their titles and digests, one line each."""
    return "".join(f"{potcar.titel}  sha256 {potcar.digest}\n" for potcar in potcars)


def _read(folder: Path, name: str, symbol: str) -> Potcar:
    names = (f"{name}/POTCAR", f"{name}/POTCAR.gz", f"POTCAR.{name}", f"POTCAR.{name}.gz")
    path = next((folder / place for place in names if (folder / place).is_file()), None)
    if path is None:
        raise _error(f"the POTCAR {name} of {symbol} does not exist", folder, symbol)
    data = content(path)
    found = _TITEL.findall(data)
    if len(found) != 1:
        raise _error(f"the POTCAR {name} of {symbol} has {len(found)} lines TITEL instead of one", folder, symbol)
    titel = found[0].decode(errors="replace")
    if _element(titel) != symbol:
        raise _error(f'the POTCAR {name} named for {symbol} is of another element: "{titel}"', folder, symbol)
    enmax = _ENMAX.search(data)
    return Potcar(path, titel, float(enmax.group(1)) if enmax else None, hashlib.sha256(data).hexdigest())


def _element(titel: str) -> str:
    """The element in ``PAW_PBE Pb_d 06Sep2000``, ``PAW H1.25 07Sep2000`` or ``H 1/r potential``."""
    words = titel.split()
    word = words[0] if "1/r" in words or len(words) == 1 else next(iter(words[1:]), "")
    return re.sub(r"[^A-Za-z]", "", word.partition("_")[0])


def _error(what: str, folder: Path, symbol: str) -> InputError:
    there = beginning_with(symbol, folder)
    if there:
        hint = f"set label.vasp.potcars.{symbol} to one of those there: {', '.join(there)}"
    else:
        hint = f"nothing there begins with {symbol}: {_SET_FOLDER}"
    return InputError(what, where=str(folder), next_step=hint)


def beginning_with(symbol: str, folder: Path) -> list[str]:
    """Names of the potentials in ``folder`` that are of the symbol and not of a longer one (C, not Co)."""
    try:
        flat = {path.name.removeprefix("POTCAR.").removesuffix(".gz") for path in folder.glob(f"POTCAR.{symbol}*")}
        names = flat | {path.parent.name for path in folder.glob(f"{symbol}*/POTCAR*")}
    except OSError:
        return []
    return sorted(name for name in names if not name[len(symbol) : len(symbol) + 1].islower())
