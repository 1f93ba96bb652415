"""Options that several commands share, and the reading of what is typed for them."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from db.errors import InputError

FolderOption = Annotated[
    Path | None,
    typer.Option(
        "--folder",
        "-f",
        metavar="FOLDER",
        help="The campaign folder. Default: this folder, or the nearest above it that has a pilot.toml.",
        show_default=False,
    ),
]

_RANGE = re.compile(r"([0-9]{1,18})(?:\s*[-–]\s*([0-9]{1,18}))?")
_MEMORY = re.compile(r"([0-9]{0,12}\.?[0-9]{1,12})\s*([a-z]*)")
_MEMORY_UNITS = {"": 1.0, "mb": 1.0, "m": 1.0, "gb": 1e3, "g": 1e3, "tb": 1e6, "mib": 1.048576, "gib": 1073.741824}
#: More tasks than this in one range are a slip of the finger.
_LONGEST_RANGE = 1_000_000


def parse_ids(given: Iterable[str]) -> list[int]:
    """Task ids as people write them: ``3``, ``3,5``, ``3-7``, ``3-7,12``; each once, in the order given.

    Raises:
        InputError: something is not an id or a range of ids.
    """
    ids: dict[int, None] = {}
    for word in given:
        for part in filter(None, (piece.strip() for piece in word.split(","))):
            match = _RANGE.fullmatch(part)
            first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
            if not first <= last < first + _LONGEST_RANGE:
                raise InputError(
                    f"{part!r} is not a task or a range of tasks",
                    next_step="write ids like 12, 3-7 or 3-7,12; `pilot status --tasks` lists them",
                )
            ids |= dict.fromkeys(range(first, last + 1))
    return list(ids)


def parse_memory(text: str) -> int:
    """MB (10⁶ bytes) from "800", "800 MB", "2 GB", "2 GiB".

    Raises:
        InputError: it is not a size.
    """
    match = _MEMORY.fullmatch(text.strip().lower())
    if match is None or match[2] not in _MEMORY_UNITS:
        raise InputError(f"{text!r} is not a size of memory", next_step='write it like "800 MB" or "2 GB"')
    return max(1, round(float(match[1]) * _MEMORY_UNITS[match[2]]))


def parse_pairs(given: Iterable[str]) -> dict[str, str]:
    """``NAME=VALUE`` words as a table.

    Raises:
        InputError: one has no name or no ``=``.
    """
    pairs: dict[str, str] = {}
    for word in given:
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise InputError(f"{word!r} does not set a variable", next_step="write it like --env NAME=VALUE")
        pairs[name] = value
    return pairs
