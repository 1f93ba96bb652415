"""`pilot drain`, `resume`, `cancel` and `retry`: asking the pilot for something."""

from typing import Annotated

import typer

from db.errors import InputError
from pilot import host
from pilot.cli.asking import ask, report, wait_for_the_end
from pilot.cli.moments import parse_moment
from pilot.cli.options import FolderOption, parse_ids
from pilot.cli.presence import look
from pilot.folder import find_folder

IdsArgument = Annotated[
    list[str], typer.Argument(metavar="TASKS", help="Task ids and ranges of them: 12, 3-7, 3-7,12.", show_default=False)
]


def drain(
    now: Annotated[
        bool, typer.Option("--now", help="End at once what runs (it is run again later), instead of letting it finish.")
    ] = False,
    by: Annotated[
        str | None,
        typer.Option(
            "--by",
            metavar="TIME",
            help='Have ended by "14:30", "2026-11-22 14:30" or "+2 h"; what will be done in time still starts.',
            show_default=False,
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Return when the pilot has ended: then it is safe.")] = False,
    folder: FolderOption = None,
) -> None:
    """Let the pilot end in order: nothing new starts, what runs may finish.

    What does not finish in time (run.drain_wait of pilot.toml, or the end of the allocation) is stopped in its own
    way, and the next `pilot run` goes on with it. `pilot resume` takes a drain back while nothing was stopped yet. A
    time given by --by holds for whichever pilot works here until then, also for one that starts later.
    """
    if now and by is not None:
        raise InputError("--now and --by contradict each other", next_step="give one of them")
    place = find_folder(folder)
    wish = {"now": now} if by is None else {"by": parse_moment(by, host.now())}
    report(ask(place, "drain", wish))
    # where none is alive, what was asked for holds for the next one, and there is nothing to wait for
    if wait and (by is None or look(place).alive):
        wait_for_the_end(place)


def resume(folder: FolderOption = None) -> None:
    """Take a drain back, or the time of `pilot drain --by`: the pilot starts tasks again."""
    report(ask(find_folder(folder), "resume", {}))


def cancel(tasks: IdsArgument, folder: FolderOption = None) -> None:
    """End tasks for good: those that wait never start, those that run are ended.

    Tasks that need a cancelled one can never start, and `pilot status` says so. `pilot retry` brings them back.
    """
    report(ask(find_folder(folder), "cancel", {"tasks": _ids(tasks)}))


def retry(
    tasks: Annotated[
        list[str] | None,
        typer.Argument(metavar="TASKS", help="Task ids and ranges of them: 12, 3-7, 3-7,12.", show_default=False),
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="All tasks that have failed.")] = False,
    folder: FolderOption = None,
) -> None:
    """Bring failed or cancelled tasks back, with a fresh budget of retries."""
    if bool(tasks) == failed:
        raise InputError(
            "which tasks are to be tried again?",
            next_step="`pilot retry 12` or `pilot retry 3-7`; `pilot retry --failed`",
        )
    report(ask(find_folder(folder), "retry", {"tasks": [] if failed else _ids(tasks or [])}))


def _ids(words: list[str]) -> list[int]:
    ids = parse_ids(words)
    if not ids:
        raise InputError("no task is named", next_step="write ids like 12, 3-7 or 3-7,12")
    return ids
