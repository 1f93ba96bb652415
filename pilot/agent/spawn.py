"""Starting one process: its session, cores, folder, files and environment, without a race and without a fork.

The launcher puts itself on the cores and into the folder of the child, and the child inherits both: so they
hold from the child's first instruction, and nothing of ours runs between fork and exec.
"""

import contextlib
import errno
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from db.files import make_folder
from pilot.agent.monitor import ATTEMPT

_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
#: Python ignores the first two, whoever started us may ignore others: a task starts with none ignored
_DEFAULT = (
    signal.SIGPIPE,
    signal.SIGXFSZ,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGCHLD,
)


#: what the machine refuses for now, whatever the program: no room for processes, memory, files or data
_MACHINE = frozenset(
    {
        errno.EAGAIN,
        errno.ENOMEM,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EIO,
        errno.ESTALE,
    }
)


class NotStartedError(Exception):
    """The process could not be started; the text says why.

    Attributes:
        machine: whether that is the machine's fault and not the task's.
    """

    def __init__(self, why: str, *, machine: bool = False) -> None:
        super().__init__(why)
        self.machine = machine


class Spawner:
    """Starts processes, each with ``environ`` and what its message adds."""

    def __init__(self, environ: Mapping[bytes, bytes]) -> None:
        self._environ = dict(environ)
        self._home = Path.cwd()
        self._cores = os.sched_getaffinity(0)
        self._on = self._cores
        self._away = False
        self._programs: dict[tuple[str, bytes], str] = {}

    def start(self, message: Mapping[str, Any]) -> int:
        """Start what a ``start`` message asks for; its process id.

        Our own cores and folder are those of the child afterwards: call :meth:`return_home` when done.

        Raises:
            NotStartedError: with the reason in words.
        """
        env = dict(self._environ)
        for name, value in message["env"].items():
            env[os.fsencode(name)] = os.fsencode(value)
        env[ATTEMPT.encode()] = b"%d" % message["id"]
        argv: list[str] = message["argv"]
        folder: str = message["dir"]
        self._away = True
        try:
            if message.get("make"):
                make_folder(folder)
            os.chdir(message["cwd"] or folder)
        except OSError as error:
            why = f"cannot make or enter {error.filename or message['cwd'] or folder}: {error.strerror}"
            raise NotStartedError(why, machine=error.errno in _MACHINE) from error
        self._move(set(message["cores"]))
        program = self._find(argv[0], env.get(b"PATH", b""))
        try:
            return os.posix_spawn(
                program,
                argv,
                env,
                file_actions=_files(folder, message),
                setsid=True,
                setsigmask=(),
                setsigdef=_DEFAULT,
            )
        except (OSError, ValueError) as error:
            self._programs.clear()
            machine = isinstance(error, OSError) and error.errno in _MACHINE
            raise NotStartedError(_why(error, program, folder, message), machine=machine) from error

    def return_home(self) -> None:
        """Back to our own cores and folder."""
        if self._away:
            self._away = False
            os.chdir(self._home)
        with contextlib.suppress(NotStartedError):
            self._move(self._cores)

    def _move(self, cores: set[int]) -> None:
        if cores == self._on or not cores:
            return
        try:
            os.sched_setaffinity(0, cores)
        except OSError as error:
            why = f"cannot use the cores {sorted(cores)}: {error.strerror}"
            raise NotStartedError(why, machine=True) from error
        self._on = cores

    def _find(self, name: str, path: bytes) -> str:
        if "/" in name:
            return name
        key = (name, path)
        if key not in self._programs:
            found = shutil.which(name, path=os.fsdecode(path))
            if found is None:
                raise NotStartedError(f"{name}: no such program on the PATH")
            self._programs[key] = found
        return self._programs[key]


def _files(folder: str, message: Mapping[str, Any]) -> Sequence[tuple[Any, ...]]:
    stdin, out, err = message["stdin"], message["stdout"], message["stderr"]
    source = "/dev/null" if stdin is None else f"{folder}/{stdin}"
    actions: list[tuple[Any, ...]] = [
        (os.POSIX_SPAWN_OPEN, 0, source, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, f"{folder}/{out}", _WRITE, 0o666),
    ]
    if out == err:
        actions.append((os.POSIX_SPAWN_DUP2, 1, 2))
    else:
        actions.append((os.POSIX_SPAWN_OPEN, 2, f"{folder}/{err}", _WRITE, 0o666))
    return actions


def _why(error: OSError | ValueError, program: str, folder: str, message: Mapping[str, Any]) -> str:
    # the call reports one number for the program and for each of its files: look which one it was
    if isinstance(error, ValueError):
        return f"{program}: {error}"
    stdin = message["stdin"]
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"cannot write into {folder}"
    if stdin is not None and not os.access(f"{folder}/{stdin}", os.R_OK):
        return f"cannot read {folder}/{stdin}"
    if isinstance(error, FileNotFoundError) and Path(program).exists():
        return f"{program}: the interpreter in its first line is not there"
    return f"{program}: {error.strerror}"
