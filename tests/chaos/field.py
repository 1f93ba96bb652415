"""The field on which faults strike: a campaign folder on a test cluster, its jobs, and the log of what was done."""

import contextlib
import io
import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from cluster import Cluster, ClusterError
from processes import Census, census
from work import KNOWN, Known

from pilot.cli.app import run

PILOT = (sys.executable, "-P", "-m", "pilot")
#: minutes: the fewest that SLURM knows in which something can be done
MINUTES = "2"


@dataclass(slots=True)
class Repair:
    """What is to be put right again at a time."""

    at: float
    what: str
    action: Callable[[], object]


@dataclass(slots=True)
class Field:
    """One campaign under faults."""

    cluster: Cluster
    root: Path
    random: Random
    started: float = field(default_factory=time.monotonic)
    repairs: list[Repair] = field(default_factory=list)
    known: list[Known] = field(default_factory=list)
    log: list[dict[str, Any]] = field(default_factory=list)
    dead_nodes: set[str] = field(default_factory=set)
    jobs: int = 0
    calm: bool = False
    user: threading.Thread | None = None
    turn: int = 0
    empty_since: float | None = None
    cancelled: set[str] = field(default_factory=set)

    @property
    def folder(self) -> Path:
        return self.root / "campaign"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def script(self) -> Path:
        return self.root / "known.sh"

    def note(self, what: str, **more: Any) -> None:
        """Into the log, which is written at once."""
        entry = {"at": round(time.time(), 2), "s": round(time.monotonic() - self.started, 1), "what": what, **more}
        self.log.append(entry)
        with (self.root / "faults.jsonl").open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def census(self) -> Census:
        return census(self.folder)

    def slurm(self, *argv: str) -> str:
        """What a program of SLURM says; "" when it refuses."""
        try:
            return self.cluster.run(*argv)
        except (ClusterError, subprocess.TimeoutExpired):
            return ""

    def queue(self) -> dict[str, str]:
        """Job → state."""
        lines = self.slurm("squeue", "-h", "-o", "%A %T").splitlines()
        return dict(line.split(" ", 1) for line in lines if " " in line)

    def running_job(self) -> str:
        """The job that runs; "" if there is none."""
        return next((job for job, state in self.queue().items() if state == "RUNNING"), "")

    def submit(self) -> None:
        """One more short allocation."""
        nodes = 3 if self.calm else self.random.choice([1, 2, 3, 3, 3, 3])
        lives = len(self.cluster.nodes) - len(self.dead_nodes)
        keep = [] if self.random.random() < 0.2 else ["--no-kill"]
        usual = [f"-N{max(1, min(nodes, lives))}", "--exclusive", "-t", MINUTES, "--open-mode=append", "--requeue"]
        self.jobs += 1
        with contextlib.suppress(ClusterError):
            job = self.cluster.submit(
                self.root / "pilot.sh", *usual, *keep, f"--output={self.root}/pilot.out", cwd=self.folder
            )
            self.note("job", job=job, options=" ".join([usual[0], *keep]))

    def repair(self, *, everything: bool = False) -> None:
        """Do the repairs that are due."""
        now = time.monotonic()
        due = [entry for entry in self.repairs if everything or entry.at <= now]
        self.repairs = [entry for entry in self.repairs if entry not in due]
        for entry in sorted(due, key=lambda entry: entry.at):
            try:
                entry.action()
            except (ClusterError, OSError) as error:
                self.note("repair failed", repair=entry.what, why=str(error)[:200])
                # another fault is in the way
                self.later(1.0, entry.what, entry.action)

    def later(self, seconds: float, what: str, action: Callable[[], object]) -> None:
        self.repairs.append(Repair(time.monotonic() + seconds, what, action))

    def pilot(self, *argv: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """A command of pilot's, from the login node."""
        verb, *rest = argv
        return subprocess.run(
            [*PILOT, verb, "--folder", str(self.folder), *rest],
            env=self.cluster.environ,
            cwd=self.root,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def status(self) -> dict[str, Any]:
        """What is published; empty if nothing readable is."""
        with contextlib.suppress(OSError, ValueError):
            content = json.loads((self.state / "status.json").read_text())
            if isinstance(content, dict):
                return content
        return {}

    def add(self, task: Known) -> None:
        """`pilot add`, and what became of it."""
        options = list(task.options)
        ids = {known.name: known.id for known in self.known}
        for name, kind in task.parents:
            if ids.get(name) is None:
                self.note("not asked", task=task.name, why=f"nobody knows the id of {name}")
                return
            options += ["--after" if kind == "done" else "--after-ended", str(ids[name])]
        task.asked = "maybe"
        if task not in self.known:
            self.known.append(task)
        try:
            done = self.pilot("add", "--name", task.name, *options, "--", *task.argv(self.script))
        except subprocess.TimeoutExpired:
            self.note("add hangs", task=task.name)
            return
        said = f"{done.stdout}\n{done.stderr}"
        words = [line.split("added: task ", 1)[1] for line in said.splitlines() if "added: task " in line]
        if done.returncode == 0:
            # also when the pilot has not answered yet: then it is promised that it will be applied, once
            task.asked = "yes"
        if done.returncode == 0 and words:
            task.id = int(words[0].split()[0].rstrip(";,."))
        else:
            self.note("add", task=task.name, code=done.returncode, said=said.strip()[-300:])

    def id_of(self, task: Known) -> int | None:
        """The id of a task; where its request was not answered, by its name in what is published."""
        if task.id is None:
            with contextlib.suppress(sqlite3.Error), closing(self._published()) as database:
                found = database.execute("SELECT id FROM tasks WHERE name = ?", (task.name,)).fetchone()
                task.id = None if found is None else int(found[0])
        return task.id

    def _published(self) -> sqlite3.Connection:
        return sqlite3.connect(f"file:{self.state / 'copy.db'}?mode=ro", uri=True)

    def add_in_process(self, task: Known) -> None:
        """The same from within, which is quicker; no pilot lives yet."""
        ids = {known.name: known.id for known in self.known}
        options = list(task.options)
        for name, kind in task.parents:
            options += ["--after" if kind == "done" else "--after-ended", str(ids[name])]
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = run(
                ["add", "--folder", str(self.folder), "--name", task.name, *options, "--", *task.argv(self.script)]
            )
        if code != 0:
            raise RuntimeError(said.getvalue())
        task.asked, task.id = "yes", int(said.getvalue().split("added: task ", 1)[1].split()[0].rstrip(";,."))
        self.known.append(task)

    def known_later(self, kind: str) -> Known:
        """A task that is about to be asked for, by whatever way."""
        task = Known(f"{kind}-{len(self.known)}", "sum", 60 + len(self.known))
        self.known.append(task)
        return task

    def write_plan(self) -> None:
        """For the checker."""
        names = ("name", "kind", "number", "fate", "parents", "asked", "id")
        plan = [{name: getattr(task, name) for name in names} | {"answer": task.answer()} for task in self.known]
        (self.root / "plan.json").write_text(json.dumps(plan, indent=1))


def make_field(cluster: Cluster, root: Path, toml: str, seed: int) -> Field:
    """A folder with a campaign, and the script of its jobs."""
    made = Field(cluster, root, Random(seed))
    for path in (made.folder, root / "book", root / "tmp"):
        path.mkdir(parents=True)
    (made.folder / "pilot.toml").write_text(toml)
    made.script.write_bytes(KNOWN.read_bytes())
    lines = ["#!/bin/bash", f"export CHAOS_FOLDER={made.folder} TMPDIR={root}/tmp", f"exec {' '.join(PILOT)} run"]
    (root / "pilot.sh").write_text("\n".join(lines) + "\n")
    os.environ.pop("SLURM_JOB_ID", None)
    return made
