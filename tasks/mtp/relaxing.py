"""Explore by relaxing candidate structures with the current potential, keeping what it extrapolates on.

The structures of a pool are brought to zero force and zero stress one by one, γ being watched at every step (the
convex hull of Ag-Pd, Novikov et al., MLST 2, 025002 (2021), section 6). One whose γ exceeds ``gamma_break`` is left
there, and kept for the selection; the others end in relaxed.cfg.

What is interrupted goes on after the last structure that was brought to an end.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.filters import FrechetCellFilter
from ase.optimize import LBFGS
from ase.parallel import DummyMPI

from db.files import write_whole
from db.records import Json, Label, Structure
from pilot import host
from tasks.model import Grader, Prediction, types_of
from tasks.mtp.attention import Attention
from tasks.mtp.data_sets import Sample, numbers_of, symbols_of, write_samples
from tasks.mtp.exploration_spec import must_be_periodic, needed, saver_of
from tasks.mtp.extrapolation_control import Limits, nonsense
from tasks.mtp.gamma_record import GammaRecord
from tasks.mtp.grading import open_grader
from tasks.mtp.keeping import Keeper, Moment
from tasks.mtp.neighbours import NonsenseCellError

Floats = npt.NDArray[np.float64]

_SKIN = 0.4  # Å: relaxations move atoms by less than dynamics do
_NEEDS = ("structures", "relax")


class _StoppedError(Exception):
    """Somebody has asked to stop."""


class _BrokenError(Exception):
    """The potential does not know what it has met; the text says why."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """When a structure is relaxed.

    Attributes:
        force: eV/Å; no force on an atom is larger, nor that on the cell, its virial over the number of atoms (eV).
        steps: at most so many.
        cell: whether the cell is relaxed, too.
    """

    force: float
    steps: int
    cell: bool


class Relaxations:
    """All relaxations of one exploration: what they have met, and what came of them."""

    def __init__(self, grader: Grader, limits: Limits, wanted: Wanted, structures: int) -> None:
        self.grader = grader
        self.limits = limits
        self.wanted = wanted
        self.structures = structures
        self.attention = Attention()
        self.keeper = Keeper(limits.most)
        self.record = GammaRecord(structures * wanted.steps)
        self.broken: list[Moment] = []
        self.reasons: list[tuple[int, str]] = []
        self.relaxed: list[dict[str, Any]] = []
        self.done = 0
        self.steps = 0
        self.above_save = 0
        self.above_break = 0

    def state(self) -> dict[str, Any]:
        """All it remembers between two structures, to the last digit."""
        return {
            "keeper": self.keeper.state(),
            "record": self.record.state(),
            "broken": [moment.state() for moment in self.broken],
            "reasons": list(self.reasons),
            "relaxed": list(self.relaxed),
            "counts": [self.done, self.steps, self.above_save, self.above_break],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Be what :meth:`state` told of."""
        self.keeper.restore(state["keeper"])
        self.record.restore(state["record"])
        self.broken = [Moment.restored(moment) for moment in state["broken"]]
        self.reasons = [(int(number), str(reason)) for number, reason in state["reasons"]]
        self.relaxed = list(state["relaxed"])
        self.done, self.steps, self.above_save, self.above_break = (int(count) for count in state["counts"])

    def relax(self, number: int, atoms: Atoms, types: npt.NDArray[np.int32]) -> None:
        """Bring one structure to its end.

        Raises:
            _StoppedError: on request, in the middle of it.
        """
        self.grader.forget()
        potential = _Watched(self, number, types)
        atoms.calc = potential
        moving = FrechetCellFilter(atoms) if self.wanted.cell else atoms
        try:
            converged = LBFGS(moving, logfile=None, comm=DummyMPI()).run(
                fmax=self.wanted.force, steps=self.wanted.steps
            )
            seen = potential.look(atoms)
        except _BrokenError as reason:
            self.reasons.append((number, str(reason)))
        else:
            self.relaxed.append(_end(number, atoms, seen, potential.step, converged=bool(converged)))
        self.done += 1

    def grade(self, number: int, step: int, atoms: Atoms) -> None:
        """γ of one step, and what follows from it.

        Raises:
            _BrokenError: it is above the limit.
        """
        gamma = self.grader.grade()
        self.record.add(self.steps, gamma)
        self.steps += 1

        def moment() -> Moment:
            grades = self.grader.grades_of_atoms()
            return Moment(step, gamma, atoms.positions.copy(), atoms.cell.array.copy(), grades, number)

        if not gamma <= self.limits.stop:  # nan, too
            self.above_save += 1
            self.above_break += 1
            if np.isfinite(gamma):
                self.broken.append(moment())
            raise _BrokenError(f"γ = {gamma:.4g} is above {self.limits.stop:g}")
        if gamma > self.limits.save:
            self.above_save += 1
            self.keeper.offer(moment)

    def look_up(self) -> None:
        """Now and then.

        Raises:
            _StoppedError: on request.
        """
        if self.attention.look_up():
            print(
                f"{self.done} of {self.structures} structures: {len(self.reasons)} broken; γ up to "
                f"{self.record.highest:.3g}",
                flush=True,
            )
        if self.attention.stopped:
            raise _StoppedError


