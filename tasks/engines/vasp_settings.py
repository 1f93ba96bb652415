"""The table [label.vasp] of pilot.toml: its keys, what they default to, what may be wrong with them."""

import difflib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from db.errors import InputError
from db.records import Json
from tasks.engines import vasp_potcar

#: None: there is no default; ``kspacing`` may be left out when every task brings its k-points
DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        "command": "vasp_std",
        "potcar_dir": None,
        "potcars": {},
        "encut": None,
        "kspacing": None,
        "ismear": 1,
        "sigma": 0.2,
        "ediff": 1e-6,
        "nelm": 100,
        "prec": "Accurate",
        "algo": "Normal",
        "incar": {},
    }
)
#: tags of INCAR that have a key of their own
KEYS: Mapping[str, str] = MappingProxyType(
    {tag: tag.lower() for tag in ("ENCUT", "ISMEAR", "SIGMA", "EDIFF", "NELM", "PREC", "ALGO", "KSPACING")}
    | {"IALGO": "algo"}
)
#: tags that a label rests on: one SCF run of the structure as it is, from nothing, without outer pressure
RESERVED = frozenset({"SYSTEM", "NSW", "IBRION", "ISIF", "ISTART", "ICHARG", "KGAMMA", "PSTRESS", "ML_LMLFF"})
#: tags with a number for each atom, and for each species of the structure
PER_ATOM = frozenset({"MAGMOM"})
PER_SPECIES = frozenset({"LDAUL", "LDAUU", "LDAUJ", "RWIGS", "ROPT", "POMASS", "ZVAL", "VCA", "VDW_ALPHA", "VDW_C6"})
_POSITIVE = ("encut", "kspacing", "sigma", "ediff", "nelm")


def table(settings: Json) -> dict[str, Any]:
    """The settings with the defaults filled in; null means the default."""
    return {**DEFAULTS, **{key: value for key, value in settings.items() if value is not None}}


def command_of(settings: Json) -> tuple[str, ...]:
    """The words of the key ``command``."""
    return tuple(shlex.split(str(table(settings)["command"]))) or ("vasp_std",)


def potcar_names(settings: Json, species: Sequence[str]) -> dict[str, str]:
    """The name of the potential of each species: the symbol, where none is given."""
    given = table(settings)["potcars"]
    return {symbol: str(given.get(symbol) or symbol) for symbol in species}


def check_settings(settings: Json, species: Sequence[str], root: Path | None = None) -> list[str]:
    """What is wrong with the table, one sentence each; empty when nothing is.

    Args:
        settings: the table [label.vasp].
        species: symbols of the campaign.
        root: the campaign folder, for a relative ``potcar_dir``.
    """
    problems = [_unknown(key) for key in settings if key not in DEFAULTS]
    full = table(settings)
    problems += [
        f"label.vasp.{key} must be a positive number, not {full[key]!r}"
        for key in _POSITIVE
        if full[key] is not None and not _is_positive(full[key])
    ]
    if full["encut"] is None:
        problems.append("label.vasp.encut is missing: the plane-wave cutoff in eV")
    if not isinstance(full["incar"], Mapping):
        problems.append("label.vasp.incar must be a table from tags of INCAR to their values")
    else:
        problems += _check_incar(full["incar"], species)
    if not isinstance(full["potcars"], Mapping):
        return [*problems, "label.vasp.potcars must be a table from element to the name of its potential"]
    for symbol in species:
        try:
            vasp_potcar.find(full["potcar_dir"], root, potcar_names(settings, [symbol]))
        except InputError as error:
            problems.append(f"{error.what} (looked in {error.where}); {error.next_step}")
    return problems


def _unknown(key: str) -> str:
    near = difflib.get_close_matches(key, DEFAULTS, n=1)
    hint = f'did you mean "{near[0]}"?' if near else 'what belongs into INCAR goes into the table "incar"'
    return f"label.vasp.{key} is not a setting; {hint}"


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _check_incar(given: Mapping[str, Any], species: Sequence[str]) -> Iterator[str]:
    for key, value in given.items():
        tag, name = str(key).upper(), f"label.vasp.incar.{key}"
        if tag in KEYS:
            yield f"{name} has a key of its own: set label.vasp.{KEYS[tag]}"
        elif tag in RESERVED:
            yield f"{name} is set by us, since a label rests on it: take it out"
        elif isinstance(value, Mapping):
            yield from _check_table(name, tag, value, species)
        elif tag in PER_ATOM or (tag in PER_SPECIES and len(species) > 1):
            # what atoms and species there are, and in which order, differs between structures
            yield f"{name} must be a table from element to value, as {{ {species[0] if species else 'Fe'} = 2.0 }}"
        elif not _is_value(value):
            yield f"{name} must be a number, a text of one line, true, false or a list of these, not {value!r}"


def _check_table(name: str, tag: str, value: Mapping[str, Any], species: Sequence[str]) -> Iterator[str]:
    if tag not in PER_ATOM | PER_SPECIES:
        yield f"{name} is no tag with a value for each element: give one value"
    elif set(value) != set(species) or not all(isinstance(x, int | float) for x in value.values()):
        yield f"{name} must have one number for each of {', '.join(species)}"


def _is_value(value: object) -> bool:
    if isinstance(value, list):
        return bool(value) and all(_is_value(part) and not isinstance(part, list) for part in value)
    if isinstance(value, str):
        # a ; begins another tag, a # or ! a comment
        return bool(value.strip()) and value.isprintable() and not set(value) & set(";#!=")
    return isinstance(value, bool | int | float)
