"""Crash points: a pilot is stopped dead at each commit, message, rename … in turn; what follows must end the same.

    python tests/crash_points.py --all               each point once, 16 points with a second crash in the recovery
    python tests/crash_points.py --sample 24         points spread over the run, as in `make test`
    python tests/crash_points.py --only 137          one point, to look at it (with --keep: the folder stays)

The hooks are here and wrap the functions through which a pilot touches the world; nothing in the pilot knows of them. A
point is the k-th of these events. All is imported once; each run is a forked child, and a crash is its SIGKILL at the
event. Its launcher is another process, which notices, as it does in life. What steps compute is replayed
(:mod:`crash_replay`).
"""

import argparse
import gc
import itertools
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crash_replay import MISSES, keep_results, replay_from
from crash_workload import (
    State,
    copy_of,
    differences,
    end_state,
    leave_unpacked,
    make_old,
    make_workload,
    wait_until_nobody_is_left,
)
from sqlalchemy.engine.default import DefaultDialect

from pilot.agent.comm import LocalComm
from pilot.agent.launcher_link import LauncherLink
from pilot.config import read_config
from pilot.folder import Folder
from pilot.supervisor import run_pilot

#: functions of ``os`` after which the folder is another
_CHANGES = ("replace", "rename", "link", "unlink", "remove", "rmdir", "mkdir")
#: a second crash comes among so many first events of the recovery
_EARLY = 60
#: on a machine that has much else to do
_PATIENCE_S = 300.0


class Points:
    """Counts the events of this process, and ends it at the one that is wanted."""

    def __init__(self, root: Path, kill_at: int, names: Path | None) -> None:
        self._root = str(root)
        self._kill_at = kill_at
        self._names = names
        self._seen: list[str] = []

    def event(self, name: str) -> None:
        """Something is about to happen, or has just happened."""
        self._seen.append(name)
        if len(self._seen) == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def write_names(self) -> None:
        """Leave the names of all events, for who wants to know them."""
        if self._names is not None:
            self._names.write_text("\n".join(self._seen))

    def install(self) -> None:
        """Wrap what a pilot does to the world."""
        # mypy knows no assignment to methods; it is what this harness does
        dialect, comm, link = DefaultDialect, LocalComm, LauncherLink
        self._around(dialect, "do_commit", lambda *_: "commit")
        self._around(comm, "send", lambda _self, _node, message: f"send {type(message).__name__}")
        self._after(comm, "receive", lambda heard: [f"heard {type(message).__name__}" for _, message in heard])
        self._around(link, "flush", lambda self_: "tell the launcher" if self_._outgoing else "")
        self._after(link, "read", lambda found: [f"launcher says {message['ev']}" for message in found])
        for name in _CHANGES:
            self._around(os, name, lambda *args, name=name, **_: self._of_path(name, args))
        self._around(os, "fsync", lambda *_: "fsync")

    def _of_path(self, name: str, args: tuple[Any, ...]) -> str:
        paths = [str(arg) for arg in args if isinstance(arg, str | Path)]
        if not paths or not paths[0].startswith(self._root):
            return ""
        return f"{name} {Path(paths[-1]).suffix or 'folder'}"

    def _around(self, owner: Any, name: str, named: Callable[..., str]) -> None:
        inner = getattr(owner, name)

        def outer(*args: Any, **kwargs: Any) -> Any:
            what = named(*args, **kwargs)
            if what:
                self.event(f"before {what}")
            result = inner(*args, **kwargs)
            if what:
                self.event(f"after {what}")
            return result

        setattr(owner, name, outer)

    def _after(self, owner: Any, name: str, named: Callable[[Any], list[str]]) -> None:
        inner = getattr(owner, name)

        def outer(*args: Any, **kwargs: Any) -> Any:
            result = inner(*args, **kwargs)
            for what in named(result):
                self.event(what)
            return result

        setattr(owner, name, outer)


def run(folder: Folder, store: Path, kill_at: int = 0, names: Path | None = None) -> int | None:
    """A pilot in a forked child, until its end or its crash; the exit code, None if it was killed."""
    child = os.fork()
    if child == 0:
        _be_a_pilot(folder, store, Points(folder.root, kill_at, names))
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return None if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return 99
        time.sleep(0.01)