class _Watched(Calculator):  # type: ignore[misc]
    """The potential as ASE asks for it, every answer being graded."""

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, sweep: Relaxations, number: int, types: npt.NDArray[np.int32]) -> None:
        super().__init__()
        self.step = -1
        self._sweep = sweep
        self._number = number
        self._types = types
        self._volume = 0.0
        self._seen: Prediction | None = None

    def calculate(self, atoms: Atoms | None = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        """As ASE wants it.

        Raises:
            _BrokenError, _StoppedError: the relaxation goes no further.
        """
        super().calculate(atoms, properties, system_changes)
        self._sweep.look_up()
        now = self.atoms
        volume = float(now.get_volume())
        self._volume = self._volume or volume
        self.step += 1
        try:
            seen = self._sweep.grader.predict(self._types, now.positions, now.cell.array)
            self._sweep.grade(self._number, self.step, now)
        except NonsenseCellError as error:
            raise _BrokenError(str(error)) from None
        reason = nonsense(seen, volume, self._volume)
        if reason:
            raise _BrokenError(reason)
        self._seen = seen
        self.results = {"energy": seen.energy, "forces": seen.forces.copy(), "stress": np.array(seen.stress)}

    def look(self, atoms: Atoms) -> Prediction:
        """What it says of the atoms as they are now; not computed again if it was."""
        self.get_property("energy", atoms)
        assert self._seen is not None
        return self._seen


def _end(number: int, atoms: Atoms, seen: Prediction, steps: int, *, converged: bool) -> dict[str, Any]:
    """What came of one structure, for relaxed.cfg and for a checkpoint."""
    return {
        "structure": number,
        "converged": converged,
        "steps": steps,
        "positions": atoms.positions.tolist(),
        "cell": atoms.cell.array.tolist(),
        "energy": float(seen.energy),
        "forces": seen.forces.tolist(),
        "stress": seen.stress.tolist(),
        "force": float(np.linalg.norm(seen.forces, axis=1).max()),
    }


def relax(spec: Json, root: Path, where: Path) -> dict[str, Any]:
    """Relax all structures of a spec, in the folder ``where``, which must be the current one, and return the facts.

    Raises:
        PilotError: the spec, the potential or the active set cannot be used.
    """
    begin = host.monotonic()
    needed(spec, _NEEDS)
    symbols = symbols_of(spec)
    species = numbers_of(symbols)
    structures = [Structure.from_json(structure) for structure in spec["structures"]]
    for structure in structures:
        must_be_periodic(structure)
    all_types = [types_of(structure.numbers, species) for structure in structures]
    limits = Limits(float(spec["gamma_save"]), float(spec["gamma_break"]), int(spec["max_saved"]))
    wanted = Wanted(float(spec["relax"]["force"]), int(spec["relax"]["steps"]), bool(spec["relax"]["cell"]))
    sweep = Relaxations(open_grader(spec, root, species, skin=_SKIN), limits, wanted, len(structures))
    print(
        f"relaxing {len(structures)} structures to {wanted.force:g} eV/Å in at most {wanted.steps} steps each; keep "
        f"above γ = {limits.save:g}, leave one above {limits.stop:g}",
        flush=True,
    )
    saver = saver_of(spec, root, where)
    found = saver.begin()
    if found is not None:
        sweep.restore(found.state["relaxations"])
        print(f"going on after structure {found.at}", flush=True)
    for number in range(sweep.done + 1, len(structures) + 1):
        before = sweep.state()
        structure = structures[number - 1]
        atoms = Atoms(structure.numbers, structure.positions, cell=structure.cell, pbc=True)
        try:
            sweep.relax(number, atoms, all_types[number - 1])
        except _StoppedError:
            sweep.restore(before)
            saver.save(sweep.done, {"relaxations": before}, b"")
            print(f"the next attempt can go on after structure {sweep.done}", flush=True)
            break
        if saver.due():
            saver.save(sweep.done, {"relaxations": sweep.state()}, b"")
    _write(sweep, structures, symbols, where)
    return _facts(sweep) | {
        "seconds": round(host.monotonic() - begin, 3),
        "resumed_at": list(saver.resumed_at),
    }


def _write(sweep: Relaxations, structures: list[Structure], symbols: list[str], where: Path) -> None:
    """preselected.cfg, relaxed.cfg and gamma.json."""
    moments = sorted([*sweep.keeper.kept, *sweep.broken], key=lambda moment: (moment.structure, moment.step))
    kept = [moment.sample(structures[moment.structure - 1], moment.cell) for moment in moments]
    write_samples(where / "preselected.cfg", kept, symbols)
    write_samples(
        where / "relaxed.cfg", (_sample(end, structures[end["structure"] - 1]) for end in sweep.relaxed), symbols
    )
    write_whole(where / "gamma.json", json.dumps(sweep.record.to_json()))


def _sample(end: dict[str, Any], like: Structure) -> Sample:
    structure = Structure.from_json(
        {"numbers": like.numbers, "positions": end["positions"], "cell": end["cell"], "pbc": like.pbc}
    )
    features = {
        "structure": str(end["structure"]),
        "steps": str(end["steps"]),
        "force": f"{end['force']:.6g}",
        "relaxed": "yes" if end["converged"] else "no",
    }
    return Sample(structure, Label.from_json({key: end[key] for key in ("energy", "forces", "stress")}), features)


def _facts(sweep: Relaxations) -> dict[str, Any]:
    """As those of dynamics, a structure counting as a step: those that did not break are the way that was gone."""
    relaxed = sum(end["converged"] for end in sweep.relaxed)
    broke_by = "; ".join(f"structure {number}: {reason}" for number, reason in sweep.reasons[:3])
    print(
        f"{relaxed} relaxed, {len(sweep.relaxed) - relaxed} not within the steps, {len(sweep.reasons)} broken"
        + (f" ({broke_by})" if broke_by else ""),
        flush=True,
    )
    return {
        "steps": len(sweep.relaxed),
        "steps_wanted": sweep.structures,
        "evaluations": sweep.steps,
        "broke": bool(sweep.reasons),
        "broke_by": broke_by,
        "stopped": sweep.attention.stopped and sweep.done < sweep.structures,
        "relaxed": relaxed,
        "unrelaxed": len(sweep.relaxed) - relaxed,
        "broken": len(sweep.reasons),
        "saved": len(sweep.keeper.kept) + len(sweep.broken),
        "above_save": sweep.above_save,
        "above_break": sweep.above_break,
        "gamma_max": sweep.record.highest,
        "gamma_mean": sweep.record.mean,
        "gamma_std": sweep.record.deviation,
    }
