"""Every key of pilot.toml with its type, default and meaning, read off the models of :mod:`pilot.config`."""

import json
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from pilot.config import Config, table_of
from pilot.durations import parse_duration, say_duration

#: For keys that are required or have no default: what one might write.
_EXAMPLES: dict[str, Any] = {
    "campaign.name": "my-campaign",
    "campaign.species": ["Li"],
    "crystal.a": 3.45,
    "crystal.c": 5.0,
    "crystal.formula": "NaCl",
    "crystal.composition": {"Ag": 0.5, "Pd": 0.5},
    "crystal.file": "crystal.cif",
    "initial.kpoints": [4, 4, 2],
    "stages.repeat": [1, 1, 2],
    "stages.structures": "pool.extxyz",
    "stages.temperatures": [100, 500],
    "stages.lattice_parameters": [3.4, 3.5],
    "stages.steps": 10000,
    "stages.kpoints": [4, 4, 2],
    "stages.fidelity": "fine",
    "stages.ensemble": "nvt",
    "stages.coupling": "aniso",
    "stages.timestep_fs": 2.0,
    "stages.rattle": 0.05,
    "stages.gamma_save": 3.0,
    "stages.gamma_break": 10.0,
    "stages.max_saved": 100,
    "stages.clean_sweeps": 2,
    "stages.grade": "neighbourhood",
    "explore.melt.temperature": 1500.0,
    "explore.melt.lattice_parameter": 3.6,
    "select.limit": 50,
    "select.min_distance": 1.7,
    "label.qe.pseudo_dir": "pseudo",
    "label.qe.pseudopotentials": {"Li": "Li.UPF"},
    "label.qe.ecutwfc": 40.0,
    "label.qe.ecutrho": 320.0,
    "label.vasp.potcar_dir": "/path/to/potpaw_PBE",
    "label.vasp.encut": 300.0,
    "label.ase.calculator": "ase.calculators.emt.EMT",
    "train.min_dist": 1.6,
    "train.mlip.template": "08.almtp",
    "converge.force_error": 0.05,
    "converge.energy_error": 0.002,
    "converge.lattice_parameter": 0.01,
    "converge.bulk_modulus": 1.0,
    "converge.curve": 0.002,
    "converge.elastic": 5.0,
    "study.levels": [6, 8, 10, 12],
    **{f"resources.{kind}.mpi": "openmpi4" for kind in ("explore", "select", "label", "train", "evaluate")},
    "run.cores": 8,
    "run.memory_mb": 16000,
    "run.walltime": "24 h",
}
#: Keys that have no default and may be left out only in some cases.
_UNLESS = {
    "crystal.a": "unless `file` is given",
    "stages.repeat": "unless `structures` is given",
    "stages.temperatures": 'unless `mode` is "relax"',
}
_WORDS: dict[Any, str] = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "any value"}
_BOUNDS = {"ge": "≥ {}", "gt": "> {}", "le": "≤ {}", "lt": "< {}"}


@dataclass(frozen=True, slots=True)
class Key:
    """One key.

    Attributes:
        takes: its type and bounds in words.
        default: as TOML; empty if it has none.
        example: as TOML; what to write where there is no default.
        unless: when a required key may be left out.
    """

    name: str
    takes: str
    meaning: str
    required: bool
    default: str
    example: str
    unless: str = ""


@dataclass(frozen=True, slots=True)
class TableOfKeys:
    """One table: its heading as TOML, and what it is about."""

    heading: str
    about: str
    keys: list[Key] = field(default_factory=list)


def all_tables() -> list[TableOfKeys]:
    """All tables of pilot.toml in their order."""
    return list(_tables(Config, None, "", many=False))[1:]


