"""An independent look at what a campaign under faults has left: by sqlite3, the files and /proc.

Nothing of the pilot's code is imported here, and nothing that it says of itself (status, logs) is believed: its
database is compared with the files, with the books that the tasks keep themselves, and with an undisturbed run.

    python tests/chaos/checker.py ROOT REFERENCE      ROOT has campaign/, book/, plan.json
"""

import json
import math
import re
import sqlite3
import sys
import tarfile
import zipfile
from collections import Counter, defaultdict
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

RYDBERG = 13.605693122994
#: from what to what a task may go, by event; "" is before it was there
WAYS = {
    ("", "added"): {"waiting", "ready"},
    ("waiting", "released"): {"ready"},
    ("ready", "started"): {"running"},
    ("running", "succeeded"): {"done"},
    ("running", "retried"): {"ready"},
    ("running", "interrupted"): {"ready"},
    ("running", "failed"): {"failed"},
    ("waiting", "cancelled"): {"cancelled"},
    ("ready", "cancelled"): {"cancelled"},
    ("running", "cancelled"): {"cancelled"},
    ("failed", "revived"): {"waiting"},
    ("cancelled", "revived"): {"waiting"},
    ("ready", "held"): {"waiting"},
}
#: verdicts by which an attempt costs its task nothing
FREE = {"interrupted", "infrastructure"}
#: a restarted or otherwise summed self-consistent field may differ so much, eV
SAME_EV = 1e-6


@dataclass(slots=True)
class Report:
    """What was found wrong, and what was counted."""

    wrong: list[str] = field(default_factory=list)
    counts: dict[str, Any] = field(default_factory=dict)

    def demand(self, condition: object, otherwise: str) -> None:
        if not condition:
            self.wrong.append(otherwise)


Row = dict[str, Any]


class Books:
    """The tables of a database, each row a dict."""

    def __init__(self, database: Path) -> None:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as opened:
            opened.row_factory = sqlite3.Row
            self.sound = [row[0] for row in opened.execute("PRAGMA integrity_check")]
            self.dangling = opened.execute("PRAGMA foreign_key_check").fetchall()

            def all_of(table: str) -> list[Row]:
                return [dict(row) for row in opened.execute(f"SELECT * FROM {table} ORDER BY 1")]

            self.tasks, self.attempts, self.events = all_of("tasks"), all_of("attempts"), all_of("events")
            self.pilots, self.edges, self.labels = all_of("pilots"), all_of("edges"), all_of("labels")
            self.structures, self.potentials = all_of("structures"), all_of("potentials")
            self.campaign_id = dict(opened.execute("SELECT key, value FROM meta")).get("campaign_id", "")
        self.of_task: dict[int, list[Row]] = defaultdict(list)
        for attempt in self.attempts:
            self.of_task[attempt["task_id"]].append(attempt)
        self.task = {task["id"]: task for task in self.tasks}


def check(root: Path, reference: Path | None) -> Report:
    """All checks."""
    report, folder = Report(), root / "campaign"
    books = Books(folder / "state" / "pilot.db")
    check_database(report, books)
    check_histories(report, books)
    check_cores(report, books)
    check_done_once(report, books, folder)
    check_known(report, books, root)
    check_labels(report, books, folder)
    if reference is not None:
        check_against(report, books, folder, reference)
    check_left_over(report, books, root)
    check_processes(report, books, folder)
    verdicts = Counter(attempt["verdict"] for attempt in books.attempts)
    report.counts |= {
        "tasks": dict(Counter(task["state"] for task in books.tasks)),
        "attempts": {str(verdict): count for verdict, count in verdicts.items()},
        "pilots": dict(Counter(pilot["state"] for pilot in books.pilots)),
        "labels": len(books.labels),
        "resumable": sum(attempt["resumable"] for attempt in books.attempts),
    }
    return report


