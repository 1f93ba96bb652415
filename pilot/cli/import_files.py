"""What to read of what was named for `pilot import`: files as they are, folders searched, one file of a run."""

import fnmatch
import itertools
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from db.errors import InputError, MissingError
from tasks.formats.labelled_files import kind_of

#: of a run, the file with the most digits and all steps; those behind it tell the same once more
_INSTEAD = {"outcar": "vasprun", "pw.xml": "pw.out"}
_SKIPPED_IN_FOLDERS = frozenset({"", "json"})


def files_of(named: Sequence[Path], patterns: Sequence[str]) -> tuple[list[Path], int]:
    """The files to read, and how many others of the same runs are left out.

    Args:
        patterns: only these names in folders; without any, every file that is known by its content.

    Raises:
        MissingError: a file or folder is not there.
        InputError: a folder has nothing that can be read, or cannot be searched.
    """
    chosen: dict[Path, None] = {}
    left_out = 0
    for path in named:
        if path.is_dir():
            found, again = _searched(path, patterns)
            chosen |= dict.fromkeys(found)
            left_out += again
        elif path.exists():
            chosen[path] = None
        else:
            raise MissingError("no such file", where=str(path), next_step="check the name")
    return list(chosen), left_out


def _searched(folder: Path, patterns: Sequence[str]) -> tuple[list[Path], int]:
    by_kind: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(_walk(folder)):
        if patterns and not any(fnmatch.fnmatch(path.name, pattern) for pattern in patterns):
            continue
        kind = _kind(path)
        if patterns or kind not in _SKIPPED_IN_FOLDERS:
            by_kind[kind].append(path)
    if not by_kind:
        named = f" of the names {', '.join(patterns)}" if patterns else ""
        raise InputError(
            f"the folder has no file{named} that can be read",
            where=str(folder),
            next_step="name the files, or others with --glob 'PATTERN'",
        )
    left_out: set[Path] = set()
    for kind, better in _INSTEAD.items() if not patterns else ():
        places = {path.parent for path in by_kind[better]}
        # the XML of pw.x lies in outdir, at most two folders below its output
        left_out |= {path for path in by_kind[kind] if places & {*itertools.islice(path.parents, 3)}}
    return sorted(path for paths in by_kind.values() for path in paths if path not in left_out), len(left_out)


def _walk(folder: Path) -> Iterator[Path]:
    """All files at any depth; a folder in it that cannot be searched is not passed over in silence."""

    def refuse(error: OSError) -> None:
        raise InputError(
            f"cannot search the folder: {error.strerror}",
            where=str(error.filename),
            next_step="mend its permissions, or name the files and folders that can be read",
        ) from error

    for place, _, names in os.walk(folder, onerror=refuse):
        for path in (Path(place, name) for name in names):
            if path.is_file() and not path.name.startswith("."):
                yield path


def _kind(path: Path) -> str:
    try:
        return kind_of(path)
    except InputError:
        return ""
