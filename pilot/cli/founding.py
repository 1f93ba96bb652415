"""Making a campaign folder from nothing or from an example, for this machine or for a site."""

import difflib
import shlex
import shutil
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pilot
from db.errors import InputError, StateError
from db.files import storage_error, write_whole
from pilot.cli.config_text import config_text
from pilot.cli.output import say
from pilot.cli.site_files import (
    PLACEHOLDER,
    SCRIPT,
    activation_of,
    check_account,
    missing_keys,
    script_text,
    with_run_keys,
)
from pilot.cli.sites import Site, find_site
from pilot.folder import Folder, keep_mode


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a new folder is to have; None: nothing of the kind.

    Attributes:
        example: of this example it is a copy.
        site: for this site it gets a batch script.
        account: the project that pays there.
    """

    example: str | None = None
    site: str | None = None
    account: str | None = None


def found(where: Path, wishes: Wishes) -> None:
    """Make the folder and say what to type next; a campaign folder that has no batch script can get one.

    Raises:
        StateError: there is a pilot.toml already, a pilot.sh, or a file of the example.
        InputError: there is no such example or site, or an account without a site.
        StorageError: the folder cannot be written.
    """
    folder, site = Folder(where), _site(wishes)
    if folder.config.exists():
        if site is None or wishes.example is not None:
            raise StateError(
                "this is a campaign folder already: its pilot.toml is left as it is",
                where=str(folder.config),
                next_step="`pilot status` shows how it stands; `pilot init OTHER_FOLDER` makes another",
            )
        _demand_free(folder.root, [Path(SCRIPT)])
        _write_script(folder, site, wishes.account)
        _say_next(where, folder, wishes, missing_keys(folder.config, site))
        return
    source = None if wishes.example is None else _example(wishes.example)
    files = [] if source is None else _files(source)
    _demand_free(folder.root, files if site is None else [*files, Path(SCRIPT)])
    try:
        folder.root.mkdir(parents=True, exist_ok=True)
        keep_mode(folder.root)
        if source is not None:
            _copy(source, folder.root, files)
    except OSError as error:
        raise storage_error(error, Path(error.filename or folder.root)) from error
    if site is not None:
        _write_script(folder, site, wishes.account)
    # pilot.toml last: a folder with one is whole
    text = config_text() if source is None else (source / "pilot.toml").read_text()
    write_whole(folder.config, text if site is None else with_run_keys(text, site))
    say(f"made {folder.config}")
    _say_next(where, folder, wishes)


def _site(wishes: Wishes) -> Site | None:
    if wishes.site is not None:
        site = find_site(wishes.site)
        check_account(wishes.account or PLACEHOLDER)
        return site
    if wishes.account is not None:
        raise InputError("an account is for a batch script", next_step="add --site NAME: `pilot init --list-sites`")
    return None


def _files(source: Path) -> list[Path]:
    return sorted(path.relative_to(source) for path in source.rglob("*") if path.is_file() and _belongs(path))


def _demand_free(target: Path, files: Sequence[Path]) -> None:
    taken = [str(name) for name in files if (target / name).exists()]
    if taken:
        raise StateError(
            f"there are files already that would be written: {', '.join(taken)}",
            where=str(target),
            next_step="move them away, or choose another folder: nothing was written",
        )


def _copy(source: Path, target: Path, files: Sequence[Path]) -> None:
    for name in files:
        if name.name != "pilot.toml":
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, target / name)


def _write_script(folder: Folder, site: Site, account: str | None) -> None:
    text = script_text(site, folder.root, account, activation_of(Path(sys.prefix)))
    write_whole(folder.root / SCRIPT, text)
    say(f"made {folder.root / SCRIPT}")


def _belongs(path: Path) -> bool:
    return path.suffix != ".pyc" and path.name != "__init__.py"


def _say_next(where: Path, folder: Folder, wishes: Wishes, keys: Sequence[str] = ()) -> None:
    """What to type now; ``keys`` of [run] are still to be written by hand."""
    for key in keys:
        say(f"write into [run] of pilot.toml, which is left as it is:  {key}")
    site = wishes.site is not None
    account = "" if wishes.account else "account, "
    steps = [f"edit {SCRIPT}      ({account}nodes, time, modules; what nobody has verified is named there)"] * site
    if wishes.example is not None and (folder.root / "README.md").exists():
        steps.append("less README.md      (it says what is to be done before the first run)")
    if wishes.example is None and not site:
        steps.append("pilot add -- echo hello      (or fill in pilot.toml for a training campaign)")
    else:
        steps.append("pilot doctor")
    steps.append("pilot submit --dry-run      (then without --dry-run)" if site else "pilot run")
    if where.resolve() != Path.cwd():
        # a folder called "-x" would be taken for an option
        enter = f"cd {shlex.quote(str(where) if not str(where).startswith('-') else f'./{where}')}"
        steps = [enter, *steps] if site else [f"{enter} && {steps[0]}", *steps[1:]]
    for number, step in enumerate(steps):
        say(f"{'       ' if number else 'next:  '}{step}")


def examples() -> dict[str, Path]:
    """The examples by name: of the checkout, or those that were installed."""
    package = Path(pilot.__file__).parent
    for place in (package / "examples", package.parent / "examples"):
        found = {path.parent.name: path.parent for path in sorted(place.glob("*/pilot.toml"))}
        if found:
            return found
    return {}


def _example(name: str) -> Path:
    known = examples()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.3)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InputError(f"there is no example {name!r}{hint}", next_step="`pilot init --list-examples`")
    return known[name]


def print_examples() -> None:
    """Print the examples, each with the first comment line of its pilot.toml."""
    for name, path in examples().items():
        text = (path / "pilot.toml").read_text()
        first = next((line.strip("# ") for line in text.splitlines() if line.startswith("#")), "")
        title = first or tomllib.loads(text).get("campaign", {}).get("name", "")
        say(f"{name}: {title}")
    if not examples():
        say("there are none here")
