"""Exploration by the user's own LAMMPS with MLIP's pair style, as a step; it leaves what pilot's own LAMMPS leaves.

The pair style is given our potential and our active set in one file, so γ is the same number there and here. It saves
every configuration above γ_save and ends the run above γ_break; of all other steps it says nothing. So moments are
written down at equal distances and graded afterwards: γ's mean, spread and histogram are of these. What it saved is
graded once more, too: a γ that is not ours is an error, not a result.

An interrupted exploration begins again.
"""

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from db.errors import InputError, MissingError
from db.files import write_whole
from db.records import Json, Structure
from pilot import host
from tasks.engines import lammps_mlip_input as texts
from tasks.engines.lammps_mlip_input import Control
from tasks.engines.lammps_mlip_read import End, read_end, read_frames
from tasks.engines.mlip_active_set import write_almtp
from tasks.engines.mlip_output import MlipError, argv_of, outputs, refuse_other_settings, run_logged
from tasks.engines.mlip_program import MLIP_2
from tasks.formats.mtp import write_potential
from tasks.model import Grader, types_of
from tasks.mtp import exploring
from tasks.mtp.active_set import load_active_set
from tasks.mtp.data_sets import Sample, numbers_of, read_samples, symbols_of, write_samples
from tasks.mtp.dynamics import Dynamics
from tasks.mtp.evaluator import open_potential
from tasks.mtp.exploration_spec import must_be_periodic, needed
from tasks.mtp.extrapolation_control import Limits
from tasks.mtp.gamma_record import GammaRecord
from tasks.mtp.grading import grade_of, model_of, open_grader
from tasks.mtp.keeping import Moment
from tasks.mtp.lammps_input import Turned
from tasks.mtp.model import ACTIVE_NEIGHBOURHOODS, ACTIVE_SET
from tasks.mtp.neighbours import NonsenseCellError
from tasks.mtp.sampling import Sampler

_NEEDS = ("structure", "rattle", "temperature", "pressure", "coupling", "steps", "timestep_fs", "settings")
_FRAMES = 250
#: MLIP-2's file with the active set, beside the potential
STATE = "pot.als"
#: what is graded again of what was saved; its coordinates have six digits after the point
_CHECKED, _LIKE = 20, 0.02
_DIGIT = 1e-6


@dataclass(frozen=True, slots=True)
class Run:
    """One exploration: what is run, and by what it is graded."""

    spec: Json
    root: Path
    where: Path
    structure: Structure
    symbols: list[str]
    dynamics: Dynamics
    control: Control
    grader: Grader
    limits: Limits

    @property
    def species(self) -> list[int]:
        """Atomic numbers in the order of the types."""
        return numbers_of(self.symbols)

    @property
    def frames(self) -> int:
        """How many moments are wanted: more if a sample of them is."""
        return max(_FRAMES, 4 * int((self.spec.get("sample") or {}).get("count", 0)))


def explore(spec: Json, root: Path, where: Path) -> dict[str, Any]:
    """Run one exploration in the folder ``where`` and return its facts.

    Raises:
        InputError: the spec asks for what this engine cannot do, or a file cannot be used.
        MissingError: there is no such program, or no active set.
        MlipError: it failed, or did not do what it was told to.
    """
    begin = host.monotonic()
    run = _prepare(spec, root, where)
    turned = _write_input(run)
    command = (*argv_of(str(spec["settings"].get("command", "lmp"))), "-in", "in.lammps", "-log", "log.lammps")
    print(f"{' '.join(command)}: {run.dynamics.all_steps} steps of {len(run.structure.numbers)} atoms", flush=True)
    said = run_logged(command, where, "lmp")
    end = read_end(said, where / "log.lammps", run.dynamics.all_steps)
    if run.control.style != MLIP_2:
        refuse_other_settings(said.out, run.control.thresholds)
    saved = _saved(run, turned)
    _refuse_strange_grades(run, saved, end)
    record, sample = _grade_moments(run, turned, end)
    kept = _thinned(saved, run.limits.most)
    write_samples(where / "preselected.cfg", kept, run.symbols)
    facts = _finish(run, end, record, saved, len(kept))
    if sample is not None:
        facts["sampled"] = write_samples(where / "sample.cfg", sample, run.symbols)
    return facts | {"resumed_at": [], "seconds": round(host.monotonic() - begin, 3)}


