"""The engines by name. The only file besides its own module that a new engine touches.

Modules are named, not imported: a look at the state of a campaign must not wait for numpy or ASE.
"""

import difflib
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from db.errors import InputError
from db.records import Json
from tasks.protocol import Engine

#: name in ``Task.engine`` and in pilot.toml → the module that defines ``ENGINE``
MODULES = MappingProxyType(
    {
        "qe": "tasks.engines.qe",
        "vasp": "tasks.engines.vasp",
        "ase": "tasks.engines.ase_calculator",
        "command": "tasks.engines.command",
        "lammps": "tasks.engines.lammps",
        "maxvol": "tasks.engines.maxvol",
        "motep": "tasks.engines.motep",
        "mlip-3": "tasks.engines.mlip_train",
        "mlip-2": "tasks.engines.mlip_train_2",
        "lammps-mlip": "tasks.engines.lammps_mlip",
        "pair": "tasks.engines.pair",
        "evaluate": "tasks.engines.evaluate",
    }
)


@dataclass(frozen=True, slots=True)
class PotentialFiles:
    """What a trained potential consists of, in its folder.

    Attributes:
        file: the one that holds it.
        files: all that is there in any case, ``file`` among them.
        optional: what may be there beside.
    """

    file: str
    files: tuple[str, ...]
    optional: tuple[str, ...] = ()


_MTP = PotentialFiles("pot.mtp", ("pot.mtp", "active.npz"), ("active-nbh.npz", "pot.almtp", "pot.als"))
#: train engine → the files of what it trains
POTENTIALS = MappingProxyType(
    {"motep": _MTP, "mlip-3": _MTP, "mlip-2": _MTP, "pair": PotentialFiles("pair.json", ("pair.json",))}
)

#: train engine → the module whose ``MODEL`` opens what it has trained
MODELS = MappingProxyType(
    {
        "motep": "tasks.mtp.model",
        "mlip-3": "tasks.mtp.model",
        "mlip-2": "tasks.mtp.model",
        "pair": "tasks.pair.model",
    }
)

#: engines that can go on from where an interrupted attempt has stopped (``Work.previous``), each with the seconds that
#: an attempt must have run for that
RESUMING = MappingProxyType({"lammps": 25.0, "motep": 25.0, "qe": 300.0})

#: label engine → the module whose ``check_settings`` knows its table of pilot.toml
CHECKS = MappingProxyType(
    {
        "qe": "tasks.engines.qe_settings",
        "vasp": "tasks.engines.vasp_settings",
        "ase": "tasks.engines.ase_calculator",
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


def problems(name: str, settings: Json, species: Sequence[str], root: Path) -> list[str]:
    """What is wrong with the settings of a label engine, one sentence each, before anything is started.

    Args:
        name: of the engine.
        settings: its table of pilot.toml.
        species: chemical symbols of the campaign.
        root: the campaign folder.
    """
    found: list[str] = importlib.import_module(CHECKS[name]).check_settings(settings, species, root)
    return found
