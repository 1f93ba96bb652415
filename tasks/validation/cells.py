"""Deformed copies of a cell; the atoms move with it."""

import numpy as np
import numpy.typing as npt

from db.records import Structure

Floats = npt.NDArray[np.float64]


def deformed(structure: Structure, matrix: Floats) -> Structure:
    """The same structure, each vector ``row @ matrix``."""
    data = structure.to_json()
    data["cell"] = (np.array(data["cell"]) @ matrix).tolist()
    data["positions"] = (np.array(data["positions"]).reshape(-1, 3) @ matrix).tolist()
    return Structure.from_json(data)


def scaled(structure: Structure, scale: float) -> Structure:
    """The same structure, all lengths times ``scale``."""
    return deformed(structure, scale * np.eye(3))


def volume_of(structure: Structure) -> float:
    """Å³ of the whole cell."""
    return abs(float(np.linalg.det(np.array(structure.cell))))
