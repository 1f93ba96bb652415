"""Train a pair potential: linear least squares to all labelled configurations."""

from pathlib import Path
from typing import Any

from db.errors import InputError
from db.records import Json
from pilot import host
from tasks.mtp.data_sets import numbers_of, read_labelled, symbols_of
from tasks.mtp.errors_of_fit import Weights, differences, errors_of, in_words, loss_of
from tasks.pair.basis import PairBasis
from tasks.pair.fit import fit, resampled
from tasks.pair.model import MODEL
from tasks.pair.potential import PairPredictor, read_pair_potential, save_pair_potential


def train(spec: Json, root: Path, where: Path) -> dict[str, Any]:
    """Fit, write pair.json into ``where``, and return the facts, named as those of the other engines.

    A linear fit has one optimum, wherever it starts. So the members of an ensemble differ by what they are trained on:
    each but the main one (0) on a training set of its own, drawn from the training set with replacement by its seed.
    ``start`` only says what the errors before were.

    Raises:
        InputError: the data cannot be used.
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
    basis = PairBasis(float(spec["min_dist"]), float(spec["max_dist"]), int(spec["radial_basis_size"]))
    member = int(spec.get("member", 0))
    times = resampled(len(pairs), int(spec["seed"])) if member else [1] * len(pairs)
    drawn = sum(count > 0 for count in times)
    of = f", member {member}: {drawn} of them, some more than once" if member else ""
    print(f"fitting pair functions to {len(pairs)} configurations{of}", flush=True)
    save_pair_potential(where / MODEL.file, fit(pairs, times, species, basis, weights), species)
    trained = MODEL.open(where / MODEL.file, species)
    found = differences(trained, pairs, species)
    print(f"training set: {in_words(errors_of(found))}", flush=True)
    kinds = len(species)
    facts: dict[str, Any] = {
        "member": member,
        "configurations": len(pairs),
        "drawn": drawn,
        "loss": loss_of(found, weights),
        "iterations": 0,
        "stopped": False,
        "parameters": kinds * (kinds + 1) // 2 * basis.size + kinds,
        "train": errors_of(found),
        "holdout": None,
        "holdout_before": None,
        "worse": False,
    }
    if holdout:
        after = differences(trained, holdout, species)
        facts["holdout"] = errors_of(after)
        print(f"holdout: {in_words(facts['holdout'])}", flush=True)
        if spec.get("start"):
            old = PairPredictor(read_pair_potential(root / spec["start"], species))
            before = differences(old, holdout, species)
            facts["holdout_before"] = errors_of(before)
            facts["worse"] = loss_of(after, weights) > loss_of(before, weights)
            print(f"holdout before: {in_words(facts['holdout_before'])}", flush=True)
    return facts | {"seconds": round(host.monotonic() - begin, 3)}
