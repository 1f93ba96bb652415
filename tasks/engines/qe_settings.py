"""The table [label.qe] of pilot.toml: its keys, what they default to, what may be wrong with them."""

import difflib
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from db.errors import InputError
from db.records import Json
from tasks.engines import qe_pseudo

#: None: there is no default; ``ecutrho`` is then left to QE (4 · ecutwfc), ``kspacing`` may be left out when
#: every task brings its k-points
DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        "command": "pw.x",
        "pseudo_dir": None,
        "pseudopotentials": {},
        "ecutwfc": None,
        "ecutrho": None,
        "kspacing": None,
        "smearing": "mv",
        "degauss": 0.02,
        "bands": None,
        "conv_thr": 1e-8,
        "mixing_beta": 0.7,
        "electron_maxstep": 100,
        "input": {},
    }
)
#: keys of pw.in that a label rests on, section by section: ``input`` must leave them alone
RESERVED: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "control": frozenset(
            {"calculation", "title", "prefix", "outdir", "pseudo_dir", "restart_mode"}
            | {"tprnfor", "tstress", "max_seconds"}
        ),
        "system": frozenset({"ibrav", "nat", "ntyp"}),
        # with it off QE says "convergence has been achieved" whatever happened
        "electrons": frozenset({"scf_must_converge"}),
    }
)
MAGNETIZATION = re.compile(r"starting_magnetization\((\d+)\)", re.IGNORECASE)
_POSITIVE = ("ecutwfc", "ecutrho", "kspacing", "degauss", "bands", "conv_thr", "mixing_beta", "electron_maxstep")


def table(settings: Json) -> dict[str, Any]:
    """The settings with the defaults filled in; null means the default."""
    return {**DEFAULTS, **{key: value for key, value in settings.items() if value is not None}}


def command_of(settings: Json) -> tuple[str, ...]:
    """The words of the key ``command``: a program, perhaps with options such as ``-npool 4``."""
    command = table(settings)["command"]
    words = shlex.split(command) if isinstance(command, str) else [str(word) for word in command]
    return tuple(words) or ("pw.x",)


def pseudo_folder(settings: Json, root: Path | None = None) -> Path:
    """Where the pseudopotentials of these settings are looked for."""
    return qe_pseudo.folder_of(table(settings)["pseudo_dir"], root)


def check_settings(settings: Json, species: Sequence[str], root: Path | None = None) -> list[str]:
    """What is wrong with the table, one sentence each; empty when nothing is.

    Args:
        settings: the table [label.qe].
        species: symbols of the campaign.
        root: the campaign folder, for a relative ``pseudo_dir``.
    """
    problems = [_unknown(key) for key in settings if key not in DEFAULTS]
    full = table(settings)
    problems += [
        f"label.qe.{key} must be a positive number, not {full[key]!r}"
        for key in _POSITIVE
        if full[key] is not None and not _is_positive(full[key])
    ]
    if full["ecutwfc"] is None:
        problems.append("label.qe.ecutwfc is missing: the cutoff of the wave functions in Ry")
    problems += _check_input(full["input"], len(species))
    if not isinstance(full["pseudopotentials"], Mapping):
        return [*problems, "label.qe.pseudopotentials must be a table from element to file name"]
    for symbol in species:
        try:
            qe_pseudo.find(pseudo_folder(settings, root), full["pseudopotentials"], [symbol])
        except InputError as error:
            problems.append(f"{error.what} (looked in {error.where}); {error.next_step}")
    return problems


def _unknown(key: str) -> str:
    near = difflib.get_close_matches(key, DEFAULTS, n=1)
    hint = f'did you mean "{near[0]}"?' if near else 'what belongs into pw.in goes into the table "input"'
    return f"label.qe.{key} is not a setting; {hint}"


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _check_input(given: object, species: int) -> list[str]:
    """The free table: sections of scalars, without the reserved keys."""
    if not isinstance(given, Mapping) or not all(isinstance(section, Mapping) for section in given.values()):
        return ["label.qe.input must have sections: { system = { … }, electrons = { … } }"]
    problems = []
    for section, keys in given.items():
        if section.lower() not in RESERVED:
            problems.append(f"label.qe.input.{section}: one of {', '.join(RESERVED)} was expected")
            continue
        for key in keys:
            name = f"label.qe.input.{section}.{key}"
            if key.lower() in RESERVED[section.lower()]:
                problems.append(f"{name} is set by us, since a label rests on it: take it out")
            elif "(" in key and species > 1 and not MAGNETIZATION.fullmatch(key):
                # QE numbers the types as they come in a structure, and that differs between structures
                problems.append(f"{name} depends on the order of the types in a structure: not possible here")
    return problems
