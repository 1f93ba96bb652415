"""Tasks that misbehave, all at once under one real pilot: what each is judged to be, and that nothing of it is left."""

import os
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from folders import make_folder

from db.errors import StorageError
from pilot.config import read_config
from pilot.folder import Folder
from pilot.mailbox import Request
from pilot.opening import apply_without_pilot
from pilot.snapshot import read_snapshot

#: carried by all that a task of ours starts, in its command line: whatever it forgets, that stays
TOKEN = f"misbehaving-{os.getpid()}"
MB = 1_000_000
CONFIG = """
[run]
cores = 30
soft_stop = 1
max_output_mb = 20
[retries]
crashed = 1
timeout = 0
infrastructure = 1
"""
PATIENCE_S = 120


@dataclass(frozen=True)
class Case:
    """What a task does (Python, or a shell line), and what must become of it."""

    name: str
    code: str
    verdict: str
    attempts: int = 1
    why: str = ""
    by_shell: bool = False
    more: dict[str, Any] = field(default_factory=dict)

    def given(self) -> dict[str, Any]:
        code = f"# {TOKEN}\nimport os, sys, time, signal\n{textwrap.dedent(self.code)}"
        argv = [f"{self.code} # {TOKEN}"] if self.by_shell else [sys.executable, "-c", code]
        spec: dict[str, Any] = {"argv": argv, "cwd": None, "env": {}, "mpi": False, "shell": self.by_shell}
        return {"name": self.name, "spec": spec, **self.more}


LIMIT = {"time_limit_s": 2.0}
FLEE = """
    if os.fork(): os._exit(0)
    os.setsid()
    if os.fork(): os._exit(0)
    for handle in range(64):
        try: os.close(handle)
        except OSError: pass
    os.chdir("/")
    time.sleep(600)
"""
CASES = [
    Case("hangs", "time.sleep(600)", "timeout", why="time limit", more=LIMIT),
    Case("spins", "while True: pass", "timeout", more=LIMIT),
    Case(
        "ignores all signals",
        "for number in (1, 2, 3, 10, 12, 15): signal.signal(number, signal.SIG_IGN)\ntime.sleep(600)",
        "timeout",
        more=LIMIT,
    ),
    Case("stops itself", "os.kill(os.getpid(), signal.SIGSTOP)\ntime.sleep(600)", "timeout", more=LIMIT),
    Case("forks away and ends well", FLEE, "done"),
    Case(
        "forks away and hangs, too",
        "if os.fork():\n    time.sleep(600)\n" + textwrap.dedent(FLEE),
        "timeout",
        more=LIMIT,
    ),
    Case("fifty children", "for _ in range(50):\n    if not os.fork(): time.sleep(600)", "done"),
    Case(
        "children that forget who they are",
        f"""
        import subprocess
        for _ in range(5):
            argv = [sys.executable, "-c", "import time; time.sleep(600) # {TOKEN}"]
            subprocess.Popen(argv, env={{}}, start_new_session=True)
        """,
        "done",
    ),
    Case(
        "eats memory",
        "held = []\nwhile True:\n    held.append(bytearray(10_000_000)); time.sleep(0.02)",
        "out of memory",
        2,
        "memory",
        more={"resources": {"memory_mb": 100}},
    ),
    Case("is killed by somebody", "os.kill(os.getpid(), 9)", "out of memory", 2, "SIGKILL, which we did not send"),
    Case(
        "writes without end",
        "while True: os.write(1, b'x' * 1_000_000); time.sleep(0.05)",
        "crashed",
        2,
        "max_output_mb",
    ),
    Case(
        "writes garbage",
        "os.write(1, os.urandom(MB)); os.write(2, os.urandom(MB)); sys.exit(3)".replace("MB", str(MB)),
        "crashed",
        2,
        "exit code 3",
    ),
    Case("exits with 1", "sys.exit(1)", "crashed", 2, "exit code 1"),
    Case("fails and exits with 0", "print('FATAL ERROR', file=sys.stderr)", "done"),
    Case("segfaults", "import ctypes; ctypes.string_at(0)", "crashed", 2, "signal 11"),
    Case("has a bus error", "os.kill(os.getpid(), signal.SIGBUS)", "crashed", 2, "signal 7"),
    Case("aborts", "os.abort()", "crashed", 2, "signal 6"),
    Case("is no program", "no-such-program-at-all", "bad input", 1, "not found", by_shell=True),
    Case("closes its output", "os.close(1); os.close(2); sys.exit(4)", "crashed", 2, "exit code 4"),
    Case("removes its folder", "import shutil; shutil.rmtree(os.getcwd()); sys.exit(5)", "crashed", 2, "exit code 5"),
    Case("locks its folder", "os.chmod('.', 0); sys.exit(6)", "crashed", 2, "exit code 6"),
    Case("thousands of files", "for i in range(3000): open(f'f{i}', 'w').close()", "done"),
    Case(
        "names that nobody can type",
        r"open(b'\xff\xfe\n\x1b[31m', 'w').close(); os.mkdir('a\nb'); os.symlink('/', 'root')",
        "done",
    ),
    Case("puts a link in place of its output", "os.remove('stdout'); os.symlink('/etc/passwd', 'stdout')", "done"),
    Case(
        "makes its output a pipe", "os.remove('stderr'); os.mkfifo('stderr'); sys.exit(8)", "crashed", 2, "exit code 8"
    ),
    Case(
        "writes to the pipes of its launcher",
        """
        for number in (0, 1):
            open(f"/proc/{os.getppid()}/fd/{number}", "wb", 0).write(b"\\x00rubbish" + number * b"\\n")
        """,
        "done",
    ),
    Case(
        "is nice and sits on one core", "os.nice(19); os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})", "done"
    ),
    Case("behaves", "print('well')", "done"),
]


