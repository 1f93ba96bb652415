"""The ends that a launcher saw, one JSON line each, written before they were told to anybody.

When the pilot dies between a task's end and its commit, the next pilot reads here what the launcher saw.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.protocol import Cause, Exit

FOLDER = Path("state") / "ends"


def ends_file(root: Path, epoch: int, node: str) -> Path:
    """Where the launcher of ``node`` under the pilot ``epoch`` writes its ends."""
    return root / FOLDER / f"{epoch}.{node}.jsonl"


def read_ends(path: Path) -> dict[int, Exit]:
    """Attempt id → its end; empty when there is no such file.

    A line that is not whole (the launcher or the node died while it was written) is left out: that end was told
    to nobody.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}
    ends: dict[int, Exit] = {}
    for line in content.split(b"\n"):
        try:
            message = json.loads(line)
            ends.setdefault(_whole(message["id"]), exit_of(message))
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return ends


def forget_before(root: Path, epoch: int) -> None:
    """Remove what the launchers of earlier pilots wrote, once all their attempts are judged."""
    for path in (root / FOLDER).glob("*.jsonl"):
        number = path.name.partition(".")[0]
        if number.isdigit() and int(number) < epoch:
            path.unlink(missing_ok=True)


def exit_of(message: Mapping[str, Any]) -> Exit:
    """The end in a launcher's line.

    Raises:
        ValueError, KeyError, TypeError: it is not such a line.
    """
    cause = message["cause"]
    code, number = message["code"], message["signal"]
    return Exit(
        code=None if code is None else _whole(code),
        signal=None if number is None else _whole(number),
        cause=None if cause is None else Cause(cause),
        wall_s=_finite(message["wall_s"]),
        cpu_s=_finite(message["cpu_s"]),
        peak_mb=_finite(message["peak_mb"]),
        message=str(message["message"]),
    )


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} is no whole number")
    return value


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is not finite")
    return number
