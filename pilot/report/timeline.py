"""The timeline of the nodes: bars where attempts are few, else how many cores were busy."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pilot.report import drawing, machine
from pilot.report.figure import Data, Figure, lacking
from pilot.report.records import Records

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

#: with more bars than this, or more nodes, busy cores are shown
_FEW_BARS = 600
_FEW_NODES = 6
_MOST_NODES = 16
_BINS = 240


def timeline(records: Records) -> Figure:
    """What ran where and when: bars where they are few, else busy cores."""
    name, title = "timeline", "Timeline of the nodes"
    time = machine.clock(records)
    if time is None or not records.ran:
        return lacking(name, title, "What ran on each node over time.", "nothing has run yet")
    gaps = (
        "" if len(time.spans) == 1 else f" Gaps between allocations are left out (grey lines, {len(time.spans) - 1})."
    )
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
    sizes = machine.node_sizes(records)
    tops = {n: max(sizes.get(n, 0), *(b.bottom + b.cores for b in found if b.node == n)) for n in nodes}

    def draw(canvas: "Canvas") -> None:
        panels = canvas.subplots(len(nodes), 1, sharex=True, squeeze=False)[:, 0].tolist()
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
        _dress(panels, nodes, [tops[node] for node in nodes], time)
        _key(panels[0], [kind for kind in machine.KINDS if any(b.kind == kind for b in found)])

    return Figure("timeline", "Timeline of the nodes", says, data, draw, size=(7.2, 1.1 + 1.1 * len(nodes)))


def _busy(records: Records, time: machine.Clock, gaps: str) -> Figure:
    every = machine.lanes(records, time, _BINS)
    found, count = machine.gathered(every, _MOST_NODES)
    width = time.length / _BINS
    few = (
        "" if len(found) == count else f" Of {count} nodes the {len(found)} that did most are shown; the data have all."
    )
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
        panels = canvas.subplots(len(found), 1, sharex=True, squeeze=False)[:, 0].tolist()
        edges = [place * width for place in range(_BINS + 1)]
        for panel, lane in zip(panels, found, strict=True):
            base = [0.0] * _BINS
            for kind in machine.KINDS:
                if kind not in lane.busy:
                    continue
                top = [a + b for a, b in zip(base, lane.busy[kind], strict=True)]
                panel.stairs(
                    top, edges, baseline=base, fill=True, color=drawing.KINDS[kind], linewidth=0, rasterized=True
                )
                base = top
            panel.set_ylim(0, max(lane.cores, 1))
        _dress(panels, [lane.node for lane in found], [lane.cores for lane in found], time)
        _key(panels[0], [kind for kind in machine.KINDS if any(kind in lane.busy for lane in found)])

    height = 1.2 + (0.9 if len(found) <= 4 else 0.42) * len(found)
    return Figure("timeline", "Timeline of the nodes", says, data, draw, size=(7.2, height))


def _dress(panels: Sequence["Axes"], nodes: Sequence[str], cores: Sequence[int], time: machine.Clock) -> None:
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


def _key(panel: "Axes", kinds: Sequence[str]) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=drawing.KINDS[kind], label=kind) for kind in kinds]
    panel.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.0, 1.02), ncols=len(kinds), borderaxespad=0.0)
