"""The folder for what a run needs while it runs: wave functions, densities.

It is removed when the run is judged, unless the next attempt can go on from it; then it is removed, or moved, when that
attempt begins, or when there will be none.
"""

import contextlib
import shutil
from pathlib import Path

FOLDER = "scratch"


def drop(directory: Path) -> None:
    """Remove the scratch folder of an attempt, if it is there and as far as that is possible."""
    with contextlib.suppress(OSError):
        shutil.rmtree(directory / FOLDER)
