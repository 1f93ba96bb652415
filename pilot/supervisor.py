"""The supervisor: takes the folder, sets up the manager and its agents, hears the signals, and tidies up.

In this version one node is all there is: the agent lives in this process (LocalComm).
"""

import contextlib
import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from db import pilot_table
from db.engine import Writer, open_writer
from db.errors import MissingError, StorageError
from pilot import host
from pilot.agent.agent import Agent
from pilot.agent.comm import LocalComm
from pilot.agent.messages import AgentSettings
from pilot.campaign.driver import Driver, protocol_of
from pilot.campaign.planner import Protocol
from pilot.config import Config
from pilot.folder import Folder
from pilot.lease import Lease, take_lease
from pilot.ledger import Ledger
from pilot.mailbox import Request
from pilot.manager import Manager, Shared, Terms
from pilot.publisher import Publisher
from pilot.requests import Answer, apply
from pilot.scheduler.reactor import Reactor
from pilot.scheduler.times import Times
from pilot.snapshot import PilotStatus, Snapshot, read_snapshot
from tasks.registry import engine

log = logging.getLogger("pilot")

Observer = Callable[[Snapshot], None]


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
def open_folder(folder: Folder, config: Config, purpose: str) -> Iterator[Opened]:
    """Take the lease and open the database; give both back at the end, whatever happens.

    Raises:
        HeldError: a pilot holds the folder.
        StorageError: the database cannot be used.
        InputError: the campaign of pilot.toml cannot be built.
    """
    protocol = protocol_of(config, folder)
    lease = take_lease(folder, purpose)
    try:
        writer = open_writer(folder.database)
        try:
            with writer.transaction() as connection:
                campaign_id = pilot_table.campaign_id(connection)
                writer.bind(pilot_table.latest_pilot(connection))
            driver = None if protocol is None else Driver(folder, protocol)
            ledger = Ledger(folder, writer, Reactor(config.retries.budgets(), Times()), driver)
            yield Opened(folder, config, lease, writer, protocol, ledger, campaign_id)
        finally:
            writer.close()
    finally:
        lease.release()


def run_pilot(folder: Folder, config: Config, on_snapshot: Observer | None = None) -> str:
    """Run a pilot on this machine until nothing is left to do, or it has drained; says why it ended.

    Raises:
        PilotError: see :func:`open_folder`; or the database, the disk or the lease was lost on the way.
    """
    with open_folder(folder, config, "run") as opened:
        _demand_label_engine(opened)
        status = _begin(opened)
        opened.ledger.load()
        agent = Agent(_agent_settings(opened), engine)
        comm = LocalComm(agent)
        publisher = Publisher(folder, opened.writer, opened.protocol, status, on_snapshot)
        terms = _terms(config, status.started_at)
        status.ends_at = terms.ends_at
        manager = Manager(Shared(folder, opened.lease, opened.writer, opened.ledger, comm, publisher, terms))
        try:
            with _signals(manager):
                why = manager.run()
        finally:
            comm.close()
        manager.finish(why)
        return why


def apply_without_pilot(folder: Folder, config: Config, request: Request) -> Answer:
    """Apply a request to a folder that no pilot holds, and publish what it changed.

    Raises:
        HeldError: a pilot holds the folder: let it apply the request.
    """
    with open_folder(folder, config, request.verb) as opened:
        opened.ledger.load()
        with opened.ledger.turn(host.now()) as turn:
            answer = apply(request, opened.ledger, turn, None)
        last_pilot = _last_pilot(folder)
        Publisher(folder, opened.writer, opened.protocol, last_pilot).publish(opened.ledger)
        return answer


def _last_pilot(folder: Folder) -> PilotStatus | None:
    """The pilot that published last: a status that cannot be read must not undo what was asked and is done."""
    try:
        before = read_snapshot(folder)
    except StorageError:
        return None
    return None if before is None else before.pilot


def _demand_label_engine(opened: Opened) -> None:
    """Better one word now than a hundred labels that fail one by one.

    Raises:
        MissingError: the program is not there.
    """
    if opened.protocol is None:
        return
    label = opened.protocol.label
    settings = label.settings()
    if settings.get("pseudo_dir"):
        settings["pseudo_dir"] = str(opened.folder.root / settings["pseudo_dir"])
    found = engine(label.engine).find(settings)
    if not found.ok:
        raise MissingError(found.found, where=found.what, next_step=found.cure)


def _begin(opened: Opened) -> PilotStatus:
    at = host.now()
    holder = opened.lease.holder
    with opened.writer.transaction() as connection:
        epoch = pilot_table.begin_pilot(connection, host=holder.host, pid=holder.pid, job_id=holder.job_id, at=at)
    opened.writer.bind(epoch)
    opened.lease.beat(epoch)
    log.info("pilot %d begins in %s", epoch, opened.folder.root)
    return PilotStatus(epoch, "active", holder.host, holder.pid, holder.job_id, at)


def _agent_settings(opened: Opened) -> AgentSettings:
    run = opened.config.run
    return AgentSettings(
        root=str(opened.folder.root),
        campaign_id=opened.campaign_id,
        epoch=opened.writer.epoch,
        mpi_launcher=run.mpi,
        site_env=run.env,
    )


def _terms(config: Config, started_at: float) -> Terms:
    run = config.run
    return Terms(
        cores=run.cores,
        memory_mb=run.memory_mb,
        ends_at=None if run.walltime is None else started_at + run.walltime,
        drain_wait_s=run.drain_wait,
        soft_stop_s=run.soft_stop,
    )


@contextmanager
def _signals(manager: Manager) -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGUSR1 drain; a second Ctrl-C or SIGTERM ends what runs at once."""
    heard: list[int] = []

    def drain(number: int, _frame: FrameType | None) -> None:
        again = number in heard and number != signal.SIGUSR1
        heard.append(number)
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        manager.ask_drain(name, at_once=again)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = {number: signal.signal(number, drain) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            with contextlib.suppress(ValueError):
                signal.signal(number, handler)
