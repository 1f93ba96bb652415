"""`pilot status --allocations`: what became of the core-time of each pilot."""

import json
from typing import Any

from rich.text import Text

from db import pilot_table
from db.states import Verdict
from pilot import host
from pilot.cli.output import ERROR, FAINT, GOOD, show
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
    right: dict[str, Any] = {"justify": "right", "no_wrap": True}
    table = grid(
        pilot=right, job={}, state={}, nodes=right, cores=right, began=right, lasted=right, **_HEADINGS, why_it_ended={}
    )
    for entry in accounts:
        table.add_row(*_cells(entry))
    note = "shares of the core-time that was reserved; the rest stood idle, or was under way when a pilot was lost"
    show(table, Text(note, style=FAINT))


_HEADINGS: dict[str, Any] = {
    heading: {"justify": "right", "no_wrap": True} for heading in ("core_h", "useful", "failed", "interrupted")
}


def account(pilot: dict[str, Any], spent: dict[str, float]) -> dict[str, Any]:
    """What a pilot had and what came of it. Pure.

    Args:
        pilot: its row.
        spent: verdict → core-seconds of its attempts.

    Returns:
        the row, with ``useful_core_s`` (attempts that are done), ``interrupted_core_s`` (to be run again) and
        ``failed_core_s`` (all other verdicts).
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
        str(sum(entry["nodes"].values())),
        say_duration(max(0.0, host.now() - entry["started_at"])) + " ago",
        say_duration(max(0.0, ended - entry["started_at"])),
        f"{reserved / 3600:.4g}",
        *(
            f"{entry[key] / reserved:.0%}" if reserved else "–"
            for key in ("useful_core_s", "failed_core_s", "interrupted_core_s")
        ),
        entry["reason"],
    ]
