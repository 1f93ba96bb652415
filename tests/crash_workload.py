"""A small but complete piece of work for tests that crash pilots, and the state in which it must end.

A campaign with EMT labels, commands with edges, one that fails once, one that always fails, requests in the inbox. The
state leaves out what may differ (ids, times, how often something was interrupted) and nothing else.
"""

import hashlib
import json
import os
import re
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
from folders import command, make_folder
from sqlalchemy import Connection, select

from db.engine import open_reader
from db.schema import attempts, generations, labels, pilots, potentials, requests, structures, tasks
from db.states import Verdict
from pilot import host
from pilot.config import read_config
from pilot.folder import Folder
from pilot.left_overs import left_overs
from pilot.mailbox import post
from pilot.opening import held_folder, open_database

CONFIG = """
[run]
cores = 4
[campaign]
name = "crash"
species = ["Al"]
seed = 5
[crystal]
structure = "fcc"
a = 4.05
[initial]
train = 5
holdout = 2
eos_points = 0
repeat = [1, 1, 1]
strain = 0.1
[[stages]]
repeat = [1, 1, 1]
temperatures = [300, 600]
max_generations = 2
[explore]
steps = 40
[label]
engine = "ase"
[label.ase]
calculator = "ase.calculators.emt.EMT"
[train]
level = 2
min_dist = 1.8
max_dist = 4.5
radial_basis_size = 4
first_iterations = 5
iterations = 3
"""
#: it fails, unless it has failed before
ONCE = "mkdir ../../../marks/once 2>/dev/null && exit 3; exit 0"

State = dict[str, Any]


def make_workload(root: Path) -> Folder:
    """The folder as a user leaves it before the first `pilot run`."""
    folder = make_folder(root, CONFIG)
    (root / "marks").mkdir()
    with (
        held_folder(folder, "test") as lease,
        open_database(folder, read_config(folder.config), lease) as opened,
        opened.ledger.turn(host.now()) as turn,
    ):
        turn.add(
            [
                command("true", key="first"),
                command("sleep", "0.2", key="after first", after=("first",)),
                command("sh", "-c", ONCE, key="fails once"),
                command("false", key="fails"),
                command("true", key="never", after=("fails",)),
                command("true", key="all the same", after_ended=("fails", "fails once")),
                command("true", key="unwanted", after=("fails",)),
            ]
        )
        # not earlier than the pilot: its ids are those of the commands above, whatever follows
        ids = {task.key: task.id for task in turn.add([command("true", key="last", after=("after first",))])}
    assert ids == {"last": 8}
    chain = [{"name": "asked for", "spec": command("true").spec, "after": [1]}]
    post(folder, "add", {"tasks": chain})
    post(folder, "cancel", {"tasks": [7]})
    post(folder, "cancel", {"tasks": [999999]})
    return folder


def leave_unpacked(folder: Folder) -> None:
    """Let the folders of attempts be, so that one can look into them afterwards."""
    folder.config.write_text(CONFIG.replace("[run]", "[run]\npack = false"))


def copy_of(folder: Folder, root: Path) -> Folder:
    """The same once more, elsewhere."""
    shutil.copytree(folder.root, root)
    return Folder(root)


