"""What one BFGS step of a training costs: our loss function and its slope beside motep's.

    python benchmarks/training.py --level 8

Both are asked for value and slope at the same point, in one run: quote the ratio. A BFGS step asks for a little more
than one of each. The training set is like that of the last stage of the Li campaign: cells of 2 to 54 atoms.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
from ase.build import bulk, make_supercell
from ase.calculators.singlepoint import SinglePointCalculator
from motep.loss import LossFunction, LossSetting
from motep.parallel import DummyMPIComm

from db.records import Label
from tasks.formats.atoms import from_atoms, to_atoms
from tasks.mtp.basis import untrained
from tasks.mtp.errors_of_fit import Pair, Weights
from tasks.mtp.loss import Loss

CELLS = [(1, 1, 2), (1, 1, 4), (2, 2, 2), (2, 2, 4), (2, 3, 4), (3, 3, 6)]


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--level", type=int, default=8)
    parser.add_argument("--configurations", type=int, default=300)
    options = parser.parse_args()
    pairs = [_pair(CELLS[k * len(CELLS) // options.configurations], k) for k in range(options.configurations)]
    potential = untrained(options.level, 1, 1.6, 5.5, 8)
    potential.species = np.array([3], dtype=np.int32)
    potential.initialize(np.random.default_rng(1))
    potential.optimized = ["species_coeffs", "moment_coeffs", "radial_coeffs"]
    images = []
    for structure, label in pairs:
        atoms = to_atoms(structure)
        known = {"energy": label.energy, "forces": np.array(label.forces), "stress": np.array(label.stress)}
        atoms.calc = SinglePointCalculator(atoms, **known)
        images.append(atoms)
    theirs = LossFunction(images, potential, LossSetting(), comm=DummyMPIComm())
    ours = Loss(potential, pairs, np.zeros(len(pairs)), [3], Weights())
    parameters = np.array(potential.parameters)

    def of_motep() -> None:
        theirs(parameters)
        theirs.jac(parameters)

    def of_pilot() -> None:
        ours.value()
        ours.slope()

    atoms_of_all = sum(len(structure.numbers) for structure, _ in pairs)
    print(f"level {options.level}: {len(parameters)} parameters, {len(pairs)} configurations, {atoms_of_all} atoms")
    of_pilot()  # the geometry is remembered from the first one on
    ours_s, theirs_s = _best(of_pilot), _best(of_motep)
    print(f"s each: {ours_s:.3f} ours, {theirs_s:.3f} motep, ratio {theirs_s / ours_s:.1f}")


def _best(function: Callable[[], None]) -> float:
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return min(times)


def _pair(repeat: tuple[int, int, int], seed: int) -> Pair:
    """Lithium with labels of no meaning: the cost does not depend on them."""
    rng = np.random.default_rng(seed)
    atoms = make_supercell(bulk("Li", "bcc", a=3.45), np.diag(repeat))
    atoms.rattle(0.1, rng=rng)
    forces = rng.normal(0.0, 0.1, (len(atoms), 3)).tolist()
    return from_atoms(atoms)[0], Label.from_json({"energy": -2.0, "forces": forces, "stress": [0.0] * 6})


if __name__ == "__main__":
    main()
