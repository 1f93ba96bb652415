"""Errors of a potential on sets of labelled configurations, and how errors go with the extrapolation grade."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from db.errors import InputError
from db.records import Label, Structure
from tasks.model import Predictor
from tasks.mtp.data_sets import Sample, read_samples
from tasks.mtp.errors_of_fit import Difference, differences, errors_of, in_words

Floats = npt.NDArray[np.float64]

#: γ of the whole configuration, as MLIP writes it
_GRADE = "MV_grade"
_ID = "structure"
#: with fewer there is nothing to correlate
_FEWEST = 3


@dataclass(frozen=True, slots=True)
class Seen:
    """A labelled configuration and what the potential makes of it.

    Attributes:
        structure: the configuration.
        label: what the reference says.
        difference: the prediction minus that.
        gamma: its extrapolation grade when it was found; nan where none was recorded.
        id: of the structure in the database; where the file does not say, its content hash.
    """

    structure: Structure
    label: Label
    difference: Difference
    gamma: float
    id: str


def look_at(
    predictor: Predictor,
    path: Path,
    symbols: Sequence[str],
    species: Sequence[int],
    *,
    most_atoms: float = math.inf,
) -> list[Seen]:
    """Predict the configurations of a file.

    Args:
        predictor: the potential.
        path: of the file.
        symbols: of its types.
        species: their atomic numbers.
        most_atoms: of a set with more only some are looked at, always the same ones, evenly over the file.

    Raises:
        InputError: the file cannot be used, or a configuration is not labelled, or is not one of matter.
    """
    samples = _thinned(read_samples(path, symbols), most_atoms)
    labels = [_label(sample, number, path) for number, sample in enumerate(samples, start=1)]
    if not samples:
        raise InputError("there is no configuration in this file", where=str(path))
    pairs = [(sample.structure, label) for sample, label in zip(samples, labels, strict=True)]
    found = differences(predictor, pairs, species)
    return [
        Seen(structure, label, difference, _grade(sample), sample.features.get(_ID) or structure.content_hash())
        for sample, (structure, label), difference in zip(samples, pairs, found, strict=True)
    ]


def _thinned(samples: list[Sample], most_atoms: float) -> list[Sample]:
    step = math.ceil(sum(len(sample.structure.numbers) for sample in samples) / most_atoms) or 1
    return samples[::step]


def _label(sample: Sample, number: int, path: Path) -> Label:
    if sample.label is None:
        raise InputError(
            f"configuration {number} has no energy or no forces",
            where=str(path),
            next_step="label it, or take it out of the file",
        )
    return sample.label


def _grade(sample: Sample) -> float:
    try:
        return float(sample.features.get(_GRADE, "nan"))
    except ValueError:
        return math.nan


def errors_on(name: str, seen: Sequence[Seen]) -> dict[str, Any] | None:
    """The error measures of a set, said in the log; see :func:`tasks.mtp.errors_of_fit.errors_of`."""
    errors = errors_of([one.difference for one in seen])
    if errors is not None:
        print(f"{name}: {in_words(errors)}", flush=True)
    return errors


def correlation(seen: Sequence[Seen]) -> dict[str, float | int | None] | None:
    """How ε_F and ε_E go with γ over a sample (question 1 of the Pb report); None where no γ is known.

    - ``n``: configurations with a γ.
    - ``spearman_eps_F``, ``spearman_eps_E``: Spearman's rank correlation.
    - ``pearson_log_eps_F``, ``pearson_log_eps_E``: Pearson's correlation of the logarithms.
    Each is None where it has no meaning: too few configurations, or all the same.
    """
    graded = [one for one in seen if math.isfinite(one.gamma)]
    if not graded:
        return None
    gamma = np.array([one.gamma for one in graded])
    found: dict[str, float | int | None] = {"n": len(graded)}
    for name, errors in (
        ("eps_F", np.array([one.difference.eps_f for one in graded])),
        ("eps_E", np.array([one.difference.eps_e for one in graded])),
    ):
        positive = (gamma > 0.0) & (errors > 0.0)
        found[f"spearman_{name}"] = _pearson(_ranks(gamma), _ranks(errors))
        found[f"pearson_log_{name}"] = _pearson(np.log(gamma[positive]), np.log(errors[positive]))
    return found


def _pearson(a: Floats, b: Floats) -> float | None:
    if len(a) < _FEWEST or np.ptp(a) == 0.0 or np.ptp(b) == 0.0:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def _ranks(values: Floats) -> Floats:
    """From 1; equal values share the mean of their ranks."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2.0)[places])
