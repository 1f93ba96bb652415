"""Typing commands in tests: here, in this process, or as a process of its own."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from pilot.cli.app import run
from pilot.cli.presence import look
from pilot.folder import Folder

PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Said:
    """What a command answered."""

    code: int
    out: str
    err: str


class Typist:
    """Types commands in a folder."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
        self.folder = Folder(folder)
        self._capsys = capsys
        patch.chdir(folder)
        # what a terminal would say of itself
        for name in ("COLUMNS", "LINES", "FORCE_COLOR"):
            patch.delenv(name, raising=False)

    def __call__(self, *argv: str, code: int = 0) -> Said:
        """Type a command that must end with this exit code."""
        self._capsys.readouterr()
        got = run(argv)
        text = self._capsys.readouterr()
        assert got == code, f"pilot {' '.join(argv)} ended with {got}\n{text.out}\n{text.err}"
        return Said(got, text.out, text.err)

    def fails(self, *argv: str, code: int) -> str:
        """Type a command that must fail in words: what stderr says."""
        said = self(*argv, code=code)
        assert said.err.startswith("error: ")
        assert "Traceback" not in said.err
        return said.err


def process(*argv: str, folder: Path) -> subprocess.Popen[str]:
    """A command as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "pilot", *argv],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(what: Callable[[], bool], why: str) -> None:
    """Look until it is so."""
    deadline = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < deadline, why
        time.sleep(0.02)


@contextmanager
def living_pilot(folder: Folder) -> Iterator[subprocess.Popen[str]]:
    """A pilot in a process of its own, alive until the end."""
    with process("run", folder=folder.root) as pilot:
        try:
            wait_for(lambda: look(folder).alive or pilot.poll() is not None, "the pilot does not come to life")
            yield pilot
        finally:
            if pilot.poll() is None:
                pilot.terminate()
                wait_for(lambda: pilot.poll() is not None or not pilot.send_signal(15), "it does not end")
