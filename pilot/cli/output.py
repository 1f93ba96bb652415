"""What is printed, and how: two consoles, errors as what, where and next."""

import os
import sys
import traceback

from rich.console import Console, RenderableType
from rich.text import Text

from db.errors import PilotError

#: Where there is no terminal to say how wide it is.
_WIDTH = 120

ERROR = "bold red"
WARNING = "yellow"
GOOD = "green"
FAINT = "dim"


def console(*, stderr: bool = False) -> Console:
    """A console that prints text as it stands: brackets, numbers and colons of users mean nothing to it."""
    stream = sys.stderr if stderr else sys.stdout
    wide = None if stream.isatty() or "COLUMNS" in os.environ else _WIDTH
    return Console(stderr=stderr, width=wide, markup=False, emoji=False, highlight=False)


def say(text: str | Text, *, style: str = "", stderr: bool = False) -> None:
    """Print a line or a paragraph; it is folded on terminals only, so that programs find lines whole."""
    target = console(stderr=stderr)
    target.print(text, style=style or None, soft_wrap=not target.is_terminal)


def show(*blocks: RenderableType) -> None:
    """Print tables and texts one below the other; programs get no blanks at the ends of lines."""
    target = console()
    if target.is_terminal:
        target.print(*blocks, sep="\n")
        return
    with target.capture() as captured:
        target.print(*blocks, sep="\n")
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def plural(number: int, what: str) -> str:
    """A number of things: "1 atom", "2 atoms"."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def note(text: str) -> None:
    """Something that the user should know but that is not an error."""
    say(Text.assemble(("note: ", WARNING), text), stderr=True)


def print_error(error: PilotError) -> None:
    """What is wrong, where, and what to do next."""
    say(Text.assemble(("error: ", ERROR), error.what), stderr=True)
    if error.where:
        say(Text.assemble(("where: ", FAINT), error.where), stderr=True)
    if error.next_step:
        say(Text.assemble(("next:  ", FAINT), error.next_step), stderr=True)


def print_bug(error: BaseException) -> None:
    """What nobody foresaw: the trace of it, and what it means."""
    traceback.print_exception(error)
    say(Text.assemble(("error: ", ERROR), "this is a bug in pilot, not a mistake of yours"), stderr=True)
    say("next:  send the lines above, and what you typed, to whoever maintains it; the database is safe", stderr=True)
