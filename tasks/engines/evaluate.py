"""Evaluate a potential: errors on the holdout, lattice parameter, equation of state."""

from tasks.engines.python_step import PythonStep

ENGINE = PythonStep(name="evaluate", step="evaluate", needs=("potential", "species"), packages=("motep", "ase"))
