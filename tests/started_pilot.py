"""A pilot in a process of its own, and requests to it."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from pilot import mailbox
from pilot.config import read_config
from pilot.folder import Folder
from pilot.mailbox import Request
from pilot.opening import apply_without_pilot
from pilot.requests import Answer
from pilot.snapshot import Snapshot, read_snapshot

#: a time that no other test sleeps
SLEEP = ["sleep", f"{600 + os.getpid() / 1e6:.6f}"]


def given(*argv: str, **more: object) -> dict[str, object]:
    spec = {"argv": list(argv), "cwd": None, "env": {}, "mpi": False, "shell": False}
    return {"name": " ".join(argv)[:40], "spec": spec, **more}


def put(folder: Folder, verb: str, **arguments: object) -> Answer:
    """A request to a folder that no pilot holds."""
    return apply_without_pilot(folder, read_config(folder.config), Request(f"{time.time()}-{verb}", verb, arguments))


def ask(folder: Folder, verb: str, **arguments: object) -> Answer:
    """A request to a pilot that lives."""
    request = mailbox.post(folder, verb, arguments)
    return until(lambda: mailbox.fetch_answer(folder, request))


def until(question: Callable[[], object], seconds: float = 30.0) -> object:  # type: ignore[type-arg]
    deadline = time.monotonic() + seconds
    while not (answer := question()):
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)
    return answer


class Started:
    """A pilot in a process of its own."""

    def __init__(self, folder: Folder, *options: str) -> None:
        self.folder = folder
        argv = [sys.executable, "-P", "-m", "pilot", "run", "--plain", "--folder", str(folder.root), *options]
        self.process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def status(self) -> Snapshot | None:
        return read_snapshot(self.folder)

    def wait_for_running(self, number: int) -> None:
        until(lambda: (seen := self.status()) is not None and len(seen.running) == number)

    def wait(self) -> int:
        return self.process.wait(timeout=60)


@pytest.fixture
def started() -> Iterator[Callable[..., Started]]:
    pilots: list[Started] = []

    def start(folder: Folder, *options: str) -> Started:
        pilots.append(Started(folder, *options))
        return pilots[-1]

    yield start
    for pilot in pilots:
        if pilot.process.poll() is None:
            for child in psutil.Process(pilot.process.pid).children(recursive=True):
                child.kill()
            pilot.process.kill()
            pilot.process.wait()


def plain_pilot(folder: Folder) -> subprocess.Popen[bytes]:
    """A pilot of which the test looks after itself; what it says is kept beside its folder."""
    argv = [sys.executable, "-P", "-m", "pilot", "run", "--plain", "--folder", str(folder.root)]
    with (folder.root.parent / f"{folder.root.name}.out").open("ab") as out:
        return subprocess.Popen(argv, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
