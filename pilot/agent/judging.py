"""Letting an engine judge an attempt: whatever a run has written, it costs that attempt only."""

import struct
import zipfile
import zlib
from collections.abc import Mapping

from db.errors import PilotError
from db.states import Verdict
from tasks.protocol import Cause, Engine, Exit, Judgement, Work

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
    Cause.DRAIN: Verdict.INTERRUPTED,
    Cause.LOST: Verdict.INTERRUPTED,
    Cause.CANCEL: Verdict.CANCELLED,
    Cause.NOT_STARTED: Verdict.INFRASTRUCTURE,
}


def judge(engine: Engine, work: Work, end: Exit) -> Judgement:
    """What an engine says of an attempt; what it stumbles over in the files costs that attempt only."""
    try:
        return engine.judge(work, end)
    except (PilotError, *STUMBLES) as error:
        reason = f"output could not be read: {type(error).__name__}: {error}"
        return Judgement(_VERDICTS.get(end.cause, Verdict.CRASHED), reason.replace("\n", "; "))
