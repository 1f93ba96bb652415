"""Running an exploration in parts, so that it can go on after an interruption as if there had been none.

Each part but the first begins from LAMMPS' restart file of the part before, whether anything was interrupted or not.
So an interrupted run and an undisturbed one go the same way, bit for bit, and need not be told apart. Where a part ends
depends on the number of atoms and on the phases of the run only; the clock decides which of these ends is written to
the disk as a checkpoint.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.checkpoint import Saver
from tasks.mtp.dynamics import Dynamics
from tasks.mtp.extrapolation_control import Explorer
from tasks.mtp.lammps_input import FIX, beginning, going_on, run_line, steps_in_part
from tasks.mtp.lammps_library import Ints, Lammps, LammpsError, Push

Floats = npt.NDArray[np.float64]

_End = tuple[int, dict[str, Any], bytes]
"""Where a part ended: step, state of the explorer, restart file."""


def run_parts(log: Path, explorer: Explorer, dynamics: Dynamics, cell: Floats, saver: Saver) -> None:
    """Run to the end, or until the explorer has enough; begin from the checkpoint if there is one.

    When somebody has asked to stop, the end of the last part is the checkpoint.

    Args:
        log: of LAMMPS.
        explorer: the force field.
        dynamics: what is run.
        cell: lower triangular, Å: the one that a liquid is brought to at constant volume.
        saver: of the checkpoints.
    """
    with _memory_file() as restart, Lammps(log) as lammps:
        last = _begin(explorer, saver, restart)
        while not explorer.ended():
            step = last[0] if last else 0
            upto = min(step + steps_in_part(len(explorer.types)), dynamics.phase_at(step).last)
            atoms, file = len(explorer.types), str(restart)
            setup = going_on(dynamics, step, atoms, file, cell) if last else beginning(dynamics, atoms)
            _run_part(lammps, explorer, setup, run_line(dynamics.phase_at(step), upto))
            if explorer.ended() or upto == dynamics.all_steps:
                break
            last = _end_part(lammps, explorer, upto, restart)
            if last and saver.due():
                saver.save(*last)
        if explorer.stopped and not explorer.broke and last:
            saver.save(*last)
            print(f"the next attempt can go on from step {last[0]}", flush=True)


def _begin(explorer: Explorer, saver: Saver, restart: Path) -> _End | None:
    """The end from which to go on, if a checkpoint has it."""
    found = saver.begin()
    if found is None:
        return None
    explorer.restore(found.state["explorer"])
    restart.write_bytes(found.rest)
    print(f"going on from step {found.at}", flush=True)
    return found.at, dict(found.state), found.rest


def _run_part(lammps: Lammps, explorer: Explorer, setup: Sequence[str], run: str) -> None:
    """One ``run``: from the data file, or from a restart file."""
    explorer.forget_neighbours()

    def push(step: int, tags: Ints, positions: Floats, cell: Floats) -> Push:
        answer = explorer.push(step, tags, positions, cell)
        if explorer.ended():
            lammps.stop()
        return answer

    for line in setup:
        lammps.command(line)
        if line.startswith(f"fix {FIX} "):
            lammps.set_force_field(FIX, push)
    with _leading_nowhere(explorer):
        lammps.command(run)


def _end_part(lammps: Lammps, explorer: Explorer, step: int, restart: Path) -> _End | None:
    """Take down where the part has ended."""
    with _leading_nowhere(explorer):
        lammps.command(f"write_restart {restart}")
        return step, {"explorer": explorer.state()}, restart.read_bytes()
    return None


@contextmanager
def _leading_nowhere(explorer: Explorer) -> Iterator[None]:
    """Lost atoms, a box of no size …: the potential has led nowhere, and that is a result."""
    try:
        yield
    except LammpsError as error:
        explorer.broke = explorer.broke or f"LAMMPS: {error}"


@contextmanager
def _memory_file() -> Iterator[Path]:
    """A file in memory: a full disk must not look like a run that led nowhere."""
    descriptor = os.memfd_create("restart")
    try:
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
