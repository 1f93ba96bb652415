"""The input of an exploration as LAMMPS reads it: pure text, kept beside the run so that a person can read it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from ase.data import atomic_masses, chemical_symbols

Floats = npt.NDArray[np.float64]

#: the fix through which the potential enters
FIX = "pf"
_LARGEST_SEED = 900_000_000


@dataclass(frozen=True, slots=True)
class Dynamics:
    """What LAMMPS is to do.

    Attributes:
        temperature: K.
        pressure: bar; None: constant volume.
        coupling: "iso", "aniso" or "tri": which parts of the cell may change.
        steps: number of steps.
        timestep_fs: fs.
        seed: of the velocities.
        thermostat: False gives constant energy (to check the forces).
    """

    temperature: float
    pressure: float | None
    coupling: str
    steps: int
    timestep_fs: float
    seed: int
    thermostat: bool = True


def lower_triangular(cell: Floats, positions: Floats) -> tuple[Floats, Floats]:
    """The same crystal turned so that its cell is lower triangular, with small tilts and the atoms inside.

    LAMMPS wants a along x, b in the xy plane and the three right-handed. A left-handed cell gets two vectors
    exchanged, which is the same lattice; tilts are reduced by adding whole vectors, as a flip in the run would do.

    Returns:
        The cell (three rows, Å) and the positions (Å).
    """
    scaled = positions @ np.linalg.inv(cell)
    if np.linalg.det(cell) < 0.0:
        cell, scaled = cell[[1, 0, 2]], scaled[:, [1, 0, 2]]
    upper = np.asarray(np.linalg.qr(cell.T, mode="r"))
    turned = upper.T * np.sign(np.diag(upper))
    placed = scaled @ turned
    turned[2] -= round(turned[2, 1] / turned[1, 1]) * turned[1]
    for row in (1, 2):
        turned[row] -= round(turned[row, 0] / turned[0, 0]) * turned[0]
    inside = placed @ np.linalg.inv(turned)
    return turned, (inside - np.floor(inside)) @ turned


def data_file(cell: Floats, positions: Floats, types: npt.NDArray[np.int32], species: list[int]) -> str:
    """The text of data.lammps for a lower triangular ``cell``; types are counted from 1 there."""
    lines = [
        "cell and atoms of this exploration (Å; written by pilot)",
        "",
        f"{len(positions)} atoms",
        f"{len(species)} atom types",
        "",
        *(f"0.0 {cell[k, k]:.12f} {axis}lo {axis}hi" for k, axis in enumerate("xyz")),
        f"{cell[1, 0]:.12f} {cell[2, 0]:.12f} {cell[2, 1]:.12f} xy xz yz",
        "",
        "Masses",
        "",
        *(f"{k} {atomic_masses[z]:.6f}  # {chemical_symbols[z]}" for k, z in enumerate(species, start=1)),
        "",
        "Atoms  # atomic",
        "",
    ]
    for number, (kind, (x, y, z)) in enumerate(zip(types, positions, strict=True), start=1):
        lines.append(f"{number} {kind + 1} {x:.12f} {y:.12f} {z:.12f}")
    return "\n".join(lines) + "\n"


def input_file(dynamics: Dynamics, atoms: int) -> str:
    """The text of in.lammps."""
    step = dynamics.timestep_fs / 1000.0
    seed = dynamics.seed % _LARGEST_SEED + 1
    lines = [
        "# Exploration with a moment tensor potential; units: Å, eV, ps, K, bar.",
        f"# Energy, forces, virial and the extrapolation grade come from pilot through the fix {FIX}.",
        "units metal",
        "atom_style atomic",
        "atom_modify map array sort 0 0.0",
        "boundary p p p",
        "box tilt large",
        "read_data data.lammps",
        "# no pair style: the potential looks for its neighbours itself",
        "neighbor 1.0 nsq",
        "neigh_modify every 1 delay 0 check yes",
        "comm_modify cutoff 2.0",
        f"timestep {step:.6g}",
        *_velocities(dynamics.temperature, seed, atoms),
        f"fix {FIX} all external pf/callback 1 1",
        f"fix_modify {FIX} energy yes virial yes",
        *_integrator(dynamics, step, atoms),
        "thermo_style custom step temp pe ke etotal press vol",
        "thermo_modify norm no flush yes",
        f"thermo {max(1, dynamics.steps // 100)}",
        f"run {dynamics.steps}",
    ]
    return "\n".join(lines) + "\n"


def _velocities(temperature: float, seed: int, atoms: int) -> list[str]:
    create = f"velocity all create {temperature:.6g} {seed} dist gaussian rot no"
    if atoms > 1:
        return [f"{create} mom yes"]
    # without its centre's motion one atom would have no degree of freedom and so no temperature
    return ["compute_modify thermo_temp extra/dof 0", f"{create} mom no temp thermo_temp"]


def _integrator(dynamics: Dynamics, step: float, atoms: int) -> list[str]:
    """Nosé–Hoover with LAMMPS' usual damping: 100 steps for the temperature, 1000 for the pressure."""
    if not dynamics.thermostat:
        return ["fix move all nve"]
    t = dynamics.temperature
    temperature = f"temp {t:.6g} {t:.6g} {100 * step:.6g}"
    if dynamics.pressure is None:
        lines = [f"fix move all nvt {temperature}"]
    else:
        p = dynamics.pressure
        pressure = f"{dynamics.coupling} {p:.6g} {p:.6g} {1000 * step:.6g}"
        lines = [f"fix move all npt {temperature} {pressure}"]
    if atoms == 1:
        lines.append("compute_modify move_temp extra/dof 0")
    return lines
