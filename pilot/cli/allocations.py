"""`pilot status --allocations`: what became of the core-time of each pilot."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.text import Text

from db import pilot_table
from db.states import Verdict
from pilot import host
from pilot.cli.output import ERROR, FAINT, GOOD, say, show
from pilot.cli.records import published
from pilot.cli.tables import grid
from pilot.durations import say_duration
from pilot.folder import Folder

_STYLES = {"active": GOOD, "draining": "bold", "lost": ERROR}


def print_allocations(folder: Folder, limit: int, *, as_json: bool) -> None:
    """Print the latest pilots, the newest first: how long they lived, and how useful that was.

    Raises:
        MissingError: nothing was published yet.
    """
    with published(folder) as connection:
        pilots = pilot_table.read_pilots(connection, limit)
        spent = pilot_table.core_time_by_verdict(connection)
    accounts = [account(pilot, spent.get(pilot["id"], {})) for pilot in pilots]
    if as_json:
        print(json.dumps(accounts))
        return
    if not accounts:
        say("no pilot has worked here yet")
        return
    show(_Allocations(accounts), Text(_NOTE, style=FAINT))


_NOTE = (
    "useful, failed, again: shares of the core-time held; the rest stood idle, or was under way when a pilot was lost"
)
#: so many columns a line wants that has the reason at its end
_WIDE = 110
#: with less than so many the dispensable columns are left out
_NARROW = 76
_DISPENSABLE = frozenset({"state", "nodes", "failed"})


@dataclass(frozen=True, slots=True)
class _Allocations:
    """The table; where there is no room for the reasons beside it, they stand below it."""

    accounts: Sequence[dict[str, Any]]

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        wide, narrow = options.max_width >= _WIDE, options.max_width < _NARROW
        right: dict[str, Any] = {"justify": "right", "no_wrap": True}
        left: dict[str, Any] = {"no_wrap": True}
        columns = dict(pilot=right, job=left, state=left, nodes=right, began=right, lasted=right, **_SHARES)
        shown = [heading for heading in columns if not narrow or heading not in _DISPENSABLE]
        table = grid(**{heading: columns[heading] for heading in shown})
        table.padding = (0, 2 if wide else 1, 0, 0)
        if wide:
            table.add_column("why it ended")
        for entry in self.accounts:
            cells = dict(zip(columns, _cells(entry), strict=True))
            table.add_row(*(cells[heading] for heading in shown), *([entry["reason"]] if wide else []))
        yield table
        reasons = [entry for entry in self.accounts if entry["reason"]]
        if reasons and not wide:
            below = grid(pilot=right, why_it_ended={})
            for entry in reasons:
                below.add_row(str(entry["id"]), entry["reason"])
            yield Text("")
            yield below
            yield Text("")


_SHARES: dict[str, Any] = {
    heading: {"justify": "right", "no_wrap": True} for heading in ("core_h", "useful", "failed", "again")
}


def account(pilot: dict[str, Any], spent: dict[str, float]) -> dict[str, Any]:
    """What a pilot had and what came of it. Pure.

    Args:
        pilot: its row.
        spent: verdict → core-seconds of its attempts.

    Returns:
        the row, with ``useful_core_s`` (attempts that are done, or are gone on from), ``interrupted_core_s`` (to be run
        again) and ``failed_core_s`` (all other verdicts).
    """
    useful = spent.get(Verdict.DONE, 0.0)
    interrupted = spent.get(Verdict.INTERRUPTED, 0.0)
    rest = sum(core_s for verdict, core_s in spent.items() if verdict not in {"", Verdict.DONE, Verdict.INTERRUPTED})
    return pilot | {"useful_core_s": useful, "interrupted_core_s": interrupted, "failed_core_s": rest}


def _cells(entry: dict[str, Any]) -> list[Text | str]:
    ended = entry["ended_at"] or entry["seen_at"] or entry["started_at"]
    reserved = entry["reserved_core_s"]
    state = Text(entry["state"], style=_STYLES.get(entry["state"], ""))
    return [
        str(entry["id"]),
        entry["job_id"] or "–",
        state,
        str(len(entry["nodes"])),
        _moment(entry["started_at"]),
        say_duration(max(0.0, ended - entry["started_at"])),
        _core_hours(reserved),
        *(
            f"{entry[key] / reserved:.0%}" if reserved else "–"
            for key in ("useful_core_s", "failed_core_s", "interrupted_core_s")
        ),
    ]


def _moment(at: float) -> str:
    """The time of day, with the day if it is not today's."""
    then, now = (datetime.fromtimestamp(moment, tz=UTC).astimezone() for moment in (at, host.now()))
    return then.strftime("%H:%M" if then.date() == now.date() else "%m-%d %H:%M")


def _core_hours(core_s: float) -> str:
    """As many digits as mean something: 0.04, 3.1, 24576."""
    hours = core_s / 3600
    return f"{hours:.2f}" if hours < 1 else f"{hours:.1f}" if hours < 100 else f"{hours:.0f}"
