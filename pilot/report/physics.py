"""The figures about matter: lattice parameter and energy–volume curve (4.1 and 4.2 of the Li thesis), elasticity."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pilot.report import drawing
from pilot.report.figure import Data, Figure, Table, lacking, number
from pilot.report.learning import ACROSS, where
from pilot.report.turns import Turn, newest_evaluation, stage_starts

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

_FEWEST = 5


def lattice(turns: Sequence[Turn], tolerance: float | None) -> Figure:
    """Figure 4.1: the relaxed lattice parameter of each generation's potential."""
    name, title = "lattice-parameter", "Relaxed lattice parameter"
    reference = next(
        (a for turn in reversed(turns) if (a := number(turn.evaluation.get("lattice_parameter_dft"))) is not None), None
    )
    known = [turn for turn in turns if number(turn.evaluation.get("lattice_parameter")) is not None]
    values = [float(turn.evaluation["lattice_parameter"]) for turn in known]
    bars = [turn.bar("lattice_parameter") for turn in known]
    says = (
        "Lattice parameter at the minimum of each potential's energy (zero pressure, ideal crystal); dashed: that of "
        "the reference calculations, from their energy–volume curve."
    )
    if tolerance is not None:
        says += f" The band is what [converge] allows: ±{tolerance:g} Å."
    if any(bar is not None for bar in bars):
        says += " Bars: 95 % interval from the ensemble."
    rows = [(*where(turn), a, reference, bar) for turn, a, bar in zip(known, values, bars, strict=True)]
    data = Data(("count", "stage", "generation", "lattice_parameter_A", "reference_A", "half_width_95_percent_A"), rows)
    if not known:
        return lacking(name, title, says, "no potential has been evaluated yet")

    def draw(canvas: "Canvas") -> None:
        axes = drawing.axes(canvas, ACROSS, "lattice parameter (Å)")
        axes.errorbar(
            [turn.count for turn in known],
            values,
            yerr=[bar or 0.0 for bar in bars] if any(bars) else None,
            marker="o",
            color=drawing.BLUE,
            capsize=2.5,
            label="potential",
        )
        if reference is not None:
            axes.axhline(reference, color=drawing.RED, linestyle="--", label=f"reference {reference:.4f} Å")
            if tolerance is not None:
                axes.axhspan(reference - tolerance, reference + tolerance, color=drawing.RED, alpha=0.1, linewidth=0)
        axes.ticklabel_format(axis="y", useOffset=False)
        drawing.legend(axes)
        drawing.whole_numbers(axes)
        drawing.mark_stages(axes, stage_starts(turns))

    return Figure(name, title, says, data, draw)


@dataclass(frozen=True, slots=True)
class Curve:
    """A smooth curve through points of energy over volume.

    Attributes:
        minimum: volume (Å³/atom) and energy (eV/atom) at it; None if it lies outside of the points.
    """

    volumes: list[float]
    energies: list[float]
    minimum: tuple[float, float] | None


def smooth(volumes: Sequence[float], energies: Sequence[float]) -> Curve | None:
    """Birch and Murnaghan's third-order equation of state, a cubic in V^(−2/3), by least squares.

    F. Birch, Phys. Rev. 71, 809 (1947).

    Returns:
        None where there are too few points.
    """
    import numpy as np

    if len(set(volumes)) < _FEWEST:
        return None
    middle = float(np.mean(volumes))
    x = (np.array(volumes) / middle) ** (-2.0 / 3.0)
    cubic = np.polynomial.Polynomial.fit(x, np.array(energies), 3)
    fine = np.linspace(min(volumes), max(volumes), 401)
    on_it = cubic((fine / middle) ** (-2.0 / 3.0))
    place = int(np.argmin(on_it))
    inside = 0 < place < len(fine) - 1
    minimum = (float(fine[place]), float(on_it[place])) if inside else None
    return Curve(fine[::8].tolist(), on_it[::8].tolist(), minimum)


