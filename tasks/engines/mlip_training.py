"""Training by MLIP's own program, as a step: what it is given, what it must leave, and what is proved of it.

The fit is MLIP's. All that other tasks use of its result is in our formats and made by our own mathematics, as after a
training by motep: so a campaign can change its train engine between two runs. MLIP's own file, its active set inside,
is kept beside.

What makes the same potential each time: one number of ranks, a ``min_dist`` that is not moved, a start that is a file.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motep.potentials.mtp.data import MTPData

from db.errors import InputError
from db.records import Json
from pilot import host
from tasks.engines import mlip_files
from tasks.engines.mlip_output import Errors, MlipError, argv_of, read_report, refuse_other_settings, why_it_ended
from tasks.engines.mlip_program import MLIP_3, Mlp
from tasks.formats.mtp import write_potential
from tasks.mtp.active_neighbourhoods import build_of_neighbourhoods
from tasks.mtp.active_set import build, rows_of, save_active_set
from tasks.mtp.data_sets import Sample, numbers_of, read_labelled, symbols_of, write_samples
from tasks.mtp.errors_of_fit import Difference, Pair, Weights, differences, errors_of, in_words, loss_of
from tasks.mtp.evaluator import Evaluator, open_potential
from tasks.mtp.model import ACTIVE_NEIGHBOURHOODS, ACTIVE_SET

START, TRAIN, HOLDOUT = "start.mtp", "train.cfg", "holdout.cfg"
#: what MLIP writes, by dialect, and what of it is published
MADE = {"mlip-3": "pot.almtp", "mlip-2": "trained.mtp"}
STATE = "pot.als"
#: MLIP prints six digits
_RELATIVE, _ABSOLUTE = 2e-5, 1e-7


@dataclass(frozen=True, slots=True)
class Sets:
    """The configurations and what counts of them."""

    train: list[Pair]
    holdout: list[Pair]
    symbols: list[str]
    weights: Weights

    @property
    def species(self) -> list[int]:
        """Atomic numbers in the order of the types."""
        return numbers_of(self.symbols)


def train(spec: Json, root: Path, where: Path) -> dict[str, Any]:
    """Let ``mlp`` fit, prove its result, write it in our formats into ``where``, and return the facts.

    Raises:
        InputError: the data, the start or the template cannot be used.
        MissingError: there is no such program.
        MlipError: it has not trained, or not what it was asked to.
    """
    begin = host.monotonic()
    sets = _sets(spec, root)
    dialect = str(spec.get("dialect", MLIP_3))
    potential, start = mlip_files.starting_point(spec, root, sets.train, sets.species, sets.weights)
    before = None if start is None else differences(Evaluator(start), sets.holdout, sets.species)
    write_potential(where / START, potential)
    for name, pairs in ((TRAIN, sets.train), (HOLDOUT, sets.holdout)):
        write_samples(where / name, (Sample(structure, label) for structure, label in pairs), sets.symbols)
    mlp = Mlp(argv_for(spec), where, dialect)
    member = int(spec.get("member", 0))
    origin = spec.get("start") or ("a start of its own" if member else "an untrained potential")
    print(f"{' '.join(mlp.argv)} trains on {len(sets.train)} configurations, from {origin}", flush=True)
    options = _options(spec, sets.weights, dialect)
    said = mlp.train(START, TRAIN, MADE[dialect], options)
    if dialect == MLIP_3:
        refuse_other_settings(said.out, options)
    made = mlip_files.read_trained(where / MADE[dialect], potential, active_set=dialect == MLIP_3)
    write_potential(where / "pot.mtp", made.potential)
    trained = open_potential(where / "pot.mtp", sets.species)
    facts: dict[str, Any] = {
        "member": member,
        "configurations": len(sets.train),
        "iterations": why_it_ended(said.out)[0],
        "stopped": False,
        "resumed_at": [],
        "mlip": {
            "dialect": dialect,
            "ranks": int(spec.get("ranks", 1)),
            "ended": why_it_ended(said.out)[1],
            "active": made.active,
        },
    }
    facts |= _assess(trained, sets, where, neighbourhoods=bool(spec.get("neighbourhoods")))
    printed = read_report(said.out)
    if printed is not None:
        # of what it had in memory; of what it wrote it says in the following
        refuse_disagreement(facts["train"], printed, "training set")
    if not sets.holdout:
        refuse_disagreement(facts["train"], mlp.check_errors(MADE[dialect], TRAIN), "training set")
    facts |= _compare(trained, sets, mlp, before)
    if dialect != MLIP_3:
        # its pair style wants the active set in a file of its own
        mlp.calculate_grade("pot.mtp", TRAIN, "graded.cfg", train=TRAIN, state=STATE)
    return facts | {"seconds": round(host.monotonic() - begin, 3)}


def _sets(spec: Json, root: Path) -> Sets:
    symbols = symbols_of(spec)
    if not spec.get("train"):
        raise InputError("nothing is labelled that could be trained on", next_step="`pilot retry --failed` when mended")
    pairs = read_labelled(root / spec["train"], symbols)
    numbers = {number for structure, _ in pairs for number in structure.numbers}
    missing = [s for s, number in zip(symbols, numbers_of(symbols), strict=True) if number not in numbers]
    if missing:
        # it would count the types anew, or refuse a start that knows more of them
        raise InputError(
            f"no configuration of the training set has {', '.join(missing)}: MLIP trains only on all species at once",
            where=str(spec["train"]),
            next_step="label configurations with all species of the campaign, or train with engine motep",
        )
    holdout = read_labelled(root / spec["holdout"], symbols) if spec.get("holdout") else []
    weights = Weights(**{name: float(value) for name, value in (spec.get("weights") or {}).items()})
    return Sets(pairs, holdout, symbols, weights)


def argv_for(spec: Json) -> tuple[str, ...]:
    """The program; with more than one rank and no launcher of the user's, ``mpirun`` before it."""
    words = argv_of(str(spec["settings"].get("command", "mlp")))
    ranks = int(spec.get("ranks", 1))
    return words if ranks == 1 or len(words) > 1 else ("mpirun", "-n", str(ranks), *words)