def _prepare(spec: Json, root: Path, where: Path) -> Run:
    needed(spec, _NEEDS)
    symbols = symbols_of(spec)
    structure = Structure.from_json(spec["structure"])
    must_be_periodic(structure)
    ours = 'use explore.engine = "lammps" for that'
    if spec.get("mode", "md") != "md":
        raise InputError("lammps-mlip does dynamics only", where="mode", next_step=ours)
    if grade_of(spec) == "committee":
        raise InputError("MLIP's pair style knows no committee", where="explore.grade", next_step=ours)
    if model_of(spec).file != "pot.mtp":
        raise InputError("MLIP's pair style knows moment tensor potentials only", where="train.engine", next_step=ours)
    limits = Limits(float(spec["gamma_save"]), float(spec["gamma_break"]), int(spec["max_saved"]))
    style = str(spec["settings"].get("style", "mlip-3"))
    potential = "pot.mtp" if style == MLIP_2 else "pot.almtp"
    control = Control(style, potential, STATE, limits.save, limits.stop)
    grader = open_grader(spec, root, numbers_of(symbols))
    return Run(spec, root, where, structure, symbols, exploring.dynamics_of(spec), control, grader, limits)


def _write_input(run: Run) -> Turned:
    """Potential, active set, data file and input."""
    folder = (run.root / run.spec["potential"]).parent
    potential = open_potential(folder / "pot.mtp", run.species)
    by_neighbourhoods = grade_of(run.spec) == "neighbourhood"
    turned = exploring.write_input(run.where, run.structure, run.species, run.dynamics, float(run.spec["rattle"]))
    text = texts.input_file(run.dynamics, len(run.structure.numbers), turned.cell, run.control, run.frames)
    write_whole(run.where / "in.lammps", text, durable=False)
    if run.control.style != MLIP_2:
        name = ACTIVE_NEIGHBOURHOODS if by_neighbourhoods else ACTIVE_SET
        active = load_active_set(folder / name, potential, neighbourhoods=by_neighbourhoods)
        write_almtp(run.where / run.control.potential, potential, active)
        return turned
    if not (folder / STATE).is_file():
        raise MissingError(
            "the pair style of MLIP-2 wants the active set as MLIP-2 itself writes it, and it is not here",
            where=str(folder / STATE),
            next_step='train with engine = "mlip-2", or use a LAMMPS with the interface of MLIP-3',
        )
    write_potential(run.where / run.control.potential, potential)
    shutil.copyfile(folder / STATE, run.where / STATE)
    write_whole(run.where / texts.SETTINGS, texts.settings_file(run.control), durable=False)
    return turned


def _saved(run: Run, turned: Turned) -> list[Sample]:
    """What the pair style has saved, in the vectors that were given, each with its γ."""
    found = []
    for file in outputs(run.where / texts.SAVED):
        for sample in read_samples(file, run.symbols):
            if "MV_grade" not in sample.features:
                raise MlipError(f"MLIP has saved a configuration without its grade in {file.name}")
            cell = turned.given_vectors(np.array(sample.structure.cell))
            content = sample.structure.to_json() | {"cell": cell.tolist(), "pbc": run.structure.pbc}
            features = {"MV_grade": sample.features["MV_grade"]}
            found.append(Sample(Structure.from_json(content), features=features, grades=sample.grades))
    return found


def _gamma(sample: Sample) -> float:
    return float(sample.features["MV_grade"])


def _refuse_strange_grades(run: Run, saved: Sequence[Sample], end: End) -> None:
    """The pair style must have kept to its thresholds, and have meant the same γ as we do.

    Raises:
        MlipError: it has not.
    """
    save = float(run.control.thresholds["threshold_save"])
    if end.gamma is not None:
        if end.gamma < run.limits.stop - _DIGIT:
            raise MlipError(f"the run was ended at γ = {end.gamma:g}, which is not above {run.limits.stop:g}")
        if not saved or not math.isclose(max(map(_gamma, saved)), end.gamma, rel_tol=1e-5):
            raise MlipError(f"the configuration with γ = {end.gamma:g} that ended the run was not saved")
    elif saved and max(map(_gamma, saved)) > run.limits.stop * (1.0 + 1e-6):
        raise MlipError(f"γ = {max(map(_gamma, saved)):g} is above {run.limits.stop:g}, but the run went on")
    if saved and min(map(_gamma, saved)) < save * (1.0 - 1e-6):
        raise MlipError(f"a configuration with γ = {min(map(_gamma, saved)):g} was saved: the threshold was not heeded")
    if run.control.style == MLIP_2:
        return  # it may weight configurations of several sizes otherwise
    for sample in _thinned(saved, _CHECKED):
        ours = _grade(run, sample.structure)
        if ours is not None and not math.isclose(ours, _gamma(sample), rel_tol=_LIKE):
            raise MlipError(f"MLIP's γ of a saved configuration is {_gamma(sample):g}, pilot's {ours:g}")


