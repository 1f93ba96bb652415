"""Explore by relaxing candidate structures with the current potential, keeping what it extrapolates on.

The structures of a pool are brought to zero force and zero stress one by one, γ being watched at every step (the
convex hull of Ag-Pd, Novikov et al., MLST 2, 025002 (2021), section 6). One whose γ exceeds ``gamma_break`` is left
there, and kept for the selection; the others end in relaxed.cfg.

What is interrupted goes on after the last structure that was brought to an end.
"""

import json
from pathlib import Path
from typing import Any

from ase import Atoms

from db.files import write_whole
from db.records import Json, Label, Structure
from pilot import host
from tasks.model import types_of
from tasks.mtp.data_sets import Sample, numbers_of, symbols_of, write_samples
from tasks.mtp.exploration_spec import must_be_periodic, needed, saver_of
from tasks.mtp.extrapolation_control import Limits
from tasks.mtp.grading import open_grader
from tasks.mtp.relaxations import Relaxations, StoppedError, Wanted

_SKIN = 0.4  # Å: relaxations move atoms by less than dynamics do
_NEEDS = ("structures", "relax")


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
        except StoppedError:
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
