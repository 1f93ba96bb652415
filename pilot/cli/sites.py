"""The sites that a batch script can be made for, and what is known of them.

A site is one file ``slurm_templates/NAME.toml``; what all scripts share is ``slurm_templates/frame.sh``. A new file is
a new site: nothing else need be told.
"""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from rich.text import Text

from db.errors import InputError
from pilot.cli.output import FAINT, show
from pilot.cli.tables import grid

_PACKAGE = "slurm_templates"


@dataclass(frozen=True, slots=True)
class Site:
    """A site, or one partition of it.

    Attributes:
        cores: of a node; None: not known. So are empty texts.
        nodes: how many one job may have.
        time: the longest wall time.
        crontab: "no", "scrontab" (SLURM's own) or "?".
        unverified: what nobody has checked.
        limits, header, prepare: parts of the script: comments; orders to SLURM; modules.
        run: keys that the site wants in [run] of pilot.toml.
    """

    name: str
    title: str
    limits: str
    header: str
    prepare: str
    cores: int | None = None
    gpus: int = 0
    memory: str = ""
    partition: str = ""
    nodes: str = ""
    time: str = ""
    crontab: str = "?"
    unverified: tuple[str, ...] = ()
    run: Mapping[str, Any] = field(default_factory=dict)


def sites() -> dict[str, Site]:
    """All sites by name; "generic" is the last."""
    found = {}
    for path in files(_PACKAGE).iterdir():
        name, _, ending = path.name.rpartition(".")
        if ending == "toml":
            data = tomllib.loads(path.read_text(encoding="utf-8"))
            found[name] = Site(**data | {"name": name, "unverified": tuple(data.get("unverified", ()))})
    return dict(sorted(found.items(), key=lambda item: (item[0] == "generic", item[0])))


def find_site(name: str) -> Site:
    """The site of that name.

    Raises:
        InputError: there is none.
    """
    known = sites()
    if name not in known:
        near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.3)
        near = near or [other for other in known if name and other.startswith(name.lower()[:3])]
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InputError(
            f"there is no site {name!r}{hint}",
            next_step="`pilot init --list-sites`; `--site generic` for any other SLURM cluster",
        )
    return known[name]


def print_sites() -> None:
    """Print the sites with their limits."""
    right: dict[str, Any] = {"justify": "right", "no_wrap": True}
    whole: dict[str, Any] = {"no_wrap": True}
    table = grid(
        site={"style": "bold", **whole}, cores=right, GPUs=right, memory=right, **{"partition, QOS": whole},
        nodes=right, time=right, MPI=whole, crontab=whole,
    )  # fmt: skip
    for site in sites().values():
        table.add_row(
            site.name,
            *(value or "?" for value in (str(site.cores or ""), str(site.gpus) if site.cores else "", site.memory)),
            *(value or "?" for value in (site.partition, site.nodes, site.time)),
            str(site.run.get("mpi", "auto")),
            site.crontab,
        )
    note = (
        "cores, GPUs, memory: of a node; nodes, time: of one job at most; MPI: run.mpi of pilot.toml; ?: not verified\n"
        "From the sites' documentation, 2024–2026; each pilot.sh tells more. `generic` is for all other clusters."
    )
    show(table, Text(f"\n{note}", style=FAINT))


def frame() -> str:
    """The text that all scripts share, with @FIELDS@."""
    return files(_PACKAGE).joinpath("frame.sh").read_text(encoding="utf-8")
