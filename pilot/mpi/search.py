"""Looking for a launcher program: which of the mpiruns on the PATH is the one of *this* MPI."""

import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pilot import host


class Found(NamedTuple):
    """A program, its version, and how far behind on the PATH it is."""

    program: str
    version: str
    place: int


class Search:
    """Asks each program of some names on a PATH for its version, in the order of the PATH, once.

    The folder of our own environment comes last, wherever it is on the PATH: the MPI in it starts the pilot's own
    ranks and is nothing that the user has loaded for his programs.

    Args:
        names: of the program, the better first.
        version: matches what the program of this MPI, and no other, says to ``--version``; group 1 is the version.
        environ: of the tasks.
        without: a variable; if the program does not answer it is asked again without it.
    """

    def __init__(
        self, names: Sequence[str], version: re.Pattern[str], environ: Mapping[str, str], without: str = ""
    ) -> None:
        self._names = names
        self._version = version
        self._environ = environ
        self._tries = [environ]
        if without in environ:
            self._tries.append({name: value for name, value in environ.items() if name != without})
        self._searched = False
        self._found: Found | None = None

    def found(self) -> Found | None:
        """The first one; looked for once."""
        if not self._searched:
            self._searched = True
            self._found = self._look()
        return self._found

    @property
    def program(self) -> str:
        """Its path, or its name if none was found."""
        found = self.found()
        return self._names[0] if found is None else found.program

    @property
    def version(self) -> str | None:
        """The version, or None if none was found."""
        found = self.found()
        return None if found is None else found.version

    @property
    def place(self) -> int:
        """How far behind on the PATH it is."""
        found = self.found()
        return sys.maxsize if found is None else found.place

    def _look(self) -> Found | None:
        for place, folder in enumerate(_folders(self._environ.get("PATH", os.defpath))):
            for name in self._names:
                program = shutil.which(name, path=folder)
                if program is None:
                    continue
                for environ in self._tries:
                    said = host.run([program, "--version"], timeout_s=20.0, env=environ)
                    match = self._version.search(said.stdout)
                    if match is not None:
                        return Found(program, match[1], place)
        return None


def _folders(path: str) -> list[str]:
    folders: dict[Path, str] = {}
    for folder in path.split(os.pathsep):
        if folder:
            # /bin is often /usr/bin: asked once is enough
            folders.setdefault(Path(folder).resolve(), folder)
    own = folders.pop((Path(sys.prefix) / "bin").resolve(), None)
    return [*folders.values(), *([] if own is None else [own])]


def of_the_site(program: str) -> str:
    """A program on our PATH, but not one that a wheel has put beside our Python: its mpirun is not the site's.

    Where there is none, the name as it is: who starts it hears so.
    """
    ours = str(Path(sys.executable).parent)
    places = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return shutil.which(program, path=os.pathsep.join(place for place in places if place != ours)) or program
