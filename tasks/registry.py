"""The engines by name. The only file besides its own module that a new engine touches.

Modules are named, not imported: a look at the state of a campaign must not wait for numpy or ASE.
"""

import difflib
import importlib
from types import MappingProxyType

from db.errors import InputError
from tasks.protocol import Engine

#: name in ``Task.engine`` and in pilot.toml → the module that defines ``ENGINE``
MODULES = MappingProxyType(
    {
        "qe": "tasks.engines.qe",
        "ase": "tasks.engines.ase_calculator",
        "command": "tasks.engines.command",
        "lammps": "tasks.engines.lammps",
        "maxvol": "tasks.engines.maxvol",
        "motep": "tasks.engines.motep",
        "evaluate": "tasks.engines.evaluate",
    }
)


def engine(name: str) -> Engine:
    """The engine of that name; its module is imported at the first call.

    Raises:
        InputError: there is no engine of that name.
    """
    module = MODULES.get(name)
    if module is None:
        near = difflib.get_close_matches(name.lower(), MODULES, n=1, cutoff=0.5)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        raise InputError(
            f'there is no engine "{name}"{hint}',
            where="engine",
            next_step="use one of: " + ", ".join(MODULES),
        )
    found: Engine = importlib.import_module(module).ENGINE
    return found
