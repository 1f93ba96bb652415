"""Select with MaxVol, γ meaning what it means in MLIP-3."""

from tasks.engines.python_step import PythonStep

ENGINE = PythonStep(
    name="maxvol",
    step="select",
    needs=("potential", "active_set", "train", "candidates", "species", "method", "gamma_save"),
    writes=("selected.cfg",),
    packages=("motep",),
)
