"""The odd ways in which a run of pw.x ends. Where it cannot be brought to one, its output is made up of a real one."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from db.states import Verdict
from tasks.engines.qe import ENGINE
from tasks.protocol import Cause, Exit, Judgement, Work
from tasks.texts import head_and_tail
from tests.qe_runs import finish, middling_work, needs_pw, run, sheared, start, until_step, work

RULE = " " + 78 * "%"
Change = Callable[[str], str]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """A run that ended well; the tests copy its output."""
    task = work(tmp_path_factory.mktemp("ends") / "a", sheared())
    assert ENGINE.judge(task, run(task)).verdict is Verdict.DONE
    return task


def judged(whole: Work, folder: Path, end: Exit, change: Change = str, **files: str) -> Judgement:
    """The judgement of the run with another output, and other files beside it."""
    (folder / "pw.out").write_text(change((whole.directory / "pw.out").read_text()))
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    return ENGINE.judge(replace(whole, directory=folder), end)


def complaint(*lines: str) -> str:
    return "\n".join(("", RULE, *(f"     {line}" for line in lines), RULE, "", "     stopping ...", ""))


def until_scf(text: str) -> str:
    return text[: text.index("     iteration #  2")]


# --- exit codes that do not fit the output ------------------------------------------------------------------


@needs_pw
@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        (lambda text: "", Verdict.CRASHED),
        (until_scf, Verdict.CRASHED),
        (
            lambda text: until_scf(text) + complaint("Error in routine davcio (10):", "error reading file"),
            Verdict.CRASHED,
        ),
        (lambda text: text.replace("JOB DONE", "JOB"), Verdict.CRASHED),
        (lambda text: text + complaint("Error in routine x (1):", "y"), Verdict.CRASHED),
        (lambda text: text.replace("convergence has been", "convergence NOT"), Verdict.NOT_CONVERGED),
    ],
)
def test_exit_code_0_after_failing_is_not_believed(whole, tmp_path, change, verdict):
    judgement = judged(whole, tmp_path, Exit(code=0), change)
    assert (judgement.verdict, judgement.label) == (verdict, None)
    assert judgement.reason


@needs_pw
def test_exit_code_1_after_succeeding_is_a_label(whole, tmp_path):
    """For real: a wrapper that lets pw.x do its work, and then dies."""
    wrapper = tmp_path / "wrapper.py"
    wrapper.write_text(
        "import os, subprocess, sys\nsubprocess.call(['pw.x', *sys.argv[1:]])\n"
        "sys.exit(1) if os.environ.get('HOW') == 'code' else os.abort()\n"
    )
    for how in ("code", "signal"):
        os.environ["HOW"] = how
        task = work(tmp_path / how, sheared(), command=f"{sys.executable} {wrapper}")
        end = run(task)
        assert (end.code, end.signal) == ((1, None) if how == "code" else (None, signal.SIGABRT))
        judgement = ENGINE.judge(task, end)
        assert judgement.verdict is Verdict.DONE
        assert judgement.label == ENGINE.judge(whole, Exit(code=0)).label
        assert judgement.facts["ended_with"]
    del os.environ["HOW"]


@needs_pw
def test_a_crash_file_contradicts_a_complete_output(whole, tmp_path):
    said = complaint("Error in routine punch (1):", "something")
    judgement = judged(whole, tmp_path, Exit(code=1), CRASH=said)
    assert (judgement.verdict, judgement.label) == (Verdict.CRASHED, None)
    assert "punch" in judgement.reason


@needs_pw
def test_the_crash_file_speaks_where_the_output_was_lost(whole, tmp_path):
    said = complaint("Error in routine readpp (1):", "file Al.gone.UPF not found")
    judgement = judged(whole, tmp_path, Exit(code=1), lambda text: text[:900], CRASH=said)
    assert judgement.verdict is Verdict.BAD_INPUT
    assert "Al.gone.UPF not found" in judgement.reason


# --- garbage ------------------------------------------------------------------------------------------------


@needs_pw
@pytest.mark.parametrize(
    "change",
    [
        lambda text: "\x00\x01\x02" * 5000,
        lambda text: text.replace("force = ", "force =  NaN NaN NaN"),
        lambda text: text.replace("-0.0", "*****"),
        lambda text: text[: len(text) // 2] + "\x00" * 4096 + text[len(text) // 2 + 4096 :],
        lambda text: text[:2000],
        lambda text: text + text,
        lambda text: text[:4000] + text,
        lambda text: text.replace("atom    2 type", "atom    3 type"),
        lambda text: text.replace("P=", "P= 17 P="),
    ],
)
def test_garbage_is_no_label(whole, tmp_path, change):
    for code in (0, 1):
        judgement = judged(whole, tmp_path, Exit(code=code), change)
        if judgement.label is not None:
            # the garbage hit nothing that counts
            assert judgement.label == ENGINE.judge(whole, Exit(code=0)).label
        else:
            assert judgement.verdict in {Verdict.CRASHED, Verdict.NOT_CONVERGED}, judgement
            assert judgement.reason.isprintable()
    assert judged(whole, tmp_path, Exit(cause=Cause.LOST), change).verdict in {Verdict.INTERRUPTED, Verdict.DONE}


@needs_pw
def test_another_number_of_atoms_is_no_label(whole, tmp_path):
    one = replace(work(tmp_path / "b"), directory=whole.directory)
    assert ENGINE.judge(one, Exit(code=0)).verdict is Verdict.CRASHED


@needs_pw
@pytest.mark.parametrize("filler", [b"x", b"\n", b" ", b"%", b"PWSCF: CPU\n", b"Error \x00\xff\n"])
def test_200_megabytes_of_output_are_read_in_a_bounded_part(whole, tmp_path, filler):
    """A sparse file stands for most of them: what is in the middle is not read."""
    text = (whole.directory / "pw.out").read_bytes()
    at = text.index(b"     iteration #  2")
    with (tmp_path / "pw.out").open("wb") as file:
        file.write(text[:at] + (filler * 2_000_000)[:2_000_000])
        file.seek(200_000_000)
        file.write((filler * 4_000_000)[:4_000_000] + b"\n" + text[at:])
    assert len(head_and_tail(tmp_path / "pw.out")) < 3_000_000
    judgement = ENGINE.judge(replace(whole, directory=tmp_path), Exit(code=0))
    # lines of % stand around what pw.x complains of
    assert judgement.label == (None if filler == b"%" else ENGINE.judge(whole, Exit(code=0)).label)
    os.truncate(tmp_path / "pw.out", 200_000_000)
    assert ENGINE.judge(replace(whole, directory=tmp_path), Exit(code=0)).verdict is Verdict.CRASHED


# --- memory, disk, time -------------------------------------------------------------------------------------


@needs_pw
@pytest.mark.parametrize(
    "said",
    [
        "Fortran runtime error: Cannot allocate memory",
        "forrtl: severe (41): insufficient virtual memory",
        "Error allocating 123456789 bytes\nError termination. Backtrace:",
        "terminate called after throwing an instance of 'std::bad_alloc'",
        "Allocation would exceed memory limit",
        "slurmstepd: error: Detected 1 oom_kill event in StepId=7.0",
        "mpirun noticed that process rank 3 with PID 0 on node a exited on signal 9 (Killed).",
    ],
)
def test_the_signs_of_short_memory(whole, tmp_path, said):
    judgement = judged(whole, tmp_path, Exit(code=1), until_scf, pw_err=said)
    assert judgement.verdict is Verdict.OUT_OF_MEMORY, judgement


@needs_pw
def test_qes_own_words_for_short_memory(whole, tmp_path):
    def change(text: str) -> str:
        return until_scf(text) + complaint("Error in routine cegterg (1):", "cannot allocate hpsi")

    assert judged(whole, tmp_path, Exit(code=1), change).verdict is Verdict.OUT_OF_MEMORY


@needs_pw
@pytest.mark.parametrize(
    ("err", "lines"),
    [
        ("Fortran runtime error: No space left on device", ()),
        ("", ("Error in routine write_rhog (3):", "error writing file ./scratch/pilot.save/charge-density")),
        ("", ("Error in routine davcio (10):", 'error while writing to file "./scratch/pilot.wfc1"')),
        ("forrtl: Disk quota exceeded", ()),
        ("Fortran runtime error: Read-only file system", ()),
    ],
)
def test_the_signs_of_a_full_disk(whole, tmp_path, err, lines):
    def change(text: str) -> str:
        return until_scf(text) + (complaint(*lines) if lines else "")

    assert judged(whole, tmp_path, Exit(code=1), change, pw_err=err).verdict is Verdict.INFRASTRUCTURE


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[None]:
    """A file system of its own; skips where that is not to be had."""
    place.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


@needs_pw
def test_a_disk_that_is_full_when_it_stops_leaves_nothing_to_go_on_from(tmp_path):
    task = middling_work(tmp_path / "a")
    with small_disk(task.directory / "scratch", "400k"):
        process = start(task)
        until_step(task, 3, process)
        assert ENGINE.stop_softly(task)
        end = finish(process)
        assert "error writing file" in (task.directory / "pw.out").read_text()
        judgement = ENGINE.judge(task, replace(end, cause=Cause.DRAIN))
        assert (judgement.verdict, judgement.resumable) == (Verdict.INTERRUPTED, False)


@needs_pw
def test_a_disk_that_has_no_room_for_the_output_is_to_blame(tmp_path):
    with small_disk(tmp_path / "disk", "12k"):
        task = work(tmp_path / "disk" / "a", sheared())
        judgement = ENGINE.judge(task, run(task))
        assert judgement.verdict is Verdict.INFRASTRUCTURE, judgement
        assert "full" in judgement.reason


@needs_pw
def test_a_run_that_hangs_or_ignores_sigterm_is_a_timeout_unless_it_was_done(whole, tmp_path):
    for end in (Exit(signal=9, cause=Cause.TIMEOUT), Exit(code=0, cause=Cause.TIMEOUT)):
        assert judged(whole, tmp_path, end, until_scf).verdict is Verdict.TIMEOUT
        assert judged(whole, tmp_path, end).verdict is Verdict.DONE
    # it was to stop, would not, and was killed
    killed = Exit(signal=9, cause=Cause.DRAIN)
    judgement = judged(whole, tmp_path, killed, until_scf)
    assert (judgement.verdict, judgement.resumable) == (Verdict.INTERRUPTED, False)


def test_complaints_are_one_short_line(tmp_path):
    task = work(tmp_path / "a")
    said = RULE + "\n" + "   \x1b[31m Error in routine \x07 x\n" * 2000
    (task.directory / "pw.out").write_text(said)
    judgement = ENGINE.judge(task, Exit(code=1))
    assert judgement.verdict is Verdict.BAD_INPUT
    assert len(judgement.reason) <= 400
    assert judgement.reason.isprintable()
