"""Error bars from an ensemble: what the same fit from other seeds gives instead."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import stdtrit

_PART = 0.95


def half_width(values: Sequence[float | None]) -> float | None:
    """Half the width of the 95 % confidence interval of the mean: t s/√n with Student's t of n − 1 degrees of freedom.

    Such intervals, of ensembles of five potentials, are in the papers on MLIP (Novikov et al., Mach. Learn.: Sci.
    Technol. 2, 025002 (2021), table 2; Podryabinkin et al., MLIP-3, arXiv:2304.13144, table I).

    Args:
        values: one for each member; None where it is not known: it does not count.

    Returns:
        In the unit of the values; None for fewer than two.
    """
    known = [value for value in values if value is not None and math.isfinite(value)]
    if len(known) < 2:
        return None
    t = float(stdtrit(len(known) - 1, (1.0 + _PART) / 2.0))
    return t * float(np.std(known, ddof=1)) / math.sqrt(len(known))


def gathered(members: Sequence[Mapping[str, float | None]]) -> dict[str, list[float | None]]:
    """For each quantity the list of its values, one for each member, None where a member has none."""
    names = list(dict.fromkeys(name for member in members for name in member))
    return {name: [member.get(name) for member in members] for name in names}
