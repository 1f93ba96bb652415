"""γ against the true error, over configurations drawn from the explorations (figures 3 and 4 of the Pb report)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pilot.campaign.protocol import questions_key
from pilot.report import drawing
from pilot.report.figure import Data, Figure, lacking
from pilot.report.parity import Arrays
from pilot.report.records import Done
from pilot.report.turns import Turn

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas


@dataclass(frozen=True, slots=True)
class Asked:
    """A configuration that was labelled to compare its γ with its error.

    Attributes:
        force: ε_F, eV/Å.
        energy: |ΔE|, eV an atom.
    """

    turn: Turn
    gamma: float
    force: float
    energy: float


def asked(turns: Sequence[Turn], evaluated: Sequence[Done], source: Callable[[Done], Arrays]) -> list[Asked]:
    """All of them, from the files of the comparisons, or of evaluations that had a sample."""
    by_key = {done.key: done for done in evaluated}
    by_generation = {done.generation: done for done in evaluated if done.facts.get("sample")}
    found: list[Asked] = []
    for turn in turns:
        done = by_key.get(questions_key(turn.stage - 1, turn.number)) or by_generation.get(turn.id)
        if done is None:
            continue
        arrays = source(done)
        columns = [
            arrays.get("sample_gamma"),
            arrays.get("sample_explored_eps_F", arrays.get("sample_eps_F")),
            arrays.get("sample_explored_eps_E", arrays.get("sample_eps_E")),
            arrays.get("sample_atoms"),
        ]
        if any(column is None or column.ndim != 1 for column in columns):
            continue
        rows = zip(*(column.tolist() for column in columns if column is not None), strict=False)
        found += [
            Asked(turn, gamma, force, energy / atoms)
            for gamma, force, energy, atoms in rows
            if math.isfinite(gamma) and gamma > 0.0 and math.isfinite(force) and math.isfinite(energy) and atoms
        ]
    return found


def against(found: Sequence[Asked], *, force: bool) -> Figure:
    """Figure 3, of forces, or figure 4, of energies."""
    name, title = ("gamma-force-error", "γ and force error") if force else ("gamma-energy-error", "γ and energy error")
    what = (
        "ε_F (root mean square over the atoms of the norm of the force error)" if force else "|ΔE|/N, the energy error"
    )
    unit = "meV/Å" if force else "meV/atom"
    says = (
        f"Each point is a configuration drawn from the explorations and labelled for this only: {what} of the "
        "potential that explored, over the γ that it gave the configuration."
    )
    values = [1000.0 * (each.force if force else each.energy) for each in found]
    gammas = [each.gamma for each in found]
    rows = [
        (each.turn.count, each.turn.stage, each.turn.number, each.gamma, value)
        for each, value in zip(found, values, strict=True)
    ]
    column = "eps_F_meV_A" if force else "eps_E_meV_atom"
    data = Data(("count", "stage", "generation", "gamma", column), rows)
    if len(found) < 2:
        return lacking(name, title, says, "not asked ([questions] sample), or no sample has been labelled yet")
    spearman = correlation(ranks(gammas), ranks(values))
    positive = [(math.log(g), math.log(v)) for g, v in zip(gammas, values, strict=True) if v > 0.0]
    pearson = correlation([a for a, _ in positive], [b for _, b in positive])
    said = [f"{word} {r:+.2f}" for word, r in (("Spearman's", spearman), ("Pearson's of the logarithms", pearson)) if r]
    says += f" Correlation over {len(found)} configurations: {', '.join(said)}." if said else ""

    def draw(canvas: "Canvas") -> None:
        axes = drawing.axes(canvas, "γ", f"{'ε_F' if force else '|ΔE|/N'} ({unit})", xlog=True, ylog=True)
        shown = [(g, v, row[0]) for g, v, row in zip(gammas, values, rows, strict=True) if v > 0.0]
        if not shown:
            return
        several = len({count for *_, count in shown}) > 1
        points = axes.scatter(
            [g for g, *_ in shown],
            [v for _, v, _ in shown],
            c=[count for *_, count in shown] if several else drawing.BLUE,
            cmap="viridis" if several else None,
            s=10,
            alpha=0.8,
            linewidths=0,
            rasterized=len(shown) > drawing.MANY // 3,
        )
        if several:
            canvas.colorbar(points, ax=axes, label="generation (counted through)", pad=0.01)

    return Figure(name, title, says, data, draw, size=(7.2, 3.8))


def ranks(values: Sequence[float]) -> list[float]:
    """The place of each value among all; equal ones share theirs."""
    order = sorted(range(len(values)), key=values.__getitem__)
    found = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end + 1 < len(order) and values[order[end + 1]] == values[order[start]]:
            end += 1
        for place in order[start : end + 1]:
            found[place] = (start + end) / 2.0
        start = end + 1
    return found


def correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Pearson's coefficient; None where one of them does not vary."""
    n = len(one)
    if n < 2:
        return None
    a, b = sum(one) / n, sum(other) / n
    spread = math.sqrt(sum((x - a) ** 2 for x in one) * sum((y - b) ** 2 for y in other))
    if spread == 0.0:
        return None
    return sum((x - a) * (y - b) for x, y in zip(one, other, strict=True)) / spread
