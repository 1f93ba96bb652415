"""``mlp`` and ``lmp`` for tests: those that behave like MLIP's, or real ones where there are any."""

import os
import shutil
import sys
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "programs"
#: a real one, if there is one on this machine: not ours
REAL = shutil.which("mlp")
needs_mlp = pytest.mark.skipif(REAL is None, reason="needs MLIP-3's mlp on the PATH")


def put_on_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs ``mlp``, ``mlp-2`` and ``lmp`` that come first on the PATH; returns their folder."""
    folder.mkdir(exist_ok=True)
    for name in ("mlp", "mlp-2", "lmp"):
        script = folder / name
        played = PROGRAMS / name.removesuffix("-2")
        script.write_text(f'#!/bin/sh\nMLP_CALLED_AS={name} exec {sys.executable} -P {played} "$@"\n')
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return folder
