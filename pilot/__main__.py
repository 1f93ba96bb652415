"""The command ``pilot``; also ``python -P -m pilot``."""

import sys
from importlib.util import find_spec
from pathlib import Path

_PACKAGES = ("db", "tasks", "pilot")


def misplaced() -> str:
    """What is wrong with where our three packages lie; empty when they lie side by side.

    ``db`` and ``tasks`` are common names: another package of that name, or a folder in the directory in which
    ``python -m pilot`` was typed, would be imported in place of ours. Looking costs no import.
    """
    house = Path(__file__).parent.parent
    for name in _PACKAGES:
        spec = find_spec(name)
        places = [] if spec is None else [Path(place) for place in spec.submodule_search_locations or ()]
        if places != [house / name]:
            found = ", ".join(str(place) for place in places) or "nothing, or a single file"
            return f"the package {name!r} is not ours: {house / name} was expected, {found} was found"
    return ""


def main() -> int:
    """Do what the command line asks; the exit code."""
    wrong = misplaced()
    if wrong:
        print(f"error: {wrong}", file=sys.stderr)
        print("next:  give pilot an environment of its own (python -m venv), and unset PYTHONPATH", file=sys.stderr)
        return 3
    # not imported before our packages are known to be ours; and `status` takes the short way
    from pilot.cli.quick import quick_status

    options = quick_status(sys.argv[1:])
    if options is not None:
        from pilot.cli.guard import guarded
        from pilot.cli.status_print import print_status

        return guarded(lambda: print_status(options))
    from pilot.cli.app import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