def check_database(report: Report, books: Books) -> None:
    report.demand(books.sound == ["ok"], f"integrity_check: {books.sound[:3]}")
    report.demand(not books.dangling, f"foreign_key_check: {len(books.dangling)} rows")
    open_pilots = [pilot["id"] for pilot in books.pilots if pilot["state"] in {"active", "draining"}]
    report.demand(not open_pilots, f"pilots {open_pilots} are recorded as alive")
    report.demand(books.pilots and books.pilots[-1]["state"] == "ended", "the last pilot has not ended in order")


def check_histories(report: Report, books: Books) -> None:
    """The events, one after another, lead each task to the state it is in; and fit its attempts."""
    state: dict[int, set[str]] = defaultdict(lambda: {""})
    count: dict[int, Counter[str]] = defaultdict(Counter)
    for event in books.events:
        task = event["task_id"]
        if task is None:
            continue
        before = state[task]
        state[task] = set().union(*(WAYS.get((possible, event["event"]), set()) for possible in before))
        report.demand(state[task], f"task {task}: {event['event']} while {before} (event {event['id']})")
        count[task][event["event"]] += 1
    for task in books.tasks:
        number, attempts = task["id"], books.of_task[task["id"]]
        report.demand(
            task["state"] in state[number], f"task {number} is {task['state']}, by its events {state[number]}"
        )
        report.demand(
            count[number]["started"] == len(attempts),
            f"task {number}: started {count[number]['started']} times, {len(attempts)} attempts",
        )
        verdicts = Counter(attempt["verdict"] for attempt in attempts)
        report.demand(
            count[number]["interrupted"] == sum(verdicts[name] for name in ("interrupted",)),
            f"task {number}: {count[number]['interrupted']} times interrupted, by its attempts {dict(verdicts)}",
        )
    for attempt in books.attempts:
        whole = attempt["ended_at"] is not None and attempt["verdict"] is not None
        report.demand(whole, f"attempt {attempt['id']} has no end")
        if whole:
            report.demand(
                attempt["ended_at"] >= attempt["started_at"], f"attempt {attempt['id']} ended before it began"
            )


def check_cores(report: Report, books: Books) -> None:
    """No core of a node was given to two attempts at once by one pilot."""
    spans: dict[tuple[int, str, int], list[tuple[float, float, int]]] = defaultdict(list)
    for attempt in books.attempts:
        shares = [(attempt["node"], json.loads(attempt["cores"]))]
        shares += [(share["node"], share["cores"]) for share in json.loads(attempt["others"])]
        for node, cores in shares:
            for core in cores:
                end = attempt["ended_at"] if attempt["ended_at"] is not None else math.inf
                spans[attempt["pilot_id"], node, core].append((attempt["started_at"], end, attempt["id"]))
    for (pilot, node, core), those in spans.items():
        those.sort()
        for (_, end, first), (start, _, second) in pairwise(those):
            report.demand(
                end <= start, f"attempts {first} and {second} of pilot {pilot} both held core {core} of {node}"
            )


def check_done_once(report: Report, books: Books, folder: Path) -> None:
    """A done task has one done attempt, its last; and the files of that are there."""
    for task in books.tasks:
        attempts = books.of_task[task["id"]]
        done = [attempt for attempt in attempts if attempt["verdict"] == "done"]
        if task["state"] != "done":
            report.demand(
                not done, f"task {task['id']} is {task['state']} but attempt {done and done[0]['id']} is done"
            )
            continue
        report.demand(len(done) == 1, f"task {task['id']} is done by {len(done)} attempts")
        if done:
            report.demand(
                attempts[-1] is done[-1], f"task {task['id']}: attempt {attempts[-1]['id']} after it was done"
            )
            there = done[-1]["archive"] or (folder / done[-1]["directory"]).is_dir()
            report.demand(there, f"attempt {done[-1]['id']} is done, and its folder is not there")
    known = {attempt["id"] for attempt in books.attempts}
    strangers = [path for path in (folder / "runs").glob("*/*") if path.name.isdigit() and int(path.name) not in known]
    report.demand(not strangers, f"folders of attempts that are not recorded: {[path.name for path in strangers[:5]]}")


