"""Programs on this machine: where they are and which version. Looked at only when a person asks."""

import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from db.errors import MissingError
from pilot import host


def locate(program: str) -> Path | None:
    """Where a program is, by its name on PATH or by a path; None when it is not there or not executable."""
    found = shutil.which(program)
    return None if found is None else Path(found).absolute()


def first_match(argv: Sequence[str], pattern: str, *, env: Mapping[str, str], timeout_s: float) -> str | None:
    """What a short run of a program prints that fits ``pattern``: how most programs tell their version.

    The program gets nothing on its standard input and a folder of its own that is removed, as many write
    something about the missing input. Its exit code is not looked at, for the same reason.

    Args:
        argv: the program and its arguments.
        pattern: a regular expression; its first group is the answer.
        env: added to the environment of this process.
        timeout_s: after so many seconds it is killed, and the answer is taken from what it had printed.

    Returns:
        The first group of the first match in its two outputs; None without one, or if it cannot be started.
    """
    with tempfile.TemporaryDirectory(prefix="pilot-") as folder:
        try:
            ran = host.run(["env", "-C", folder, *argv], timeout_s, env={**os.environ, **env})
        except MissingError:
            return None
    found = re.search(pattern, ran.stdout + "\n" + ran.stderr)
    return found.group(1) if found else None
