"""What to change in the settings after a run of pw.x has failed. Pure.

The steps are those of its user's guide ("Self-consistency is slow or does not converge": reduce mixing_beta to
0.3–0.1 or smaller, choose a mixing_mode) and of its description of the input (diagonalization: "cg … slower but uses
less memory and is (a little bit) more robust"; mixing_ndim: more steps remembered).
"""

import re
from typing import Any

from db.records import Json
from db.states import Verdict
from tasks.engines.qe_settings import table

_LEAST_MIXING = 0.1
_MORE_STEPS_MIXED = 12
#: Davidson's method has lost itself: conjugate gradients need no such matrix
_OF_DIAGONALISATION = re.compile(
    r"problems computing cholesky|S matrix not positive definite|too many bands are not converged"
    r"|eigenvalues not converged|eigenvectors failed to converge|charge is wrong"
    r"|in routine +([cr]diaghg|[cr]egterg|c_bands|rotate_wfc|zhegv|dsygv)",
    re.IGNORECASE,
)
#: a metal was treated as an insulator: no other method mends that
_OF_SETTINGS = re.compile(r"smearing is needed", re.IGNORECASE)


def is_of_diagonalisation(reason: str) -> bool:
    """Whether pw.x complains of its diagonalisation, for which it has another method."""
    return bool(_OF_DIAGONALISATION.search(reason)) and not _OF_SETTINGS.search(reason)


def soften(spec: Json, verdict: Verdict, tries: int, reason: str) -> Json | None:
    """See :meth:`tasks.protocol.Engine.soften`.

    Not converged: first mix half as much, with twice the steps; then mix a tenth, remember more steps and
    diagonalise by conjugate gradients. Crashed in its diagonalisation: by conjugate gradients.
    """
    if verdict not in {Verdict.NOT_CONVERGED, Verdict.CRASHED}:
        return None
    try:
        settings, electrons = _apart(spec)
    except (LookupError, TypeError, ValueError, AttributeError):
        # whoever wrote such a spec is told so by another attempt
        return None
    if verdict is Verdict.NOT_CONVERGED and tries == 1:
        _mix_less(settings, electrons, spec)
    elif verdict is Verdict.NOT_CONVERGED and tries == 2:
        settings["mixing_beta"] = min(settings["mixing_beta"], _LEAST_MIXING)
        electrons["mixing_ndim"] = max(_MORE_STEPS_MIXED, electrons.get("mixing_ndim", 0))
        electrons["diagonalization"] = "cg"
    elif verdict is Verdict.CRASHED and is_of_diagonalisation(reason) and electrons.get("diagonalization") != "cg":
        electrons["diagonalization"] = "cg"
    else:
        return None
    given = {str(key).lower(): dict(value) for key, value in table(settings)["input"].items()}
    if given or electrons:
        settings["input"] = given | {"electrons": electrons}
    return {**spec, "settings": settings}


def _apart(spec: Json) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings, and of their table ``input`` the section ``electrons`` without what has a setting of its own.

    What stands in ``input`` would win over the settings.
    """
    settings = dict(spec["settings"])
    full = table(settings)
    electrons: dict[str, Any] = {}
    for section, keys in full["input"].items():
        if str(section).lower() == "electrons":
            electrons |= {str(key).lower(): value for key, value in keys.items()}
    settings["mixing_beta"] = float(electrons.pop("mixing_beta", full["mixing_beta"]))
    settings["electron_maxstep"] = int(electrons.pop("electron_maxstep", full["electron_maxstep"]))
    if "mixing_ndim" in electrons:
        electrons["mixing_ndim"] = int(electrons["mixing_ndim"])
    return settings, electrons


def _mix_less(settings: dict[str, Any], electrons: dict[str, Any], spec: Json) -> None:
    """Half, but not below a tenth.

    Where the structure has a surface (not periodic in all directions) the mixing is also screened locally
    (``local-TF``), which keeps charge from sloshing between matter and vacuum.
    """
    beta = settings["mixing_beta"]
    settings["mixing_beta"] = min(beta, max(0.5 * beta, _LEAST_MIXING))
    settings["electron_maxstep"] *= 2
    if not all(spec["structure"]["pbc"]):
        electrons.setdefault("mixing_mode", "local-TF")
