"""How `pilot doctor --allocation` shows what it found: pass, warn or fail, each with its cure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from rich.table import Table
from rich.text import Text

from pilot.cli.output import ERROR, FAINT, GOOD, WARNING, console, show


class Grade(StrEnum):
    """How good it is."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"


#: so wide that the sections stand below each other in order
_WHAT = 14
_STYLES = {Grade.PASS: GOOD, Grade.WARN: WARNING, Grade.FAIL: ERROR}


@dataclass(frozen=True, slots=True)
class Check:
    """One line.

    Attributes:
        what: that was looked at.
        found: in words.
        cure: what mends it.
    """

    what: str
    found: str
    grade: Grade = Grade.PASS
    cure: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """Lines that belong together, or the announcement of some that take their time.

    Attributes:
        waiting: what is about to be done; then there are no lines.
    """

    title: str = ""
    checks: Sequence[Check] = ()
    waiting: str = ""


def print_sections(sections: Iterable[Section]) -> bool:
    """Print them as they come; whether nothing failed."""
    grades = dict.fromkeys(Grade, 0)
    target = console()
    with target.status("") as status:
        if not target.is_terminal:
            status.stop()
        for section in sections:
            if section.waiting:
                status.update(Text(section.waiting, style=FAINT))
            if not section.checks:
                continue
            for check in section.checks:
                grades[check.grade] += 1
            status.stop()
            show(Text(section.title, style="bold"), _lines(section.checks))
            if target.is_terminal:
                status.start()
    said = ", ".join(f"{count} {grade}" for grade, count in grades.items() if count)
    worst = next((grade for grade in reversed(Grade) if grades[grade]), Grade.PASS)
    show(Text(said, style=_STYLES[worst]))
    return not grades[Grade.FAIL]


def _lines(checks: Sequence[Check]) -> Table:
    table = Table.grid(padding=(0, 1))
    for width in (1, 4, _WHAT, None):
        table.add_column(min_width=width)
    for check in checks:
        style = "" if check.grade is Grade.PASS else _STYLES[check.grade]
        table.add_row("", Text(check.grade, style=_STYLES[check.grade]), check.what, Text(check.found, style=style))
        if check.cure:
            table.add_row("", "", "", Text(f"cure: {check.cure}"))
    return table
