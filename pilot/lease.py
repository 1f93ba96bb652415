"""The lease: at most one process writes in a campaign folder.

The file is made by a link, which fails where there is one already, and names its holder. It is taken over only
from a holder that is known to be gone: on this machine by its process, elsewhere never by guessing. A file lock
helps two starts on one machine to take turns but is not what we trust; nor is it needed that it works. Behind all
this stands the epoch in the database, which every transaction checks (facts on SQLite and shared file systems).
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from db.errors import HeldError, LostLeaseError, StorageError
from db.files import storage_error, write_whole
from pilot import host
from pilot.folder import Folder

#: A holder elsewhere that has not said anything for so long is worth a remark; it is not taken for dead.
SILENCE_S = 120.0


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

    def is_gone(self) -> bool | None:
        """Whether the holder is known to be dead; None when that cannot be known from here."""
        if self.host != host.hostname():
            return None
        if self.boot_id != host.boot_id():
            return True
        seen = host.process(self.pid)
        return seen is None or seen.zombie or seen.start != self.process_start


class Lease:
    """A lease that we hold."""

    def __init__(self, folder: Folder, holder: Holder) -> None:
        self._folder = folder
        self.holder = holder

    def beat(self, epoch: int) -> None:
        """Say that we live.

        Raises:
            LostLeaseError: somebody else holds the lease now.
        """
        self.demand()
        self.holder = replace(self.holder, heartbeat=host.now(), epoch=epoch)
        write_whole(self._folder.lease, json.dumps(asdict(self.holder)), durable=False)

    def demand(self) -> None:
        """Make sure that the lease still is ours.

        Raises:
            LostLeaseError: it is not.
        """
        current = read_holder(self._folder)
        if current is None or current.nonce != self.holder.nonce:
            raise _lost(self._folder)

    def release(self) -> None:
        """Give the lease back."""
        with contextlib.suppress(LostLeaseError, StorageError, FileNotFoundError):
            self.demand()
            self._folder.lease.unlink()


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
    try:
        text = folder.lease.read_text()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(folder) from error
    try:
        return Holder(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise _unreadable(folder) from error


def _lost(folder: Folder) -> LostLeaseError:
    return LostLeaseError(
        "this pilot does not hold the folder any more: another one has taken it, or it was moved",
        where=str(folder.lease),
        next_step="`pilot status` in the folder shows who is there; this one stops without writing",
    )


def _unreadable(folder: Folder) -> StorageError:
    return StorageError(
        "the lease file is not readable",
        where=str(folder.lease),
        next_step="make sure that no pilot runs in this folder, then `pilot doctor --release-lease`",
    )


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
        return Lease(folder, _create(folder, purpose))


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
    with lock.open("a") as file:
        # on a file system without locks this does nothing: O_EXCL and the epoch still stand
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _put_aside(folder: Folder, dead: Holder) -> None:
    """Remove a dead holder's lease, and no other: where locks do not work somebody may have been faster."""
    aside = folder.lease.with_name(f"lease.{dead.nonce}.dead")
    with contextlib.suppress(FileNotFoundError):
        folder.lease.rename(aside)
        moved = Holder(**json.loads(aside.read_text()))
        if moved.nonce != dead.nonce:
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
        restart=int(os.environ.get("SLURM_RESTART_COUNT", "0")),
        cluster=os.environ.get("SLURM_CLUSTER_NAME", ""),
    )
    beside = folder.lease.with_name(f"lease.{holder.nonce}.new")
    try:
        # a link is made or refused in one step, and what it shows is whole: nobody ever reads half a lease
        write_whole(beside, json.dumps(asdict(holder)))
        os.link(beside, folder.lease)
    except FileExistsError:
        other = read_holder(folder)
        raise held(other or holder, folder) from None
    except OSError as error:
        raise storage_error(error, folder.lease) from error
    finally:
        beside.unlink(missing_ok=True)
    return holder
