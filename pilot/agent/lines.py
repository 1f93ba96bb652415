"""Reading the lines between agent and launcher, should a task have written into their pipe. Pure."""

import json
from typing import Any


def salvaged(line: bytes, begin: bytes) -> dict[str, Any] | None:
    """The message in a line, whatever stands before it; None: there is none in it.

    Args:
        line: without its end.
        begin: how each message begins.

    Raises:
        ValueError: there is one, and it is spoilt.
    """
    at = line.rfind(begin)
    if at < 0:
        return None
    try:
        message: dict[str, Any] = json.loads(line[at:])
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return message
