"""`pilot status` by a short way: the libraries behind the other commands take longer to import than it may take.

Only what is typed most is understood here; all else, help and mistakes included, goes the long way, to
:mod:`pilot.cli.status`, where the same options are declared.
"""

from collections.abc import Sequence
from pathlib import Path

from pilot.cli.status_print import StatusOptions

_FLAGS = {"--watch": "watch", "-w": "watch", "--json": "as_json", "--all": "everything"}
_FOLDER = ("--folder", "-f")


def quick_status(argv: Sequence[str]) -> StatusOptions | None:
    """What ``argv`` asks of `pilot status`; None if that is not for us to say."""
    if not argv or argv[0] != "status":
        return None
    flags: dict[str, bool] = {}
    folder: Path | None = None
    words = iter(argv[1:])
    for word in words:
        if word in _FLAGS:
            flags[_FLAGS[word]] = True
        elif word in _FOLDER:
            given = next(words, "-")
            if given.startswith("-"):
                return None
            folder = Path(given)
        else:
            return None
    return StatusOptions(folder=folder, **flags)
