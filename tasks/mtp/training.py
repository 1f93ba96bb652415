"""Train: fit a potential to all labelled configurations, from the last one or from nothing, and its active set."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motep.potentials.mtp.data import MTPData

from db.errors import InputError
from db.records import Json
from pilot import host
from tasks import checkpoint
from tasks.formats.mtp import read_potential, write_potential
from tasks.mtp.active_neighbourhoods import build_of_neighbourhoods
from tasks.mtp.active_set import build, rows_of, save_active_set
from tasks.mtp.basis import untrained
from tasks.mtp.data_sets import numbers_of, read_labelled, symbols_of
from tasks.mtp.errors_of_fit import Difference, Pair, Weights, differences, errors_of, in_words, loss_of
from tasks.mtp.evaluations import Evaluations
from tasks.mtp.evaluator import Evaluator, open_potential
from tasks.mtp.model import ACTIVE_NEIGHBOURHOODS, ACTIVE_SET
from tasks.mtp.motep_fit import Fit

STOP_FILE = "stop"
PARTIAL_FILE = "pot.partial.mtp"
#: another version of these may give other digits
_PACKAGES = ("motep", "numpy", "scipy")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a potential does on the holdout, before and after."""

    errors: dict[str, Any] | None
    before: dict[str, Any] | None
    worse: bool


def train(spec: Json, root: Path, where: Path) -> dict[str, Any]:
    """Fit, write pot.mtp and active.npz into ``where``, and return the facts.

    Of an ensemble each member is a training of its own, which differs by ``seed`` and ``start``; ``member`` names it.
    With ``neighbourhoods`` the active set of neighbourhoods is written, too, as active-nbh.npz.

    A fit that is interrupted goes on from its last checkpoint, and ends as if nobody had interrupted it, bit for bit.

    The loss never gets larger than at the start: each step is kept only if it made it smaller. Whether the
    *holdout* got worse all the same is said in ``worse`` (by the same loss function).

    Raises:
        InputError: the data, or the start, cannot be used.
        StorageError: the disk refuses.
    """
    begin = host.monotonic()
    symbols = symbols_of(spec)
    species = numbers_of(symbols)
    if not spec.get("train"):
        raise InputError("nothing is labelled that could be trained on", next_step="`pilot retry --failed` when mended")
    pairs = read_labelled(root / spec["train"], symbols)
    holdout = read_labelled(root / spec["holdout"], symbols) if spec.get("holdout") else []
    weights = Weights(**{name: float(value) for name, value in (spec.get("weights") or {}).items()})
    potential, start = _begin(spec, root, len(species))
    before = None if start is None else _differences(start, holdout, species)
    fit = Fit(potential, pairs, species, weights)
    origin = "from an untrained potential" if start is None else f"from {spec['start']}"
    member = int(spec.get("member", 0))
    of = f", member {member}" if member else ""
    print(f"training level {spec['level']}{of} on {len(pairs)} configurations, {origin}", flush=True)
    if start is None:
        fit.from_level_2(int(spec["seed"]))
        print(f"pair potential: loss {fit.loss():.6e}", flush=True)
    else:
        print(f"start: loss {fit.loss():.6e}", flush=True)
    saver = checkpoint.saver("train", spec, root, where, ("train", "start"), _PACKAGES)
    stopped = _minimise(fit, int(spec["iterations"]), saver)
    print(f"after {fit.iterations} iterations: loss {fit.loss():.6e}", flush=True)
    if not stopped:
        fit.linear()
        print(f"linear coefficients solved for: loss {fit.loss():.6e}", flush=True)
    loss = fit.loss()
    fit.finish()
    facts: dict[str, Any] = {
        "member": member,
        "configurations": len(pairs),
        "loss": loss,
        "iterations": fit.iterations,
        "stopped": stopped,
        "resumed_at": list(saver.resumed_at),
    }
    if stopped:
        write_potential(where / PARTIAL_FILE, potential)
        print(f"stopped on request; the next attempt can go on; {PARTIAL_FILE} is what there is so far", flush=True)
        return facts | {"seconds": round(host.monotonic() - begin, 3)}
    write_potential(where / "pot.mtp", potential)
    trained = open_potential(where / "pot.mtp", species)
    facts |= _assess(trained, pairs, species, where)
    if spec.get("neighbourhoods"):
        facts |= _neighbourhoods(trained, pairs, species, where)
    outcome = _compare(trained, holdout, species, before, weights)
    return facts | {
        "holdout": outcome.errors,
        "holdout_before": outcome.before,
        "worse": outcome.worse,
        "seconds": round(host.monotonic() - begin, 3),
    }


