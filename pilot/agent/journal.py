"""The ends that a launcher saw, one JSON line each, written before they were told to anybody.

When the pilot dies between a task's end and its commit, the next pilot reads here what the launcher saw.
"""

import json
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
            ends.setdefault(int(message["id"]), exit_of(message))
        except (ValueError, KeyError, TypeError):
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
    return Exit(
        code=message["code"],
        signal=message["signal"],
        cause=None if cause is None else Cause(cause),
        wall_s=float(message["wall_s"]),
        cpu_s=float(message["cpu_s"]),
        peak_mb=float(message["peak_mb"]),
        message=str(message["message"]),
    )