class Ran:
    """A folder in which a pilot has run to its end."""

    def __init__(self, folder: Folder, cases: list[Case]) -> None:
        self.folder = folder
        tasks = [case.given() for case in cases]
        answer = apply_without_pilot(folder, read_config(folder.config), Request("1-add", "add", {"tasks": tasks}))
        assert answer["ok"], answer
        self.code, self.said = run(folder)

    def rows(self, question: str, *values: object) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"file:{self.folder.database}?mode=ro", uri=True)) as database:
            return database.execute(question, values).fetchall()

    def attempts(self, name: str) -> list[tuple[Any, ...]]:
        """Verdict, reason and folder of each attempt."""
        return self.rows(
            "SELECT verdict, reason, directory FROM attempts WHERE task_id = (SELECT id FROM tasks WHERE name = ?)"
            " ORDER BY id",
            name,
        )


def run(folder: Folder) -> tuple[int, str]:
    """`pilot run`, to its end."""
    argv = [sys.executable, "-P", "-m", "pilot", "run", "--plain", "--folder", str(folder.root)]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    return ended.returncode, ended.stdout + ended.stderr


def survivors() -> list[int]:
    """What is left of our tasks, by what cannot be forgotten."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline", "status"])
        if process.info["status"] != "zombie" and any(TOKEN in word for word in process.info["cmdline"] or ())
    ]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    folder = make_folder(tmp_path_factory.mktemp("misbehaving"), CONFIG)
    ran = Ran(folder, CASES)
    yield ran
    # what locked its folder must not stand in the way of tidying up
    for path in (folder.root / "runs").rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_is_judged_for_what_it_did(ran: Ran, case: Case) -> None:
    attempts = ran.attempts(case.name)
    assert [verdict for verdict, _, _ in attempts] == [case.verdict] * case.attempts, attempts
    assert all(case.why in reason for _, reason, _ in attempts), attempts
    ((state,),) = ran.rows("SELECT state FROM tasks WHERE name = ?", case.name)
    assert state == ("done" if case.verdict == "done" else "failed")


def test_nothing_of_them_is_left_and_the_pilot_is_well(ran: Ran) -> None:
    assert survivors() == []
    assert ran.rows("SELECT state, reason FROM pilots") == [("ended", "nothing is left that could run")], ran.said
    # tasks have failed: whoever waits for the pilot is told
    assert ran.code == 1
    assert "Traceback" not in ran.said
    assert not ran.folder.lease.exists()
    snapshot = read_snapshot(ran.folder)
    assert snapshot is not None
    assert [node.quarantined for node in snapshot.nodes] == [""]


def test_of_an_endless_output_the_beginning_and_the_end_are_kept(ran: Ran) -> None:
    for _, _, directory in ran.attempts("writes without end"):
        text = (ran.folder.root / directory / "stdout").read_bytes()
        assert 2 * MB < len(text) < 3 * MB
        assert b"bytes were left out here" in text


def test_what_garbage_is_quoted_does_no_harm_to_a_terminal(ran: Ran) -> None:
    assert all(reason.isprintable() for _, reason, _ in ran.attempts("writes garbage"))


def test_the_pipes_between_agent_and_launcher_bear_rubbish(ran: Ran) -> None:
    log = ran.folder.log.read_text()
    assert "rubbish" in log
    assert "the launcher died" not in log


def test_a_task_that_ends_its_launcher_each_time_fails_in_the_end_and_its_neighbour_does_not(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "poison", CONFIG)
    marker = tmp_path / "neighbours"
    neighbour = f"open({str(marker)!r}, 'a').write('x'); time.sleep(2 if os.path.getsize({str(marker)!r}) < 3 else 0)"
    cases = [Case("poison", "os.kill(os.getppid(), 9); time.sleep(600)", ""), Case("neighbour", neighbour, "")]
    ran = Ran(folder, cases)
    attempts = ran.attempts("poison")
    # three losses may be chance; then it runs alone and is to blame, and infrastructure = 1 allows one more
    assert [verdict for verdict, _, _ in attempts] == ["interrupted"] * 3 + ["infrastructure"] * 2, attempts
    assert "was lost 5 times in a row while it ran (the launcher of its node died)" in attempts[-1][1]
    assert [verdict for verdict, _, _ in ran.attempts("neighbour")] == ["interrupted"] * 3 + ["done"]
    assert ran.rows("SELECT state FROM tasks ORDER BY id") == [("failed",), ("done",)]
    assert survivors() == []


def test_drains_are_no_losses(tmp_path: Path) -> None:
    config = CONFIG.replace("[run]", "[run]\nwalltime = 25").replace("infrastructure = 1", "infrastructure = 0")
    folder = make_folder(tmp_path / "drained", config)
    ran = Ran(folder, [Case("long", "time.sleep(600)", "")])
    assert [verdict for verdict, _, _ in ran.attempts("long")] == ["interrupted"]
    assert ran.rows("SELECT facts FROM attempts WHERE facts LIKE '%lost%'") == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to mount a disk that cannot be written to: root")
def test_a_machine_that_refuses_is_given_nothing_more_and_no_task_pays_for_it(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "full", CONFIG)
    runs = folder.root / "runs"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", str(runs)], check=True)
    try:
        ran = Ran(folder, [Case(f"task {number}", "pass", "") for number in range(20)])
    finally:
        subprocess.run(["umount", str(runs)], check=True)
    assert ran.rows("SELECT state, count(*) FROM tasks GROUP BY state") == [("ready", 20)], ran.said
    assert ran.rows("SELECT count(*) FROM attempts WHERE verdict = 'infrastructure'") < [(21,)]
    assert ran.code == StorageError.exit_code
    assert "nothing can be started any more" in ran.said
    assert "read-only" in ran.said
    assert run(folder)[0] == 0
    assert ran.rows("SELECT state, count(*) FROM tasks GROUP BY state") == [("done", 20)]