def energy_volume(turns: Sequence[Turn]) -> Figure:
    """Figure 4.2: the energy–volume curves of the reference and of the newest potential."""
    name, title = "energy-volume", "Energy–volume curve"
    turn = newest_evaluation([turn for turn in turns if turn.evaluation.get("eos")])
    says = (
        "Energy of the crystal over its volume, of the reference calculations (points) and of the newest potential "
        "at the same cells, both from the lowest energy of the reference; the lines are Birch–Murnaghan fits, the "
        "vertical ones their minima."
    )
    if turn is None:
        return lacking(name, title, says, "no potential has been evaluated along the curve of the reference yet")
    eos = turn.evaluation["eos"]
    volumes, mine, theirs = (list(eos[key]) for key in ("volumes", "energies", "energies_dft"))
    zero = min(theirs)
    rows = [
        (volume, 1000.0 * (a - zero), 1000.0 * (b - zero)) for volume, a, b in zip(volumes, mine, theirs, strict=True)
    ]
    data = Data(("volume_A3_atom", "potential_meV_atom", "reference_meV_atom"), rows)

    def draw(canvas: "Canvas") -> None:
        axes = drawing.axes(canvas, "volume (Å³/atom)", "energy (meV/atom)")
        for column, label, marker, colour, style in (
            (2, "reference", "o", drawing.RED, "--"),
            (1, f"potential, stage {turn.stage} generation {turn.number}", "s", drawing.BLUE, "-"),
        ):
            values = [row[column] for row in rows]
            curve = smooth(volumes, values)
            axes.plot(volumes, values, marker, color=colour, markerfacecolor="white" if column == 2 else colour)
            found = curve.minimum if curve is not None else None
            said = label if found is None else f"{label}, minimum at {found[0]:.3f} Å³"
            if curve is None:
                axes.plot([], [], marker, color=colour, label=said)
                continue
            axes.plot(curve.volumes, curve.energies, style, color=colour, label=said)
            if found is not None:
                axes.axvline(found[0], color=colour, linestyle=style, linewidth=0.8, alpha=0.7)
        drawing.legend(axes)

    return Figure(name, title, says, data, draw)


def elastic(turns: Sequence[Turn]) -> Table:
    """Elastic constants of the newest potential that was asked for them, and of the reference."""
    name, title = "elastic-constants", "Elastic constants"
    says = (
        "In GPa: of the newest potential at its own minimum, atoms relaxed, on the very cells of the reference, and "
        "of the reference, atoms clamped; the last two are to be compared."
    )
    columns = ("constant", "potential_GPa", "half_width_95_percent_GPa", "on_reference_cells_GPa", "reference_GPa")
    asked = ("elastic", "elastic_dft", "elastic_at_reference")
    turn = next((turn for turn in reversed(turns) if any(turn.evaluation.get(name) for name in asked)), None)
    if turn is None:
        return Table(
            name, title, says, Data(columns, ()), lacks="not asked for, or not known yet ([validation] elastic)"
        )
    facts = turn.evaluation
    mine, theirs = _constants(facts.get("elastic")), _constants(facts.get("elastic_dft"))
    there = _constants(facts.get("elastic_at_reference"))
    bars = _constants(facts.get("error_bars"))
    rows = [(c, mine.get(c), bars.get(c), there.get(c), theirs.get(c)) for c in sorted({*mine, *there, *theirs})]
    shown = [
        (
            c,
            "–" if a is None else f"{a:.1f}" + ("" if bar is None else f" ± {bar:.1f}"),
            "–" if at is None else f"{at:.1f}",
            "–" if b is None else f"{b:.1f}",
            "–" if at is None or b is None else f"{at - b:+.1f}",
        )
        for c, a, bar, at, b in rows
    ]
    headings = ("", "potential", "on the reference's cells", "reference", "difference")
    return Table(name, title, says, Data(columns, rows), headings, shown)


def _constants(found: Any) -> dict[str, float]:
    if not isinstance(found, Mapping):
        return {}
    return {str(key): value for key, entry in found.items() if (value := number(entry)) is not None}