def _grade(run: Run, structure: Structure) -> float | None:
    """γ by our own mathematics; None for what is no matter."""
    types = types_of(structure.numbers, run.species)
    try:
        run.grader.forget()
        run.grader.predict(types, np.array(structure.positions), np.array(structure.cell))
        gamma = run.grader.grade()
    except NonsenseCellError:
        return None
    return gamma if math.isfinite(gamma) else None


def _grade_moments(run: Run, turned: Turned, end: End) -> tuple[GammaRecord, list[Sample] | None]:
    """γ of the moments that were written down; and of them a sample uniform in γ, if one is wanted.

    Raises:
        MlipError: one of them should have ended the run.
    """
    record = GammaRecord(run.dynamics.all_steps)
    table = run.spec.get("sample")
    sampler = None
    if table is not None:
        low, high = (float(gamma) for gamma in table["gamma"])
        sampler = Sampler(int(table["count"]), low, high, int(run.spec["seed"]))
    last = -1
    for frame in read_frames(run.where / texts.DUMP):
        if frame.step <= last:  # each stretch of a run begins with the step that ended the one before
            continue
        last = frame.step
        run.grader.forget()
        try:
            run.grader.predict(frame.types, frame.positions, frame.cell)
        except NonsenseCellError:
            continue
        gamma = run.grader.grade()
        if not end.broke and not gamma <= run.limits.stop * (1.0 + _LIKE):
            raise MlipError(f"γ = {gamma:g} at step {frame.step} is above {run.limits.stop:g}, but the run went on")
        record.add(frame.step, gamma)
        if sampler is not None:
            moment = Moment(frame.step, gamma, frame.positions, frame.cell, run.grader.grades_of_atoms())
            sampler.offer(gamma, lambda moment=moment: moment)  # type: ignore[misc]
    if sampler is None:
        return record, None
    return record, [moment.sample(run.structure, turned.given_vectors(moment.cell)) for moment in sampler.kept]


def _thinned(samples: Sequence[Sample], most: int) -> list[Sample]:
    """So many of them at most, evenly spread; the last among them, as it may have ended the run."""
    if len(samples) <= most:
        return list(samples)
    return [samples[k] for k in np.linspace(len(samples) - 1, 0, max(most, 1)).round().astype(int)[::-1]]


def _finish(run: Run, end: End, record: GammaRecord, saved: Sequence[Sample], kept: int) -> dict[str, Any]:
    """Write gamma.json and sum up."""
    every = texts.dump_every(run.dynamics, run.frames)
    highest = max([record.highest, *map(_gamma, saved)])
    content = record.to_json() | {"max": highest, "every": every}
    write_whole(run.where / "gamma.json", json.dumps(content))
    broke_by = f"γ = {end.gamma:.4g} is above {run.limits.stop:g}" if end.gamma is not None else end.broke
    print(
        f"{f'ended early: {broke_by}' if broke_by else 'stopped on request' if end.stopped else 'done'}; "
        f"step {end.step}, {len(saved)} configurations saved",
        flush=True,
    )
    return {
        "steps": end.step,
        "steps_wanted": run.dynamics.all_steps,
        "broke": bool(broke_by),
        "broke_by": broke_by,
        "stopped": end.stopped,
        "saved": kept,
        "above_save": len(saved),
        "above_break": sum(_gamma(sample) > run.limits.stop for sample in saved),
        "gamma_max": highest,
        "gamma_mean": record.mean,
        "gamma_std": record.deviation,
        # mean and spread are of every so manieth step; what is saved, and the highest, are of all
        "gamma_every": every,
        "plugin": run.control.style,
    }