def check_known(report: Report, books: Books, root: Path) -> None:
    """The tasks with known answers, by the plan and by the books that they kept."""
    by_name: dict[str, list[Row]] = defaultdict(list)
    for task in books.tasks:
        by_name[task["name"]].append(task)
    for plan in json.loads((root / "plan.json").read_text()):
        name, found = plan["name"], by_name[plan["name"]]
        report.demand(len(found) <= 1, f"{name} was added {len(found)} times")
        if plan["asked"] == "yes":
            report.demand(found, f"{name} was accepted and is not there")
        if not plan["asked"]:
            report.demand(not found, f"{name} was never asked for and is there")
        if found:
            check_fate(report, books, plan, found[0], root)


def check_fate(report: Report, books: Books, plan: Row, task: Row, root: Path) -> None:
    name, attempts = plan["name"], books.of_task[task["id"]]
    fates = {plan["fate"]}
    report.demand(task["state"] in fates, f"{name} (task {task['id']}) is {task['state']}, must be {plan['fate']}")
    verdicts = Counter(attempt["verdict"] for attempt in attempts)
    limits = {"fails": ("crashed", 11), "hang": ("timeout", 2), "stubborn-hang": ("timeout", 2)}
    limits["no-such-kind"] = ("bad input", 1)
    if plan["kind"] in limits and plan["fate"] == "failed":
        verdict, count = limits[plan["kind"]]
        charged, seen = json.loads(task["tries"]).get(verdict, 0), verdicts[verdict]
        # failures on a node that was found to be bad are not charged
        report.demand(charged == count <= seen, f"{name}: {verdict} {seen} times, {charged} charged, not {count}")
        report.counts["not charged"] = report.counts.get("not charged", 0) + seen - charged
    if plan["kind"] == "flaky":
        report.demand(verdicts["crashed"] <= plan["number"], f"{name}: crashed {verdicts['crashed']} times")
    if task["state"] == "done" and plan["answer"] is not None:
        done = next(attempt for attempt in attempts if attempt["verdict"] == "done")
        said = output(root / "campaign", done)
        ranks = task["ranks"]
        wanted = f"answer {done['id']} {plan['answer']}"
        report.demand(said.count(wanted) == ranks, f"{name}: {said[:80]!r} in attempt {done['id']}, not {wanted}")
    check_book(report, plan, task, attempts, root / "book" / name)


def output(folder: Path, attempt: Row) -> str:
    """What an attempt printed, from its folder or its archive."""
    inside = Path(attempt["directory"]) / "stdout"
    try:
        if not attempt["archive"]:
            return (folder / inside).read_text(errors="replace")
        archive = folder / attempt["archive"]
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                names = [name for name in opened.namelist() if name.endswith("/".join(inside.parts[-2:]))]
                return opened.read(names[0]).decode(errors="replace") if names else ""
        with tarfile.open(archive) as opened_tar:
            for member in opened_tar.getmembers():
                if member.name.endswith("/".join(inside.parts[-2:])):
                    stream = opened_tar.extractfile(member)
                    return "" if stream is None else stream.read().decode(errors="replace")
    except OSError as error:
        return f"({error})"
    return ""


