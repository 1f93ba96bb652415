"""The figures about the machine."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pilot.report import drawing, machine
from pilot.report.figure import Data, Figure, Table, lacking
from pilot.report.records import Records

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

_FATE_COLOURS = {
    "useful": drawing.GREEN,
    "interrupted": drawing.ORANGE,
    "failed": drawing.RED,
    "under way": drawing.SKY,
}
#: with more bars than this, or more nodes, a timeline shows how many cores were busy instead
_FEW_BARS = 600
_FEW_NODES = 6
_MOST_NODES = 16
_BINS = 240
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
    columns = ("pilot", "job", "nodes", "began", "core_hours", "useful", "interrupted", "failed", "rest", "why_it_ended")
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


def timeline(records: Records) -> Figure:
    """What ran where and when: bars where they are few, else busy cores."""
    name, title = "timeline", "Timeline of the nodes"
    time = machine.clock(records)
    if time is None or not records.ran:
        return lacking(name, title, "What ran on each node over time.", "nothing has run yet")
    gaps = "" if len(time.spans) == 1 else f" Gaps between allocations are left out (grey lines, {len(time.spans) - 1})."
    nodes = {node for ran in records.ran for node, _ in ran.shares}
    count = sum(len(ran.shares) for ran in records.ran)
    if count <= _FEW_BARS and len(nodes) <= _FEW_NODES:
        return _gantt(records, time, gaps)
    return _busy(records, time, gaps)


def _gantt(records: Records, time: machine.Clock, gaps: str) -> Figure:
    found = machine.bars(records, time)
    says = (
        "Each bar is an attempt, as high as its share of the node's cores, coloured by its step; hatched: it failed or "
        f"was interrupted.{gaps}"
    )
    rows = [(b.node, b.bottom, b.cores, b.begin, b.end, b.kind, b.fate) for b in found]
    data = Data(("node", "from_core", "cores", "begin_h", "end_h", "step", "fate"), rows)
    nodes = sorted({bar.node for bar in found})
    tops = {node: max(bar.bottom + bar.cores for bar in found if bar.node == node) for node in nodes}

    def draw(canvas: "Canvas") -> None:
        panels = canvas.subplots(len(nodes), 1, sharex=True, squeeze=False)[:, 0]
        for panel, node in zip(panels, nodes, strict=True):
            for kind in machine.KINDS:
                for lost in (False, True):
                    chosen = [
                        b
                        for b in found
                        if b.node == node and b.kind == kind and (b.fate in {"failed", "interrupted"}) is lost
                    ]
                    if chosen:
                        panel.barh(
                            [b.bottom + b.cores / 2 for b in chosen],
                            [max(b.end - b.begin, time.length / 2000) for b in chosen],
                            left=[b.begin for b in chosen],
                            height=[b.cores * 0.92 for b in chosen],
                            color=drawing.KINDS[kind],
                            hatch="////" if lost else None,
                            edgecolor="white",
                            linewidth=0.0 if len(found) > 150 else 0.3,
                        )
            panel.set_ylim(0, tops[node])
        _dress(canvas, panels, nodes, [tops[node] for node in nodes], time)
        _key(panels[0], [kind for kind in machine.KINDS if any(b.kind == kind for b in found)])

    return Figure("timeline", "Timeline of the nodes", says, data, draw, size=(7.2, 1.1 + 1.1 * len(nodes)))


def _busy(records: Records, time: machine.Clock, gaps: str) -> Figure:
    every = machine.lanes(records, time, _BINS)
    found, count = machine.gathered(every, _MOST_NODES)
    width = time.length / _BINS
    few = "" if len(found) == count else f" Of {count} nodes the {len(found)} that did most are shown; the data have all."
    says = (
        f"Busy cores of each node by step, mean over {60 * width:.3g} min each; {len(records.ran)} attempts.{gaps}{few}"
    )
    rows = [
        (lane.node, lane.cores, place * width, kind, values[place])
        for lane in every
        for kind, values in lane.busy.items()
        for place in range(_BINS)
        if values[place] > 0.0
    ]
    data = Data(("node", "cores", "from_h", "step", "busy_cores"), rows)

    def draw(canvas: "Canvas") -> None:
        panels = canvas.subplots(len(found), 1, sharex=True, squeeze=False)[:, 0]
        edges = [place * width for place in range(_BINS + 1)]
        for panel, lane in zip(panels, found, strict=True):
            base = [0.0] * _BINS
            for kind in machine.KINDS:
                if kind not in lane.busy:
                    continue
                top = [a + b for a, b in zip(base, lane.busy[kind], strict=True)]
                panel.stairs(top, edges, baseline=base, fill=True, color=drawing.KINDS[kind], linewidth=0)
                base = top
            panel.set_ylim(0, max(lane.cores, 1))
        _dress(canvas, panels, [lane.node for lane in found], [lane.cores for lane in found], time)
        _key(panels[0], [kind for kind in machine.KINDS if any(kind in lane.busy for lane in found)])

    height = 1.2 + (0.9 if len(found) <= 4 else 0.42) * len(found)
    return Figure("timeline", "Timeline of the nodes", says, data, draw, size=(7.2, height))


def _dress(
    canvas: "Canvas", panels: Sequence["Axes"], nodes: Sequence[str], cores: Sequence[int], time: machine.Clock
) -> None:
    for panel, node, many in zip(panels, nodes, cores, strict=True):
        panel.set_ylabel(f"{node}\n{many} cores", rotation=0, ha="right", va="center", fontsize=7.5, parse_math=False)
        panel.set_yticks([])
        panel.grid(visible=False)
        for begin in time.begins[1:]:
            panel.axvline(begin, color=drawing.GREY, linewidth=0.8)
    panels[-1].set_xlim(0, max(time.length, 1e-6))
    minutes = time.length < 1.5
    if minutes:
        from matplotlib.ticker import FuncFormatter, MultipleLocator

        step = next((s for s in (0.1, 0.25, 0.5, 1, 2, 5, 10, 15) if 60 * time.length / s <= 10), 30)
        panels[-1].xaxis.set_major_locator(MultipleLocator(step / 60))
        panels[-1].xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{60 * x:g}"))
    panels[-1].set_xlabel("minutes of allocation" if minutes else "hours of allocation")


def _key(panel: Any, kinds: Sequence[str]) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=drawing.KINDS[kind], label=kind) for kind in kinds]
    panel.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0.0, 1.02), ncols=len(kinds), borderaxespad=0.0
    )


def label_times(records: Records) -> Figure:
    """How long reference calculations took, by atoms."""
    name, title = "dft-times", "Time of DFT runs by number of atoms"
    says = "Successful reference calculations by the core-time that each took, for each number of atoms; dashed: median."
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
            axes.stairs(_counts(values, edges), edges, fill=True, color=colour, alpha=0.3)
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
        "Attempts that did not succeed, by step and verdict, with the reason that most of them gave; a failed attempt is "
        "retried within the budget of its kind, an interrupted one for nothing."
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
        return Table(name, title, says, Data(columns, ()), lacks="none")
    shown = [(str(task), kind, words, why) for task, kind, words, why in records.failed[:20]]
    total = sum(states.get("failed", 0) for states in records.tasks.values())
    if total > len(shown):
        says += f" {len(shown)} of {total} are shown."
    return Table(name, title, says, Data(columns, records.failed), ("task", "step", "name", "why"), shown)