def _minimise(fit: Fit, iterations: int, saver: checkpoint.Saver) -> bool:
    """Minimise, from the checkpoint on if there is one; whether it was stopped."""
    evaluations = Evaluations()
    found = saver.begin()
    if found is not None:
        evaluations.restore(found.state, found.rest)
        print(f"going on from iteration {found.at} ({evaluations.count} evaluations are known)", flush=True)
    stop = saver.where / STOP_FILE

    def heed() -> bool:
        stopped = stop.exists()
        # while what is known is gone through, the checkpoint that is there holds it all
        if (stopped or saver.due()) and not evaluations.replaying:
            saver.save(fit.iterations, *evaluations.state())
        return stopped

    return fit.nonlinear(iterations, evaluations, heed)


def _begin(spec: Json, root: Path, species_count: int) -> tuple[MTPData, MTPData | None]:
    """The potential to fit and, for a warm start, an untouched copy of it."""
    template = untrained(
        int(spec["level"]),
        species_count,
        float(spec["min_dist"]),
        float(spec["max_dist"]),
        int(spec["radial_basis_size"]),
    )
    if not spec.get("start"):
        return template, None
    path = root / spec["start"]
    start = read_potential(path)
    if start.moment_coeffs is None:
        raise InputError("the start is not trained", where=str(path), next_step="leave `start` out")
    pairs = {
        "number of species": (start.species_count, template.species_count),
        "level (number of basis functions)": (start.alpha_scalar_moments, template.alpha_scalar_moments),
        "number of radial functions": (start.radial_funcs_count, template.radial_funcs_count),
        "size of the radial basis": (start.radial_basis.size, template.radial_basis.size),
        "cutoff max_dist": (start.radial_basis.max, template.radial_basis.max),
    }
    for what, (has, wanted) in pairs.items():
        if abs(float(has) - float(wanted)) > 1e-9:
            raise InputError(
                f"the start has another {what}: {has:g}, wanted {wanted:g}",
                where=str(path),
                next_step="train without `start`, or put the setting back to what it was",
            )
    if abs(float(start.radial_basis.min) - float(spec["min_dist"])) > 1e-9:
        # rescaling the basis would spoil the coefficients that the start brings
        print(f"min_dist stays at the start's {float(start.radial_basis.min):g} Å", flush=True)
    return start, copy.deepcopy(start)


def _differences(potential: MTPData, pairs: Sequence[Pair], species: Sequence[int]) -> list[Difference]:
    return differences(Evaluator(potential), pairs, species)


def _assess(potential: MTPData, pairs: Sequence[Pair], species: Sequence[int], where: Path) -> dict[str, Any]:
    """Errors on the training set, and the active set."""
    errors = errors_of(_differences(potential, pairs, species))
    print(f"training set: {in_words(errors)}", flush=True)
    evaluator = Evaluator(potential)
    active = build(rows_of(evaluator, [structure for structure, _ in pairs], species), potential)
    save_active_set(where / ACTIVE_SET, active)
    print(f"active set: {active.members} configurations for {evaluator.parameters} parameters", flush=True)
    return {"train": errors, "parameters": evaluator.parameters, "active": active.members}


def _neighbourhoods(potential: MTPData, pairs: Sequence[Pair], species: Sequence[int], where: Path) -> dict[str, Any]:
    """The active set of neighbourhoods."""
    active = build_of_neighbourhoods(Evaluator(potential), [structure for structure, _ in pairs], species)
    save_active_set(where / ACTIVE_NEIGHBOURHOODS, active)
    atoms = sum(len(structure.numbers) for structure, _ in pairs)
    print(f"active set of neighbourhoods: {active.members} of {atoms}", flush=True)
    return {"active_neighbourhoods": active.members}


def _compare(
    potential: MTPData,
    holdout: Sequence[Pair],
    species: Sequence[int],
    before: list[Difference] | None,
    weights: Weights,
) -> Outcome:
    """The holdout after training and before."""
    if not holdout:
        return Outcome(None, None, worse=False)
    after = _differences(potential, holdout, species)
    errors = errors_of(after)
    print(f"holdout: {in_words(errors)}", flush=True)
    if before is None:
        return Outcome(errors, None, worse=False)
    worse = loss_of(after, weights) > loss_of(before, weights)
    print(f"holdout before: {in_words(errors_of(before))}{'; it got WORSE' if worse else ''}", flush=True)
    return Outcome(errors, errors_of(before), worse)
