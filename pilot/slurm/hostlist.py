"""SLURM's short ways to write many names and many numbers. Pure."""

import re
from collections.abc import Iterator

#: more names than any machine has nodes: such a list is garbage, and would fill the memory
MOST = 100_000
#: longer has no name, and no more brackets
_LONGEST, _BRACKETS = 255, 8
#: no node has so many cores, and no job so many nodes
_LARGEST = 1_000_000

_NOTHING = frozenset({"", "(null)", "None", "none", "N/A", "None assigned"})
_NAME = re.compile(r"(?:[A-Za-z0-9._-]|\[[0-9,-]+\])+")
_BRACKET = re.compile(r"\[([0-9,-]+)\]")
_RANGE = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?")
_COUNT = re.compile(r"([0-9]{1,9})(?:\(x([0-9]{1,9})\))?")


def hosts(text: str) -> tuple[str, ...]:
    """The names in a hostlist, in its order: ``n[1-3,7],m05,r[01-02]c[1-2]``; () for "(null)" and the like.

    Raises:
        ValueError: it is not a hostlist, or names more than ``MOST`` hosts.
    """
    text = text.strip()
    if text in _NOTHING:
        return ()
    names: list[str] = []
    for part in _split(text):
        if not _NAME.fullmatch(part):
            raise ValueError(f"not a list of hosts: {text[:200]!r}")
        if part.count("[") > _BRACKETS:
            raise ValueError(f"not a list of hosts: {text[:200]!r}")
        for name in _expanded(part):
            names.append(name)
            if len(names) > MOST or len(name) > _LONGEST:
                raise ValueError(f"more than {MOST} hosts, or longer than any: {text[:200]!r}")
    return tuple(names)


def counts(text: str) -> tuple[int, ...]:
    """A number for each node, in the order of the nodes: ``72(x2),36`` → (72, 72, 36).

    Raises:
        ValueError: it is not such a list.
    """
    found: list[int] = []
    for part in text.strip().split(","):
        match = _COUNT.fullmatch(part.strip())
        times = int(match[2] or 1) if match else 0
        if match is None or len(found) + times > MOST or int(match[1]) > _LARGEST:
            raise ValueError(f"not a list of numbers per node: {text[:200]!r}")
        found += [int(match[1])] * times
    return tuple(found)


def gpu_ids(text: str) -> tuple[int, ...]:
    """The GPUs of one node: ``0,1,3``, ``0-3``, ``[0-1,3]``; () for none.

    Raises:
        ValueError: they are not called by numbers (UUIDs, MIG slices), or are too many.
    """
    text = text.strip().removeprefix("[").removesuffix("]")
    if text in _NOTHING or text in {"NoDevFiles", "-1"}:
        return ()
    ids: list[int] = []
    for part in text.split(","):
        ids += [int(number) for number in _range(part.strip())]
        if len(ids) > MOST:
            raise ValueError(f"more than {MOST} GPUs: {text[:200]!r}")
    return tuple(ids)


def _split(text: str) -> Iterator[str]:
    """The parts between commas that stand outside of brackets."""
    depth, start = 0, 0
    for place, char in enumerate(text):
        depth += {"[": 1, "]": -1}.get(char, 0)
        if char == "," and depth == 0:
            yield text[start:place]
            start = place + 1
    yield text[start:]


def _expanded(part: str) -> Iterator[str]:
    match = _BRACKET.search(part)
    if match is None:
        yield part
        return
    for piece in match[1].split(","):
        for number in _range(piece):
            for rest in _expanded(part[match.end() :]):
                yield part[: match.start()] + number + rest


def _range(piece: str) -> Iterator[str]:
    """``08-11`` → 08, 09, 10, 11: as wide as the first is written."""
    match = _RANGE.fullmatch(piece)
    if match is None:
        raise ValueError(f"not a range of numbers: {piece[:200]!r}")
    first, last = int(match[1]), int(match[2] or match[1])
    if not 0 <= last - first < MOST:
        raise ValueError(f"not a range of numbers: {piece[:200]!r}")
    for number in range(first, last + 1):
        yield str(number).zfill(len(match[1]))
