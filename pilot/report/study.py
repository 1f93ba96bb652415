"""The study of levels: error and cost of potentials of several levels from the same data (figures 1, 2, table 3)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from db.states import TaskKind
from pilot.report import drawing
from pilot.report.figure import Data, Figure, Table, number, scaled
from pilot.report.records import Done

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

_KEY = re.compile(r"study-l(\d+)-(\d+)-")


@dataclass(frozen=True, slots=True)
class Point:
    """One fit of the study.

    Attributes:
        train, holdout: errors on the training set and on the holdout; {} where not known.
        core_s: core-seconds of the fit.
    """

    level: int
    seed: int
    parameters: int | None
    train: dict[str, Any]
    holdout: dict[str, Any]
    core_s: float


def points(trained: Sequence[Done], evaluated: Sequence[Done]) -> list[Point]:
    """The fits that are done, by level and seed."""
    judged = {key: done.facts for done in evaluated if (key := _point(done)) is not None}
    found = []
    for done in trained:
        key = _point(done)
        if key is None:
            continue
        facts = done.facts
        count = number(facts.get("parameters"))
        found.append(
            Point(
                *key,
                parameters=None if count is None else int(count),
                train=dict(facts.get("train") or {}),
                holdout=dict(judged.get(key, {}).get("holdout") or facts.get("holdout") or {}),
                core_s=done.cores * (number(facts.get("seconds")) or done.wall_s),
            )
        )
    return sorted(found, key=lambda point: (point.level, point.seed))


def _point(done: Done) -> tuple[int, int] | None:
    match = _KEY.match(done.key)
    return (int(match[1]), int(match[2])) if match else None


def table(found: Sequence[Point]) -> Table:
    """Table 3, with the errors beside the times."""
    name, title = f"study-{TaskKind.TRAIN}", "Levels: errors and cost"
    says = "Each line is a fit from the same data; errors are root mean squares on the training set and on the holdout."
    columns = (
        *("level", "seed", "parameters", "rmse_energy_train_meV_atom", "rmse_energy_holdout_meV_atom"),
        *("rmse_force_train_meV_A", "rmse_force_holdout_meV_A", "core_seconds"),
    )
    rows = [
        (
            *(p.level, p.seed, p.parameters),
            *(scaled(s.get("rmse_energy_per_atom"), 1000.0) for s in (p.train, p.holdout)),
            *(scaled(s.get("rmse_force_component"), 1000.0) for s in (p.train, p.holdout)),
            p.core_s,
        )
        for p in found
    ]
    headings = (
        *("level", "seed", "parameters", "energy, training (meV/atom)", "energy, holdout (meV/atom)"),
        *("force, training (meV/Å)", "force, holdout (meV/Å)", "core-time (s)"),
    )
    shown = [tuple("–" if c is None else f"{c:.3g}" if isinstance(c, float) else str(c) for c in row) for row in rows]
    return Table(name, title, says, Data(columns, rows), headings, shown)


def figure(found: Sequence[Point]) -> Figure:
    """Figures 1 and 2, and the cost."""
    name, title = "study-levels", "Level of the potential: errors and cost"
    says = (
        "Root mean square errors of energy per atom and of force components, and core-time of the fit, by the level of "
        "the MTP; each point is a fit, the line is the mean over seeds."
    )
    data = table(found).data

    def draw(canvas: "Canvas") -> None:
        panels = canvas.subplots(1, 3)
        for panel, label, columns in (
            (panels[0], "energy RMSE (meV/atom)", ((3, "training set", drawing.SKY), (4, "holdout", drawing.RED))),
            (panels[1], "force RMSE (meV/Å)", ((5, "training set", drawing.SKY), (6, "holdout", drawing.RED))),
            (panels[2], "core-time of the fit (s)", ((7, None, drawing.BLUE),)),
        ):
            drawing.dressed(panel, "level", label, ylog=True)
            drawing.whole_numbers(panel)
            for column, word, colour in columns:
                by_level: dict[int, list[float]] = {}
                for row in data.rows:
                    value = row[column]
                    if isinstance(value, float) and value > 0.0 and isinstance(row[0], int):
                        by_level.setdefault(row[0], []).append(value)
                for level, values in by_level.items():
                    panel.plot([level] * len(values), values, "o", color=colour, alpha=0.7)
                means = [sum(values) / len(values) for values in by_level.values()]
                panel.plot(list(by_level), means, color=colour, label=word)
            drawing.legend(panel)

    return Figure(name, title, says, data, draw, size=(7.2, 3.1))
