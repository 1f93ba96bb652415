"""Train with motep."""

from tasks.engines.python_step import PythonStep

ENGINE = PythonStep(
    name="motep",
    step="train",
    needs=("train", "level", "species", "min_dist", "max_dist", "radial_basis_size", "iterations", "seed"),
    writes=("pot.mtp", "active.npz"),
    packages=("motep", "scipy"),
    stops=True,
)
