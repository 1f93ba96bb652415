"""Plain commands, run for real."""

import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from db.errors import InputError
from db.records import Resources
from db.states import Verdict
from tasks.engines.command import ENGINE
from tasks.protocol import Cause, Exit, Work


def work(folder: Path, argv: list[str], **spec: object) -> Work:
    return Work(root=folder, directory=folder, attempt_id=3, spec={"argv": argv, **spec}, resources=Resources(1, 2))


def line(folder: Path, *lines: str) -> Work:
    """A shell command that a user wrote."""
    task = work(folder, list(lines))
    return replace(task, spec={**task.spec, "shell": True})


def run(task: Work) -> Exit:
    command = ENGINE.prepare(task)
    env = {**os.environ, **command.env}
    with (task.directory / "stdout").open("wb") as out, (task.directory / "stderr").open("wb") as err:
        try:
            code = subprocess.call(command.argv, cwd=command.cwd or task.directory, env=env, stdout=out, stderr=err)
        except OSError as error:
            return Exit(cause=Cause.NOT_STARTED, message=str(error))
    return Exit(code=code) if code >= 0 else Exit(signal=-code)


def test_exit_code_0_is_done(tmp_path):
    task = work(tmp_path, ["sh", "-c", "echo $OMP_NUM_THREADS $COLOUR"], env={"COLOUR": "red"})
    assert ENGINE.judge(task, run(task)).verdict is Verdict.DONE
    assert (tmp_path / "stdout").read_text() == "2 red\n"


def test_it_runs_where_the_user_says(tmp_path):
    there = tmp_path / "there"
    there.mkdir()
    task = work(tmp_path, ["pwd"], cwd=str(there))
    run(task)
    assert (tmp_path / "stdout").read_text().strip() == str(there)
    for wrong in ("relative", str(tmp_path / "nowhere")):
        with pytest.raises(InputError, match="folder to run in"):
            ENGINE.prepare(work(tmp_path, ["pwd"], cwd=wrong))


def test_a_shell_only_when_the_user_wrote_a_shell_command(tmp_path):
    run(work(tmp_path, ["echo", "a | cat; b"]))
    assert (tmp_path / "stdout").read_text() == "a | cat; b\n"
    task = line(tmp_path, "echo a | tr a b")
    assert ENGINE.prepare(task).argv[0] == "/bin/sh"
    run(task)
    assert (tmp_path / "stdout").read_text() == "b\n"
    with pytest.raises(InputError, match="one string"):
        ENGINE.prepare(line(tmp_path, "echo a", "b"))


def test_a_failure_shows_its_last_line(tmp_path):
    task = line(tmp_path, "echo one >&2; echo two >&2; echo >&2; exit 7")
    judgement = ENGINE.judge(task, run(task))
    assert judgement.verdict is Verdict.CRASHED
    assert judgement.reason == "exit code 7: two"


def test_a_missing_program_is_named(tmp_path):
    for task in (work(tmp_path, ["no-such-program"]), line(tmp_path, "no-such-program -x")):
        judgement = ENGINE.judge(task, run(task))
        assert judgement.verdict is Verdict.BAD_INPUT
        assert "no-such-program" in judgement.reason


def test_an_empty_command_is_refused(tmp_path):
    for argv in ([], [""]):
        with pytest.raises(InputError, match="empty"):
            ENGINE.prepare(work(tmp_path, argv))


def test_a_tidy_exit_after_our_sigterm_is_not_done(tmp_path):
    task = line(tmp_path, "trap 'exit 0' TERM; kill -TERM $$; exit 1")
    end = run(task)
    assert end.code == 0
    for cause, verdict in (
        (Cause.DRAIN, Verdict.INTERRUPTED),
        (Cause.LOST, Verdict.INTERRUPTED),
        (Cause.TIMEOUT, Verdict.TIMEOUT),
        (Cause.MEMORY, Verdict.OUT_OF_MEMORY),
        (Cause.CANCEL, Verdict.CANCELLED),
    ):
        assert ENGINE.judge(task, Exit(code=0, cause=cause)).verdict is verdict


@pytest.mark.parametrize(
    ("number", "verdict"),
    [
        (signal.SIGKILL, Verdict.OUT_OF_MEMORY),
        (signal.SIGTERM, Verdict.INTERRUPTED),
        (signal.SIGABRT, Verdict.CRASHED),
    ],
)
def test_signals_that_we_did_not_send(tmp_path, number, verdict):
    task = line(tmp_path, f"kill -{int(number)} $$")
    assert ENGINE.judge(task, run(task)).verdict is verdict


def test_nothing_is_softened_and_there_is_no_soft_stop(tmp_path):
    task = work(tmp_path, ["true"])
    assert ENGINE.soften(task.spec, Verdict.CRASHED, 1, "") is None
    assert ENGINE.stop_softly(task) is False
    assert ENGINE.find({}).ok
