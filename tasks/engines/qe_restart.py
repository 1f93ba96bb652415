"""Going on where an earlier attempt was stopped: which scratch folder is worth keeping, and who takes it over.

Tried with QE 6.7. After a clean stop (the EXIT file, or its own time limit) pw.x leaves its wave functions, its
density, the state of the mixing and the numbers of the SCF loop, also with ``disk_io='none'``, and goes on in the
middle of a loop over k-points. They are one set of files for each rank: with another number of ranks or pools it
stumbles (davcio), as it does over a damaged file. So beside them lies a key to the task that they are of, and a
scratch folder without the right key is not used.

After a kill there is nothing of use. And what has run for a few minutes only is better started over: a run that went on
differs in the last digits of its forces, and a campaign would no longer be the same from the same seeds.
"""

import contextlib
import hashlib
import json
import os
import shutil
from pathlib import Path

from db.errors import StorageError
from db.files import storage_error, write_whole
from tasks.engines.qe_input import PREFIX, SCRATCH
from tasks.protocol import Work
from tasks.scratch import drop

EXIT = f"{PREFIX}.EXIT"
_KEY = "pilot.key"
#: so long a run must have been under way (s) for the next one to go on from it; ``tasks.registry.RESUMING`` has it too
WORTH_S = 300.0


def keep(work: Work) -> bool:
    """Whether the scratch folder of a run that has stopped cleanly can be gone on from; then it has its key."""
    scratch = work.directory / SCRATCH
    if not _has_a_state(scratch, work.resources.ranks):
        return False
    try:
        if not _fits(scratch, work):
            write_whole(scratch / _KEY, _key(work), durable=False)
    except StorageError:
        return False
    return True


def take_over(work: Work) -> bool:
    """Move the scratch folder of ``work.previous`` here if it is of use, else remove it; whether it is here now.

    Raises:
        StorageError: the disk refuses.
    """
    if work.previous is None:
        return False
    old, new = work.previous / SCRATCH, work.directory / SCRATCH
    if not (_fits(old, work) and _has_a_state(old, work.resources.ranks)):
        drop(work.previous)
        return False
    try:
        # a stale one would end it at once
        for name in (EXIT, _KEY):
            with contextlib.suppress(FileNotFoundError):
                (old / name).unlink()
        shutil.move(old, new)
    except (OSError, shutil.Error) as error:
        drop(work.previous)
        drop(work.directory)
        known = error if isinstance(error, OSError) and error.errno is not None else OSError(str(error))
        raise storage_error(known, new) from error
    return True


def _has_a_state(scratch: Path, ranks: int) -> bool:
    """All that a clean stop leaves, and of all ranks."""
    density = ("charge-density.dat", "charge-density.hdf5")
    try:
        names = set(os.listdir(scratch))
        saved = set(os.listdir(scratch / f"{PREFIX}.save"))
        waves = sum(name.startswith(f"{PREFIX}.wfc") and (scratch / name).stat().st_size > 0 for name in names)
    except OSError:
        return False
    return f"{PREFIX}.restart_scf" in names and waves == ranks and not saved.isdisjoint(density)


def _fits(scratch: Path, work: Work) -> bool:
    try:
        return (scratch / _KEY).read_text() == _key(work)
    except (OSError, ValueError):
        return False


def _key(work: Work) -> str:
    """The same for the same structure, settings and ranks."""
    named = {name: work.spec.get(name) for name in ("structure", "species", "kpoints", "settings")}
    of = [named, work.resources.ranks, work.resources.nodes]
    return hashlib.sha256(json.dumps(of, sort_keys=True, default=str).encode()).hexdigest()