def _tables(model: type[BaseModel], defaults: BaseModel | None, path: str, *, many: bool) -> Iterator[TableOfKeys]:
    heading = f"[[{path}]]" if many else f"[{path}]"
    inner: list[tuple[str, FieldInfo, type[BaseModel]]] = []
    found = TableOfKeys(heading, " ".join((model.__doc__ or "").split()))
    for name, info in model.model_fields.items():
        table = table_of(info)
        if table is None:
            found.keys.append(_key(f"{path}.{name}", info, defaults))
        else:
            inner.append((name, info, table))
    # a table with nothing but tables needs no heading of its own
    if found.keys or not path:
        yield found
    for name, info, table in inner:
        below = info.default if isinstance(info.default, BaseModel) else None
        yield from _tables(table, below, f"{path}.{name}".lstrip("."), many=get_origin(info.annotation) is list)


def _key(path: str, info: FieldInfo, defaults: BaseModel | None) -> Key:
    name = path.rpartition(".")[2]
    value = info.default if defaults is None else getattr(defaults, name)
    kind, bounds = _kind(info.annotation, list(info.metadata))
    takes = ", ".join([kind, *dict.fromkeys(bounds)])
    required = value is PydanticUndefined or path in _UNLESS
    default = "" if required or value is None else toml(value, time=kind == _TIME)
    example = toml(_EXAMPLES[path]) if path in _EXAMPLES else default or _some(kind)
    return Key(name, takes, info.description or "", required, default, example, _UNLESS.get(path, ""))


_TIME = 'time ("10 min", or seconds)'


def _some(kind: str) -> str:
    """A value of a kind, where nobody has thought of a better one."""
    return {"whole number": "1", "number": "1.0", _TIME: '"10 min"'}.get(kind, '"…"')


def _kind(annotation: Any, metadata: Sequence[Any]) -> tuple[str, list[str]]:
    """The type in words, and its bounds."""
    bounds = [bound for item in metadata for bound in _bounds(item)]
    if any(type(item).__name__ == "BeforeValidator" for item in metadata):
        return _TIME, []
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *more = get_args(annotation)
        return _kind(inner, [*metadata, *more])
    if origin in {Union, types.UnionType}:
        (inner,) = [kind for kind in get_args(annotation) if kind is not type(None)]
        return _kind(inner, metadata)
    if origin is Literal:
        return "one of " + ", ".join(toml(value) for value in get_args(annotation)), []
    if origin is list:
        inner, inner_bounds = _kind(get_args(annotation)[0], [])
        return " ".join(["list of", *_plural(inner, metadata)]), [f"each {bound}" for bound in inner_bounds]
    if origin is dict:
        return "table", []
    return _WORDS.get(annotation, str(annotation)), bounds


def _plural(word: str, metadata: Sequence[Any]) -> list[str]:
    lengths = {name: value for item in metadata for name, value in _lengths(item)}
    least, most = lengths.get("min_length"), lengths.get("max_length")
    words = word if word == "text" or word.startswith("one of") else f"{word}s"
    if least is not None and least == most:
        return [str(least), words]
    return [words] if least is None else [words + ",", f"at least {least}"]


def _lengths(item: Any) -> list[tuple[str, int]]:
    inner = item.metadata if isinstance(item, FieldInfo) else [item]
    names = ("min_length", "max_length")
    return [(name, getattr(one, name)) for one in inner for name in names if getattr(one, name, None) is not None]


def _bounds(item: Any) -> list[str]:
    inner = item.metadata if isinstance(item, FieldInfo) else [item]
    return [
        words.format(f"{getattr(one, name):g}")
        for one in inner
        for name, words in _BOUNDS.items()
        if getattr(one, name, None) is not None
    ]


def toml(value: Any, *, time: bool = False) -> str:
    """A value as TOML; a time as people write it where that says the same."""
    if time:
        text = say_duration(value)
        return json.dumps(text) if text.count(" ") == 1 and parse_duration(text) == value else toml(value)
    if isinstance(value, dict):
        pairs = ", ".join(f"{name} = {toml(entry)}" for name, entry in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml(entry) for entry in value)}]"
    return json.dumps(value, ensure_ascii=False)
