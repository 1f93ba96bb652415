"""Pilots in allocations of the test cluster: a folder with tasks, a batch script, and what came of it."""

import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from cluster import Cluster

from pilot.cli.app import run
from pilot.cli.presence import look
from pilot.folder import Folder
from pilot.snapshot import Snapshot, read_snapshot

PILOT = f"{sys.executable} -P -m pilot"


class Site:
    """A campaign folder on the cluster."""

    def __init__(self, cluster: Cluster, root: Path, config: str = "") -> None:
        self.cluster = cluster
        self.folder = Folder(root)
        root.mkdir(parents=True, exist_ok=True)
        self.folder.config.write_text(config)

    def add(self, *argv: str) -> None:
        """`pilot add` from the login node."""
        assert run(["add", "--folder", str(self.folder.root), *argv]) == 0

    def submit(self, *options: str, before: str = "", nodes: int = 3) -> str:
        """Submit a pilot; the id of the job."""
        script = self.folder.root / "pilot.sh"
        script.write_text(f"#!/bin/bash\n{before}\nexec {PILOT} run\n")
        usual = (f"-N{nodes}", "--exclusive", "--no-kill", "-t", "10", "--open-mode=append", "--output=pilot.out")
        return self.cluster.submit(script, *usual, *options, cwd=self.folder.root)

    def said(self) -> str:
        """What the pilots have printed."""
        path = self.folder.root / "pilot.out"
        return path.read_text() if path.exists() else ""

    def ends(self, job: str, timeout: float = 120) -> None:
        """Wait until a job has ended, and see that it ended well."""
        state = self.cluster.wait_for_job(job, "COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", timeout=timeout)
        assert state == "COMPLETED", f"{state}\n{self.said()}\n{self.cluster.logs()}"
        assert not look(self.folder).alive

    def snapshot(self) -> Snapshot | None:
        """What is published."""
        return read_snapshot(self.folder)

    def count(self, state: str) -> int:
        """Tasks in a state, as published."""
        snapshot = self.snapshot()
        return 0 if snapshot is None else sum(of_kind.get(state, 0) for of_kind in snapshot.tasks.values())

    def rows(self, question: str) -> list[tuple[Any, ...]]:
        """Of the database once no pilot lives, else of its copy."""
        source = self.folder.copy if look(self.folder).alive else self.folder.database
        with closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as database:
            return database.execute(question).fetchall()

    def attempts_by_node(self) -> dict[str, int]:
        """How many attempts were done on each node."""
        return dict(self.rows("SELECT node, count(*) FROM attempts WHERE verdict = 'done' GROUP BY node"))

    def all_done_once(self, tasks: int) -> None:
        """Every task is done, and by one attempt only."""
        assert self.rows("SELECT state, count(*) FROM tasks GROUP BY state") == [("done", tasks)]
        done = self.rows("SELECT task_id, count(*) FROM attempts WHERE verdict = 'done' GROUP BY task_id")
        assert len(done) == tasks
        assert all(count == 1 for _, count in done)

    def allocations(self) -> list[dict[str, Any]]:
        """The rows of pilots, first to last."""
        names = ("id", "state", "job_id", "nodes", "reserved_core_s", "reason")
        rows = self.rows(f"SELECT {', '.join(names)} FROM pilots ORDER BY id")
        found = [dict(zip(names, row, strict=True)) for row in rows]
        return [entry | {"nodes": json.loads(entry["nodes"])} for entry in found]
