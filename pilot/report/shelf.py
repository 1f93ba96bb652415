"""Files that successful attempts have left: in their folders, or in the archives into which they were packed."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from db.errors import PilotError
from db.records import Attempt
from pilot.cli.attempt_files import files_of
from pilot.folder import Folder
from pilot.packing.archive import BROKEN, Archive
from pilot.report.records import Done

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_OPEN = 4


class Shelf:
    """Reads them; an archive that was opened stays open for the next files of it."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._archives: dict[str, Archive | None] = {}

    def __enter__(self) -> "Shelf":
        return self

    def __exit__(self, *_: object) -> None:
        for archive in self._archives.values():
            if archive is not None:
                archive.__exit__()
        self._archives.clear()

    def read(self, done: Done, file: str) -> bytes | None:
        """The content of a file; None if it is gone or cannot be read."""
        try:
            return (self._folder.root / done.directory / file).read_bytes()
        except OSError:
            pass
        archive = self._archive(done.archive) if done.archive else None
        try:
            if archive is not None:
                with archive.open(Path(done.directory).name, file) as member:
                    return member.read()
            with files_of(self._folder, _attempt(done)).open(file) as found:
                return found.read()
        except (KeyError, PilotError, *BROKEN):
            return None

    def gamma(self, done: Done) -> tuple[Sequence[float], Sequence[int]] | None:
        """The histogram of γ of an exploration: the edges of the bins, and the steps in each."""
        try:
            found = json.loads(self.read(done, "gamma.json") or b"")
            edges, counts = [float(x) for x in found["edges"]], [int(x) for x in found["counts"]]
        except (ValueError, TypeError, LookupError):
            return None
        return (edges, counts) if len(edges) == len(counts) + 1 else None

    def arrays(self, done: Done, file: str) -> "dict[str, npt.NDArray[np.float64]]":
        """The numerical arrays of an .npz; none of them if it is not there."""
        import numpy as np

        content = self.read(done, file)
        if content is None:
            return {}
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as found:
                arrays: dict[str, Any] = {name: found[name] for name in found.files}
        except BROKEN:
            return {}
        return {name: array.astype(np.float64) for name, array in arrays.items() if array.dtype.kind in "fiub"}

    def _archive(self, name: str) -> Archive | None:
        if name not in self._archives:
            while len(self._archives) >= _OPEN:
                oldest = self._archives.pop(next(iter(self._archives)))
                if oldest is not None:
                    oldest.__exit__()
            try:
                self._archives[name] = Archive(self._folder.root / name)
            except BROKEN:
                self._archives[name] = None
        return self._archives[name]


def _attempt(done: Done) -> Attempt:
    """As others know it, as far as its files are concerned."""
    return Attempt(
        id=done.id,
        task_id=0,
        pilot_id=0,
        number=1,
        node="",
        cores=(),
        gpus=(),
        directory=done.directory,
        started_at=0.0,
        ended_at=0.0,
        archive=done.archive,
    )