def check_book(report: Report, plan: Row, task: Row, attempts: list[Row], book: Path) -> None:
    """What the task itself wrote of its executions."""
    name = plan["name"]
    lines = [line.split() for line in book.read_text().splitlines()] if book.exists() else []
    report.demand(all(len(line) == 5 for line in lines), f"{name}: its book is torn")
    lines = [line for line in lines if len(line) == 5]
    of_id = {str(attempt["id"]): attempt for attempt in attempts}
    starts = Counter((line[1], line[2]) for line in lines if line[0] == "start")
    twice = [key for key, count in starts.items() if count > 1]
    report.demand(not twice, f"{name}: executed more than once as (rank, attempt) {twice}")
    strangers = {line[2] for line in lines} - set(of_id)
    report.demand(not strangers, f"{name}: executed as attempts {strangers}, which are not recorded as its own")
    if task["state"] in {"done", "failed", "cancelled"} and attempts:
        last = attempts[-1]
        after = [line for line in lines if line[0] == "start" and float(line[4]) > last["ended_at"]]
        report.demand(not after, f"{name}: executed after it was {task['state']}: {after}")
    overlaps = [of_id.get(line[2]) for line in lines if line[0] == "overlap"]
    for attempt in overlaps:
        before = [a for a in attempts if attempt is not None and a["id"] < attempt["id"]]
        # a node that is silent for long is written off while its tasks may still run
        why = before[-1]["reason"] if before else "no attempt before"
        report.demand("lost" in why or "silent" in why, f"{name}: two executions met; the one before: {why!r}")
    if overlaps:
        report.counts["overlaps"] = report.counts.get("overlaps", 0) + len(overlaps)
    if task["state"] == "done":
        ended = {line[2] for line in lines if line[0] == "end"}
        done = next(attempt for attempt in attempts if attempt["verdict"] == "done")
        report.demand(
            str(done["id"]) in ended, f"{name}: attempt {done['id']} is called done but never came to its end"
        )
    if task["state"] == "waiting":
        report.demand(not lines, f"{name}: it must never start and did")


def check_labels(report: Report, books: Books, folder: Path) -> None:
    """Each label is of one done attempt, and is what pw.x has printed there."""
    verdict = {attempt["id"]: attempt for attempt in books.attempts}
    done = {task["id"] for task in books.tasks if task["kind"] == "label" and task["state"] == "done"}
    labelled = {verdict[label["attempt_id"]]["task_id"] for label in books.labels if label["attempt_id"] is not None}
    report.demand(done == labelled, f"label tasks done and not counted, or the reverse: {sorted(done ^ labelled)[:5]}")
    for label in books.labels:
        attempt = verdict[label["attempt_id"]]
        report.demand(attempt["verdict"] == "done", f"label {label['id']} is of an attempt that is not done")
        printed = folder / attempt["directory"] / "pw.out"
        if attempt["archive"] or not printed.exists():
            continue
        energies = re.findall(r"^!\s+total energy\s+=\s+(\S+) Ry", printed.read_text(errors="replace"), re.MULTILINE)
        energy = json.loads(label["data"])["energy"]
        same = energies and abs(float(energies[-1]) * RYDBERG - energy) < 1e-4
        report.demand(same, f"label {label['id']}: {energy} eV, pw.x printed {energies} Ry")


def check_against(report: Report, books: Books, folder: Path, reference: Path) -> None:
    """The same structures, labels and potentials as in the undisturbed run."""
    other = Books(reference / "state" / "pilot.db")
    ours, theirs = label_by_content(books), label_by_content(other)
    report.demand(set(ours) == set(theirs), f"structures: {len(set(ours) - set(theirs))} are not in the reference, "
                                            f"{len(set(theirs) - set(ours))} are missing")  # fmt: skip
    different = [key for key in set(ours) & set(theirs) if ours[key] != theirs[key]]
    worst = max((abs(ours[key]["energy"] - theirs[key]["energy"]) for key in different), default=0.0)
    report.demand(worst < SAME_EV, f"{len(different)} labels differ, by up to {worst:.2e} eV")
    report.counts["labels not bitwise equal"] = len(different)
    for table, theirs_too in (("generations/*/train.cfg", reference), ("potentials/*/pot.mtp", reference)):
        mine = {path.relative_to(folder): path.read_bytes() for path in folder.glob(table)}
        yours = {path.relative_to(theirs_too): path.read_bytes() for path in theirs_too.glob(table)}
        report.demand(set(mine) == set(yours), f"{table}: {sorted(map(str, set(mine) ^ set(yours)))}")
        unequal = sorted(str(path) for path in set(mine) & set(yours) if mine[path] != yours[path])
        report.demand(not unequal or different, f"{table} differ: {unequal}")
    keys = {task["key"] for task in books.tasks if task["key"]} ^ {task["key"] for task in other.tasks if task["key"]}
    report.demand(not keys, f"campaign tasks differ: {sorted(keys)[:5]}")
    unfinished = [task["id"] for task in books.tasks if task["kind"] != "command" and task["state"] != "done"]
    report.demand(not unfinished, f"campaign tasks that are not done: {unfinished}")


