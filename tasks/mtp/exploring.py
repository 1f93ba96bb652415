"""Explore: dynamics of a cell with the current potential, keeping what it extrapolates on.

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
from tasks.model import types_of
from tasks.mtp.data_sets import numbers_of, symbols_of, write_samples
from tasks.mtp.dynamics import Dynamics, Melt
from tasks.mtp.exploration_spec import must_be_periodic, needed, saver_of
from tasks.mtp.extrapolation_control import Explorer, Limits
from tasks.mtp.grading import open_grader
from tasks.mtp.lammps_input import Turned, data_file, input_file, lower_triangular
from tasks.mtp.relaxing import relax
from tasks.mtp.running import run_parts
from tasks.mtp.sampling import Sampler

Floats = npt.NDArray[np.float64]

_SKIN = 0.6  # Å: cheap for 2 to 54 atoms at 300 K
_NEEDS = ("structure", "rattle", "temperature", "pressure", "coupling", "steps", "timestep_fs")


def explore(spec: Json, root: Path, where: Path) -> dict[str, Any]:
    """Run one exploration in the folder ``where``, which must be the current one, and return its facts.

    Raises:
        PilotError: the spec, the potential or the active set cannot be used.
    """
    if spec.get("mode", "md") == "relax":
        return relax(spec, root, where)
    begin = host.monotonic()
    needed(spec, _NEEDS)
    symbols = symbols_of(spec)
    species = numbers_of(symbols)
    structure = Structure.from_json(spec["structure"])
    must_be_periodic(structure)
    grader = open_grader(spec, root, species, skin=_SKIN)
    types = types_of(structure.numbers, species)
    dynamics = dynamics_of(spec)
    turned = write_input(where, structure, species, dynamics, float(spec["rattle"]))
    limits = Limits(float(spec["gamma_save"]), float(spec["gamma_break"]), int(spec["max_saved"]))
    explorer = Explorer(grader, types, limits, dynamics.all_steps, _sampler(spec))
    _announce(dynamics, limits, len(types))
    saver = saver_of(spec, root, where)
    run_parts(where / "log.lammps", explorer, dynamics, turned.cell, saver)
    kept = [moment.sample(structure, turned.given_vectors(moment.cell)) for moment in explorer.keeper.kept]
    write_samples(where / "preselected.cfg", kept, symbols)
    facts = _finish(explorer, len(kept), where, host.monotonic() - begin)
    if explorer.sampler is not None:
        sample = [moment.sample(structure, turned.given_vectors(moment.cell)) for moment in explorer.sampler.kept]
        facts["sampled"] = write_samples(where / "sample.cfg", sample, symbols)
    return facts | {"resumed_at": list(saver.resumed_at)}


def _announce(dynamics: Dynamics, limits: Limits, atoms: int) -> None:
    pressure = "constant volume" if dynamics.pressure is None else f"{dynamics.pressure:g} bar"
    if dynamics.melt is not None:
        melt = dynamics.melt
        print(
            f"first melting at {melt.temperature:g} K, {melt.scale:g} times as wide, for {melt.steps} steps, then "
            f"cooling for {melt.cooling_steps}",
            flush=True,
        )
    print(
        f"exploring {atoms} atoms at {dynamics.temperature:g} K, {pressure}: {dynamics.steps} steps of "
        f"{dynamics.timestep_fs:g} fs; keep above γ = {limits.save:g}, end above {limits.stop:g}",
        flush=True,
    )


def dynamics_of(spec: Json) -> Dynamics:
    """What LAMMPS is to do, as a spec says.

    Raises:
        InputError: it says what is not known.
    """
    coupling, scenario = str(spec["coupling"]), str(spec.get("scenario", "crystal"))
    if coupling not in {"iso", "aniso", "tri"}:
        raise InputError(f"coupling {coupling!r} is not known", next_step='use "iso", "aniso" or "tri"')
    if scenario not in {"crystal", "liquid"}:
        raise InputError(f"scenario {scenario!r} is not known", next_step='use "crystal" or "liquid"')
    pressure = spec["pressure"]
    return Dynamics(
        temperature=float(spec["temperature"]),
        pressure=None if pressure is None else float(pressure),
        coupling=coupling,
        steps=int(spec["steps"]),
        timestep_fs=float(spec["timestep_fs"]),
        seed=int(spec["seed"]),
        melt=_melt(spec) if scenario == "liquid" else None,
    )


def _melt(spec: Json) -> Melt:
    needed(spec, ["melt"])
    table = spec["melt"]
    needed(table, ["temperature", "steps", "cooling_steps", "scale"])
    melt = Melt(float(table["temperature"]), int(table["steps"]), int(table["cooling_steps"]), float(table["scale"]))
    if min(melt.temperature, melt.steps, melt.cooling_steps, melt.scale) <= 0:
        raise InputError(
            "melting wants a temperature, steps, cooling_steps and a scale above zero",
            where="melt",
            next_step="mend [explore.melt] in pilot.toml",
        )
    return melt


def _sampler(spec: Json) -> Sampler | None:
    table = spec.get("sample")
    if table is None:
        return None
    needed(table, ["count", "gamma"])
    low, high = (float(gamma) for gamma in table["gamma"])
    return Sampler(int(table["count"]), low, high, int(spec["seed"]))


def write_input(where: Path, structure: Structure, species: list[int], dynamics: Dynamics, rattle: float) -> Turned:
    """in.lammps and data.lammps; the atoms are moved a little from their sites first (Algorithm 2 of the report).

    A liquid begins in a cell of another size; the one that is returned is the one that is wanted.
    """
    types = types_of(structure.numbers, species)
    rng = np.random.default_rng(dynamics.seed)
    positions = np.array(structure.positions)
    positions = positions + rng.normal(0.0, rattle, positions.shape)
    turned = lower_triangular(np.array(structure.cell), positions)
    scale = dynamics.scale
    text = data_file(scale * turned.cell, scale * turned.positions, types, species)
    write_whole(where / "data.lammps", text, durable=False)
    write_whole(where / "in.lammps", input_file(dynamics, len(types), turned.cell), durable=False)
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
