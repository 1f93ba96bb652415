"""What is left on the disk after a loss of power is enough to end as if nothing had been.

A real run is traced by strace, with all it wrote and flushed; see tests/lossy_disk.py for what is then taken away.
"""

import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from folders import make_folder
from lossy_disk import Disk, Harshness, fd_path, read_trace, strace

from pilot.cli.running import Wishes, run_here
from pilot.mailbox import fetch_answer, post

HARNESS = Path(__file__).with_name("power_loss.py")

#: writes beside and renames; then the same flushed, then with its folder flushed; then a file that is made in a folder
#: that is new, and one that is written twice
ACTS = """
import os
from pathlib import Path
def put(name, *, sync=False, sync_folder=False):
    with open(name + ".new", "wb") as file:
        file.write(b"new " + name.encode())
        file.flush()
        sync and os.fsync(file.fileno())
    os.replace(name + ".new", name)
    if sync_folder:
        fd = os.open(".", os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
put("safe", sync=True, sync_folder=True)
put("flushed", sync=True)
put("careless")
os.mkdir("made")
with open("made/file", "wb", buffering=0) as file:
    file.write(b"x")
    os.fsync(file.fileno())
with open("longer", "ab", buffering=0) as file:
    file.write(b"one")
    os.fsync(file.fileno())
    file.write(b"two")
os.unlink("removed")
"""


def traced(argv: list[str], cwd: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Run a command under strace; skips where that is not possible."""
    if shutil.which("strace") is None:
        pytest.skip("there is no strace: the calls of a run cannot be seen")
    probe = subprocess.run([*strace(out.with_name("probe")), "true"], capture_output=True, text=True, check=False)
    if probe.returncode != 0:
        pytest.skip(f"strace may not trace here: {probe.stderr.strip()[-200:]}")
    return subprocess.run([*strace(out), *argv], cwd=cwd, capture_output=True, text=True, check=False)


def files_of(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


def test_the_model_keeps_what_was_flushed_and_nothing_else(tmp_path: Path) -> None:
    root = tmp_path.resolve() / "folder"
    root.mkdir()
    for name in ("safe", "flushed", "careless", "longer", "removed"):
        (root / name).write_text("old ")
    disk = Disk(root)
    done = traced([sys.executable, "-S", "-c", ACTS], root, tmp_path / "calls")
    assert done.returncode == 0, done.stderr
    for call in read_trace(tmp_path / "calls"):
        disk.apply(call)
    assert {name: content.decode() for name, content in disk.present().items()} == files_of(root)

    disk.image(Harshness.NOTHING, random.Random(0), tmp_path / "nothing")
    assert files_of(tmp_path / "nothing") == {
        "safe": "new safe",
        "flushed": "old ",
        "careless": "old ",
        "longer": "old one",
        "removed": "old ",
    }
    disk.image(Harshness.NAMES, random.Random(0), tmp_path / "names")
    assert files_of(tmp_path / "names") == {
        "safe": "new safe",
        "flushed": "new flushed",
        "careless": "",
        "longer": "old one",
        "made/file": "x",
    }


@pytest.mark.engine
@pytest.mark.timeout(600)
def test_after_a_loss_of_power_at_any_moment_the_end_is_the_same(tmp_path: Path) -> None:
    traced(["true"], tmp_path, tmp_path / "calls")
    argv = [sys.executable, str(HARNESS), "--cuts", "12", "--place", str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "12 losses of power, 0 wrong" in done.stdout


def test_a_status_and_an_answer_that_a_loss_of_power_has_emptied_stop_nobody(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "f", "[run]\ncores = 1\n")
    folder.status.write_text("")
    assert run_here(folder, Wishes(), live=False) == 0
    request = post(folder, "drain", {})
    (folder.answers / f"{request.id}.json").write_text("")
    assert fetch_answer(folder, request) is None


def test_what_is_written_for_good_is_flushed_with_the_folder_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "calls").mkdir()
    code = (
        "from pathlib import Path; from db.files import write_whole;"
        "write_whole(Path('good'), 'x'); write_whole(Path('again'), 'x', durable=False)"
    )
    root = tmp_path.resolve() / "folder"
    root.mkdir()
    done = traced([sys.executable, "-P", "-c", code], root, tmp_path / "calls" / "t")
    assert done.returncode == 0, done.stderr
    names = [call.name for call in read_trace(tmp_path / "calls" / "t") if str(root) in fd_path(call.args[0])]
    flushed = [name for name in names if name == "fsync"]
    # the file and its folder; nothing for what can be made again
    assert len(flushed) == 2, names
