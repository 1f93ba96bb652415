"""From the table [label.qe] and a structure to the text of pw.in."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.io.espresso import write_espresso_in

from db.errors import InputError
from db.records import Json, Structure
from tasks import scratch
from tasks.engines import qe_pseudo
from tasks.engines.qe_settings import MAGNETIZATION, check_settings, pseudo_folder, table
from tasks.formats.atoms import to_atoms
from tasks.kpoints import Grid, explicit, grid

PREFIX = "pilot"
SCRATCH = scratch.FOLDER
#: stop so much before we are stopped: as a part of the time left; at least; at most (s)
_MARGIN, _MARGIN_LEAST, _MARGIN_MOST = 0.05, 5.0, 60.0


@dataclass(frozen=True, slots=True)
class Run:
    """What differs from attempt to attempt.

    Attributes:
        title: printed by pw.x in its output; says which attempt the output is of.
        root: the campaign folder.
        time_left_s: seconds until it is stopped; None when that is not near.
        restart: the scratch folder holds what an earlier attempt left when it was stopped.
    """

    title: str
    root: Path
    time_left_s: float | None = None
    restart: bool = False


def write_input(structure: Structure, spec: Json, run: Run) -> str:
    """The text of pw.in.

    Args:
        structure: what is to be labelled.
        spec: of the task; its ``kpoints`` win over ``settings["kspacing"]``.
        run: what differs from attempt to attempt.

    Raises:
        InputError: the settings cannot be used for this structure.
    """
    settings, species = spec["settings"], list(spec["species"])
    atoms = to_atoms(structure)
    folder = pseudo_folder(settings, run.root)
    # the pseudopotentials first: their errors say the most
    files = qe_pseudo.find(folder, table(settings)["pseudopotentials"], _present(atoms, species))
    problems = check_settings(settings, species, run.root)
    if problems:
        raise InputError(problems[0], where="[label.qe] in pilot.toml", next_step="mend it, then: pilot retry")
    text = io.StringIO()
    write_espresso_in(
        text,
        _magnetized(atoms, settings, species),
        input_data=_with_bands(namelists(settings, run, folder), settings, atoms, files),
        pseudopotentials={symbol: path.name for symbol, path in files.items()},
        kpts=kpoints(structure, spec),
    )
    return text.getvalue()


def kpoints(structure: Structure, spec: Json) -> Grid:
    """The grid of a task: its own, or from the density; one k-point where it is not periodic.

    Raises:
        InputError: neither is given, or the cell has no volume.
    """
    # QE knows periodic cells only: a molecule needs a box
    by_density = grid(structure.cell, structure.pbc, spec["settings"].get("kspacing") or 1.0)
    if any(all(x == 0.0 for x in row) for row in structure.cell):
        raise InputError(
            "Quantum ESPRESSO needs a cell with three rows, also where the structure is not periodic",
            where="structure",
            next_step="give the structure a box with enough vacuum",
        )
    if spec.get("kpoints") is not None:
        return explicit(spec["kpoints"])
    if spec["settings"].get("kspacing") is None:
        raise InputError(
            "there are no k-points: neither kpoints nor kspacing is given",
            where="[label.qe] in pilot.toml",
            next_step="set label.qe.kspacing, the distance between k-points in 1/Å with the 2π (0.15–0.3 for a metal)",
        )
    return by_density


def namelists(settings: Json, run: Run, folder: Path) -> dict[str, dict[str, Any]]:
    """The sections of pw.in; what the table ``input`` says comes last."""
    full = table(settings)
    control: dict[str, Any] = {
        "calculation": "scf",
        "title": run.title,
        "restart_mode": "restart" if run.restart else "from_scratch",
        "prefix": PREFIX,
        # relative: QE cuts long paths off, and the attempt's own folder is new, so no stale EXIT file is there
        "outdir": f"./{SCRATCH}",
        "pseudo_dir": str(folder),
        "tprnfor": True,
        "tstress": True,
        # nothing of a run that ends well; what is needed to go on is written at a clean stop all the same
        "disk_io": "none",
    }
    if run.time_left_s is not None:
        margin = min(max(_MARGIN * run.time_left_s, _MARGIN_LEAST), _MARGIN_MOST)
        control["max_seconds"] = max(1.0, round(run.time_left_s - margin, 1))
    system: dict[str, Any] = {"ecutwfc": full["ecutwfc"]}
    if full["ecutrho"] is not None:
        system["ecutrho"] = full["ecutrho"]
    if full["smearing"] == "none":
        system["occupations"] = "fixed"
    else:
        system |= {"occupations": "smearing", "smearing": full["smearing"], "degauss": full["degauss"]}
    electrons = {key: full[key] for key in ("conv_thr", "mixing_beta", "electron_maxstep")}
    given = {section.lower(): keys for section, keys in full["input"].items()}
    return {
        "control": control | dict(given.get("control", {})),
        "system": system | _without_magnetization(given.get("system", {})),
        "electrons": electrons | dict(given.get("electrons", {})),
    }


def _with_bands(
    sections: dict[str, dict[str, Any]], settings: Json, atoms: Atoms, files: Mapping[str, Path]
) -> dict[str, dict[str, Any]]:
    """With ``nbnd`` by the key ``bands``: never fewer than QE itself would take for a metal, nor where it is given."""
    factor = table(settings)["bands"]
    if factor is None or any(key.lower() == "nbnd" for key in sections["system"]):
        return sections
    valence = {symbol: qe_pseudo.valence_of(path) for symbol, path in files.items()}
    silent = [files[symbol].name for symbol, electrons in valence.items() if electrons is None]
    if silent:
        raise InputError(
            f"{silent[0]} does not say how many valence electrons it has: label.qe.bands cannot be used",
            where="[label.qe] in pilot.toml",
            next_step="take bands out, or choose another pseudopotential",
        )
    occupied = sum(valence[symbol] or 0.0 for symbol in atoms.get_chemical_symbols()) / 2
    bands = math.ceil(max(factor * occupied, 1.2 * occupied, occupied + 4))
    return sections | {"system": sections["system"] | {"nbnd": bands}}


def _present(atoms: Atoms, species: Sequence[str]) -> list[str]:
    present = sorted(set(atoms.get_chemical_symbols()))
    strange = [symbol for symbol in present if symbol not in species]
    if strange:
        raise InputError(
            f"the structure has {', '.join(strange)}, but the campaign is of {', '.join(species)}",
            where="species",
            next_step="add the element to species in pilot.toml, or take the structure out",
        )
    return present


def _without_magnetization(system: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in system.items() if not MAGNETIZATION.fullmatch(key)}


def _magnetized(atoms: Atoms, settings: Json, species: Sequence[str]) -> Atoms:
    """``starting_magnetization(n)`` of the n-th species, as ASE wants it: on the atoms.

    ASE numbers the types as they come and writes its own values over those in the table.
    """
    moments = {}
    for section, keys in table(settings)["input"].items():
        for key, value in keys.items() if section.lower() == "system" else ():
            found = MAGNETIZATION.fullmatch(key)
            if found and 1 <= int(found.group(1)) <= len(species):
                moments[species[int(found.group(1)) - 1]] = float(value)
    if not moments:
        return atoms
    magnetized = atoms.copy()
    magnetized.set_initial_magnetic_moments([moments.get(s, 0.0) for s in atoms.get_chemical_symbols()])
    return magnetized