def _be_a_pilot(folder: Folder, store: Path, points: Points) -> None:
    code = 1
    try:
        out = os.open(folder.root.parent / f"{folder.root.name}.out", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(out, 1)
        os.dup2(out, 2)
        replay_from(store)
        points.install()
        print(run_pilot(folder, read_config(folder.config)), flush=True)
        points.write_names()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def tear_journal(folder: Folder, rng: random.Random) -> None:
    """The launcher died, too, while it wrote down an end: the last line is not whole."""
    for path in folder.ends.glob("*.jsonl"):
        content = path.read_bytes()
        cut = rng.randrange(1, 40)
        if len(content) > cut:
            path.write_bytes(content[:-cut])


class Harness:
    """The workload, its calm end, and the crashes."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.store = place / "store"
        self.store.mkdir()
        self.template = make_workload(place / "template")
        self.calm: State = {}
        self.names: list[str] = []
        # each child collects its garbage when it begins: ours need not be looked at five hundred times
        gc.collect()
        gc.freeze()

    def run_calmly(self) -> None:
        """Twice: once with all computed, once with all replayed; both must end the same."""
        first = copy_of(self.template, self.place / "first")
        leave_unpacked(first)
        assert run(first, self.store) == 0, _said(first)
        keep_results(first.root, self.store)
        self.calm = end_state(first)
        computed = (self.place / MISSES).read_text()
        second = copy_of(self.template, self.place / "second")
        listed = self.place / "names"
        assert run(second, self.store, names=listed) == 0, _said(second)
        assert not wait_until_nobody_is_left(second)
        assert not differences(end_state(second), self.calm), differences(end_state(second), self.calm)
        assert (self.place / MISSES).read_text() == computed, "something was computed again in a calm run"
        self.names = listed.read_text().splitlines()

    def crash(self, point: int, again: int = 0, torn: int = 0) -> list[str]:
        """What is wrong after a crash at ``point`` (and another at the event ``again`` of the recovery)."""
        folder = copy_of(self.template, self.place / f"crash{point}.{again}")
        first = run(folder, self.store, kill_at=point)
        if torn:
            tear_journal(folder, random.Random(torn))
        make_old(folder)
        if again:
            run(folder, self.store, kill_at=again)
            make_old(folder)
        code = first if first is not None and not again else run(folder, self.store)
        wrong = [f"the recovery ended with code {code}: {_said(folder)}"] if code != 0 else []
        wrong += [f"it lives: {line}" for line in wait_until_nobody_is_left(folder)]
        wrong += differences(end_state(folder), self.calm) if code == 0 else []
        if not wrong:
            shutil.rmtree(folder.root)
        return wrong


def _said(folder: Folder) -> str:
    return (folder.root.parent / f"{folder.root.name}.out").read_text()[-1500:]


def spread(total: int, count: int, rng: random.Random) -> list[int]:
    """``count`` points, one at random from each of as many equal parts of the run."""
    edges = [1 + round(part * total / count) for part in range(count + 1)]
    return sorted({rng.randrange(low, max(low + 1, high)) for low, high in itertools.pairwise(edges)})


def sweep(harness: Harness, points: list[tuple[int, int, int]]) -> dict[str, list[str]]:
    """Crash at each of them; what went wrong, by point."""
    wrong: dict[str, list[str]] = {}
    for number, (point, again, torn) in enumerate(points, 1):
        name = f"{point}: {harness.names[point - 1] if point <= len(harness.names) else '?'}"
        name += f", again at {again}" if again else ""
        found = harness.crash(point, again, torn)
        if found:
            wrong[name] = found
            print(f"WRONG {name}\n  " + "\n  ".join(found), flush=True)
        elif number % 50 == 0:
            print(f"{number} of {len(points)} points, {len(wrong)} wrong", flush=True)
    return wrong


def main() -> int:
    """Sweep, and say what came of it; exit code 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--sample", type=int, default=24)
    parser.add_argument("--only", type=int, nargs="*", default=[])
    parser.add_argument("--second", type=int, default=0, help="so many points with a crash in the recovery, too")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--place", type=Path, default=None, help="a folder to work in")
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="crash", dir=options.place))
    rng, began = random.Random(options.seed), time.monotonic()
    try:
        harness = Harness(place)
        harness.run_calmly()
        total = len(harness.names)
        print(
            f"{total} points: {json.dumps(Counter(' '.join(name.split()[:3]) for name in harness.names))}", flush=True
        )
        chosen = options.only or (list(range(1, total + 1)) if options.all else spread(total, options.sample, rng))
        second = options.second or (16 if options.all else 0)
        points = [(point, 0, point if rng.random() < 0.3 else 0) for point in chosen]
        points += [(rng.randrange(1, total + 1), rng.randrange(1, _EARLY), 0) for _ in range(second)]
        wrong = sweep(harness, points)
        print(f"{len(points)} crashes, {len(wrong)} wrong, {time.monotonic() - began:.0f} s", flush=True)
        return 1 if wrong else 0
    finally:
        if not options.keep:
            shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
