"""Handing pilot.sh in to SLURM: what is checked before, chains of allocations, and what is done inside of one.

A chain: `pilot submit --chain` puts PILOT_CHAIN into the job's environment, and each allocation that begins puts the
next one into the queue behind itself. SLURM's singleton lets one run at a time.
"""

import contextlib
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from db.errors import PilotError, StateError, StorageError
from pilot.cli.batch_queue import BatchQueue, waits
from pilot.cli.batch_script import CHAIN, OPTIONS, Order, Script, check_options, check_script, order_of, read_script
from pilot.cli.output import note, plural, say
from pilot.cli.presence import look
from pilot.cli.site_files import SCRIPT
from pilot.cli.submitted import forget, remember
from pilot.cli.tables import too_long
from pilot.cli.work_left import ended_tasks, published, why_nothing_is_left
from pilot.config import read_config
from pilot.folder import Folder
from pilot.slurm.parse import QueuedJob

#: After so many allocations in a row in which no task has ended, a chain ends.
_IDLE_MOST = 3


@dataclass(frozen=True, slots=True)
class Wishes:
    """What was typed."""

    chain: bool = False
    dry_run: bool = False
    force: bool = False
    options: tuple[str, ...] = ()


def submit(folder: Folder, wishes: Wishes, environ: Mapping[str, str]) -> None:
    """Check, hand in, and say what was done.

    Raises:
        MissingError: no pilot.sh, no SLURM.
        InputError: pilot.toml, pilot.sh or an option cannot be used, or SLURM refuses them.
        StateError: there is a job of this folder already, or SLURM cannot take one now.
        StorageError: the folder cannot be written: no pilot could work in it.
    """
    config = read_config(folder.config)
    check_options(wishes.options, chain=wishes.chain)
    script = read_script(folder)
    order = order_of(script, wishes.options, chain="1" if wishes.chain else "")
    queue = BatchQueue(environ)
    if wishes.dry_run:
        _show(script, order)
    check_script(script)
    nothing = why_nothing_is_left(folder, config)
    if nothing and not wishes.force:
        say(f"nothing was submitted: {nothing}")
        say("next:  `pilot status` tells more; `pilot add` or pilot.toml give more to do; --force submits all the same")
        return
    if wishes.dry_run and not queue.is_there():
        note("there is no SLURM on this machine that could say whether it would take it")
        return
    queue.demand()
    _demand_writable(folder)
    _demand_no_other(_jobs(queue, script), folder, chain=wishes.chain)
    if wishes.dry_run:
        say(f"# SLURM says: {queue.rehearse(order)}")
    else:
        job_id = queue.submit(order)
        _remember(folder, job_id)
        _say_submitted(job_id, script, wishes)


def _demand_writable(folder: Folder) -> None:
    """See that a pilot could write here: its job would end at once, and could not even say why."""
    for place in (folder.root, folder.state, folder.log):
        if place.exists() and not os.access(place, os.W_OK):
            raise StorageError(
                "this folder cannot be written by you: no pilot could work in it",
                where=str(place),
                next_step="check owner and permissions with `ls -ld`, and that the file system is not read-only",
            )


def _remember(folder: Folder, job_id: str, by: str = "") -> None:
    # it is in the queue; that it is not written down costs `pilot status` a line
    with contextlib.suppress(StorageError, OSError):
        remember(folder, job_id, by)


def _show(script: Script, order: Order) -> None:
    print(script.text.rstrip())
    print(f"\n# would be submitted by:\n{order.typed()}")


def _jobs(queue: BatchQueue, script: Script) -> list[QueuedJob] | None:
    """The jobs of this folder; None where SLURM does not answer."""
    try:
        return queue.jobs(script.folder.root, script.names)
    except StateError as error:
        note(f"{_one_line(error)}; it goes on without: singleton keeps two allocations from running at once")
        return None


def _demand_no_other(jobs: Sequence[QueuedJob] | None, folder: Folder, *, chain: bool) -> None:
    """See that no job of this folder is there; with ``chain`` one that runs may be, and the new one waits behind it."""
    waiting = next((job for job in jobs or () if waits(job)), None)
    if waiting is not None:
        raise StateError(
            f"job {waiting.job_id} of this folder waits in the queue already",
            where=str(folder.root),
            next_step=f"`squeue --start -j {waiting.job_id}` shows when it may start; `scancel` takes it out",
        )
    presence = look(folder)
    holder = presence.holder if presence.alive else None
    if jobs and not chain:
        raise StateError(
            f"job {jobs[0].job_id} of this folder runs already",
            where=str(folder.root),
            next_step="`pilot status` shows how it goes; `pilot submit --chain` queues the next one behind it",
        )
    # a pilot that is no job of ours: another user's, or one outside of SLURM; singleton would not wait for it
    if holder is not None and not jobs and not (jobs is None and holder.job_id):
        job = f"job {holder.job_id}, none of yours" if holder.job_id else f"outside of SLURM, pid {holder.pid}"
        raise StateError(
            f"a pilot is alive in this folder, on {holder.host} ({job})",
            where=str(folder.root),
            next_step="`pilot drain --wait`, then type this again",
        )


