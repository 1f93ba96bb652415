"""What a potential must show before its stage has converged, beside clean sweeps. Pure functions of recorded facts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from db.records import Json
from pilot.train_tables import ConvergeTable

#: asks for nothing beside clean sweeps
NOTHING_MORE = ConvergeTable(flat=0.0)


@dataclass(frozen=True, slots=True)
class Shown:
    """What the potential that a sweep used has shown when it was evaluated. None: not known.

    Attributes:
        force_error: ε_F on the holdout, eV/Å.
        energy_error: ε_E on the holdout, eV/atom.
        lattice_parameter: the potential's and the reference's, apart, Å; the sign does not matter, here and below.
        bulk_modulus: the same of the bulk modulus, GPa.
        curve: largest difference of the two energy-volume curves, each from its own minimum, eV/atom.
        elastic: largest difference of an elastic constant, GPa.
        holdout: configurations of the holdout on which the errors were measured.
    """

    force_error: float | None = None
    energy_error: float | None = None
    lattice_parameter: float | None = None
    bulk_modulus: float | None = None
    curve: float | None = None
    elastic: float | None = None
    holdout: int | None = None


NOTHING_SHOWN = Shown()


def shown_by(evaluation: Json) -> Shown:
    """What the facts of an evaluation say; those of an earlier version of pilot say less."""
    holdout = evaluation.get("holdout") or {}
    return Shown(
        force_error=holdout.get("eps_F"),
        energy_error=holdout.get("eps_E_per_atom"),
        lattice_parameter=_apart(evaluation, "lattice_parameter"),
        # fitted to the same points; else, in facts of an earlier version, each its own way
        bulk_modulus=_apart(evaluation, "bulk_modulus", "bulk_modulus_at_reference"),
        curve=evaluation.get("curve_difference"),
        elastic=evaluation.get("elastic_difference"),
        holdout=holdout.get("n"),
    )


def _apart(evaluation: Json, quantity: str, rather: str = "") -> float | None:
    mine, reference = evaluation.get(rather, evaluation.get(quantity)), evaluation.get(f"{quantity}_dft")
    return None if mine is None or reference is None else float(mine - reference)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was asked for.

    Attributes:
        name: of its key in [converge].
        passed: whether it holds; what is not known does not hold.
        words: for people, with the numbers.
    """

    name: str
    passed: bool
    words: str


#: key of [converge] → what it is called, its unit, and how many of those units make the unit of the record
_TOLERANCES = {
    "force_error": ("ε_F on the holdout", "meV/Å", 1000.0),
    "energy_error": ("ε_E on the holdout", "meV/atom", 1000.0),
    "lattice_parameter": ("lattice parameter off by", "Å", 1.0),
    "bulk_modulus": ("bulk modulus off by", "GPa", 1.0),
    "curve": ("energy-volume curve off by", "meV/atom", 1000.0),
    "elastic": ("elastic constants off by", "GPa", 1.0),
}


def checks_of(shown: Shown, force_errors: Sequence[float | None] | None, asked: ConvergeTable) -> tuple[Check, ...]:
    """All that is asked for beside clean sweeps, in the order of [converge].

    Args:
        shown: by the potential of the last sweep.
        force_errors: ε_F on the holdout, eV/Å, of each sweep's potential, oldest first, those of earlier stages among
            them; None: the campaign has no holdout, so that flatness is not asked.
        asked: the tolerances.
    """
    flat = () if force_errors is None or asked.flat == 0.0 else (_flat(force_errors, asked.flat),)
    return flat + tuple(
        _within(name, getattr(shown, name), tolerance)
        for name in _TOLERANCES
        if (tolerance := getattr(asked, name)) is not None
    )


def _flat(force_errors: Sequence[float | None], tolerance: float) -> Check:
    """|ε_F(last) − ε_F(sweep before)| ≤ tolerance × the larger of the two."""
    if len(force_errors) < 2:
        return Check("flat", False, "ε_F not yet known to be flat: there are no two sweeps to compare on this holdout")
    before, last = force_errors[-2:]
    if before is None or last is None or not math.isfinite(before + last):
        return Check("flat", False, "ε_F not yet known to be flat: it is not known of the last two sweeps")
    if before == last:
        # the last bit of an error tells potentials apart: nothing was learned between the two
        return Check("flat", True, f"ε_F {1000.0 * last:.3g} meV/Å, flat: the potential of the sweep before")
    larger = max(before, last)
    change = abs(last - before) / larger if larger > 0.0 else 0.0
    passed = change <= tolerance
    part = _compared(100.0 * change, 100.0 * tolerance, "%", passed=passed)
    words = f"ε_F {1000.0 * before:.3g} → {1000.0 * last:.3g} meV/Å, {'flat' if passed else 'not flat'} ({part})"
    return Check("flat", passed, words)


def _within(name: str, value: float | None, tolerance: float) -> Check:
    what, unit, scale = _TOLERANCES[name]
    if value is None or not math.isfinite(value):
        return Check(name, False, f"{name.replace('_', ' ')} asked for but not known")
    passed = abs(value) <= tolerance
    return Check(name, passed, f"{what} {_compared(scale * abs(value), scale * tolerance, unit, passed=passed)}")


def _compared(value: float, limit: float, unit: str, *, passed: bool) -> str:
    """ "0.013 Å > 0.01 Å", with so many digits that the two look as different as they are."""
    for digits in (3, 6, 9):
        a, b = f"{value:.{digits}g}", f"{limit:.{digits}g}"
        if a != b or passed:
            break
    return f"{a} {unit} {'≤' if passed else '>'} {b} {unit}"
