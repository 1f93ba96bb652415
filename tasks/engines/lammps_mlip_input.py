"""The input of LAMMPS with MLIP's pair style: the run of pilot's own LAMMPS, the potential entering otherwise. Pure.

All keys of extrapolation control are written with their prefix: the library ignores a key that it does not know, and
then takes its own thresholds, 2 and 11, without a word.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.mtp import lammps_input
from tasks.mtp.dynamics import Dynamics
from tasks.mtp.lammps_input import FIX

Floats = npt.NDArray[np.float64]

STOP_FILE = "stop"
SAVED = "preselected.mlip.cfg"
DUMP = "moments.dump"
SETTINGS = "mlip.ini"
#: names of the fixes that end the run
ASKED, SWOLLEN = "asked", "swollen"
#: where pilot's own force field enters, and what it wants of the neighbour list
_OURS = ("#", f"fix {FIX} ", f"fix_modify {FIX} ", "neighbor ", "comm_modify ")
_ASK_EVERY, _MEASURE_EVERY = 50, 10
_MOST_SWELLING = 8.0
#: thresholds that are equal switch the break off: the library breaks only if its threshold is above the other one
_APART = 1e-5


@dataclass(frozen=True, slots=True)
class Control:
    """Extrapolation control by the pair style.

    Attributes:
        style: "mlip-3" or "mlip-2".
        potential: the file that is loaded: an ``.almtp``, or MLIP-2's ``.mtp``.
        state: MLIP-2's file with the active set.
        save: γ above which a configuration is saved.
        stop: γ above which the run ends.
    """

    style: str
    potential: str
    state: str
    save: float
    stop: float

    @property
    def thresholds(self) -> dict[str, str]:
        """As they are written, by MLIP-3's names: six digits after the point, as the library prints them."""
        save = min(self.save, self.stop - _APART)
        return {"threshold_save": f"{save:.6f}", "threshold_break": f"{self.stop:.6f}"}


def input_file(dynamics: Dynamics, atoms: int, cell: Floats, control: Control, frames: int) -> str:
    """The text of in.lammps.

    Args:
        dynamics: what it does.
        atoms: how many there are.
        cell: lower triangular, Å; the one that is wanted in the end.
        control: what the pair style is told.
        frames: about so many moments, evenly spread over the run, are written down to be graded afterwards.
    """
    lines = ["# Exploration with a moment tensor potential in MLIP's pair style; units: Å, eV, ps, K, bar."]
    for line in lammps_input.input_file(dynamics, atoms, cell).splitlines():
        if line.startswith(_OURS):
            continue
        if line.startswith("run ") and DUMP not in "".join(lines):
            lines += _watch(dynamics, cell, frames)
        lines.append(line)
        if line.startswith("read_data "):
            lines += [*_pair_style(control), "neighbor 1.0 bin"]
    return "\n".join(lines) + "\n"


def dump_every(dynamics: Dynamics, frames: int) -> int:
    """Steps between two moments that are written down."""
    return max(1, dynamics.all_steps // frames)


def settings_file(control: Control) -> str:
    """The text of MLIP-2's mlip.ini."""
    lines = {
        "mtp-filename": control.potential,
        "select": "TRUE",
        "select:threshold": control.thresholds["threshold_save"],
        "select:threshold-break": control.thresholds["threshold_break"],
        "select:save-selected": SAVED,
        "select:load-state": control.state,
    }
    return "".join(f"{key} {value}\n" for key, value in lines.items())


def _pair_style(control: Control) -> list[str]:
    if control.style == "mlip-2":
        return [f"pair_style mlip {SETTINGS}", "pair_coeff * *"]
    words = {
        "load_from": control.potential,
        "extrapolation_control": "true",
        **{f"extrapolation_control:{name}": value for name, value in control.thresholds.items()},
        "extrapolation_control:save_extrapolative_to": SAVED,
    }
    return ["pair_style mlip " + " ".join(f"{key}={value}" for key, value in words.items()), "pair_coeff * *"]


def _watch(dynamics: Dynamics, cell: Floats, frames: int) -> list[str]:
    """End when somebody asks, or when the cell has come apart or collapsed; write moments down."""
    volume = abs(math.prod(float(edge) for edge in np.diag(cell))) * dynamics.scale**3
    return [
        "# a file of this name ends the run",
        f"variable {ASKED} equal is_file({STOP_FILE})",
        f"fix {ASKED} all halt {_ASK_EVERY} v_{ASKED} > 0.5 error soft",
        f'variable {SWOLLEN} equal "(vol > {volume * _MOST_SWELLING:.6f}) || (vol < {volume / _MOST_SWELLING:.6f})"',
        f"fix {SWOLLEN} all halt {_MEASURE_EVERY} v_{SWOLLEN} > 0.5 error soft",
        f"dump moments all custom {dump_every(dynamics, frames)} {DUMP} id type x y z",
        "dump_modify moments sort id format float %.10f flush yes",
    ]
