"""The facts of a snapshot as text and tables; the same pieces make `pilot status` and the live view of `pilot run`."""

from collections.abc import Iterable, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from pilot.cli.output import ERROR, FAINT, GOOD, WARNING, plural
from pilot.contents import say_size
from pilot.durations import say_duration
from pilot.scheduler.reactor import TOO_LONG
from pilot.snapshot import (
    CampaignStatus,
    FailureStatus,
    GenerationStatus,
    NodeStatus,
    RoomStatus,
    RunningStatus,
    Snapshot,
)

_STATES = {"waiting": "", "ready": "", "running": "bold", "done": GOOD, "failed": ERROR, "cancelled": WARNING}
_KINDS = ("explore", "select", "label", "train", "evaluate", "command")
_NEVER = "can never start"
_READY = "ready: "
_FREE = "ready: waits for free cores"
#: columns of the table of generations: preselected, ε_E
_DISPENSABLE = (3, 8)


def grid(**columns: Any) -> Table:
    """A table without lines: the columns by their headings, each with what :meth:`Table.add_column` takes."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading, options in columns.items():
        table.add_column(heading.replace("_", " ").strip(), **options)
    return table


def task_counts(snapshot: Snapshot) -> Table:
    """Tasks by kind and state."""
    shown = [state for state in _STATES if any(state in of_kind for of_kind in snapshot.tasks.values())]
    right: dict[str, Any] = {"justify": "right"}
    table = grid(tasks={}, **dict.fromkeys(shown, right), all=right)
    for kind in (kind for kind in _KINDS if kind in snapshot.tasks):
        of_kind = snapshot.tasks[kind]
        numbers = [_count(of_kind.get(state, 0), _STATES[state]) for state in shown]
        table.add_row(kind, *numbers, str(sum(of_kind.values())))
    return table


def _count(number: int, style: str) -> Text:
    return Text(str(number), style=style) if number else Text("·", style=FAINT)


def reasons(snapshot: Snapshot, *, alive: bool) -> Table | None:
    """Why each kind waits; None if nothing does."""
    table = grid(kind={"style": "bold"}, number={"justify": "right"}, why={})
    table.show_header = False
    for kind in (kind for kind in _KINDS if snapshot.why_waiting.get(kind)):
        for reason, number in snapshot.why_waiting[kind].items():
            said = reason
            if reason.startswith(_READY) and not alive:
                said = "ready: waits for a pilot"
            elif reason == _FREE and snapshot.pilot is not None and snapshot.pilot.state == "draining":
                said = "ready: the pilot drains"
            hopeless = not said.startswith((_READY, "waits"))
            table.add_row(kind, str(number), Text(said, style=ERROR if hopeless else ""))
    return table if table.row_count else None


def can_never_run(snapshot: Snapshot) -> int:
    """How many tasks wait for what will never come."""
    return sum(
        number
        for of_kind in snapshot.why_waiting.values()
        for reason, number in of_kind.items()
        if not reason.startswith((_READY, "waits"))
    )


def too_long(snapshot: Snapshot) -> int:
    """How many tasks need more time than an allocation like the last one has."""
    return sum(
        number for of_kind in snapshot.why_waiting.values() for reason, number in of_kind.items() if TOO_LONG in reason
    )


def running_tasks(running: Sequence[RunningStatus], now: float, limit: int, total: int) -> Table:
    """What runs, the longest first; of ``total`` that run not all may be known here."""
    right: dict[str, Any] = {"justify": "right", "no_wrap": True}
    table = grid(
        runs=right,
        # the only column that may be cut: rich shortens those first that are not `no_wrap`
        _={"ratio": 1},
        node={"no_wrap": True},
        cores=right,
        since=right,
        expected=right,
    )
    for entry in sorted(running, key=lambda entry: entry.started_at)[:limit]:
        table.add_row(
            str(entry.task),
            Text(entry.name, no_wrap=True, overflow="ellipsis"),
            entry.node,
            str(entry.cores),
            say_duration(max(0.0, now - entry.started_at)),
            say_duration(entry.expected_s),
        )
    more = total - min(limit, len(running))
    if more > 0:
        table.add_row("", Text(f"and {more} more", style=FAINT), "", "", "", "")
    return table


def failures(failed: Iterable[FailureStatus]) -> Table:
    """Tasks that failed for good, and why."""
    table = grid(failed={"justify": "right", "no_wrap": True, "style": ERROR}, task={"max_width": 34}, why={})
    for entry in failed:
        table.add_row(str(entry.task), entry.name, entry.why)
    return table


def cores(nodes: Sequence[NodeStatus]) -> Text:
    """How busy the nodes are, and which were lost."""
    there = [node for node in nodes if not node.lost]
    busy, all_cores = sum(node.busy_cores for node in there), sum(node.cores for node in there)
    where = there[0].name if len(there) == 1 else f"{len(there)} nodes"
    return Text(f"{busy} of {all_cores} cores busy on {where}")


def lost_nodes(nodes: Sequence[NodeStatus]) -> list[Text]:
    """The nodes that were written off or get nothing new, and why."""
    lost = [Text(f"node {node.name} is lost: {node.lost}", style=ERROR) for node in nodes if node.lost]
    held = [node for node in nodes if node.quarantined]
    return lost + [Text(f"node {node.name} is quarantined: {node.quarantined}", style=WARNING) for node in held]


def room(taken: RoomStatus) -> Text:
    """The files that pilots have made, as quotas count them, and their bytes."""
    line = Text("room  ", style="bold")
    line.append(f"{taken.run_files} files, {say_size(taken.run_bytes)} in runs", style="not bold")
    if taken.packed:
        archives = plural(taken.archives, "archive")
        packed = f"{plural(taken.packed, 'run')} packed into {archives}, {say_size(taken.archive_bytes)}"
        line.append(f"; {packed}", style="not bold")
    if taken.other_files is not None and taken.other_bytes is not None:
        line.append(f"; {taken.other_files} files, {say_size(taken.other_bytes)} beside", style="not bold")
    return line


def campaign_line(campaign: CampaignStatus) -> Text:
    """Where the campaign stands, in one line."""
    style = {"converged": GOOD, "not converged": WARNING, "nothing ran": ERROR}.get(campaign.state, "")
    line = Text.assemble(
        (campaign.name, "bold"),
        f": stage {campaign.stage} of {campaign.stages}, generation {campaign.generation}, ",
        (campaign.state, style),
        f"; {campaign.training_set} structures in the training set",
    )
    why = next((generation.why for generation in reversed(campaign.generations) if generation.why), "")
    return line.append(f"; {why}") if why else line


def generations(campaign: CampaignStatus, limit: int | None, *, narrow: bool = False) -> Table:
    """One row a generation; the newest last. ``narrow`` leaves out what one can do without."""
    right: dict[str, Any] = {"justify": "right", "no_wrap": True}
    table = grid(gen={"no_wrap": True})
    table.padding = (0, 1, 0, 0)
    headings = ("broke", "γ max", "pre-\nsel.", "sel.", "labels", "train\nset", "ε_F\nmeV/Å", "ε_E\nmeV/at")
    shown = [number for number in range(len(headings) + 2) if not narrow or number not in _DISPENSABLE]
    for heading in (heading for number, heading in enumerate(headings, 1) if number in shown):
        table.add_column(heading, **right)
    dft = campaign.lattice_parameter_dft
    table.add_column("a, Å" if dft is None else f"a, Å\nDFT {dft:.3f}", **right)
    rows = campaign.generations[-limit:] if limit else campaign.generations
    for generation in rows:
        cells = _generation_cells(generation, dft)
        table.add_row(*(cells[number] for number in shown))
    hidden = len(campaign.generations) - len(rows)
    notes = [f"{hidden} earlier ones: --all"] if hidden else []
    if any(generation.worse for generation in rows):
        notes.append("* worse on the holdout than the potential before")
    if notes:
        table.caption = "; ".join(notes)
        table.caption_justify = "left"
    return table


def _generation_cells(entry: GenerationStatus, dft: float | None) -> list[Text]:
    holdout = entry.holdout or {}
    star = "*" if entry.worse else ""
    lattice = _number(entry.lattice_parameter, "{:.3f}")
    if entry.lattice_parameter is not None and dft is not None:
        lattice += f" ({entry.lattice_parameter - dft:+.3f})"
    cells: list[str | tuple[str, str]] = [
        f"s{entry.stage}g{entry.number:02d}",
        (_of(entry.broke, entry.explorations), WARNING if entry.broke else ""),
        _number(entry.gamma_max, "{:.3g}"),
        _number(entry.preselected, "{}"),
        _number(entry.selected, "{}"),
        _labels(entry),
        _number(entry.training_set, "{}"),
        (_number(_milli(holdout.get("eps_F")), "{:.1f}") + star, ERROR if star else ""),
        (_number(_milli(holdout.get("eps_E_per_atom")), "{:.2f}") + star, ERROR if star else ""),
        lattice,
    ]
    return [Text(*cell) if isinstance(cell, tuple) else Text(cell) for cell in cells]


def _labels(entry: GenerationStatus) -> str:
    text = _of(entry.labelled, entry.labels)
    return f"{text} ({entry.labels_failed})" if entry.labels_failed else text


def _of(part: int | None, whole: int | None) -> str:
    return "–" if part is None or whole is None else f"{part}/{whole}"


def _milli(value: float | None) -> float | None:
    return None if value is None else 1000.0 * value


def _number(value: float | None, template: str) -> str:
    return "–" if value is None else template.format(value)
