"""What a figure of the report is: its data, which are also a CSV, and how it is drawn. No matplotlib here."""

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

Cell = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Data:
    """Rows under named columns, units in the names."""

    columns: tuple[str, ...]
    rows: Sequence[Sequence[Cell]]

    def csv(self) -> str:
        """As text; empty where nothing is known."""
        text = io.StringIO()
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow(self.columns)
        lines.writerows([_written(cell) for cell in row] for row in self.rows)
        return text.getvalue()

    def column(self, name: str) -> list[Any]:
        """One column."""
        place = self.columns.index(name)
        return [row[place] for row in self.rows]


def _written(cell: Cell) -> str | int:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return int(cell)
    return f"{cell:.8g}" if isinstance(cell, float) else cell


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure.

    Attributes:
        name: of its files, and of its place in the page.
        title: above it.
        says: one sentence: what is drawn, each error named for what it is.
        data: what is drawn.
        draw: draws into an empty canvas; None where there is nothing to draw yet.
        lacks: then why not.
        size: of the canvas, inches.
    """

    name: str
    title: str
    says: str
    data: Data
    draw: "Callable[[Canvas], None] | None" = None
    lacks: str = ""
    size: tuple[float, float] = (7.2, 3.4)


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the page, which is also a CSV.

    Attributes:
        data: as it is written.
        shown: as it is shown: a heading for each column, and its cells as text.
    """

    name: str
    title: str
    says: str
    data: Data
    headings: tuple[str, ...] = ()
    shown: Sequence[Sequence[str]] = ()
    lacks: str = ""


def lacking(name: str, title: str, says: str, why: str) -> Figure:
    """A figure that has no data yet."""
    return Figure(name, title, says, Data((), ()), lacks=why)


def number(value: Any) -> float | None:
    """A finite number, or None: facts of older versions and of failed parts may lack it."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def scaled(value: Any, factor: float) -> float | None:
    """A number in another unit; None stays None."""
    known = number(value)
    return None if known is None else known * factor
