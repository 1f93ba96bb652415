"""Commands that a user typed.

The one place where the exit code is all there is: a command promises nothing more than that 0 is success.
Whoever wants more writes it into the command (``test -s result.dat``).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from db.errors import InputError
from db.records import Json
from db.states import Verdict
from tasks import endings
from tasks.programs import locate
from tasks.protocol import Cause, Command, Exit, Finding, Judgement, Work
from tasks.texts import in_one_line

_NOT_EXECUTABLE, _NOT_FOUND, _BY_SIGNAL = 126, 127, 128
_TAIL_BYTES = 8192


@dataclass(frozen=True, slots=True)
class CommandEngine:
    """Runs ``{"argv": [...], "cwd": path or null, "env": {}, "mpi": bool, "shell": bool}`` as it stands."""

    name: str = "command"
    writes_input: bool = False

    def prepare(self, work: Work) -> Command:
        """Say what to start; nothing is written.

        Raises:
            InputError: there is no command, or its folder is not there, or a shell line is not one string.
        """
        argv = [str(word) for word in work.spec.get("argv", ())]
        if not argv or not argv[0]:
            raise InputError(
                "the command is empty",
                where=f"attempt {work.attempt_id}",
                next_step="pilot add -- PROGRAM ARGUMENTS",
            )
        if work.spec.get("shell"):
            # only because the user wrote a shell command
            if len(argv) != 1:
                raise InputError(
                    "a shell command must be one string",
                    where=f"argv {argv}",
                    next_step="put the whole line between quotes",
                )
            argv = ["/bin/sh", "-c", argv[0]]
        return Command(
            argv=tuple(argv),
            mpi=bool(work.spec.get("mpi")),
            env={
                "OMP_NUM_THREADS": str(work.resources.threads),
                **{str(key): str(value) for key, value in (work.spec.get("env") or {}).items()},
            },
            cwd=_folder(work.spec.get("cwd")),
        )

    def judge(self, work: Work, end: Exit) -> Judgement:
        """By the exit code, unless we ended it."""
        facts = {"seconds": end.wall_s}
        program = str(next(iter(work.spec.get("argv", ())), ""))
        if end.cause is Cause.NOT_STARTED:
            return Judgement(Verdict.BAD_INPUT, _missing(program, end.message), facts)
        if end.cause is not None:
            # a program may answer SIGTERM with a tidy exit 0 and half of its work: 0 counts only if it ended alone
            return Judgement(*endings.BY_US[end.cause], facts)
        if end.code == 0:
            return Judgement(Verdict.DONE, "", facts)
        # a shell whose program is ended by a signal says so by its exit code
        shell = work.spec.get("shell") and end.code is not None and end.code > _BY_SIGNAL
        sent = endings.by_signal((end.code or 0) - _BY_SIGNAL if shell else end.signal)
        if sent is not None:
            return Judgement(*sent, facts)
        last = last_line(work.directory / "stderr")
        if end.code in {_NOT_EXECUTABLE, _NOT_FOUND}:
            return Judgement(Verdict.BAD_INPUT, _missing(program, last), facts)
        how = f"signal {end.signal}" if end.signal is not None else f"exit code {end.code}"
        return Judgement(Verdict.CRASHED, f"{how}: {last}" if last else how, facts)

    def stop_softly(self, work: Work) -> bool:  # noqa: ARG002
        """A command has no way of its own but SIGTERM."""
        return False

    def soften(self, spec: Json, verdict: Verdict, tries: int, reason: str) -> Json | None:  # noqa: ARG002
        """What a user typed is never changed."""
        return None

    def find(self, settings: Json) -> Finding:  # noqa: ARG002
        """Whether there is a shell for those who want one."""
        shell = locate("/bin/sh")
        return Finding("shell for commands", str(shell or "no /bin/sh"), shell is not None)


def last_line(path: Path) -> str:
    """The last line of a text file that is not empty, at most 300 printable characters; empty if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            tail = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    return in_one_line(lines[-1])[:300] if lines else ""


def _folder(cwd: Any) -> Path | None:
    if cwd is None:
        return None
    folder = Path(str(cwd))
    if not folder.is_absolute() or not folder.is_dir():
        raise InputError(
            "the folder to run in must be an absolute path of a folder that exists",
            where=str(cwd),
            next_step="make the folder, or leave cwd out to run in the attempt's own",
        )
    return folder


def _missing(program: str, message: str) -> str:
    return f"{program} cannot be started" + (f": {message}" if message else "")


ENGINE = CommandEngine()
