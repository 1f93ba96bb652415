"""The power goes at some moment of a real run: what is left on the disk must be enough to end in the same state.

    python tests/power_loss.py --cuts 200            so many moments, each by a reading of lossy_disk.Harshness

One run is traced; from the trace the folder is made as it would be after a loss of power at a moment; there a pilot
starts and goes on to the end. Half of the moments are those just after a commit: what it says must be on the disk.
"""

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from crash_points import run
from crash_replay import keep_results, replay_from
from crash_workload import (
    copy_of,
    differences,
    end_state,
    leave_unpacked,
    make_old,
    make_workload,
    wait_until_nobody_is_left,
)
from lossy_disk import Call, Disk, Harshness, fd_path, read_trace, strace

from pilot.config import read_config
from pilot.folder import Folder
from pilot.supervisor import run_pilot


class Record:
    """A calm run with all that it did to its folder."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.store = place / "store"
        self.store.mkdir()
        self.template = make_workload(place / "template")
        leave_unpacked(self.template)
        folder = copy_of(self.template, place / "traced")
        self._root = folder.root
        argv = [sys.executable, __file__, "--pilot", str(folder.root), "--store", str(self.store)]
        done = subprocess.run([*strace(place / "calls"), *argv], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert not wait_until_nobody_is_left(folder)
        keep_results(folder.root, self.store)
        self.calm = end_state(folder)
        self.calls = self._ours(read_trace(place / "calls"))

    def _ours(self, calls: list[Call]) -> list[Call]:
        """Those that changed or flushed something in the folder; that they tell all is seen at the end."""
        disk = self._disk()
        ours = [call for call in calls if disk.apply(call)]
        there = {
            str(path.relative_to(self._root)): path.read_bytes() for path in self._root.rglob("*") if path.is_file()
        }
        modelled = disk.present()
        wrong = [name for name in there.keys() | modelled.keys() if there.get(name) != modelled.get(name)]
        assert not wrong, f"the trace does not tell all: {wrong[:5]}"
        return ours

    def _disk(self) -> Disk:
        """As at the beginning, under the name that the trace knows."""
        disk = Disk(self.template.root)
        disk.is_at(self._root)
        return disk

    def commits(self) -> list[int]:
        """The numbers of the calls with which a commit was over."""
        found, truncated = [], False
        for number, call in enumerate(self.calls, 1):
            journal = fd_path(call.args[0]).endswith("/pilot.db-journal")
            if journal and call.name == "fdatasync" and truncated:
                found.append(number)
            if journal:
                truncated = call.name == "ftruncate"
        return found

    def images(self, cuts: list[tuple[int, Harshness]], rng: random.Random) -> Iterator[tuple[str, Folder]]:
        """The folder as it is left by each loss of power: after so many calls, by that reading."""
        disk, done = self._disk(), 0
        for number, (after, harshness) in enumerate(sorted(cuts)):
            for call in self.calls[done:after]:
                disk.apply(call)
            done = after
            target = self.place / f"cut{number}"
            disk.image(harshness, rng, target)
            yield f"after call {after} of {len(self.calls)}: {harshness}", Folder(target)


def choose(record: Record, count: int, rng: random.Random) -> list[tuple[int, Harshness]]:
    """Moments spread over the run, every other one just after a commit; one after all is over."""
    total, commits = len(record.calls), record.commits()
    readings = list(Harshness)
    cuts = [(total, Harshness.NOTHING)]
    for number in range(count - 1):
        low, high = number * total // count, (number + 1) * total // count
        near = [commit for commit in commits if low < commit <= high]
        moment = rng.choice(near) if near and number % 2 else rng.randint(low + 1, max(low + 1, high))
        cuts.append((moment, readings[number % 3]))
    return cuts


def recover(record: Record, folder: Folder) -> list[str]:
    """What is wrong after a pilot has gone on in what was left."""
    make_old(folder)
    code = run(folder, record.store)
    if code != 0:
        return [f"code {code}: {(folder.root.parent / f'{folder.root.name}.out').read_text()[-1500:]}"]
    wrong = [f"it lives: {line}" for line in wait_until_nobody_is_left(folder)]
    wrong += differences(end_state(folder), record.calm)
    if not wrong:
        shutil.rmtree(folder.root)
    return wrong


def main() -> int:
    """Cut the power, and say what came of it; exit code 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuts", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--place", type=Path, default=None, help="a folder to work in")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--pilot", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.pilot is not None:
        replay_from(options.store)
        folder = Folder(options.pilot)
        print(run_pilot(folder, read_config(folder.config)))
        return 0
    place = Path(tempfile.mkdtemp(prefix="power", dir=options.place)).resolve()
    rng, began = random.Random(options.seed), time.monotonic()
    try:
        record = Record(place)
        cuts = choose(record, options.cuts, rng)
        print(
            f"{len(record.calls)} calls, {len(record.commits())} commits, {time.monotonic() - began:.0f} s", flush=True
        )
        wrong = 0
        for name, folder in record.images(cuts, rng):
            found = recover(record, folder)
            wrong += bool(found)
            if found:
                print(f"WRONG {name} ({folder.root.name})\n  " + "\n  ".join(found), flush=True)
        print(f"{len(cuts)} losses of power, {wrong} wrong, {time.monotonic() - began:.0f} s", flush=True)
        return 1 if wrong else 0
    finally:
        if not options.keep:
            shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
