"""Our potential and its active set as one file of MLIP-3, an ``.almtp``: so γ is the same number in MLIP and here.

The layout is told in :mod:`tasks.formats.almtp`. The configurations of the set are left out, as grades need only the
matrices; MLIP-3 reads the file and grades with it, and so does its pair style.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from motep.potentials.mtp.data import MTPData

from db.files import write_whole
from tasks.formats.mtp import format_potential
from tasks.mtp.active_set import ActiveSet

Floats = npt.NDArray[np.float64]


def file_order(potential: MTPData) -> npt.NDArray[np.intp]:
    """Where each parameter of the file (radial, species, moment coefficients) is in motep's order (the reverse)."""
    moments, species = int(potential.alpha_scalar_moments), int(potential.species_count)
    radial = species**2 * int(potential.radial_funcs_count) * int(potential.radial_basis.size)
    order = np.arange(moments + species + radial)
    return np.concatenate([order[moments + species :], order[moments : moments + species], order[:moments]])


def write_almtp(path: Path, potential: MTPData, active: ActiveSet) -> None:
    """Write both whole, one behind the other.

    Raises:
        StorageError: the disk refuses.
    """
    order = file_order(potential)
    by_neighbourhoods = active.atoms is not None
    weights = {
        "energy_weight": 0.0 if by_neighbourhoods else 1.0,
        "force_weight": 0.0,
        "stress_weight": 0.0,
        "site_en_weight": 1.0 if by_neighbourhoods else 0.0,
    }
    head = format_potential(potential).rstrip("\n") + "\n#MVS_v1.1\n"
    head += "".join(f"{name} {value:.16e}\n" for name, value in weights.items()) + "weight_scaling 2\n#"
    matrix = np.ascontiguousarray(active.matrix[:, order], dtype="<f8")
    # the file holds the transpose of the inverse
    inverse = np.ascontiguousarray(active.inverse[order].T, dtype="<f8")
    rows = "".join("-1 -1\n" for _ in order)
    write_whole(path, head.encode() + matrix.tobytes() + inverse.tobytes() + f"\n#\n{rows}#\n".encode())
