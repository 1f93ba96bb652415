"""Reading what a run wrote, however much of it there is and whatever it is."""

import re
from pathlib import Path

#: of an output of pw.x we need its first page and its last ones: the numbers of 5000 atoms are 0.5 MB
HEAD_BYTES, TAIL_BYTES = 500_000, 2_000_000
CUT = "\n<<< the middle of this file was not read >>>\n"
#: no line that we read is as long; patterns that look along a line must not meet one of megabytes
_LONGEST_LINE = 1000
_LONG = re.compile(rf"([^\n]{{{_LONGEST_LINE}}})[^\n]+")
_SAID = 400
_LONGEST_REASON = 2000


def head_and_tail(path: Path, head: int = HEAD_BYTES, tail: int = TAIL_BYTES) -> str:
    """The text of a file, without its middle if it is large and without the ends of endless lines.

    A file that is not there, or cannot be read, is empty.
    """
    try:
        with path.open("rb") as file:
            data = file.read(head + tail + 1)
            if len(data) > head + tail:
                size = file.seek(0, 2)
                file.seek(max(head, size - tail))
                data = data[:head] + CUT.encode() + file.read(tail)
    except OSError:
        return ""
    # Fortran ends its lines with \n; \r and form feeds are no ends of lines to our patterns
    return _LONG.sub(r"\1", data.decode(errors="replace"))


def printable(text: str) -> str:
    """Text that can be recorded and shown: not too long, without what a terminal would obey or no file can hold."""
    said = text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}…"
    return said if said.isprintable() else "".join(letter if letter.isprintable() else "\ufffd" for letter in said)


def in_one_line(text: str) -> str:
    """Text of a run as part of a sentence for people: one line, nothing that a terminal would obey, not too long."""
    words = " ".join(text.split())
    return "".join(letter if letter.isprintable() else "?" for letter in words)[:_SAID]
