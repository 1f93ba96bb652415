"""Making a campaign folder from nothing or from an example."""

import difflib
import shlex
import shutil
import tomllib
from pathlib import Path

import pilot
from db.errors import InputError, StateError
from db.files import storage_error, write_whole
from pilot.cli.config_text import config_text
from pilot.cli.output import say
from pilot.folder import Folder


def found(where: Path, example: str | None) -> None:
    """Make the folder and say what to type next.

    Raises:
        StateError: there is a pilot.toml already, or a file of the example.
        InputError: there is no such example.
        StorageError: the folder cannot be written.
    """
    folder = Folder(where)
    if folder.config.exists():
        raise StateError(
            "this is a campaign folder already: its pilot.toml is left as it is",
            where=str(folder.config),
            next_step="`pilot status` shows how it stands; `pilot init OTHER_FOLDER` makes another",
        )
    source = None if example is None else _example(example)
    try:
        folder.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, folder.root) from error
    if source is None:
        write_whole(folder.config, config_text())
    else:
        _copy(source, folder.root)
    _say_next(where, folder, from_example=source is not None)


def _copy(source: Path, target: Path) -> None:
    files = sorted(path.relative_to(source) for path in source.rglob("*") if path.is_file() and _belongs(path))
    taken = [str(name) for name in files if (target / name).exists()]
    if taken:
        raise StateError(
            f"there are files that the example has too: {', '.join(taken)}",
            where=str(target),
            next_step="choose an empty folder: nothing was written",
        )
    # pilot.toml last: a folder with one is whole
    for name in sorted(files, key=lambda name: name.name == "pilot.toml"):
        try:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, target / name)
        except OSError as error:
            raise storage_error(error, target / name) from error


def _belongs(path: Path) -> bool:
    return path.suffix != ".pyc" and path.name != "__init__.py"


def _say_next(where: Path, folder: Folder, *, from_example: bool) -> None:
    say(f"made {folder.config}")
    enter = "" if where.resolve() == Path.cwd() else f"cd {shlex.quote(str(where))} && "
    if from_example:
        say(f"next:  {enter}pilot doctor")
        if (folder.root / "README.md").exists():
            say("       less README.md      (it says what is to be done before the first run)")
        say("       pilot run")
    else:
        say(f"next:  {enter}pilot add -- echo hello      (or fill in pilot.toml for a training campaign)")
        say("       pilot run")


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
