"""`pilot doctor --repair`: what is damaged, what would be done about it, and, if the user says so, doing it."""

import shutil
import tempfile
from pathlib import Path

from rich.table import Table
from rich.text import Text

from db.errors import PilotError, StorageError
from db.files import storage_error
from pilot.cli.output import ERROR, GOOD, say, show
from pilot.folder import Folder
from pilot.lease import release_by_force
from pilot.opening import held_folder
from pilot.repair.findings import Found, demand_nobody, examine


def repair(folder: Folder, *, yes: bool) -> int:
    """Look, or do what was said before; the exit code.

    Raises:
        HeldError: a pilot holds the folder, or may.
        StorageError: the disk refuses.
    """
    demand_nobody(folder)
    if not yes:
        with tempfile.TemporaryDirectory(prefix="pilot-repair-") as scratch:
            return _say(list(examine(folder, Path(scratch))), "would: ")
    return _do(folder)


def _say(found: list[Found], word: str) -> int:
    table = Table.grid(padding=(0, 1))
    for one in found:
        mark = Text("ok", style=GOOD) if one.ok else Text("!!", style=ERROR)
        table.add_row("", mark, one.what, Text(one.said, style="" if one.ok else ERROR))
        if one.plan:
            table.add_row("", "", "", Text(f"{word}{one.plan}"))
        if one.cure:
            table.add_row("", "", "", Text(f"cure: {one.cure}"))
    show(Text("state", style="bold"), table)
    if all(one.ok for one in found):
        say("nothing is damaged", style=GOOD)
        return 0
    if any(one.do is not None for one in found):
        say("nothing was changed; next: `pilot doctor --repair --yes` does what is said above")
    return StorageError.exit_code


def _do(folder: Folder) -> int:
    with tempfile.TemporaryDirectory(prefix="pilot-repair-") as scratch:
        # a lease that cannot be read stands in the way of our own
        lease = next(examine(folder, Path(scratch)))
        if lease.do is not None:
            _done(lease)
            release_by_force(folder)
    with held_folder(folder, "repair"):
        scratch_path = folder.state / ".repair.new"
        try:
            shutil.rmtree(scratch_path, ignore_errors=True)
            scratch_path.mkdir()
            found = list(examine(folder, scratch_path))
            for one in found:
                if one.do is not None:
                    _done(one)
        except OSError as error:
            raise storage_error(error, folder.state) from error
        finally:
            shutil.rmtree(scratch_path, ignore_errors=True)
    left = [one for one in found if not one.ok and one.do is None]
    if left:
        return _say(left, "")
    if lease.do is None and all(one.do is None for one in found):
        say("nothing is damaged: nothing was changed", style=GOOD)
    else:
        say("the folder can be used again: `pilot run`", style=GOOD)
    return 0


def _done(one: Found) -> None:
    try:
        if one.do is not None:
            one.do()
    except OSError as error:
        raise storage_error(error, Path(str(error.filename or one.what))) from error
    except PilotError as error:
        raise type(error)(f"{one.what}: {error.what}", where=error.where, next_step=error.next_step) from error
    say(f"{one.what}: {one.said}")
    say(f"done:  {one.plan}")
