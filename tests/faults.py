"""Faults of disks for tests, by strace: calls that are slow, fail, or freeze the caller."""

import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest


class Traced:
    """A process under strace."""

    def __init__(self, tracer: subprocess.Popen[bytes], out: Path, calls: Path) -> None:
        self._tracer = tracer
        self._out = out
        self._calls = calls
        self._process: psutil.Process | None = None

    def pid(self) -> int:
        """Of the process itself."""
        found = self._find()
        assert found is not None
        return found.pid

    def _find(self) -> psutil.Process | None:
        if self._process is None:
            # strace may have a helper of its own at first
            children = psutil.Process(self._tracer.pid).children()
            own = [child for child in children if "python" in child.name()]
            self._process = own[0] if own else None
        return self._process

    def stopped(self) -> bool:
        """Whether it was frozen by the fault. In the middle of any call it looks frozen while strace looks at it."""
        return "stopped by SIGSTOP" in self.calls()

    def calls(self) -> str:
        """What strace has written."""
        return self._calls.read_text(errors="replace") if self._calls.exists() else ""

    def alive(self) -> bool:
        """Whether it has not ended."""
        return self._tracer.poll() is None

    def code(self) -> int:
        """Its exit code."""
        return self._tracer.wait(timeout=60)

    def said(self) -> str:
        """All that it has printed."""
        return self._out.read_text(errors="replace")


@contextmanager
def strace(
    argv: Sequence[str], scratch: Path, calls: str, fault: str, paths: Sequence[Path] = (), cwd: Path | None = None
) -> Iterator[Traced]:
    """A process whose ``calls`` have a fault (strace's words: "error=EIO:when=3+"); all, or those on these paths.

    The test is skipped where there is no strace, or it may not trace.
    """
    _demand_strace()
    out, log = scratch / "traced.out", scratch / "traced.calls"
    chosen = [word for path in paths for word in ("-P", str(path))]
    tracer = ["strace", "-f", "-qq", "-o", str(log), *chosen, "-e", f"trace={calls}", "-e", f"inject={calls}:{fault}"]
    with out.open("wb") as file:
        process = subprocess.Popen([*tracer, *argv], stdin=subprocess.DEVNULL, stdout=file, stderr=file, cwd=cwd)
    try:
        yield Traced(process, out, log)
    finally:
        for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []:
            child.send_signal(signal.SIGKILL)
        process.kill()
        process.wait()


def _demand_strace() -> None:
    if shutil.which("strace") is None:
        pytest.skip("there is no strace")
    tried = subprocess.run(["strace", "-qq", "-o", "/dev/null", "true"], capture_output=True, check=False)
    if tried.returncode != 0:
        pytest.skip("strace may not trace here")
