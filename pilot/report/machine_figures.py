"""The figures about the machine's time: core-hours, allocations, times of DFT runs, failures."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pilot.report import drawing, machine
from pilot.report.figure import Data, Figure, Table, lacking
from pilot.report.records import Records

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

_FATE_COLOURS = {
    "useful": drawing.GREEN,
    "interrupted": drawing.ORANGE,
    "failed": drawing.RED,
    "under way": drawing.SKY,
}
_MOST_ALLOCATIONS = 40


def core_hours(records: Records) -> Figure:
    """Core-hours by step and by what became of them."""
    name, title = "core-hours", "Core-hours by step"
    says = (
        "Core-hours held by attempts of each step. Useful: done, or gone on from after an interruption; interrupted: "
        "run again; failed: any other end."
    )
    found = machine.core_hours(records.ran, records.now)
    rows = [(kind, fate, hours) for (kind, fate), hours in sorted(found.items())]
    if not rows:
        return lacking(name, title, says, "nothing has run yet")
    kinds = [kind for kind in machine.KINDS if any(row[0] == kind for row in rows)]

    def draw(canvas: "Canvas") -> None:
        axes = drawing.axes(canvas, "core-hours", "")
        left = dict.fromkeys(kinds, 0.0)
        for fate in machine.FATES:
            values = [found.get((kind, fate), 0.0) for kind in kinds]
            if any(values):
                axes.barh(kinds, values, left=list(left.values()), color=_FATE_COLOURS[fate], height=0.6, label=fate)
                left = {kind: left[kind] + value for kind, value in zip(kinds, values, strict=True)}
        for kind, total in left.items():
            axes.annotate(_hours(total), (total, kind), xytext=(4, 0), textcoords="offset points", va="center")
        axes.invert_yaxis()
        axes.set_xlim(0.0, 1.12 * max(left.values()) or 1.0)
        axes.grid(visible=False, axis="y")
        drawing.legend(axes, loc="lower right")

    height = 1.1 + 0.36 * len(kinds)
    return Figure(name, title, says, Data(("step", "fate", "core_hours"), rows), draw, size=(7.2, height))


def _hours(hours: float) -> str:
    return f"{hours:.2g}" if hours < 10 else f"{hours:,.0f}".replace(",", " ")


def allocations(records: Records) -> Figure:
    """The useful share of each allocation."""
    name, title = "allocations", "Useful share of each allocation"
    says = (
        "What became of the core-time that each pilot held; what is missing to 100 % stood idle, or was under way when "
        "the pilot was lost."
    )
    had = [pilot for pilot in records.pilots if pilot["reserved_core_s"]]
    rows = [
        (
            *(p["id"], p["job_id"], len(p["nodes"] or {}), _moment(p["started_at"]), p["reserved_core_s"] / 3600.0),
            *machine.shares(p).values(),
            p["reason"],
        )
        for p in had
    ]
    columns = (
        "pilot",
        "job",
        "nodes",
        "began",
        "core_hours",
        "useful",
        "interrupted",
        "failed",
        "rest",
        "why_it_ended",
    )
    data = Data(columns, rows)
    if not had:
        return lacking(name, title, says, "no pilot has held cores yet")
    shown = rows[-_MOST_ALLOCATIONS:]
    if len(shown) < len(rows):
        says += f" The last {len(shown)} of {len(rows)}."

    def draw(canvas: "Canvas") -> None:
        axes = drawing.axes(canvas, "pilot (core-hours held)", "share of core-time (%)")
        places = range(len(shown))
        bottom = [0.0] * len(shown)
        for column, fate in ((5, "useful"), (6, "interrupted"), (7, "failed")):
            values = [100.0 * row[column] for row in shown]
            axes.bar(places, values, bottom=bottom, color=_FATE_COLOURS[fate], width=0.8, label=fate)
            bottom = [a + b for a, b in zip(bottom, values, strict=True)]
        axes.set_ylim(0, 100)
        axes.set_xlim(-0.6, max(len(shown), 6) - 0.4)
        few = len(shown) <= 10
        labels = [f"{row[0]}\n({_hours(row[4])})" if few else f"{row[0]}" for row in shown]
        step = 1 if few else -(-len(shown) // 20)
        axes.set_xticks(list(places)[::step], labels[::step])
        if not few:
            axes.set_xlabel("pilot")
        axes.grid(visible=False, axis="x")
        drawing.legend_above(axes, 3)

    return Figure(name, title, says, data, draw, size=(7.2, 3.0))


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")


def label_times(records: Records) -> Figure:
    """How long reference calculations took, by atoms."""
    name, title = "dft-times", "Time of DFT runs by number of atoms"
    says = (
        "Successful reference calculations by the core-time that each took, for each number of atoms; dashed: median."
    )
    found = machine.label_times(records.ran)
    if not found:
        return lacking(name, title, says, "no reference calculation has ended yet")
    edges = _edges([value for values in found.values() for value in values])
    rows = []
    for atoms, values in found.items():
        counts = _counts(values, edges)
        rows += [(atoms, edges[i], edges[i + 1], n) for i, n in enumerate(counts) if n]
    data = Data(("atoms", "from_core_s", "to_core_s", "runs"), rows)

    def draw(canvas: "Canvas") -> None:
        axes = drawing.axes(canvas, "core-time of a DFT run (s)", "DFT runs", xlog=True)
        for number, (atoms, values) in enumerate(found.items()):
            colour = drawing.CYCLE[number % len(drawing.CYCLE)]
            label = f"{atoms} atom{'s' if atoms > 1 else ''} ({len(values)})"
            axes.stairs(_counts(values, edges), edges, fill=True, color=colour, alpha=0.3 if len(found) < 3 else 0.1)
            axes.stairs(_counts(values, edges), edges, color=colour, linewidth=1.2, label=label)
            axes.axvline(sorted(values)[len(values) // 2], color=colour, linestyle="--", linewidth=1.0)
        axes.set_ylim(bottom=0)
        drawing.legend(axes)

    return Figure(name, title, says, data, draw)


def _edges(values: Sequence[float]) -> list[float]:
    """Ten bins a decade round all values."""
    from math import ceil, floor, log10

    low, high = (log10(max(value, 1e-3)) for value in (min(values), max(values)))
    first, last = floor(10 * low), max(ceil(10 * high), floor(10 * low) + 1)
    return [10.0 ** (place / 10.0) for place in range(first, last + 1)]


def _counts(values: Sequence[float], edges: Sequence[float]) -> list[int]:
    from bisect import bisect_right

    found = [0] * (len(edges) - 1)
    for value in values:
        found[min(max(bisect_right(edges, value) - 1, 0), len(found) - 1)] += 1
    return found


def failures(records: Records) -> Table:
    """Failures by cause."""
    name, title = "failures", "Failures by cause"
    says = (
        "Attempts that did not succeed, by step and verdict, with the reason that most of them gave; a failed attempt "
        "is retried within the budget of its kind, an interrupted one for nothing."
    )
    found = machine.failures(records.ran, records.now)
    columns = ("step", "verdict", "attempts", "core_hours", "most_frequent_reason")
    rows = [(f.kind, f.verdict, f.attempts, f.core_h, f.example) for f in found]
    if not rows:
        return Table(name, title, says, Data(columns, ()), lacks="no attempt has failed")
    shown = [(f.kind, f.verdict, str(f.attempts), _hours(f.core_h), f.example) for f in found]
    return Table(name, title, says, Data(columns, rows), ("step", "verdict", "attempts", "core-hours", "reason"), shown)


def lost(records: Records) -> Table:
    """The tasks that failed for good."""
    name, title = "failed-tasks", "Tasks that failed for good"
    says = "Every retry was spent; `pilot retry TASK` brings one back. The newest come first."
    columns = ("task", "step", "name", "why")
    if not records.failed:
        return Table(name, title, says, Data(columns, ()), lacks="no task has failed for good")
    shown = [(str(task), kind, words, why) for task, kind, words, why in records.failed[:20]]
    total = sum(states.get("failed", 0) for states in records.tasks.values())
    if total > len(shown):
        says += f" {len(shown)} of {total} are shown."
    return Table(name, title, says, Data(columns, records.failed), ("task", "step", "name", "why"), shown)
