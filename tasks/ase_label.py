"""The process of one label by an ASE calculator: ``python -P -m tasks.ase_label`` in the attempt's folder.

Reads task.json, writes result.json whole. What the user can mend (an import path, an argument, an element
that the calculator does not know) is written there as a problem; anything else ends as Python's own error
on the standard error with exit code 1.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.calculators.calculator import CalculationFailed

from db.errors import InputError
from db.files import write_whole
from db.records import Json, Label, Structure

TASK = "task.json"
RESULT = "result.json"
_PROBLEM = 2


def calculator_class(path: str) -> Any:
    """What an import path such as ``ase.calculators.emt.EMT`` names.

    Raises:
        InputError: there is no such module, it cannot be imported, or it has no such name.
    """
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name) if module else None
    except (ImportError, AttributeError, ValueError) as error:
        raise _no_calculator(path, str(error)) from error
    if not callable(found):
        raise _no_calculator(path, "it does not name a class or a function")
    return found


def label(structure: Structure, path: str, arguments: Json) -> Label:
    """The energy consistent with the forces where the calculator has it, forces, and stress in a 3-D crystal.

    Args:
        structure: what to compute.
        path: import path of the calculator.
        arguments: of its constructor.

    Raises:
        InputError: the path, the arguments or the elements cannot be used.
    """
    # not by tasks.formats.atoms: that imports all of ASE's readers, a second for each label
    atoms = Atoms(structure.numbers, structure.positions, cell=structure.cell, pbc=structure.pbc)
    where = f"{path}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"
    make = calculator_class(path)
    try:
        atoms.calc = make(**arguments)
    except (TypeError, ValueError, KeyError, ImportError) as error:
        raise InputError(
            f"the calculator does not take these arguments: {error}", where=where, next_step="see its documentation"
        ) from error
    can = set(getattr(atoms.calc, "implemented_properties", ()))
    try:
        energy = float(atoms.get_potential_energy(force_consistent="free_energy" in can))
        forces = atoms.get_forces()
        stress = atoms.get_stress(voigt=True) if "stress" in can and all(structure.pbc) else None
    except NotImplementedError as error:
        raise InputError(
            f"the calculator cannot do this structure: {error}", where=where, next_step="use another calculator"
        ) from error
    return Label.from_json(
        {
            "energy": energy,
            "forces": forces.tolist(),
            "stress": None if stress is None else stress.tolist(),
        }
    )


def main() -> int:
    """Do what task.json in the working folder says; 0 when the label is written, 2 when it cannot be made."""
    task = json.loads(Path(TASK).read_text())
    result: dict[str, Any] = {"attempt_id": task["attempt_id"]}
    try:
        found = label(Structure.from_json(task["structure"]), task["calculator"], task["arguments"])
        result["label"] = found.to_json()
    except InputError as error:
        result["problem"] = {"verdict": "bad input", "text": f"{error.what} ({error.where})"}
    except CalculationFailed as error:
        # also its children: the SCF of a calculator that is not converged
        result["problem"] = {"verdict": "not converged", "text": f"{type(error).__name__}: {error}"}
    except MemoryError as error:
        result["problem"] = {"verdict": "out of memory", "text": f"out of memory: {error}"}
    write_whole(Path(RESULT), json.dumps(result))
    return 0 if "label" in result else _PROBLEM


def _no_calculator(path: str, why: str) -> InputError:
    return InputError(
        f"there is no calculator {path}: {why}",
        where="label.ase.calculator",
        next_step='give its import path, for instance "ase.calculators.emt.EMT", and install what it needs',
    )


if __name__ == "__main__":
    sys.exit(main())