def _say_submitted(job_id: str, script: Script, wishes: Wishes) -> None:
    chained = "; each allocation queues the next one, until nothing is left to do" if wishes.chain else ""
    say(f"submitted: job {job_id} ({script.names[0]}){chained}")
    say(f"next:  `squeue -j {job_id}` shows when it starts, `pilot status` what it does then")


def queue_next(folder: Folder, environ: Mapping[str, str]) -> str:
    """At the start of an allocation that belongs to a chain: put the next one into the queue behind it.

    Returns:
        What was done, in words; empty outside of a chain. Whatever SLURM does, nothing is raised.
    """
    chain = _chain(environ)
    if chain is None:
        return ""
    try:
        return _queue_next(folder, environ, *chain)
    except (PilotError, OSError, ValueError) as error:
        return f"the next allocation was not queued: {_one_line(error)}; `pilot submit --chain` does it by hand"


def _queue_next(folder: Folder, environ: Mapping[str, str], ended_before: int, idle: int) -> str:
    nothing = why_nothing_is_left(folder, read_config(folder.config))
    if nothing:
        return f"no further allocation is queued: {nothing}"
    presence = look(folder)
    if presence.alive and presence.holder is not None and presence.holder.job_id != environ.get("SLURM_JOB_ID"):
        # this allocation will end at once, and so would the next
        return f"no further allocation is queued: another pilot is alive in this folder, on {presence.holder.host}"
    ended = ended_tasks(folder)
    idle = idle + 1 if ended <= ended_before else 0
    if idle >= _IDLE_MOST:
        last = published(folder)
        long = 0 if last is None else too_long(last)
        why = f" ({plural(long, 'task')} would need more time than such an allocation has)" if long else ""
        return (
            f"no further allocation is queued: no task has ended in {idle} allocations{why}; "
            "`pilot status` and pilot.log say why; when that is mended: `pilot submit --chain`"
        )
    script, queue = read_script(folder), BatchQueue(environ)
    queue.demand()
    if script.problem:
        return f"no further allocation is queued: {SCRIPT}: {script.problem}"
    # where squeue does not answer it goes on: of two that wait, the first to begin queues none
    with contextlib.suppress(StateError):
        waiting = [job.job_id for job in _others(queue, script, environ) if waits(job)]
        if waiting:
            return f"the next allocation is queued already: job {waiting[0]}"
    options = shlex.split(environ.get(OPTIONS, ""))
    order = order_of(script, options, chain=f"{ended}:{idle}")
    job_id = queue.submit(order)
    _remember(folder, job_id, environ.get("SLURM_JOB_ID", ""))
    return f"the next allocation is queued: job {job_id}"


def end_chain(folder: Folder, environ: Mapping[str, str]) -> str:
    """At the end of an allocation that belongs to a chain: take the next one out if it would find nothing to do.

    To be called when the last snapshot is published.

    Returns:
        What was done, in words; empty if nothing. Whatever SLURM does, nothing is raised.
    """
    if _chain(environ) is None:
        return ""
    try:
        nothing = why_nothing_is_left(folder, read_config(folder.config))
        if not nothing:
            return ""
        queue, script = BatchQueue(environ), read_script(folder)
        waiting = [job for job in _others(queue, script, environ) if waits(job)]
        for job in waiting:
            queue.cancel(job.job_id)
            forget(folder)
    except (PilotError, OSError, ValueError) as error:
        return f"the next allocation could not be taken out of the queue: {_one_line(error)}; `squeue --me` shows it"
    if not waiting:
        return ""
    return f"job {', '.join(job.job_id for job in waiting)} was taken out of the queue: {nothing}"


def _chain(environ: Mapping[str, str]) -> tuple[int, int] | None:
    """How many tasks had ended when this allocation was handed in, and idle ones before; None: no chain."""
    if not environ.get(CHAIN) or not environ.get("SLURM_JOB_ID"):
        return None
    ended, _, idle = environ[CHAIN].partition(":")
    return (int(ended), int(idle)) if ended.isdigit() and idle.isdigit() else (-1, 0)


def _others(queue: BatchQueue, script: Script, environ: Mapping[str, str]) -> list[QueuedJob]:
    return [job for job in queue.jobs(script.folder.root, script.names) if job.job_id != environ.get("SLURM_JOB_ID")]


def _one_line(error: Exception) -> str:
    return "; ".join(str(error.what if isinstance(error, PilotError) else error).splitlines())