def _options(spec: Json, weights: Weights, dialect: str) -> dict[str, str]:
    """The settings of the campaign as MLIP spells them.

    Energies and stresses count per atom and forces by their mean, as in motep's loss function: so weights mean the
    same whichever engine trains.
    """
    options = {
        "energy_weight": f"{weights.energy:.10g}",
        "force_weight": f"{weights.forces:.10g}",
        "stress_weight": f"{weights.stress:.10g}",
        "iteration_limit": str(int(spec["iterations"])),
        "no_mindist_update": "true",
        "al_mode": "cfg",
        "weight_scaling": "2",
        "weight_scaling_forces": "1",
    }
    # its default is a start by chance, another one each time
    return options if dialect == MLIP_3 else {**options, "weighting": "structures", "init-params": "same"}


def _assess(trained: MTPData, sets: Sets, where: Path, *, neighbourhoods: bool) -> dict[str, Any]:
    """Errors on the training set, and our active sets."""
    evaluator = Evaluator(trained)
    found = differences(evaluator, sets.train, sets.species)
    errors = errors_of(found)
    print(f"training set: {in_words(errors)}", flush=True)
    structures = [structure for structure, _ in sets.train]
    active = build(rows_of(evaluator, structures, sets.species), trained)
    save_active_set(where / ACTIVE_SET, active)
    print(f"active set: {active.members} configurations for {evaluator.parameters} parameters", flush=True)
    facts = {
        "loss": loss_of(found, sets.weights),
        "train": errors,
        "parameters": evaluator.parameters,
        "active": active.members,
    }
    if neighbourhoods:
        nearby = build_of_neighbourhoods(evaluator, structures, sets.species)
        save_active_set(where / ACTIVE_NEIGHBOURHOODS, nearby)
        facts["active_neighbourhoods"] = nearby.members
    return facts


def _compare(trained: MTPData, sets: Sets, mlp: Mlp, before: Sequence[Difference] | None) -> dict[str, Any]:
    """The holdout after training and before."""
    if not sets.holdout:
        return {"holdout": None, "holdout_before": None, "worse": False}
    after = differences(Evaluator(trained), sets.holdout, sets.species)
    errors = errors_of(after)
    refuse_disagreement(errors, mlp.check_errors(MADE[mlp.dialect], HOLDOUT), "holdout")
    print(f"holdout: {in_words(errors)}", flush=True)
    worse = before is not None and loss_of(after, sets.weights) > loss_of(before, sets.weights)
    earlier = None if before is None else errors_of(before)
    if earlier is not None:
        print(f"holdout before: {in_words(earlier)}{'; it got WORSE' if worse else ''}", flush=True)
    return {"holdout": errors, "holdout_before": earlier, "worse": worse}


def refuse_disagreement(ours: dict[str, Any] | None, theirs: Errors, which: str) -> None:
    """Refuse a potential that is another one to us than to MLIP.

    Raises:
        MlipError: its errors, computed by us, are not those that MLIP prints, to the digits that it prints.
    """
    if ours is None:
        return
    pairs = {
        "energy, eV/atom": (ours["rmse_energy_per_atom"], theirs.energy_per_atom),
        "force, eV/Å": (ours["rms_force_vector"], theirs.force),
    }
    for what, (mine, printed) in pairs.items():
        if not math.isclose(mine, printed, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE):
            raise MlipError(
                f"MLIP and pilot do not agree about the potential: RMS error of the {which} ({what}) "
                f"{printed:g} by mlp, {mine:.6g} by pilot"
            )
