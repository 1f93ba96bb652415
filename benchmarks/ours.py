"""A pilot to be measured: on this machine, or in an allocation of a test cluster (tests/slurm/cluster.py).

Tasks are added while the pilot lives and waits: a task of its own keeps it alive until they are in its inbox.
"""

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "slurm"))

from cluster import Cluster, missing_programs, start_cluster

from pilot import mailbox
from pilot.cli.asking import ask
from pilot.folder import Folder
from pilot.snapshot import read_snapshot

PILOT = (sys.executable, "-P", "-m", "pilot", "run", "--folder", ".")
PATIENCE_S = 600.0


@dataclass(slots=True)
class Site:
    """A campaign folder, and where its pilots run: in allocations of ``cluster``, or here (None)."""

    root: Path
    cluster: Cluster | None

    @property
    def folder(self) -> Folder:
        """What is where in it."""
        return Folder(self.root)

    @property
    def go(self) -> Path:
        """A pipe: what waits for it waits without cost, until nobody can write to it any more."""
        return self.root / "go"

    def make(self, config: str = "", *, says: str = "echo begun", resources: dict[str, int] | None = None) -> None:
        """Make the folder, with one task that says something and then waits for :attr:`go`."""
        self.root.mkdir(parents=True)
        self.folder.config.write_text(config)
        os.mkfifo(self.go)
        self.wait_for_go(says, resources)

    def wait_for_go(self, says: str = "echo begun", resources: dict[str, int] | None = None) -> None:
        """Add a task that waits for :attr:`go`."""
        line = f"{says}; cat {self.go} || true"
        ask(self.folder, "add", {"tasks": [command(["/bin/sh", "-c", line], "waits", resources=resources or {})]})

    @contextmanager
    def pilot(self, nodes: int = 3, *options: str) -> Iterator[None]:
        """A pilot that is alive, and whose first task runs; at the end it has ended in order."""
        with self._here() if self.cluster is None else self._there(self.cluster, nodes, options):
            self.wait_for_tasks(1)
            yield
            self.release()

    def wait_for_tasks(self, count: int) -> None:
        """Until so many tasks have begun; only while none can have ended and been tidied away."""
        wait_until(lambda: len(list(self.root.glob("runs/**/stdout"))) >= count, "tasks do not begin", self.said)

    def release(self) -> None:
        """Let the tasks end that wait for :attr:`go`, and those that are about to."""
        writer = os.open(self.go, os.O_RDWR)
        self.go.unlink()
        os.close(writer)

    def drain(self) -> None:
        """Let what runs end, and start nothing more."""
        mailbox.post(self.folder, "drain", {})

    def add(self, tasks: Sequence[dict[str, Any]]) -> float:
        """Put tasks into the inbox of the living pilot; when that was."""
        at = time.time()
        mailbox.post(self.folder, "add", {"tasks": list(tasks)})
        return at

    def said(self) -> str:
        """What the pilot has printed."""
        path = self.root / "pilot.out"
        return path.read_text() if path.exists() else ""

    def rows(self, question: str) -> list[tuple[Any, ...]]:
        """Of the database, once the pilot has ended."""
        with closing(sqlite3.connect(f"file:{self.folder.database}?mode=ro", uri=True)) as database:
            return database.execute(question).fetchall()

    def done(self) -> int:
        """Tasks that are done, as published."""
        snapshot = read_snapshot(self.folder)
        return 0 if snapshot is None else sum(states.get("done", 0) for states in snapshot.tasks.values())

    @contextmanager
    def _here(self) -> Iterator[None]:
        with (self.root / "pilot.out").open("wb") as out:
            process = subprocess.Popen(PILOT, cwd=self.root, stdout=out, stderr=out)
        try:
            yield
            code = process.wait(PATIENCE_S)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(30)
        if code != 0:
            raise SystemExit(f"the pilot ended with {code}\n{self.said()}")

    @contextmanager
    def _there(self, cluster: Cluster, nodes: int, more: tuple[str, ...]) -> Iterator[None]:
        script = self.root / "pilot.sh"
        script.write_text(f"#!/bin/bash\ndate +%s.%N > script-began\nexec {' '.join(PILOT)}\n")
        options = (f"-N{nodes}", "--exclusive", "--no-kill", "-t", "60", "--output=pilot.out", *more)
        job = cluster.submit(script, *options, cwd=self.root)
        try:
            yield
            state = cluster.wait_for_job(job, timeout=PATIENCE_S)
        except BaseException:
            cluster.run("scancel", job)
            raise
        if state != "COMPLETED":
            raise SystemExit(f"the pilot's job is {state}\n{self.said()}")


def command(argv: Sequence[str], name: str = "task", **wishes: Any) -> dict[str, Any]:
    """A task as `pilot add` asks for it, of one core."""
    spec = {"argv": list(argv), "cwd": None, "env": {}, "mpi": False, "shell": False}
    return {"name": name, "spec": spec} | wishes


def lacking_programs() -> list[str]:
    """What is not installed of the programs that a test cluster needs."""
    return missing_programs()


@contextmanager
def own_cluster(folder: Path, nodes: int = 3, cpus: int = 8, gpus: int = 0) -> Iterator[Cluster]:
    """A SLURM cluster of its own on this machine."""
    cluster = start_cluster(folder, nodes, cpus, gpus=gpus)
    try:
        yield cluster
    finally:
        cluster.cancel_all()
        cluster.stop()


def wait_until(
    condition: Callable[[], bool], otherwise: str, said: Callable[[], str] = str, pause_s: float = 0.05
) -> None:
    """Wait; after 10 minutes give up with a word."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"{otherwise}\n{said()}")
        time.sleep(pause_s)
