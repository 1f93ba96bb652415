"""The input of an exploration as LAMMPS reads it: pure text, kept beside the run so that a person can read it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from ase.data import atomic_masses, chemical_symbols

from tasks.mtp.dynamics import Dynamics, Phase

Floats = npt.NDArray[np.float64]

#: the fix through which the potential enters
FIX = "pf"
#: the fix that changes the cell while a liquid is cooled at constant volume
_SQUEEZE = "squeeze"
_LARGEST_SEED = 900_000_000
_STEPS_OF_ONE_ATOM = 8000
_FEWEST_STEPS = 100
_MOST_STEPS = 1000


@dataclass(frozen=True, slots=True)
class Turned:
    """A crystal as LAMMPS wants it.

    Attributes:
        cell: lower triangular, three rows, Å.
        positions: Å.
        combination: whole numbers (3, 3): ``cell`` is ``combination`` times the vectors that were given, turned.
    """

    cell: Floats
    positions: Floats
    combination: Floats

    def given_vectors(self, cell: Floats) -> Floats:
        """The vectors that were given, as they lie in a later ``cell`` of the run (Å).

        It is the same lattice either way, but a k-grid belongs to the vectors: 4×4×2 on other vectors of the same
        crystal are other k-points, and with few of them another energy (80 meV an atom for lithium on 4×4×2).
        """
        return np.asarray(np.linalg.solve(self.combination, cell))


def lower_triangular(cell: Floats, positions: Floats) -> Turned:
    """The same crystal turned so that its cell is lower triangular, with small tilts and the atoms inside.

    LAMMPS wants a along x, b in the xy plane and the three right-handed. A left-handed cell gets two vectors
    exchanged, which is the same lattice; tilts are reduced by adding whole vectors.
    """
    combination = np.eye(3)
    if np.linalg.det(cell) < 0.0:
        combination = combination[[1, 0, 2]]
    upper = np.asarray(np.linalg.qr((combination @ cell).T, mode="r"))
    turned = upper.T * np.sign(np.diag(upper))
    placed = positions @ np.linalg.inv(combination @ cell) @ turned
    for row, column in ((2, 1), (1, 0), (2, 0)):
        whole = round(turned[row, column] / turned[column, column])
        turned[row] -= whole * turned[column]
        combination[row] -= whole * combination[column]
    inside = placed @ np.linalg.inv(turned)
    return Turned(turned, (inside - np.floor(inside)) @ turned, combination)


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


def steps_in_part(atoms: int) -> int:
    """How many steps are done between two restart points: about a second's worth; it depends on nothing else."""
    return min(max(_STEPS_OF_ONE_ATOM // atoms, _FEWEST_STEPS), _MOST_STEPS)


def input_file(dynamics: Dynamics, atoms: int, cell: Floats) -> str:
    """The text of in.lammps, as a person would run it: in one piece.

    Args:
        dynamics: what it does.
        atoms: how many there are.
        cell: lower triangular, the one that is wanted in the end; at constant volume a liquid is brought to it.
    """
    first, *later = dynamics.phases
    lines = [
        "# Exploration with a moment tensor potential; units: Å, eV, ps, K, bar.",
        f"# Energy, forces, virial and the extrapolation grade come from pilot through the fix {FIX}.",
        f"# It is run in parts of {steps_in_part(atoms)} steps, each from the restart file of the one before.",
        *beginning(dynamics, atoms),
        f"run {first.last}",
    ]
    for before, phase in zip(dynamics.phases, later, strict=False):
        lines += ["unfix move", *([f"unfix {_SQUEEZE}"] if before.squeeze else [])]
        lines += [*_integrator(dynamics, phase, atoms), *_squeeze(phase, cell), f"run {phase.last - phase.first}"]
    return "\n".join(lines) + "\n"


def beginning(dynamics: Dynamics, atoms: int) -> list[str]:
    """All lines before the first ``run``."""
    seed = dynamics.seed % _LARGEST_SEED + 1
    phase = dynamics.phases[0]
    return [
        "units metal",
        "atom_style atomic",
        "atom_modify map array sort 0 0.0",
        "boundary p p p",
        "box tilt large",
        "read_data data.lammps",
        *_settings(dynamics),
        *_velocities(phase.start, seed, atoms),
        *_dynamics(dynamics, phase, atoms),
    ]


def going_on(dynamics: Dynamics, step: int, atoms: int, restart: str, cell: Floats) -> list[str]:
    """All lines before a later ``run``, from a step on.

    What the thermostat and the barostat remember, and the cell from which a squeeze began, is in the restart file.
    """
    phase = dynamics.phase_at(step)
    return [
        "clear",
        "atom_modify sort 0 0.0",
        "box tilt large",
        f"read_restart {restart}",
        *_settings(dynamics),
        *_free_centre(atoms),
        *_dynamics(dynamics, phase, atoms),
        *_squeeze(phase, cell),
    ]


def run_line(phase: Phase, upto: int) -> str:
    """Run to a step of a phase; what changes along the phase, changes over all of it."""
    return f"run {upto} upto start {phase.first} stop {phase.last} post no"


def _settings(dynamics: Dynamics) -> list[str]:
    return [
        "# no pair style: the potential looks for its neighbours itself",
        "neighbor 1.0 nsq",
        "neigh_modify every 1 delay 0 check yes",
        "comm_modify cutoff 2.0",
        f"timestep {dynamics.timestep_fs / 1000.0:.6g}",
    ]


def _dynamics(dynamics: Dynamics, phase: Phase, atoms: int) -> list[str]:
    return [
        f"fix {FIX} all external pf/callback 1 1",
        f"fix_modify {FIX} energy yes virial yes",
        *_integrator(dynamics, phase, atoms),
        "thermo_style custom step temp pe ke etotal press vol",
        "thermo_modify norm no flush yes",
        f"thermo {max(1, dynamics.all_steps // 100)}",
    ]


def _velocities(temperature: float, seed: int, atoms: int) -> list[str]:
    create = f"velocity all create {temperature:.6g} {seed} dist gaussian rot no"
    if atoms > 1:
        return [f"{create} mom yes"]
    return [*_free_centre(atoms), f"{create} mom no temp thermo_temp"]


def _free_centre(atoms: int) -> list[str]:
    """Without its centre's motion one atom would have no degree of freedom and so no temperature."""
    return ["compute_modify thermo_temp extra/dof 0"] if atoms == 1 else []


def _integrator(dynamics: Dynamics, phase: Phase, atoms: int) -> list[str]:
    """Nosé–Hoover with LAMMPS' usual damping: 100 steps for the temperature, 1000 for the pressure."""
    if not dynamics.thermostat:
        return ["fix move all nve"]
    step = dynamics.timestep_fs / 1000.0
    temperature = f"temp {phase.start:.6g} {phase.end:.6g} {100 * step:.6g}"
    if phase.pressure is None:
        lines = [f"fix move all nvt {temperature}"]
    else:
        p = phase.pressure
        pressure = f"{dynamics.coupling} {p:.6g} {p:.6g} {1000 * step:.6g}"
        # a flip would exchange the vectors of the cell in the middle of the run
        lines = [f"fix move all npt {temperature} {pressure} flip no"]
    if atoms == 1:
        lines.append("compute_modify move_temp extra/dof 0")
    return lines


def _squeeze(phase: Phase, cell: Floats) -> list[str]:
    """The cell goes to the one that is wanted, the atoms with it; its corner stays where it is."""
    if not phase.squeeze:
        return []
    edges = " ".join(f"{axis} final 0 {cell[k, k]:.12f}" for k, axis in enumerate("xyz"))
    tilts = f"xy final {cell[1, 0]:.12f} xz final {cell[2, 0]:.12f} yz final {cell[2, 1]:.12f}"
    return [f"fix {_SQUEEZE} all deform 1 {edges} {tilts} flip no"]
