"""Opening a campaign folder for writing: the lease, the database, and what is planned for it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from db import pilot_table
from db.engine import Writer, open_writer
from db.errors import HeldError, MissingError
from db.files import settle
from pilot import host
from pilot.agent.messages import AgentSettings
from pilot.backups import demand_history, keep_before_migration
from pilot.campaign.driver import Driver
from pilot.campaign.from_config import protocol_of
from pilot.campaign.protocol import Protocol
from pilot.config import Config
from pilot.folder import Folder
from pilot.lease import Holder, Lease, read_holder, restarts, take_lease
from pilot.ledger import Ledger
from pilot.left_overs import remove_left_overs
from pilot.mailbox import Request
from pilot.publisher import Publisher
from pilot.requests import Answer, apply
from pilot.scheduler.policy import Clock
from pilot.scheduler.reactor import Reactor
from pilot.scheduler.times import Times
from pilot.slurm.client import Slurm
from pilot.snapshot import PilotStatus, last_snapshot
from tasks.registry import RESUMING, engine

#: so long the next job waits for the one before to be over, and so often it looks
PATIENCE_S, EVERY_S = 180.0, 5.0
#: so often where a command has borrowed the folder
SHORTLY_S = 0.2
_AT_WORK = frozenset({"RUNNING", "SUSPENDED"})


@dataclass(slots=True)
class Opened:
    """A folder that is ours: its lease, its database, and what we think of it."""

    folder: Folder
    config: Config
    lease: Lease
    writer: Writer
    protocol: Protocol | None
    ledger: Ledger
    campaign_id: str


@contextmanager
def held_folder(folder: Folder, purpose: str) -> Iterator[Lease]:
    """Take the lease, and give it back at the end, whatever happens.

    Raises:
        HeldError: a pilot holds the folder.
        StorageError: the folder cannot be written.
    """
    lease = _take(folder, purpose)
    try:
        yield lease
    finally:
        lease.release()


def _take(folder: Folder, purpose: str) -> Lease:
    deadline = host.monotonic() + PATIENCE_S
    while True:
        try:
            return take_lease(folder, purpose, _job_is_over)
        except HeldError:
            holder = read_holder(folder)
            borrowed = purpose == "run" and holder is not None and holder.purpose != "run"
            # nobody: it was given back just now
            if host.monotonic() >= deadline or not (holder is None or borrowed or _is_ending(holder)):
                raise
        # a command holds it for a moment only: no allocation is lost because somebody typed `pilot add` as it began
        host.pause(SHORTLY_S if borrowed else EVERY_S)


def _is_ending(holder: Holder | None) -> bool:
    """Whether the holder's job, on another node, may be about to end: we are the next one, and should not give up.

    SLURM starts a job while the processes of the one before may still be ended, and may not answer just then.
    """
    if "SLURM_JOB_ID" not in os.environ or holder is None or holder.job_id is None or holder.is_gone() is not None:
        return False
    states = Slurm(os.environ).states([holder.job_id])
    return states is None or states.get(holder.job_id) not in _AT_WORK


@contextmanager
def open_database(folder: Folder, config: Config, lease: Lease, epoch: int | None = None) -> Iterator[Opened]:
    """Open the database of a folder whose lease is ours, and close it at the end.

    Args:
        epoch: we write as this pilot; None: as the latest there is.

    Raises:
        StorageError: the database cannot be used.
        InputError: the campaign of pilot.toml cannot be built.
    """
    protocol = protocol_of(config, folder)
    # a database is no safer than the names of the folders that it lies in
    settle(folder.state, folder.root.parent)
    demand_history(folder)
    keep_before_migration(folder)
    writer = open_writer(folder.database, lease.demand, took_over=lease.took_over)
    lease.took_over = False
    try:
        with writer.transaction() as connection:
            campaign_id = pilot_table.campaign_id(connection)
            writer.bind(pilot_table.latest_pilot(connection) if epoch is None else epoch)
        driver = None if protocol is None else Driver(folder, protocol)
        ledger = Ledger(
            folder, writer, Reactor(config.retries.budgets(), Times(config.resources.guesses()), RESUMING), driver
        )
        yield Opened(folder, config, lease, writer, protocol, ledger, campaign_id)
    finally:
        writer.close()


def begin_pilot(opened: Opened) -> PilotStatus:
    """Record a new pilot, and write as it from now on.

    Raises:
        MissingError: the program that labels is not there: better one word now than a hundred labels that fail.
    """
    _demand_label_engine(opened)
    remove_left_overs(opened.folder)
    at = host.now()
    holder = opened.lease.holder
    with opened.writer.transaction() as connection:
        epoch = pilot_table.begin_pilot(connection, host=holder.host, pid=holder.pid, job_id=holder.job_id, at=at)
    opened.writer.bind(epoch)
    opened.lease.beat(epoch)
    return status_of(opened.lease, epoch, at)


def status_of(lease: Lease, epoch: int, at: float) -> PilotStatus:
    """The pilot ``epoch`` as it shows itself, from ``at`` on."""
    holder = lease.holder
    return PilotStatus(epoch, "active", holder.host, holder.pid, holder.job_id, at)


def agent_settings(opened: Opened) -> AgentSettings:
    """What every agent of this pilot needs to know."""
    run = opened.config.run
    return AgentSettings(
        root=str(opened.folder.root),
        campaign_id=opened.campaign_id,
        epoch=opened.writer.epoch,
        mpi_extra=tuple(run.mpi_arguments),
        site_env=run.env,
        hyperthreads=run.hyperthreads,
        max_output_mb=run.max_output_mb,
    )


def apply_without_pilot(folder: Folder, config: Config, request: Request) -> Answer:
    """Apply a request to a folder that no pilot holds, and publish what it changed.

    Raises:
        HeldError: a pilot holds the folder: let it apply the request.
    """
    with held_folder(folder, request.verb) as lease, open_database(folder, config, lease) as opened:
        opened.ledger.load()
        with opened.ledger.turn(host.now()) as turn:
            answer = apply(request, opened.ledger, turn, None)
        # a status that cannot be read must not undo what was asked and is done
        before = last_snapshot(folder)
        last_pilot = None if before is None else before.pilot
        Publisher(folder, opened.writer, opened.protocol, last_pilot).publish(opened.ledger, Clock(host.now()))
        return answer


def _demand_label_engine(opened: Opened) -> None:
    if opened.protocol is None:
        return
    label = opened.protocol.label
    settings = label.settings()
    if settings.get("pseudo_dir"):
        settings["pseudo_dir"] = str(opened.folder.root / settings["pseudo_dir"])
    found = engine(label.engine).find(settings)
    if not found.ok:
        raise MissingError(found.found, where=found.what, next_step=found.cure)


def _job_is_over(holder: Holder) -> bool | None:
    """Whether SLURM says that the job of a holder elsewhere is over; None: nobody knows."""
    if holder.job_id is None:
        return None
    if holder.job_id == os.environ.get("SLURM_JOB_ID"):
        # a job that was queued again is not running twice
        return True if holder.restart < restarts() else None
    return Slurm(os.environ).job_is_over(holder.job_id, holder.restart, holder.cluster)
