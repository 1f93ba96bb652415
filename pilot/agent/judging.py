"""Letting an engine judge an attempt: whatever a run has written, it costs that attempt only."""

import contextlib
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from db.errors import PilotError
from db.states import Verdict
from tasks.protocol import Cause, Engine, Exit, Judgement, Work
from tasks.texts import printable

#: what an engine may stumble over in a file that a run left broken; a slip of that kind costs one attempt only
STUMBLES = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RuntimeError,
    SyntaxError,
    MemoryError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)
#: what we did to an attempt says more than the ruins of its output
_VERDICTS: Mapping[Cause | None, Verdict] = {
    Cause.TIMEOUT: Verdict.TIMEOUT,
    Cause.MEMORY: Verdict.OUT_OF_MEMORY,
    Cause.OUTPUT: Verdict.CRASHED,
    Cause.DRAIN: Verdict.INTERRUPTED,
    Cause.LOST: Verdict.INTERRUPTED,
    Cause.CANCEL: Verdict.CANCELLED,
    Cause.NOT_STARTED: Verdict.INFRASTRUCTURE,
}


def remove_what_blocks(folder: Path) -> None:
    """Remove from a folder what a reader would wait for, or read without end: pipes, devices, and links to such."""
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        with contextlib.suppress(OSError):
            if entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False):
                continue
            # a link that leads nowhere raises
            kind = entry.stat().st_mode
            if stat.S_ISFIFO(kind) or stat.S_ISCHR(kind) or stat.S_ISBLK(kind):
                Path(entry.path).unlink()


def judge(engine: Engine, work: Work, end: Exit) -> Judgement:
    """What an engine says of an attempt; what it stumbles over in the files costs that attempt only."""
    try:
        remove_what_blocks(work.directory)
        judgement = engine.judge(work, end)
    except (PilotError, *STUMBLES) as error:
        reason = f"output could not be read: {type(error).__name__}: {error}"
        judgement = Judgement(_VERDICTS.get(end.cause, Verdict.CRASHED), reason.replace("\n", "; "))
    # it may quote what a program has written
    shown = printable(judgement.reason)
    return judgement if shown == judgement.reason else replace(judgement, reason=shown)
