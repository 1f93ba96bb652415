"""What one step of an exploration costs: our evaluator beside motep's ASE calculator, with and without γ.

    python benchmarks/explore.py --level 8

All get the same moving atoms of bcc lithium in turn, in one run: quote the ratios. γ wants the derivatives of the
energy with respect to the parameters; of the calculator they are to be had in its mode "train" only.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
from ase import Atoms
from ase.build import bulk, make_supercell
from motep.calculator import MTP

from tasks.mtp.active_set import build
from tasks.mtp.basis import untrained
from tasks.mtp.evaluator import Evaluator

CELLS = {2: (1, 1, 2), 4: (1, 1, 4), 16: (2, 2, 4), 54: (3, 3, 6)}
STEPS = 200


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--level", type=int, default=8)
    options = parser.parse_args()
    potential = untrained(options.level, 1, 1.6, 5.5, 8)
    potential.species = [3]
    potential.initialize(np.random.default_rng(1))
    print(f"{'':5} {'without γ, µs':>24} {'with γ, µs':>24}")
    print(f"{'atoms':>5}" + f" {'ours':>8}{'ASE':>8}{'ratio':>8}" * 2)
    for atoms, repeat in CELLS.items():
        cell = make_supercell(bulk("Li", "bcc", a=3.45), np.diag(repeat))
        evaluator = Evaluator(potential, skin=0.6)
        types = np.zeros(atoms, np.int32)
        rng = np.random.default_rng(0)
        width = len(potential.parameters)
        active = build(rng.normal(size=(2 * width, width)), potential)
        run, train = (MTP(potential, engine="cext", mode=mode) for mode in ("run", "train"))

        def plain(moved: Atoms, evaluator: Evaluator = evaluator, types: object = types) -> None:
            evaluator.predict(types, moved.positions, moved.cell.array)

        def graded(moved: Atoms, evaluator: Evaluator = evaluator, types: object = types) -> None:
            evaluator.predict(types, moved.positions, moved.cell.array)
            active.grade(evaluator.row())  # noqa: B023

        def ase(moved: Atoms, calculator: MTP = run) -> None:
            calculator.calculate(moved, ["energy", "forces", "stress"])

        def ase_graded(moved: Atoms, calculator: MTP = train) -> None:
            calculator.calculate(moved, ["energy", "forces", "stress"])
            active.grade(calculator.engine.jac_energy(moved).parameters)  # noqa: B023

        pairs = [[median_step(cell, step) for step in pair] for pair in ((plain, ase), (graded, ase_graded))]
        cells = "".join(f" {ours:8.0f}{theirs:8.0f}{theirs / ours:8.1f}" for ours, theirs in pairs)
        print(f"{atoms:5d}{cells}", flush=True)


def median_step(cell: Atoms, step: Callable[[Atoms], None]) -> float:
    """Microseconds of the median step of a random walk like that of atoms at room temperature."""
    moved = cell.copy()
    rng = np.random.default_rng(2)
    times = []
    for _ in range(STEPS):
        moved.positions += rng.normal(0.0, 0.005, moved.positions.shape)
        began = time.perf_counter()
        step(moved)
        times.append(time.perf_counter() - began)
    return float(np.median(times)) * 1e6


if __name__ == "__main__":
    main()
