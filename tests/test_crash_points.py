"""A pilot that is stopped dead at any commit, message or rename is followed by one that ends in the same state.

Here a sample of the points, spread over the run; `python tests/crash_points.py --all` does all.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from folders import make_folder

from pilot.folder import Folder
from pilot.left_overs import OLD_S, left_overs, remove_left_overs

HARNESS = Path(__file__).with_name("crash_points.py")


@pytest.mark.engine
@pytest.mark.timeout(600)
def test_after_a_crash_at_any_point_the_end_is_the_same(tmp_path: Path) -> None:
    argv = [sys.executable, str(HARNESS), "--sample", "14", "--second", "5", "--place", str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "19 crashes, 0 wrong" in done.stdout


def half_written(folder: Folder) -> list[Path]:
    """What pilots, commands and tries to take the lease leave when they die while they write."""
    potential = folder.root / "potentials" / ".s1g00.new"
    generation = folder.root / "generations" / "s1g01"
    potential.mkdir(parents=True)
    generation.mkdir(parents=True)
    (potential / "pot.mtp").write_text("half")
    names = [
        folder.state / ".status.json.123.new",
        folder.state / ".copy.db.new",
        folder.state / ".copy.db.new-journal",
        folder.answers / ".1.json.123.new",
        generation / ".train.123.new.cfg",
        folder.inbox / ".1.json.123.new",
        folder.state / "lease.0123abcd.new",
    ]
    for path in names:
        path.write_text("half")
    return [potential, *names]


def test_what_a_dead_pilot_left_half_written_is_removed_by_the_next(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "f")
    *ours, request, lease = half_written(folder)
    (folder.inbox / "1.json").write_text("{}")
    assert set(left_overs(folder)) == {*ours, request, lease}
    assert remove_left_overs(folder) == len(ours)
    # they may be written just now, by somebody else
    assert set(left_overs(folder)) == {request, lease}
    old = time.time() - 2 * OLD_S
    for path in (request, lease):
        os.utime(path, (old, old))
    assert remove_left_overs(folder) == 2
    assert not list(left_overs(folder))
    assert (folder.inbox / "1.json").exists()
