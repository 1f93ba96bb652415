"""Archives of runs: whole or not at all, and a folder goes only if all that it holds is in one."""

import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pilot.contents import count, say_size
from pilot.packing import archive as archives
from pilot.packing.archive import Archive, StoppedError, UnreadableError, write


def never() -> bool:
    return False


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run that has left all that a run can leave."""
    place = tmp_path / "runs" / "000123"
    (place / "scratch" / "empty").mkdir(parents=True)
    (place / "stdout").write_text("it was so\n" * 1000)
    (place / "scratch" / "wave").write_bytes(os.urandom(300_000))
    (place / "nothing").touch()
    (place / "ünï code").write_text("é")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").write_text("mine")
    (place / "out").symlink_to(tmp_path / "elsewhere")
    (place / "dangling").symlink_to("nowhere")
    os.mkfifo(place / "pipe")
    (place / "old").touch()
    os.utime(place / "old", (0, 0))
    return place


def packed(run: Path) -> Path:
    target = run.parent / "s1g01.zip"
    write(target, {run.name: run}, never)
    return target


def test_what_was_packed_comes_out_as_it_was(run: Path, tmp_path: Path) -> None:
    with Archive(packed(run)) as archive:
        assert archive.is_whole()
        assert archive.names() == ["000123"]
        files = dict(archive.files("000123"))
        assert files.keys() == {"stdout", "scratch/wave", "nothing", "ünï code", "out", "dangling", "old"}
        assert files["stdout"] == 10_000
        assert archive.open("000123", "scratch/wave").read() == (run / "scratch" / "wave").read_bytes()
        assert archive.open("000123", "dangling").read() == b"nowhere"
        assert not archive.files("000999")


@pytest.mark.skipif(shutil.which("unzip") is None, reason="there is no unzip here")
def test_unzip_gets_one_run_out_with_its_links(run: Path, tmp_path: Path) -> None:
    target = tmp_path / "two.zip"
    write(target, {"000123": run, "000124": run.parent / "never was"}, never)
    out = tmp_path / "out"
    subprocess.run(["unzip", "-q", target, "000123/*", "-d", out], check=True)
    assert (out / "000123" / "stdout").read_text() == (run / "stdout").read_text()
    assert (out / "000123" / "out").readlink() == tmp_path / "elsewhere"
    assert (out / "000123" / "scratch" / "empty").is_dir()
    assert not (out / "000124").exists()


def test_a_folder_goes_when_all_of_it_is_in_the_archive_and_links_are_not_followed(run: Path, tmp_path: Path) -> None:
    with Archive(packed(run)) as archive:
        assert archive.replace("000123", run) == ""
    assert not run.exists()
    assert (tmp_path / "elsewhere" / "precious").read_text() == "mine"


@pytest.mark.parametrize(
    ("change", "lacks"),
    [
        (lambda run: (run / "stdout").write_text("It was so\n" * 1000), "stdout"),
        (lambda run: (run / "stdout").write_text("more"), "stdout"),
        (lambda run: (run / "late").touch(), "late"),
        (lambda run: (run / "scratch" / "late").mkdir(), "scratch/late"),
        (lambda run: ((run / "dangling").unlink(), (run / "dangling").symlink_to("n0where")), "dangling"),
        (lambda run: ((run / "old").unlink(), (run / "old").symlink_to("nowhere")), "old"),
        (lambda run: ((run / "dangling").unlink(), (run / "dangling").write_text("nowhere")), ""),
    ],
)
def test_a_folder_that_holds_anything_else_stays(run: Path, change: Callable[[Path], object], lacks: str) -> None:
    target = packed(run)
    change(run)
    before = count(run)
    with Archive(target) as archive:
        assert archive.replace("000123", run) == lacks
    assert count(run) == (before if lacks else (0, 0))


def test_an_archive_is_never_put_in_the_place_of_another(run: Path) -> None:
    target = run.parent / "s1g01.zip"
    target.write_bytes(b"of another pilot")
    with pytest.raises(FileExistsError):
        write(target, {run.name: run}, never)
    assert target.read_bytes() == b"of another pilot"
    assert {path.name for path in run.parent.iterdir()} == {"000123", "s1g01.zip"}


@pytest.mark.parametrize("after", [0, 1, 5, 12])
def test_one_that_is_given_up_leaves_nothing(run: Path, after: int) -> None:
    asked = iter(range(1000))
    with pytest.raises(StoppedError):
        write(run.parent / "s1g01.zip", {run.name: run}, lambda: next(asked) >= after)
    assert [path.name for path in run.parent.iterdir()] == ["000123"]


def test_a_full_disk_leaves_nothing(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(run.parent / "s1g01.zip", {run.name: run}, never)
    assert [path.name for path in run.parent.iterdir()] == ["000123"]


def test_what_cannot_be_named_in_an_archive_is_said(run: Path) -> None:
    Path(os.fsdecode(bytes(run) + b"/\xff\xfe")).touch()
    with pytest.raises(UnreadableError) as caught:
        write(run.parent / "s1g01.zip", {"000122": run.parent / "none", run.name: run}, never)
    assert caught.value.name == "000123"
    assert [path.name for path in run.parent.iterdir()] == ["000123"]


def test_a_file_that_is_swapped_for_a_link_or_a_pipe_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(OSError, match=r"symbolic links|no file any more"):
            archives._open_file(tmp_path / name)


def test_a_damaged_archive_is_not_taken_for_a_whole_one(run: Path) -> None:
    target = packed(run)
    content = target.read_bytes()
    for length in (0, 10, len(content) // 2, len(content) - 1):
        target.write_bytes(content[:length])
        with pytest.raises(archives.BROKEN):
            Archive(target)
    for place in (len(content) // 2, len(content) // 3):
        target.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with Archive(target) as archive:
            assert not archive.is_whole()


def test_the_mode_of_a_file_is_kept(tmp_path: Path) -> None:
    place = tmp_path / "000001"
    place.mkdir()
    (place / "run.sh").touch()
    (place / "run.sh").chmod(0o750)
    target = tmp_path / "a.zip"
    write(target, {"000001": place}, never)
    with Archive(target) as archive:
        assert stat.S_IMODE(archive._infos["000001/run.sh"].external_attr >> 16) == 0o750


def test_counting_is_as_quotas_do(run: Path) -> None:
    number, size = count(run)
    # the folder, two below it, eight entries in all of them but those
    assert number == 3 + 8
    assert 310_000 < size < 311_000
    assert count(run / "none") == (0, 0)
    assert [say_size(n) for n in (0, 999, 1234, 5_600_000, 1.2e9, 4e12)] == [
        "0 B", "999 B", "1.23 kB", "5.6 MB", "1.2 GB", "4 TB",
    ]  # fmt: skip
