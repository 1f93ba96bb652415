"""The grammar of MLIP's potential files: text to keys and values, words to numbers; their meaning is in ``mtp``."""

import math
import re
from collections.abc import Collection
from typing import NamedTuple

from db.errors import InputError

#: the word that begins the file, and the other that stands in a line alone
HEAD, RADIAL = "MTP", "radial_coeffs"
#: a line that begins something: `key = value`, or a word alone
_BEGINNING = re.compile(r"[ \t]*([A-Za-z]\w*)[ \t]*(?:=(.*))?", re.ASCII)
_WHOLE = re.compile(r"[+-]?[0-9]{1,9}")
_WORD = re.compile(r"[^{},\s]+")


class Entry(NamedTuple):
    """What stands between one beginning and the next."""

    value: str
    line: int


def bad(what: str, where: str) -> InputError:
    """The error of a potential that cannot be used."""
    return InputError(
        what,
        where=where,
        next_step="take an earlier copy of the file, or train the potential again",
    )


def read_entries(text: str, known: Collection[str], where: str) -> dict[str, Entry]:
    """Each key with its text, which may go on over lines; and the two words that stand alone.

    Raises:
        InputError: a key that is not ``known`` or stands twice, or no potential at all.
    """
    found: dict[str, Entry] = {}
    begun: tuple[str, int] | None = None
    lines: list[str] = []
    for number, line in enumerate([*text.split("\n"), None], 1):
        match = None if line is None else _BEGINNING.fullmatch(line.rstrip())
        if match is None and line is not None:
            lines.append(line)
            continue
        if begun is not None:
            if begun[0] in found:
                raise bad(f"line {begun[1]}: {begun[0]} stands twice", where)
            found[begun[0]] = Entry("\n".join(lines).strip(), begun[1])
        if match is not None:
            alone = match[2] is None
            if alone != (match[1] in {HEAD, RADIAL}) or (not alone and match[1] not in known):
                # it might change the energy, so it must not be passed over
                raise bad(f"line {number}: the key {match[1]} is not known here", where)
            begun, lines = (match[1], number), [match[2] or ""]
    head = found.get(HEAD)
    if head is None or head.value:
        raise bad("this is not an MTP file: it does not begin with MTP and its keys", where)
    return found


def words_of(value: str) -> list[str]:
    """The words between braces and commas."""
    return _WORD.findall(value)


def whole(word: str) -> int:
    """A whole number of at most nine digits.

    Raises:
        ValueError: it is none.
    """
    if not _WHOLE.fullmatch(word):
        raise ValueError(word)
    return int(word)


def finite(word: str) -> float:
    """A finite number.

    Raises:
        ValueError: it is none.
    """
    # Python's own 1_0 and digits of other scripts are no numbers to anybody else
    value = float(word) if "_" not in word and word.isascii() else math.nan
    if not math.isfinite(value):
        raise ValueError(word)
    return value
