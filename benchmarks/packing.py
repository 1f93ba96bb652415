"""What packing costs and saves: a folder with many finished runs, packed by a pilot that has nothing else to do.

python benchmarks/packing.py --runs 20000 --place FOLDER
"""

import argparse
import resource
import shutil
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from finished import FILES, finish, inodes
from folders import make_folder

from db.engine import open_writer
from db.states import TaskKind
from pilot.config import read_config
from pilot.folder import Folder
from pilot.packing import packer
from pilot.supervisor import run_pilot

#: labels of a generation, in a campaign of 60
GENERATION = 333


def main() -> None:
    """Make the folder, let a pilot pack it, say what it took."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=20_000, help="finished runs, of three files each")
    options.add_argument("--place", type=Path, required=True, help="an empty folder is made here, and removed")
    options.add_argument("--seconds", type=float, default=packer.FINISH_S, help="that a pilot may pack at its end")
    given = options.parse_args()
    packer.FINISH_S = given.seconds
    folder = make_folder(given.place / "packing", "[run]\ncores = 2\n")
    try:
        for number in range(given.runs // 2 // GENERATION):
            finish(folder, GENERATION, generation=(0, number), kind=TaskKind.LABEL)
        made = given.runs // 2 // GENERATION * GENERATION
        finish(folder, given.runs - made)
        _measure(folder, given.runs)
    finally:
        shutil.rmtree(folder.root)


def _measure(folder: Folder, runs: int) -> None:
    before = inodes(folder.root)
    print(f"{runs} runs of {len(FILES)} files: {before} files and folders in all")
    for attempt in range(1, 20):
        began, used = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_utime
        run_pilot(folder, read_config(folder.config))
        wall = time.monotonic() - began
        cpu = resource.getrusage(resource.RUSAGE_SELF).ru_utime - used
        after = inodes(folder.root)
        print(
            f"pilot {attempt}: {wall:.1f} s, at most {packer.FINISH_S:g} s of packing, {cpu:.1f} s of CPU: {after} left"
        )
        if after == before:
            break
        before = after
    _look(folder)


def _look(folder: Folder) -> None:
    """How long the manager's own part takes: what it asks the database."""
    from db import room

    writer = open_writer(folder.database)
    with writer.reading() as connection:
        for name, ask in (
            ("what can be packed", lambda: room.read_packable(connection, 10**9)),
            ("which generations are busy", lambda: room.read_busy_generations(connection, 10**9)),
            ("the room taken", lambda: room.read_room(connection)),
        ):
            began = time.monotonic()
            ask()
            print(f"{name}: {1000 * (time.monotonic() - began):.1f} ms")
    writer.close()
    archives = list(folder.packed.glob("*.zip"))
    print(f"{len(archives)} archives, {sum(path.stat().st_size for path in archives) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
