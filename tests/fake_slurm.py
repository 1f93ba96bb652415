"""Programs called sbatch, squeue and scancel that say what they are told to, and write down how they were called."""

import json
import os
from pathlib import Path

import pytest

_PROGRAM = """\
#!/usr/bin/env python3
import json, os, sys, time
from pathlib import Path
here, name = Path(__file__).parent, Path(__file__).name
keep = {key: value for key, value in os.environ.items() if key.startswith(("PILOT_", "SLURM", "OMPI_"))}
with (here / "calls").open("a") as calls:
    calls.write(json.dumps([name, sys.argv[1:], keep]) + "\\n")
said = json.loads((here / f"{name}.json").read_text())
if said["hangs"]:
    time.sleep(600)
sys.stdout.write(said["out"])
sys.stderr.write(said["err"])
sys.exit(said["code"])
"""


class FakeSlurm:
    """A SLURM that consists of three programs in a folder, which is put on PATH."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        folder.mkdir()
        for name in ("sbatch", "squeue", "scancel"):
            (folder / name).write_text(_PROGRAM)
            (folder / name).chmod(0o755)
            self.says(name)
        self.says("sbatch", "4711\n")
        patch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        for name in [name for name in os.environ if name.startswith(("SLURM", "PILOT_"))]:
            patch.delenv(name)

    def says(self, name: str, out: str = "", err: str = "", code: int = 0, *, hangs: bool = False) -> None:
        """From now on the program answers so."""
        said = {"out": out, "err": err, "code": code, "hangs": hangs}
        (self.folder / f"{name}.json").write_text(json.dumps(said))

    def calls(self, name: str) -> list[tuple[list[str], dict[str, str]]]:
        """How a program was called: its arguments, and what of the environment is ours or SLURM's."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(argv, environ) for called, argv, environ in map(json.loads, lines) if called == name]
