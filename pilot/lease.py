"""The lease: at most one process writes in a campaign folder.

The file is made by a link, which fails where there is one already, and names its holder. It is taken over only
from a holder that is known to be gone: on this machine by its process, elsewhere never by guessing. A file lock
helps two starts on one machine to take turns but is not what we trust; nor is it needed that it works. Behind all
this, every transaction demands that the lease is still ours, and checks the epoch in the database
(:mod:`db.engine`).

Who ends in order leaves the lease behind under another name. If that is not there, the one before died, or was put
out by force and may only be frozen: then the database is moved to a new file (:mod:`db.takeover`).
"""

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from db.errors import HeldError, LostLeaseError, StorageError
from db.files import storage_error, sync_folder, write_whole
from pilot import host
from pilot.folder import Folder

#: A holder elsewhere that has not said anything for so long is worth a remark; it is not taken for dead.
SILENCE_S = 120.0
#: A shared disk may fail to show the lease for a moment: so often it is asked again, after so many seconds each.
_LOOKS, _LOOK_S = 4, 0.1


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds the lease.

    Attributes:
        nonce: tells two holders apart whatever else is equal.
        process_start: start of the process in ticks since boot: a reused pid is another process.
        purpose: "run", or the command that borrowed the folder for a moment.
        heartbeat: when it last said that it lives, seconds since 1970.
        restart: how often SLURM had queued its job again.
        cluster: SLURM's name of the cluster: two may share a disk, and both have a job 123.
        root: the folder that it holds, as it calls it.
        copied: the lease came with a copy of the folder that it is for; never written.
    """

    nonce: str
    host: str
    boot_id: str
    pid: int
    process_start: int
    job_id: str | None
    purpose: str
    since: float
    heartbeat: float
    epoch: int = 0
    restart: int = 0
    cluster: str = ""
    root: str = ""
    copied: bool = False

    def is_gone(self) -> bool | None:
        """Whether the holder is known to be dead, or never held this folder; None: that cannot be known from here."""
        if self.copied:
            return True
        if self.host != host.hostname():
            return None
        if self.boot_id != host.boot_id():
            return True
        seen = host.process(self.pid)
        return seen is None or seen.zombie or seen.start != self.process_start


class Lease:
    """A lease that we hold.

    Attributes:
        holder: we, as the file says.
        took_over: whoever held the folder before did not end in order: it may still have the database open.
    """

    def __init__(self, folder: Folder, holder: Holder, *, took_over: bool = False) -> None:
        self._folder = folder
        self.holder = holder
        self.took_over = took_over
        self._text = ""

    def beat(self, epoch: int) -> None:
        """Say that we live.

        A full disk may leave it unsaid: whoever has something to lose by that will find out by itself.

        Raises:
            LostLeaseError: somebody else holds the lease now.
        """
        self.demand()
        self.holder = replace(self.holder, heartbeat=host.now(), epoch=epoch)
        with contextlib.suppress(StorageError):
            # flushed: a lease that a loss of power has left empty names nobody, and would have to be released by hand
            write_whole(self._folder.lease, _as_text(self.holder))

    def demand(self) -> None:
        """Make sure that the lease still is ours, and that no later pilot writes under it.

        Raises:
            LostLeaseError: it is not.
            StorageError: it cannot be read.
        """
        with contextlib.suppress(OSError, ValueError):
            # this is asked twice in each transaction
            if self._folder.lease.read_text() == self._text:
                return
        current = _shown(self._folder)
        if current is None or current.nonce != self.holder.nonce or current.epoch > self.holder.epoch:
            raise _lost(self._folder)
        self._text = _as_text(current)

    def release(self) -> None:
        """Give the lease back, in order: nothing of ours has the database open any more."""
        with contextlib.suppress(LostLeaseError, StorageError, OSError):
            self.demand()
            self._folder.lease.rename(self._folder.last_lease)


def lease_of(folder: Folder, nonce: str) -> Lease:
    """The lease that another process of this pilot has taken.

    Raises:
        LostLeaseError: somebody else holds it now.
    """
    holder = read_holder(folder)
    if holder is None or holder.nonce != nonce:
        raise _lost(folder)
    return Lease(folder, holder)


def read_holder(folder: Folder) -> Holder | None:
    """Who holds the lease; None if nobody does.

    Raises:
        StorageError: the file is there but is not a lease.
    """
    holder = _read(folder.lease)
    if holder is None or not holder.root or holder.root == str(folder.root):
        return holder
    return replace(holder, copied=_is_a_copy(folder, holder))


def _shown(folder: Folder) -> Holder | None:
    """The same, looked for again if a shared disk does not show it at once."""
    for _ in range(_LOOKS - 1):
        with contextlib.suppress(StorageError):
            holder = _read(folder.lease)
            if holder is not None:
                return holder
        host.pause(_LOOK_S)
    return _read(folder.lease)


def _read(path: Path) -> Holder | None:
    try:
        found = json.loads(path.read_text())
        known = {field.name for field in fields(Holder)}
        # a later version may have more to say
        return Holder(**{name: value for name, value in found.items() if name in known})
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.EACCES:
            raise storage_error(error, path) from error
        raise _unreadable(path) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise _unreadable(path) from error


def last_epoch(folder: Folder) -> int:
    """The highest pilot that the lease speaks of, or the one before; 0 if none is known."""
    found = [0]
    for path in (folder.lease, folder.last_lease):
        with contextlib.suppress(StorageError):
            holder = _read(path)
            found.append(0 if holder is None else holder.epoch)
    return max(found)


def _is_a_copy(folder: Folder, holder: Holder) -> bool:
    """Whether the same lease lies where its holder says that it holds it, and that is another place than this.

    Numbers of inodes are the same from all machines, and by whatever path one comes; numbers of devices are not.
    """
    original = Folder(Path(holder.root))
    try:
        there = _read(original.lease)
        same = original.state.stat().st_ino == folder.state.stat().st_ino
    except (OSError, StorageError):
        return False
    return there is not None and there.nonce == holder.nonce and not same


def _as_text(holder: Holder) -> str:
    said: dict[str, Any] = asdict(holder)
    del said["copied"]
    return json.dumps(said)


def _lost(folder: Folder) -> LostLeaseError:
    return LostLeaseError(
        "this pilot does not hold the folder any more: another one has taken it, or it was moved",
        where=str(folder.lease),
        next_step="`pilot status` in the folder shows who is there; this one stops without writing",
    )


def _unreadable(path: Path) -> StorageError:
    return StorageError(
        "the lease file is not readable",
        where=str(path),
        next_step="make sure that no pilot runs in this folder, then `pilot doctor --release-lease`",
    )


def restarts() -> int:
    """How often SLURM has queued our job again; 0 if it says nothing that can be understood."""
    said = os.environ.get("SLURM_RESTART_COUNT", "")
    return int(said) if said.isascii() and said.isdecimal() else 0


def living_holder(folder: Folder) -> Holder | None:
    """The holder, unless it is known to be dead."""
    holder = read_holder(folder)
    return None if holder is None or holder.is_gone() else holder


def no_idea(_holder: Holder) -> bool | None:
    """Nobody knows whether a holder on another machine is dead."""
    return None


def take_lease(folder: Folder, purpose: str, job_is_over: Callable[[Holder], bool | None] = no_idea) -> Lease:
    """Become the only writer of the folder.

    Args:
        folder: the campaign folder.
        purpose: "run", or the command that borrows the folder for a moment.
        job_is_over: asked of a holder on another machine: is it dead? None: that cannot be known.

    Raises:
        HeldError: another process holds it, or may.
        StorageError: the folder cannot be written.
    """
    try:
        folder.make()
    except OSError as error:
        raise storage_error(error, folder.state) from error
    with _one_at_a_time(folder.lock):
        holder = read_holder(folder)
        if holder is not None:
            gone = holder.is_gone()
            if not (job_is_over(holder) if gone is None else gone):
                raise held(holder, folder)
            _put_aside(folder, holder)
        took_over = holder is not None or not _ended_in_order(folder)
        return Lease(folder, _create(folder, purpose), took_over=took_over)


def _ended_in_order(folder: Folder) -> bool:
    """Whether the last holder gave the lease back. Asked once: from now on it is we of whom it is not known."""
    try:
        folder.last_lease.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise storage_error(error, folder.last_lease) from error
    return True


def release_by_force(folder: Folder) -> Holder | None:
    """Take the lease away from a holder that the user knows to be dead.

    Raises:
        HeldError: the holder lives, as can be seen from here.
    """
    try:
        holder = read_holder(folder)
    except StorageError:
        folder.lease.unlink(missing_ok=True)
        return None
    if holder is not None:
        if holder.is_gone() is False:
            raise held(holder, folder)
        folder.lease.unlink(missing_ok=True)
    return holder


def held(holder: Holder, folder: Folder) -> HeldError:
    """The words for a folder that another pilot holds."""
    silent = host.now() - holder.heartbeat
    where = f"{folder.root}, by pid {holder.pid} on {holder.host}" + (f", job {holder.job_id}" if holder.job_id else "")
    if holder.is_gone() is None and silent > SILENCE_S:
        return HeldError(
            f"another machine's pilot holds this folder, and has been silent for {silent / 60:.0f} min",
            where=where,
            next_step=f"if you know that it is dead (look on {holder.host}): `pilot doctor --release-lease`",
        )
    return HeldError(
        "a pilot is alive in this folder",
        where=where,
        next_step="`pilot status` shows it; `pilot drain` ends it in order",
    )


@contextmanager
def _one_at_a_time(lock: Path) -> Iterator[None]:
    try:
        opened = lock.open("a")
    except OSError as error:
        raise storage_error(error, lock) from error
    with opened as file:
        # on a file system without locks this does nothing: O_EXCL and the epoch still stand
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _put_aside(folder: Folder, dead: Holder) -> None:
    """Remove a dead holder's lease, and no other: where locks do not work somebody may have been faster."""
    aside = folder.lease.with_name(f"lease.{dead.nonce}.dead")
    with contextlib.suppress(FileNotFoundError):
        folder.lease.rename(aside)
        moved = _read(aside)
        if moved is not None and moved.nonce != dead.nonce:
            # it was a fresh lease: put it back unless a third has made one meanwhile
            with contextlib.suppress(FileExistsError):
                os.link(aside, folder.lease)
            aside.unlink()
            raise held(moved, folder)
        aside.unlink()


def _create(folder: Folder, purpose: str) -> Holder:
    me = host.process(os.getpid())
    now = host.now()
    holder = Holder(
        nonce=os.urandom(8).hex(),
        host=host.hostname(),
        boot_id=host.boot_id(),
        pid=os.getpid(),
        process_start=me.start if me else 0,
        job_id=os.environ.get("SLURM_JOB_ID"),
        purpose=purpose,
        since=now,
        heartbeat=now,
        restart=restarts(),
        cluster=os.environ.get("SLURM_CLUSTER_NAME", ""),
        root=str(folder.root),
    )
    beside = folder.lease.with_name(f"lease.{holder.nonce}.new")
    try:
        # a link is made or refused in one step, and what it shows is whole: nobody ever reads half a lease
        write_whole(beside, _as_text(holder))
        os.link(beside, folder.lease)
        sync_folder(folder.state)
    except FileExistsError:
        other = read_holder(folder)
        raise held(other or holder, folder) from None
    except OSError as error:
        raise storage_error(error, folder.lease) from error
    finally:
        beside.unlink(missing_ok=True)
    return holder
