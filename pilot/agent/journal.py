"""The ends that a launcher saw, one JSON line each, written before they were told to anybody.

When the pilot dies between a task's end and its commit, the next pilot reads here what the launcher saw. What earlier
pilots' launchers saw is kept in one file: if an older copy of the database is put in place some day, it knows less.
"""

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from db.files import storage_error, write_whole
from tasks.protocol import Cause, Exit

#: what a line that is not whole may raise
_BROKEN = (ValueError, KeyError, TypeError, RecursionError)

FOLDER = Path("state") / "ends"
EARLIER = "earlier.jsonl"
#: bytes of that file: some hundred thousand ends
MOST = 32_000_000


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
    for message in _messages(content):
        with contextlib.suppress(*_BROKEN):
            ends.setdefault(_whole(message["id"]), exit_of(message))
    return ends


def read_earlier(root: Path) -> dict[tuple[int, int], Exit]:
    """What is kept of the launchers of earlier pilots: epoch and attempt id → its end."""
    try:
        content = (root / FOLDER / EARLIER).read_bytes()
    except FileNotFoundError:
        return {}
    ends: dict[tuple[int, int], Exit] = {}
    for message in _messages(content):
        with contextlib.suppress(*_BROKEN):
            ends[_whole(message["pilot"]), _whole(message["id"])] = exit_of(message)
    return ends


def put_away(root: Path, epoch: int, most: int = MOST) -> None:
    """Put what the launchers of earlier pilots wrote into one file, once all their attempts are judged.

    Raises:
        StorageError: the disk refuses; they stay where they are.
    """
    earlier = root / FOLDER / EARLIER
    lines: list[bytes] = []
    try:
        journals = _journals_before(root, epoch)
        for number, path in journals:
            named = (message | {"pilot": number} for message in _messages(path.read_bytes()))
            lines += [json.dumps(message, separators=(",", ":")).encode() + b"\n" for message in named]
        if lines:
            kept = earlier.read_bytes() if earlier.exists() else b""
            content = (kept + b"".join(lines))[-most:]
            # the first line may have been cut
            write_whole(earlier, content if len(content) < most else content.partition(b"\n")[2])
        for _, path in journals:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(error, earlier) from error


def _journals_before(root: Path, epoch: int) -> list[tuple[int, Path]]:
    found = ((path.name.partition(".")[0], path) for path in (root / FOLDER).glob("*.jsonl"))
    return sorted((int(number), path) for number, path in found if number.isdigit() and int(number) < epoch)


def _messages(content: bytes) -> Iterator[dict[str, Any]]:
    """The whole lines."""
    for line in content.split(b"\n"):
        with contextlib.suppress(*_BROKEN):
            message = json.loads(line)
            if isinstance(message, dict):
                yield message


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
