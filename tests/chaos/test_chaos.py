"""A short run of the chaos runner; `make chaos` is the long one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

RUNNER = Path(__file__).with_name("chaos.py")
PSEUDO = Path("/usr/share/espresso/pseudo/Al.pz-vbc.UPF")
PROGRAMS = ("pw.x", "mpirun", "slurmctld", "slurmd", "munged", "flock")
SEARCH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


@pytest.mark.engine
@pytest.mark.timeout(900)
@pytest.mark.skipif(not PSEUDO.exists(), reason=f"there is no {PSEUDO}")
@pytest.mark.skipif(
    any(shutil.which(program, path=SEARCH) is None for program in PROGRAMS),
    reason=f"one of {', '.join(PROGRAMS)} is not installed",
)
def test_twenty_faults_change_nothing_in_what_comes_out() -> None:
    # another seed in each run would find more, but a test that fails must fail again
    argv = [sys.executable, str(RUNNER), "--small", "--faults", "20", "--mean", "3", "--seed", "1"]
    # not below tmp_path: sockets live there, so the path must be short
    done = subprocess.run(argv, capture_output=True, text=True, timeout=800, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "20 faults" in done.stdout