def end_state(folder: Folder) -> State:
    """All that must be the same at the end, whatever happened on the way."""
    with open_reader(folder.copy) as connection:
        known = {row["id"]: row for row in _rows(connection, select(tasks))}
        done = _attempts_by_task(connection, Verdict.DONE)
        crashed = _attempts_by_task(connection, Verdict.CRASHED)
        state: State = {
            "tasks": sorted((_name(row), row["kind"], row["state"], done[row["id"]]) for row in known.values()),
            "failed tries": [count for number, count in crashed.items() if known[number]["key"] == "fails"],
            "unended": [row["id"] for row in _rows(connection, select(attempts).where(attempts.c.ended_at.is_(None)))],
            "structures": sorted((row["hash"], row["role"]) for row in _rows(connection, select(structures))),
            "labels": _labels(connection),
            "generations": [
                (row["stage"], row["number"], row["outcome"], _without_times(row["facts"]))
                for row in _rows(connection, select(generations).order_by(generations.c.stage, generations.c.number))
            ],
            "potentials": [row["path"] for row in _rows(connection, select(potentials).order_by(potentials.c.path))],
            "requests": _requests(folder, connection),
            "pilots": sorted({row["state"] for row in _rows(connection, select(pilots))} - {"lost"}),
        }
    files = [*folder.root.glob("potentials/*/*"), *folder.root.glob("generations/*/*.cfg")]
    state["files"] = sorted((str(path.relative_to(folder.root)), _digest(path)) for path in files)
    state["inbox"] = sorted(path.name for path in folder.inbox.iterdir())
    state["half-written"] = sorted(str(path.relative_to(folder.root)) for path in _half_written(folder))
    state["lease"] = folder.lease.exists()
    # through JSON, so that a state that was kept in a file compares equal
    return dict(json.loads(json.dumps(state)))


def differences(state: State, calm: State) -> list[str]:
    """What is not as in the calm run, in words."""
    found = []
    for key, wanted in calm.items():
        got = state[key]
        if got != wanted and isinstance(wanted, list):
            more, less = list(got), list(wanted)
            for item in wanted:
                if item in more:
                    more.remove(item)
                    less.remove(item)
            found.append(f"{key}: too much {more[:3]}, missing {less[:3]}")
        elif got != wanted:
            found.append(f"{key}: {got} instead of {wanted}")
    return found


def make_old(folder: Folder) -> None:
    """What others had half-written when they died is found when it is old: let it be so."""
    for path in left_overs(folder):
        if path.is_file():
            os.utime(path, (time.time() - 7200, time.time() - 7200))


def processes_in(folder: Folder) -> list[str]:
    """The processes that lie in this folder or name it."""
    found = []
    for process in psutil.process_iter():
        try:
            words = " ".join(process.cmdline())
            if process.pid != os.getpid() and (process.cwd().startswith(str(folder.root)) or str(folder.root) in words):
                found.append(f"{process.pid}: {words}")
        except psutil.Error:
            continue
    return found


def wait_until_nobody_is_left(folder: Folder, patience_s: float = 30.0) -> list[str]:
    """Those that are left all the same."""
    deadline = time.monotonic() + patience_s
    while (left := processes_in(folder)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def _half_written(folder: Folder) -> set[Path]:
    """All of it, but for what a task that was killed has left in the folder of its attempt."""
    found = {
        path for path in folder.root.rglob(".*.new*") if not re.match(r"runs/\d+/", str(path.relative_to(folder.root)))
    }
    return found | set(left_overs(folder))


def _rows(connection: Connection, question: Any) -> list[dict[str, Any]]:
    return [dict(row._mapping) for row in connection.execute(question)]


def _name(row: dict[str, Any]) -> str:
    return str(row["key"] or row["name"])


def _attempts_by_task(connection: Connection, verdict: Verdict) -> Counter[int]:
    question = select(attempts.c.task_id).where(attempts.c.verdict == verdict)
    return Counter(connection.execute(question).scalars())


def _labels(connection: Connection) -> list[Any]:
    question = select(structures.c.hash, labels.c.settings, labels.c.data).join_from(labels, structures)
    return sorted([row.hash, row.settings, row.data] for row in connection.execute(question))


def _requests(folder: Folder, connection: Connection) -> list[Any]:
    """Each with its answer, which must be the same in the database and for the user."""
    found = []
    for row in _rows(connection, select(requests).order_by(requests.c.id)):
        path = folder.answers / f"{row['id']}.json"
        told = json.loads(path.read_text()) if path.exists() else None
        found.append([row["verb"], row["answer"]["ok"], told == row["answer"]])
    return found


def _without_times(facts: Any) -> Any:
    if isinstance(facts, dict):
        # what took how long, and which attempt it was, differs from run to run
        skipped = ("seconds", "_s", "attempt")
        return {key: _without_times(value) for key, value in facts.items() if not key.endswith(skipped)}
    return facts


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
