"""What files say of their settings, beside what [label] of pilot.toml says."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from pilot.campaign.protocol import Protocol
from tasks.formats.frames import Telling

#: what decides little, or depends on the cell
_NOT_COMPARED = frozenset({"ediff", "kpoints", "functional"})
_SLACK = 1e-3


def say_of(telling: Telling) -> str:
    """In one line: "VASP vasp.6.3.0: encut 520, sigma 0.1"."""
    said = ", ".join(f"{key} {_shown(value)}" for key, value in telling.settings.items())
    return f"{telling.engine.upper()} {telling.version}: {said}".rstrip(": ")


def contradictions(protocol: Protocol, table: Mapping[str, Any], telling: Telling) -> list[str]:
    """Where a file says otherwise than the label settings ``table``; what it does not say is not a contradiction."""
    if not telling.engine:
        return []
    if telling.engine != protocol.label.engine:
        return [f"it is of {telling.engine}, and [label] engine is {protocol.label.engine}"]
    ours = _with_defaults(protocol, table)
    found: list[str] = []
    for key, theirs in telling.settings.items():
        if key in _NOT_COMPARED or ours.get(key) is None:
            continue
        if isinstance(theirs, dict):
            found += _of_species(protocol.campaign.species, f"{protocol.label.engine}.{key}", theirs, ours[key])
        elif not math.isclose(float(theirs), float(ours[key]), rel_tol=_SLACK, abs_tol=1e-9):
            found.append(f"{key} is {_shown(theirs)}, and label.{protocol.label.engine}.{key} is {_shown(ours[key])}")
    return found


def _with_defaults(protocol: Protocol, table: Mapping[str, Any]) -> dict[str, Any]:
    """The table with what the engines put where it says nothing."""
    ours = dict(table)
    if protocol.label.engine == "qe":
        ours["ecutrho"] = ours.get("ecutrho") or 4 * ours["ecutwfc"]
        if ours.get("smearing") == "fixed":
            ours["degauss"] = None
    if protocol.label.engine == "vasp":
        ours["potcars"] = {symbol: symbol for symbol in protocol.campaign.species} | ours.get("potcars", {})
    return ours


def _of_species(species: Iterable[str], key: str, theirs: Mapping[str, str], ours: Mapping[str, str]) -> list[str]:
    return [
        f"{symbol} has {theirs[symbol]}, and label.{key}.{symbol} is {ours[symbol]}"
        for symbol in species
        if symbol in theirs and symbol in ours and theirs[symbol] != ours[symbol]
    ]


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{key}={inner}" for key, inner in value.items())
    if isinstance(value, list):
        return "×".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
