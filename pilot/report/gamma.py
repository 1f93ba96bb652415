"""The figures of how γ is distributed: in three generations (figures 8 to 10 of the Pb report), and in all."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pilot.report import drawing
from pilot.report.figure import Data, Figure, lacking
from pilot.report.learning import ACROSS, where
from pilot.report.records import Done
from pilot.report.turns import Turn, stage_starts

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

_WHERE = ("count", "stage", "generation")
#: what a histogram is read from
Source = Callable[[Done], tuple[Sequence[float], Sequence[int]] | None]


@dataclass(frozen=True, slots=True)
class Histogram:
    """MD steps of a generation by γ; ``edges`` has one more than ``counts``."""

    turn: Turn
    edges: tuple[float, ...]
    counts: tuple[int, ...]


def histograms(turns: Sequence[Turn], explored: Sequence[Done], source: Source) -> list[Histogram]:
    """Those of all generations whose explorations have left one; bins that differ from the first ones are left out."""
    by_generation: dict[int, list[Done]] = {}
    for done in explored:
        by_generation.setdefault(done.generation or 0, []).append(done)
    found: list[Histogram] = []
    for turn in turns:
        counts: list[int] = []
        edges = found[0].edges if found else ()
        for done in by_generation.get(turn.id, []):
            one = source(done)
            if one is None or (edges and tuple(one[0]) != edges):
                continue
            edges = tuple(one[0])
            counts = [a + b for a, b in zip(counts or [0] * len(one[1]), one[1], strict=True)]
        if sum(counts):
            found.append(Histogram(turn, edges, tuple(counts)))
    return found


def three(found: Sequence[Histogram]) -> list[Histogram]:
    """The first, the middle and the last; fewer if there are not as many."""
    places = dict.fromkeys((0, len(found) // 2, len(found) - 1)) if found else {}
    return [found[place] for place in places]


def below(histogram: Histogram, threshold: float) -> float:
    """The share of steps in bins that end at or below a γ."""
    total = sum(histogram.counts)
    return sum(n for n, edge in zip(histogram.counts, histogram.edges[1:], strict=True) if edge <= threshold) / total


def distribution(found: Sequence[Histogram], saves: Mapping[int, float], breaks: Mapping[int, float]) -> Figure:
    """Figures 8 to 10: the histogram of γ at the first, a middle and the last generation."""
    name, title = "gamma-histogram", "Distribution of the extrapolation grade"
    says = (
        "MD steps by γ in the first, the middle and the last generation that explored; dashed: γ_save, above which a "
        "configuration is preselected, and γ_break. Ten bins a decade; the data behind it have all generations."
    )
    rows = [(*where(h.turn), h.edges[i], h.edges[i + 1], n) for h in found for i, n in enumerate(h.counts) if n]
    data = Data((*_WHERE, "gamma_from", "gamma_to", "steps"), rows)
    chosen = three(found)
    if not chosen:
        return lacking(name, title, says, "no exploration has left a histogram of γ yet")

    def draw(canvas: "Canvas") -> None:
        panels = canvas.subplots(1, len(chosen), sharey=True, squeeze=False)[0]
        low, high = _range(chosen)
        for panel, h in zip(panels, chosen, strict=True):
            drawing.dressed(panel, "γ", "MD steps" if panel is panels[0] else "", xlog=True, ylog=True)
            panel.stairs(h.counts, h.edges, fill=True, color=drawing.SKY, baseline=0.5)
            panel.stairs(h.counts, h.edges, color=drawing.BLUE, linewidth=1.0, baseline=0.5)
            for limits, colour in ((saves, drawing.ORANGE), (breaks, drawing.RED)):
                if h.turn.stage in limits:
                    panel.axvline(limits[h.turn.stage], color=colour, linestyle="--", linewidth=1.2)
            panel.set_xlim(low, high)
            panel.set_title(f"stage {h.turn.stage}, generation {h.turn.number}\n{sum(h.counts)} steps")
        panels[0].set_ylim(0.5, 2.0 * max(max(h.counts) for h in chosen))

    return Figure(name, title, says, data, draw, size=(7.2, 3.0))


def _range(found: Sequence[Histogram]) -> tuple[float, float]:
    """Where any of them has something, and γ of 1 and 10 in any case."""
    filled = [(h.edges[i], h.edges[i + 1]) for h in found for i, n in enumerate(h.counts) if n]
    return min(1.0, *(low for low, _ in filled)), max(12.0, *(high for _, high in filled))


def course(found: Sequence[Histogram]) -> Figure:
    """The histograms of all generations side by side."""
    name, title = "gamma-course", "Distribution of γ in every generation"
    says = (
        "Each column is a generation: the darker, the larger a share of its MD steps had this γ (logarithmic shades)."
    )
    rows = [
        (*where(h.turn), h.edges[i], h.edges[i + 1], n / sum(h.counts))
        for h in found
        for i, n in enumerate(h.counts)
        if n
    ]
    data = Data((*_WHERE, "gamma_from", "gamma_to", "share"), rows)
    if len(found) < 2:
        return lacking(name, title, says, "it takes two generations that have explored")

    def draw(canvas: "Canvas") -> None:
        import numpy as np
        from matplotlib.colors import LogNorm

        axes = drawing.axes(canvas, ACROSS, "γ", ylog=True)
        counts = [h.turn.count for h in found]
        shares = np.full((len(found[0].counts), max(counts) - min(counts) + 1), np.nan)
        for h in found:
            shares[:, h.turn.count - min(counts)] = np.array(h.counts) / sum(h.counts)
        shares[shares == 0.0] = np.nan
        across = np.arange(min(counts), max(counts) + 2) - 0.5
        mesh = axes.pcolormesh(
            across, np.array(found[0].edges), shares, norm=LogNorm(1e-5, 1.0), cmap="cividis_r", rasterized=True
        )
        axes.set_ylim(*_range(found))
        axes.grid(visible=False)
        canvas.colorbar(mesh, ax=axes, label="share of MD steps", pad=0.01)
        drawing.whole_numbers(axes)
        drawing.mark_stages(axes, stage_starts([h.turn for h in found]))

    return Figure(name, title, says, data, draw)
