"""Evaluate a potential: errors on sets, lattice parameter, equation of state, elastic constants, error bars."""

from tasks.engines.python_step import PythonStep

ENGINE = PythonStep(
    name="evaluate",
    step="evaluate",
    needs=("potential", "species"),
    writes=("parity.npz",),
    packages=("motep", "ase"),
)
