"""Whoever shares a disk, a node or a shell with a pilot: modes, requests of others, names, links, ports, secrets."""

import os
import re
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from command_line import Typist, living_pilot, wait_for
from fake_slurm import FakeSlurm
from folders import make_folder

from db.errors import StorageError
from pilot import mailbox
from pilot.cli.app import run
from pilot.cli.smoke import CAMPAIGN
from pilot.folder import Folder, keep_mode
from tasks import scratch

HOSTILE = ("$(touch PWNED)", "'; touch PWNED '", '"; touch PWNED "', "-rf", "a\nb `touch PWNED`")
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can make files of others, and devices")


@pytest.fixture(autouse=True)
def _the_umask_of_others() -> Iterator[None]:
    """What a command sets here is not left to the next test."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def pilot(*argv: str, folder: Path, umask: int = 0o022, env: dict[str, str] | None = None) -> str:
    """A command as a process of its own that must succeed: what it said."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pilot", *argv],
        cwd=folder,
        umask=umask,
        env=dict(os.environ) | (env or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# ---- modes


@pytest.mark.parametrize(("mode", "umask"), [(0o2770, 0o077), (0o700, 0o000)])
def test_all_that_a_pilot_makes_is_for_those_for_whom_the_folder_is(
    tmp_path: Path, mode: int, umask: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "campaign"
    root.mkdir()
    (root / "pilot.toml").write_text("")
    root.chmod(mode)
    os.umask(umask)
    monkeypatch.chdir(root)
    assert run(["add", "--folder", str(root), "--", "sh", "-c", "touch made; mkdir folder"]) == 0
    pilot("run", "--plain", folder=root, umask=umask)
    made = {path: path.lstat().st_mode for path in root.rglob("*") if path.name not in {"pilot.toml", "made", "folder"}}
    assert len(made) > 10
    for path, found in made.items():
        assert not found & 0o777 & ~mode, f"{path}: {found:o}"
        # SQLite makes copies for readers: nobody writes them
        wanted = 0o660 if path.parts[-1] not in {"copy.db"} and "backups" not in path.parts else 0o640
        if stat.S_ISREG(found):
            assert found & mode & 0o777 == mode & wanted & ~0o100 | found & mode & 0o004, f"{path}: {found:o}"
        else:
            # the folders of a project stay its group's
            assert found & 0o2777 == mode, f"{path}: {found:o}"


def test_an_export_is_for_those_who_may_enter_both_folders(tmp_path: Path) -> None:
    for name, mode in (("ours", 0o750), ("theirs", 0o705), ("shared", 0o777)):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(mode)
    for names, umask in ((("ours",), 0o027), (("theirs",), 0o072), (("ours", "theirs"), 0o077), (("shared",), 0o002)):
        keep_mode(*(tmp_path / name for name in names))
        assert os.umask(0o022) == umask


# ---- requests


def request_of(folder: Folder) -> Path:
    """A good request, as a file."""
    return folder.inbox / f"{mailbox.post(folder, 'drain', {}).id}.json"


def test_what_is_no_plain_file_of_ours_is_no_request_and_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder(tmp_path)
    good = request_of(folder)
    linked, pipe, inner, large = (folder.inbox / f"176372000{k}.000000-0123abcd.json" for k in range(4))
    elsewhere = tmp_path / linked.name
    elsewhere.write_text(good.read_text().replace(good.stem, linked.stem))
    linked.symlink_to(elsewhere)
    os.mkfifo(pipe)
    inner.mkdir()
    with large.open("wb") as file:
        file.truncate(1_000_000_000)
    doubled = request_of(folder)
    os.link(doubled, tmp_path / "another name")
    bound = folder.inbox / "1763720005.000000-0123abcd.json"
    monkeypatch.chdir(folder.inbox)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(bound.name)
        requests, strangers = mailbox.waiting_requests(folder)
    assert [request.id for request in requests] == [good.stem]
    assert set(strangers) == {linked, pipe, inner, large, doubled, bound}
    assert all(mailbox.refuse(path) for path in strangers)
    assert mailbox.waiting_requests(folder) == (requests, [])
    assert elsewhere.exists()


@as_root
def test_devices_and_requests_of_others_are_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    device = folder.inbox / "1763720000.000000-0123abcd.json"
    os.mknod(device, stat.S_IFCHR | 0o600, os.makedev(1, 5))  # /dev/zero has no end
    others, closed = request_of(folder), request_of(folder)
    os.chown(others, 12345, -1)
    os.chown(closed, 12345, -1)
    closed.chmod(0)
    assert mailbox.waiting_requests(folder) == ([], sorted([device, others, closed]))
    # whoever runs the pilot may ask it, also in the folder of another
    mine = request_of(folder)
    os.chown(folder.inbox, 12345, -1)
    assert {request.id for request in mailbox.waiting_requests(folder)[0]} == {mine.stem, others.stem, closed.stem}


# ---- links


@pytest.mark.parametrize("name", ["inbox", "answers", "ends"])
def test_a_link_in_place_of_a_folder_of_ours_is_refused(tmp_path: Path, name: str) -> None:
    root, outside = tmp_path / "campaign", tmp_path / "outside"
    outside.mkdir()
    (outside / "1.json").write_text("{}")
    os.utime(outside / "1.json", (0, 0))
    (root / "state").mkdir(parents=True)
    (root / "state" / name).symlink_to(outside)
    with pytest.raises(StorageError, match="link"):
        make_folder(root)
    mailbox.forget_old_answers(Folder(root))
    assert [path.name for path in outside.iterdir()] == ["1.json"]


def test_links_are_not_followed_where_something_is_written_or_removed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("mine")
    attempt = tmp_path / "attempt"
    attempt.mkdir()
    (attempt / "scratch").symlink_to(outside)
    scratch.drop(attempt)
    (attempt / "scratch").unlink()
    (attempt / "scratch").mkdir()
    (attempt / "scratch" / "link").symlink_to(outside)
    scratch.drop(attempt)
    assert not (attempt / "scratch").exists()
    folder = make_folder(tmp_path / "campaign")
    # somebody guesses the name under which a file is written before it is renamed
    (folder.state / f".status.json.{os.getpid()}.new").symlink_to(outside / "precious")
    with pytest.raises(StorageError):
        mailbox.write_whole(folder.status, "{}")
    assert (outside / "precious").read_text() == "mine"


def test_runs_may_be_a_link_to_another_disk(tmp_path: Path) -> None:
    root, disk = tmp_path / "campaign", tmp_path / "disk"
    disk.mkdir()
    root.mkdir()
    (root / "pilot.toml").write_text("")
    (root / "runs").symlink_to(disk)
    assert run(["add", "--folder", str(root), "--", "echo", "hello"]) == 0
    pilot("run", "--plain", folder=root)
    assert [path.read_text() for path in disk.rglob("stdout")] == ["hello\n"]


# ---- names and shells


def test_names_never_reach_a_shell(tmp_path: Path) -> None:
    for number, name in enumerate(HOSTILE):
        root = tmp_path / str(number) / name
        root.parent.mkdir()
        root.mkdir()
        (root / "pilot.toml").write_text("")
        argv = ["--folder", str(root), "--name", name, "--env", f"X={name}", "--", "echo", *HOSTILE]
        assert run(["add", *argv]) == 0
        if number:
            continue  # one of them runs
        pilot("run", "--plain", folder=root)
        assert (root / "runs/000/000001/stdout").read_text() == f"{' '.join(HOSTILE)}\n"
    assert not list(tmp_path.rglob("PWNED"))


def test_what_is_printed_to_be_typed_and_the_batch_script_execute_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm = FakeSlurm(tmp_path / "slurm", monkeypatch)
    for number, name in enumerate(HOSTILE):
        place = tmp_path / str(number)
        place.mkdir()
        monkeypatch.chdir(place)
        capsys.readouterr()
        assert run(["init", "--site", "generic", "--account", "FUA39_X", f"./{name}"]) == 0
        said = capsys.readouterr().out
        enter = re.search(r"next: {2}(cd .*?)\n {7}\w", said, re.DOTALL)
        assert enter is not None
        inside = subprocess.run(
            ["sh", "-c", f"{enter[1]}\npwd -P"], cwd=place, capture_output=True, text=True, check=True
        ).stdout
        assert inside.removesuffix("\n") == str((place / name).resolve())
        typist = Typist(place / name, capsys, monkeypatch)
        shown = typist("submit", "--dry-run", "--force", "--", f"--comment={name}").out
        line = shown.partition("# would be submitted by:\n")[2].partition("\n# SLURM says")[0]
        subprocess.run(["sh", "-c", line], cwd=place, check=True, capture_output=True)
        argv = slurm.calls("sbatch")[-1][0]
        assert f"--comment={name}" in argv
        assert f"--chdir={place / name}" in argv
        assert re.fullmatch(r"--job-name=pilot-[A-Za-z0-9._-]+", next(a for a in argv if a.startswith("--job-name")))
        script = (place / name / "pilot.sh").read_text()
        # nothing of the folder's name is in the script, but what a name of a job may hold
        orders = [text for text in script.splitlines() if text.startswith("#SBATCH")]
        assert not any(char in text for text in orders for char in "$`;'\"")
        subprocess.run(["bash", "-c", script.replace("exec pilot run", "exec true")], cwd=place, check=True)
    assert not list(tmp_path.rglob("PWNED"))


@pytest.mark.parametrize("species", HOSTILE)
def test_species_are_elements(
    tmp_path: Path, species: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "campaign"
    root.mkdir()
    quoted = species.replace('"', '\\"').replace("\n", "\\n")
    (root / "pilot.toml").write_text(re.sub(r"species = .*", f'species = ["{quoted}"]', CAMPAIGN))
    error = Typist(root, capsys, monkeypatch).fails("run", "--plain", code=2)
    assert "species" in error
    assert not list(tmp_path.rglob("PWNED"))


# ---- all that our processes touch

_TOUCHES = re.compile(
    r'(?:(?:open|openat)\(.*?"(?P<open>[^"]*)", (?P<flags>[A-Z_|]+)'
    r"|(?P<call>creat|mkdir|mkdirat|unlink|unlinkat|rmdir|rename|renameat2?|link|linkat|symlink|symlinkat|truncate"
    r"|chmod|fchmodat)\((?P<rest>.*))"
)
#: of the tasks' MPI, and of no use to anybody when it has ended
_ALLOWED = ("/dev/null", "/dev/shm/", "/proc/", "/dev/ptmx", "/dev/pts/")


def touched(trace: str) -> Iterator[str]:
    """The absolute paths in a trace that were opened for writing, made, renamed, or removed."""
    for line in trace.splitlines():
        if " = -1 " in line:
            continue
        match = _TOUCHES.search(line)
        if match is None:
            continue
        paths = [match["open"]] if match["open"] else re.findall(r'"([^"]*)"', match["rest"] or "")
        if match["call"] or re.search("O_WRONLY|O_RDWR|O_CREAT|O_TRUNC", match["flags"] or ""):
            yield from (path for path in paths if path.startswith("/"))


def test_nothing_outside_the_folder_is_written_or_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strace = shutil.which("strace")
    if strace is None or subprocess.run([strace, "-f", "true"], capture_output=True, check=False).returncode:
        pytest.skip("strace is not there, or may not be used here")
    root, trace, temporary = tmp_path / "campaign", tmp_path / "trace", tmp_path / "tmp"
    temporary.mkdir()
    make_folder(root)
    monkeypatch.chdir(root)
    assert run(["add", "--folder", str(root), "--count", "3", "--", "sh", "-c", "echo hello; touch here"]) == 0
    calls = "open,openat,creat,mkdir,mkdirat,unlink,unlinkat,rmdir,rename,renameat,renameat2,link,linkat,symlink"
    argv = [strace, "-f", "--seccomp-bpf", "-qq", "-s", "1000", "-e", f"trace={calls},truncate,chmod,fchmodat"]
    command = [sys.executable, "-P", "-B", "-m", "pilot", "run", "--plain"]
    environ = dict(os.environ) | {"TMPDIR": str(temporary), "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(temporary)}
    done = subprocess.run(
        [*argv, "-o", str(trace), *command], cwd=root, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    paths = set(touched(trace.read_text(errors="replace")))
    assert any(path.startswith(f"{root}/state/pilot.db") for path in paths)
    strange = {path for path in paths if not path.startswith((f"{root}/", *_ALLOWED))}
    assert {path for path in strange if not path.startswith(f"{temporary}/")} == set()
    assert list(temporary.rglob("*")) == []


# ---- ports and secrets


def test_a_pilot_on_one_machine_opens_no_port_and_writes_down_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_TOKEN", "s3cret-of-the-user")
    folder = make_folder(tmp_path)
    assert run(["add", "--folder", str(tmp_path), "--", "sleep", "60"]) == 0
    with living_pilot(folder) as process:
        wait_for(lambda: (folder.runs / "000" / "000001" / "stdout").exists(), "the task does not start")
        ours = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        assert len(ours) >= 3
        for one in ours:
            assert one.net_connections(kind="inet") == [], one.cmdline()
        process.terminate()
        process.wait(60)
    for path in folder.root.rglob("*"):
        assert not path.is_file() or b"s3cret-of-the-user" not in path.read_bytes(), path
