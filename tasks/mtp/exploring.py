"""Explore: dynamics of a small cell with the current potential, keeping what it extrapolates on.

The protocol of the papers: configurations with γ above ``gamma_save`` are kept for the selection, and the run ends
at the first one above ``gamma_break``, which is kept in any case. A run that ends early has done its work.

A run that is interrupted goes on from its last checkpoint, and ends as if nobody had interrupted it, bit for bit.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from db.errors import InputError
from db.files import write_whole
from db.records import Json, Structure
from pilot import host
from tasks import checkpoint
from tasks.mtp.active_set import load_active_set
from tasks.mtp.data_sets import Sample, numbers_of, symbols_of, write_samples
from tasks.mtp.evaluator import Evaluator, open_potential, types_of
from tasks.mtp.extrapolation_control import Explorer, Limits
from tasks.mtp.lammps_input import Dynamics, Turned, data_file, input_file, lower_triangular
from tasks.mtp.running import run_parts

Floats = npt.NDArray[np.float64]

_SKIN = 0.6  # Å: cheap for 2 to 54 atoms at 300 K
#: another version of these may give other digits, or another restart file
_PACKAGES = ("lammps", "motep", "numpy", "scipy")


def explore(spec: Json, root: Path, where: Path) -> dict[str, Any]:
    """Run one exploration in the folder ``where``, which must be the current one, and return its facts.

    Raises:
        PilotError: the spec, the potential or the active set cannot be used.
    """
    begin = host.monotonic()
    symbols = symbols_of(spec)
    species = numbers_of(symbols)
    structure = Structure.from_json(spec["structure"])
    if not all(structure.pbc):
        raise InputError(
            "an exploration wants a cell that is periodic in three directions",
            next_step="give the structure of this stage a cell and pbc = true",
        )
    potential = open_potential(root / spec["potential"], species)
    active = load_active_set(root / spec["active_set"], potential)
    types = types_of(structure.numbers, species)
    dynamics = _dynamics(spec)
    turned = write_input(where, structure, species, dynamics, float(spec["rattle"]))
    limits = Limits(float(spec["gamma_save"]), float(spec["gamma_break"]), int(spec["max_saved"]))
    explorer = Explorer(Evaluator(potential, skin=_SKIN), active, types, limits, dynamics.steps)
    pressure = "constant volume" if dynamics.pressure is None else f"{dynamics.pressure:g} bar"
    print(
        f"exploring {len(types)} atoms at {dynamics.temperature:g} K, {pressure}: {dynamics.steps} steps of "
        f"{dynamics.timestep_fs:g} fs; keep above γ = {limits.save:g}, end above {limits.stop:g}",
        flush=True,
    )
    saver = checkpoint.saver("explore", spec, root, where, ("potential", "active_set"), _PACKAGES)
    run_parts(where / "log.lammps", explorer, dynamics, saver)
    kept = [
        Sample(
            _structure(structure, positions, turned.given_vectors(cell)),
            features={"MV_grade": f"{gamma:.6f}", "step": str(step)},
        )
        for step, gamma, positions, cell in explorer.keeper.kept
    ]
    write_samples(where / "preselected.cfg", kept, symbols)
    facts = _finish(explorer, len(kept), where, host.monotonic() - begin)
    return facts | {"resumed_at": list(saver.resumed_at)}


def _dynamics(spec: Json) -> Dynamics:
    coupling = str(spec["coupling"])
    if coupling not in {"iso", "aniso", "tri"}:
        raise InputError(f"coupling {coupling!r} is not known", next_step='use "iso", "aniso" or "tri"')
    pressure = spec["pressure"]
    return Dynamics(
        temperature=float(spec["temperature"]),
        pressure=None if pressure is None else float(pressure),
        coupling=coupling,
        steps=int(spec["steps"]),
        timestep_fs=float(spec["timestep_fs"]),
        seed=int(spec["seed"]),
    )


def write_input(where: Path, structure: Structure, species: list[int], dynamics: Dynamics, rattle: float) -> Turned:
    """in.lammps and data.lammps; the atoms are moved a little from their sites first (Algorithm 2 of the report)."""
    types = types_of(structure.numbers, species)
    rng = np.random.default_rng(dynamics.seed)
    positions = np.array(structure.positions)
    positions = positions + rng.normal(0.0, rattle, positions.shape)
    turned = lower_triangular(np.array(structure.cell), positions)
    write_whole(where / "data.lammps", data_file(turned.cell, turned.positions, types, species), durable=False)
    write_whole(where / "in.lammps", input_file(dynamics, len(types)), durable=False)
    return turned


def _finish(explorer: Explorer, kept: int, where: Path, seconds: float) -> dict[str, Any]:
    """Write gamma.json and sum up."""
    record = explorer.record
    write_whole(where / "gamma.json", json.dumps(record.to_json()))
    facts = {
        "steps": explorer.last_step,
        "steps_wanted": explorer.steps,
        "broke": bool(explorer.broke),
        "broke_by": explorer.broke,
        "stopped": explorer.stopped and not explorer.broke,
        "saved": kept,
        "above_save": explorer.above_save,
        "above_break": explorer.above_break,
        "gamma_max": record.highest,
        "gamma_mean": record.mean,
        "gamma_std": record.deviation,
        "seconds": round(seconds, 3),
    }
    end = f"ended early: {explorer.broke}" if explorer.broke else "stopped on request" if explorer.stopped else "done"
    print(f"{end}; step {explorer.last_step}, {kept} configurations kept", flush=True)
    return facts


def _structure(like: Structure, positions: Floats, cell: Floats) -> Structure:
    """The record of one moment of the run."""
    return Structure.from_json(
        {"numbers": like.numbers, "positions": positions.tolist(), "cell": cell.tolist(), "pbc": like.pbc}
    )
