"""What LAMMPS with MLIP's pair style has left: how it ended, the moments it wrote down, what the pair style saved."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from db.errors import InputError
from tasks.engines.lammps_mlip_input import ASKED, SWOLLEN
from tasks.engines.mlip_output import MlipError, Said, how_it_ended
from tasks.texts import head_and_tail, in_one_line

Floats = npt.NDArray[np.float64]

_BREAK = re.compile(r"Breaking threshold exceeded \(MV-grade: ([^)\s]+)\)")
_HALT = re.compile(r"Fix halt condition for fix-id (\w+) met on step (\d+)")
_ERROR = re.compile(r"^ERROR[^\n]*", re.MULTILINE)
_BEGUN = re.compile(r"^\s*Step\s+Temp", re.MULTILINE)
_STEP = re.compile(r"^\s*(\d+)(?:\s+-?[\d.]+(?:e[-+]?\d+)?|\s+-?nan|\s+-?inf){6}\s*$", re.MULTILINE)
_UNKNOWN_STYLE = re.compile(r"(?:Unrecognized|Unknown|Invalid) pair style '?mlip")
_FINISHED = "Total wall time"


@dataclass(frozen=True, slots=True)
class End:
    """How a run ended.

    Attributes:
        broke: why it ended early; "" if it did not.
        gamma: γ of the configuration at which the pair style ended it; None if it did not.
        stopped: whether somebody had asked for the end.
        step: the last one that was printed.
    """

    broke: str
    gamma: float | None
    stopped: bool
    step: int


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A moment that LAMMPS has written down.

    Attributes:
        step: of the run.
        types: from 0, (atoms,), in the order of the data file.
        positions: Å, (atoms, 3), seen from the corner of the cell.
        cell: lower triangular, Å.
    """

    step: int
    types: npt.NDArray[np.int32]
    positions: Floats
    cell: Floats


def read_end(said: Said, log: Path, steps: int) -> End:
    """Tell an end that is a result from one that is none; by the text, never by the exit code alone.

    Raises:
        InputError: this LAMMPS has no such pair style.
        MlipError: it failed; the text says how.
    """
    printed = head_and_tail(log)
    text = "\n".join((said.out, said.err, printed))
    step = max((int(number) for number in _STEP.findall(printed)), default=0)
    found = _BREAK.search(text)
    if found is not None:
        return End(f"γ = {found[1]} is above the limit", float(found[1]), stopped=False, step=step)
    if _UNKNOWN_STYLE.search(text):
        raise InputError(
            "this LAMMPS does not know pair_style mlip",
            next_step="give the LAMMPS that was built with MLIP's interface as explore.plugin.command, or explore with "
            'engine = "lammps"',
        )
    halts = {name: int(number) for name, number in _HALT.findall(text)}
    if SWOLLEN in halts:
        return End("the cell has come apart, or collapsed", None, stopped=False, step=halts[SWOLLEN])
    error = _ERROR.search(text)
    if error is not None and _BEGUN.search(printed) and "Thrown by" not in text:
        # lost atoms, a box of no size …: the potential has led nowhere, and that is a result
        return End(f"LAMMPS: {in_one_line(error[0])}", None, stopped=False, step=step)
    if ASKED in halts:
        return End("", None, stopped=True, step=halts[ASKED])
    if error is not None or said.code != 0:
        raise MlipError(f"LAMMPS failed: {how_it_ended(said)}" + (f" ({in_one_line(error[0])})" if error else ""))
    if _FINISHED not in text or step < steps:
        raise MlipError(f"LAMMPS ended with exit code 0 at step {step} of {steps}, without having finished")
    return End("", None, stopped=False, step=step)


def read_frames(path: Path) -> Iterator[Frame]:
    """The moments of a dump; what follows the last whole one is left out."""
    try:
        text = path.read_text()
    except OSError:
        return
    lines = text[: text.rfind("\n") + 1].splitlines()
    at = 0
    while at + 9 <= len(lines) and lines[at] == "ITEM: TIMESTEP":
        atoms = int(lines[at + 3])
        rows = lines[at + 9 : at + 9 + atoms]
        if len(rows) < atoms:
            return
        try:
            yield _frame(int(lines[at + 1]), lines[at + 5 : at + 8], rows)
        except (ValueError, IndexError):  # the last line is cut, or holds what is no number
            return
        at += 9 + atoms


def _frame(step: int, bounds: list[str], rows: list[str]) -> Frame:
    box = np.array([[float(word) for word in line.split()] for line in bounds])
    xy, xz, yz = box[:, 2] if box.shape[1] == 3 else (0.0, 0.0, 0.0)
    low = box[:, 0] - [min(0.0, xy, xz, xy + xz), min(0.0, yz), 0.0]
    high = box[:, 1] - [max(0.0, xy, xz, xy + xz), max(0.0, yz), 0.0]
    lx, ly, lz = high - low
    table = np.array([[float(word) for word in row.split()] for row in rows]).reshape(-1, 5)
    if not np.isfinite(table).all():
        raise ValueError(step)
    cell = np.array([[lx, 0.0, 0.0], [xy, ly, 0.0], [xz, yz, lz]])
    return Frame(step, table[:, 1].astype(np.int32) - 1, table[:, 2:] - low, cell)
