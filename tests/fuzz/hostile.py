"""Damage to files: what disks, transfers, editors and enemies do to them.

`make test` draws the same few examples each time. A long session draws as many as PILOT_FUZZ says, others each time:

    PILOT_FUZZ=20000 python -m pytest tests/fuzz -q --timeout 0
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("PILOT_FUZZ", "0"))

#: the settings of every fuzzed reader
fuzzed = settings(
    max_examples=EXAMPLES or 60,
    derandomize=not EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)

#: what stands where something else is expected
JUNK: tuple[bytes, ...] = (
    b"",
    b"\0",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\r",
    b"\x1c",
    b"\x1f",
    b"#",
    b"=",
    b'"',
    b"]",
    b"}",
    b"-",
    b"-1",
    b"0",
    b"1e400",
    b"-1e400",
    b"nan",
    b"inf",
    b"1_0",
    b"0x10",
    b"1,5",
    b"2147483648",
    b"4000000000",
    b"99999999999999999999",
    b"9" * 5000,
    b"[" * 100_000,
    b"{" * 3000,
    b" " * 20_000,
    "²".encode(),
    "١".encode(),
    "\u2028".encode(),
    b"$(touch PWNED)",
    b"null",
    b"true",
)


@st.composite
def damaged(draw: Callable[..., Any], whole: bytes) -> bytes:
    """``whole`` after one to three accidents."""
    data = whole
    for _ in range(draw(st.integers(1, 3))):
        data = draw(st.sampled_from(_ACCIDENTS))(draw, data)
    return data


def truncations(whole: bytes) -> list[bytes]:
    """All beginnings of ``whole`` but itself."""
    return [whole[:end] for end in range(len(whole))]


def without_a_line(whole: bytes) -> list[bytes]:
    """All that is left when one line is lost."""
    lines = whole.splitlines(keepends=True)
    return [b"".join(lines[:k] + lines[k + 1 :]) for k in range(len(lines))]


def with_a_line_twice(whole: bytes) -> list[bytes]:
    """All that comes of writing a line twice."""
    lines = whole.splitlines(keepends=True)
    return [b"".join(lines[: k + 1] + lines[k:]) for k in range(len(lines))]


def _place(draw: Callable[..., Any], data: bytes) -> int:
    return int(draw(st.integers(0, len(data))))


def _cut(draw: Callable[..., Any], data: bytes) -> bytes:
    return data[: _place(draw, data)]


def _behead(draw: Callable[..., Any], data: bytes) -> bytes:
    return data[_place(draw, data) :]


def _flip(draw: Callable[..., Any], data: bytes) -> bytes:
    at = _place(draw, data)
    return data[:at] + bytes([draw(st.integers(0, 255))]) + data[at + 1 :]


def _insert(draw: Callable[..., Any], data: bytes) -> bytes:
    at = _place(draw, data)
    return data[:at] + draw(st.sampled_from(JUNK)) + data[at:]


def _other_word(draw: Callable[..., Any], data: bytes) -> bytes:
    words = data.split(b" ")
    words[draw(st.integers(0, len(words) - 1))] = draw(st.sampled_from(JUNK))
    return b" ".join(words)


def _lines(draw: Callable[..., Any], data: bytes) -> bytes:
    """Lines lost, doubled, exchanged."""
    lines = data.split(b"\n")
    one, two = (draw(st.integers(0, len(lines) - 1)) for _ in range(2))
    match draw(st.integers(0, 3)):
        case 0:
            del lines[one]
        case 1:
            lines.insert(two, lines[one])
        case 2:
            lines[one], lines[two] = lines[two], lines[one]
        case _:
            lines[one] = lines[two]
    return b"\n".join(lines)


def _line_ends(draw: Callable[..., Any], data: bytes) -> bytes:
    return data.replace(b"\n", draw(st.sampled_from([b"\r\n", b"\r", b"\n\n", b" \n"])))


_ACCIDENTS = (_cut, _behead, _flip, _insert, _other_word, _lines, _line_ends)


def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what is written again and again; not the one above those of all tests, where they would find it."""
    found = tmp_path_factory.getbasetemp() / "fuzz"
    found.mkdir(exist_ok=True)
    return found