def label_by_content(books: Books) -> dict[tuple[str, str, str], Row]:
    """(structure, role, settings) → label."""
    structure = {row["id"]: row for row in books.structures}
    found = {}
    for label in books.labels:
        of = structure[label["structure_id"]]
        found[of["hash"], of["role"], label["settings"]] = json.loads(label["data"])
    return found


def check_left_over(report: Report, books: Books, root: Path) -> None:
    """No lease, no file half written, no request unanswered, nothing in the temporary folders."""
    folder = root / "campaign"
    report.demand(not (folder / "state" / "lease.json").exists(), "state/lease.json is left")
    journal = folder / "state" / "pilot.db-journal"
    report.demand(not journal.exists() or journal.stat().st_size == 0, "a journal of the database is left")
    unwanted = [path for path in folder.rglob("*") if re.search(r"\.(new|tmp|part)$|^world-.*\.json$", path.name)]
    # of a command that was killed in the middle; the pilot removes it when it is surely of nobody
    unwanted = [path for path in unwanted if path.parent.name != "inbox"]
    report.demand(not unwanted, f"left over: {[str(path.relative_to(folder)) for path in unwanted[:8]]}")
    inbox = [path.name for path in (folder / "state" / "inbox").iterdir() if path.suffix == ".json"]
    report.demand(not inbox, f"in the inbox: {inbox[:5]}")
    resumable = {folder / row["directory"] for row in books.attempts if row["resumable"]}
    scratch = [path for path in (folder / "runs").glob("*/*/scratch") if path.parent not in resumable]
    report.demand(not scratch, f"scratch of {len(scratch)} attempts: {[path.parent.name for path in scratch[:5]]}")
    temporary = list((root / "tmp").rglob("*"))
    # an mpirun that is killed leaves its session folder, as it does without a pilot: counted only
    sessions = {path for path in temporary if any(part.startswith("ompi.") for part in path.relative_to(root).parts)}
    report.counts["session folders of killed mpiruns"] = len(
        [path for path in sessions if path.name.startswith("pid.")]
    )
    # and a pilot that is killed while it asks a program for its version, an empty folder
    empty = {path for path in temporary if path.name.startswith("pilot-") and path.is_dir() and not any(path.iterdir())}
    others = sorted(path.name for path in temporary if path not in sessions | empty)
    report.demand(not others, f"in TMPDIR: {len(others)} files, {others[:5]}")
    if (root / "private").exists():  # /dev/shm is ours alone
        shared = sorted(path.name for path in Path("/dev/shm").iterdir())
        report.demand(not shared, f"in /dev/shm: {len(shared)} files, {shared[:5]}")


def check_processes(report: Report, books: Books, folder: Path) -> None:
    """Nothing of the campaign runs any more."""
    mark = f"PILOT_CAMPAIGN={books.campaign_id}".encode()
    chaos = f"CHAOS_FOLDER={folder}".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            environ = (entry / "environ").read_bytes().split(b"\0")
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if (mark in environ or chaos in environ) and any(words):
            report.wrong.append(f"process {entry.name} is left: {b' '.join(words[:6]).decode(errors='replace')}")


def main() -> None:
    root, *reference = map(Path, sys.argv[1:])
    report = check(root, reference[0] if reference else None)
    print(json.dumps(report.counts, indent=1))
    for wrong in report.wrong:
        print(f"WRONG: {wrong}")
    sys.exit(1 if report.wrong else 0)


if __name__ == "__main__":
    main()
