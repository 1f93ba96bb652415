"""Parity plots: what the potential says over what the reference says, from the parity.npz of an evaluation."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pilot.report import drawing
from pilot.report.figure import Data, Figure, lacking

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

Arrays = Mapping[str, "npt.NDArray[np.float64]"]

#: in the order in which they are drawn: what there is most of lies below
SETS = {
    "train": ("training set", drawing.SKY),
    "sample": ("fresh sample", drawing.ORANGE),
    "test": ("test set", drawing.PURPLE),
    "holdout": ("holdout", drawing.RED),
}
#: of more points of a set, so many are drawn and written, evenly spaced among all
MOST = 5000


def energies(arrays: Arrays, of: str) -> Figure:
    """Energies per atom."""
    says = (
        f"Energy per atom by the potential of {of} over that of the reference calculations (left), and the difference "
        "of the two (right); both from the mean of the reference."
    )
    return _parity(arrays, "energy", ("Parity of energies", "meV/atom", 1000.0), says)


def forces(arrays: Arrays, of: str) -> Figure:
    """Force components."""
    says = (
        f"Components of the forces by the potential of {of} over those of the reference calculations (left), and the "
        "difference of the two (right)."
    )
    return _parity(arrays, "forces", ("Parity of forces", "eV/Å", 1.0), says)


def _parity(arrays: Arrays, key: str, words: tuple[str, str, float], says: str) -> Figure:
    title, unit, factor = words
    name = f"parity-{key}"
    pairs = {label: array for label in SETS if (array := arrays.get(f"{label}_{key}")) is not None and _is_pairs(array)}
    if not pairs:
        return lacking(name, title, says, "no evaluation has left its parity.npz yet")
    zero = _zero(list(pairs.values())) if key == "energy" else 0.0
    rows: list[tuple[Any, ...]] = []
    said: list[str] = []
    for label, array in pairs.items():
        thin = array[:: -(-len(array) // MOST)]
        rows += [(SETS[label][0], (a - zero) * factor, (b - zero) * factor) for a, b in thin.tolist()]
        if len(thin) < len(array):
            said.append(f"of the {SETS[label][0]} {len(thin)} of {len(array)} points")
    says += f" Shown: {', '.join(said)}." if said else ""
    short = f"{unit.replace('/', '_').replace('Å', 'A')}"
    data = Data(("set", f"reference_{short}", f"potential_{short}"), rows)

    def draw(canvas: "Canvas") -> None:
        left, right = canvas.subplots(1, 2, width_ratios=(1, 1))
        drawing.dressed(left, f"reference ({unit})", f"potential ({unit})")
        small, much = (1000.0, "meV/Å") if unit == "eV/Å" else (1.0, unit)
        drawing.dressed(right, f"reference ({unit})", f"potential − reference ({much})")
        for label in pairs:
            inside = [row for row in rows if row[0] == SETS[label][0]]
            _points(left, [row[1] for row in inside], [row[2] for row in inside], label)
            _points(right, [row[1] for row in inside], [small * (row[2] - row[1]) for row in inside], label)
        ends = [min(min(row[1:]) for row in rows), max(max(row[1:]) for row in rows)]
        left.plot(ends, ends, color=drawing.BLACK, linewidth=0.8, zorder=1)
        right.axhline(0.0, color=drawing.BLACK, linewidth=0.8, zorder=1)
        drawing.legend(left)

    return Figure(name, title, says, data, draw, size=(7.2, 3.5))


def _is_pairs(array: "npt.NDArray[np.float64]") -> bool:
    return array.ndim == 2 and array.shape[1] == 2 and len(array) > 0


def _zero(arrays: Sequence["npt.NDArray[np.float64]"]) -> float:
    return float(sum(float(array[:, 0].sum()) for array in arrays) / sum(len(array) for array in arrays))


def _points(axes: "Axes", across: Sequence[float], up: Sequence[float], label: str) -> None:
    name, colour = SETS[label]
    axes.plot(
        across,
        up,
        "o",
        color=colour,
        markersize=2.6 if len(across) > 300 else 3.6,
        alpha=0.75,
        markeredgewidth=0.0,
        label=name,
        rasterized=len(across) > drawing.MANY // 3,
    )
