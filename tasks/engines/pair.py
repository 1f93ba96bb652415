"""Train pair potentials."""

from tasks.engines.python_step import PythonStep

ENGINE = PythonStep(
    name="pair",
    step="train-pair",
    needs=("train", "species", "min_dist", "max_dist", "radial_basis_size", "seed"),
    writes=("pair.json",),
    packages=("numpy", "scipy"),
)
