"""Running a pilot for the command line: its log, its view, and what is said at its end."""

import contextlib
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.live import Live
from rich.text import Text

from db.errors import HeldError, PilotError
from db.files import storage_error
from pilot import host
from pilot.cli.chain import Chain
from pilot.cli.headline import count, next_steps
from pilot.cli.narrator import Narrator, RecentLines
from pilot.cli.output import ERROR, GOOD, console, print_error, say
from pilot.cli.tables import campaign_line, can_never_run
from pilot.cli.view import LiveView
from pilot.config import Config, read_config
from pilot.durations import say_duration
from pilot.folder import Folder
from pilot.snapshot import Snapshot, last_snapshot, read_snapshot
from pilot.supervisor import run_pilot

_REFRESH_PER_S = 2
_INTERRUPTED = 130
log = logging.getLogger("pilot")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the command line says in place of pilot.toml; None: nothing.

    Attributes:
        walltime_s: everything must be over after so many seconds.
        cores: so many cores of this machine.
    """

    walltime_s: float | None = None
    cores: int | None = None


def run_here(folder: Folder, wishes: Wishes, *, live: bool) -> int:
    """Run a pilot in this folder; returns the exit code.

    Raises:
        PilotError: see :func:`pilot.supervisor.run_pilot`.
    """
    config = read_config(folder.config).wishing(walltime=wishes.walltime_s, cores=wishes.cores)
    began = host.monotonic()
    chain = Chain(folder)
    with _log_file(folder), _heard_signals() as heard:
        try:
            why = _run_live(folder, config, chain) if live else _run_plain(folder, config, chain)
        except HeldError as error:
            # the log is that of the pilot which holds the folder
            if "SLURM_JOB_ID" not in os.environ:
                raise
            # a second pilot, started by mistake: it ends in order, so that the next in the chain may start
            print_error(error)
            return 0
        except PilotError as error:
            log.error("%s", "; ".join(str(error).splitlines()))  # noqa: TRY400 — a user's log has no traces
            raise
    snapshot = read_snapshot(folder)
    if live:
        say(f"ended after {say_duration(host.monotonic() - began)}: {why}")
    if snapshot is not None:
        _say_the_end(snapshot)
    if sum(number == signal.SIGINT for number in heard) > 1:
        return _INTERRUPTED
    return 1 if snapshot is not None and _went_wrong(snapshot) else 0


def _went_wrong(snapshot: Snapshot) -> bool:
    """Whether a task failed for good, or can never run.

    A label that failed was set aside by the campaign, which went on without it: that is no failure of the whole.
    """
    failed = count(snapshot, "failed")
    if snapshot.campaign is not None:
        failed -= snapshot.tasks.get("label", {}).get("failed", 0)
    return failed > 0 or can_never_run(snapshot) > 0


def _run_plain(folder: Folder, config: Config, chain: Chain) -> str:
    handler = logging.StreamHandler(console().file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    with _handler(handler):
        why = run_pilot(folder, config, Narrator(log, last_snapshot(folder), counts=True).hear, chain.begin)
        chain.end()
        return why


def _run_live(folder: Folder, config: Config, chain: Chain) -> str:
    narrator, recent = Narrator(log, last_snapshot(folder), counts=False), RecentLines()
    view = LiveView(folder, recent.lines)

    def hear(snapshot: Snapshot) -> None:
        narrator.hear(snapshot)
        view.show(snapshot)

    with (
        _handler(recent),
        Live(view, console=console(), refresh_per_second=_REFRESH_PER_S, transient=True),
    ):
        why = run_pilot(folder, config, hear, chain.begin)
        chain.end()
        return why


@contextmanager
def _handler(handler: logging.Handler) -> Iterator[None]:
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()


class _LogFile(logging.FileHandler):
    """The log of the folder. That it cannot be written (a full disk) must not drown what else is said of it."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        pass


@contextmanager
def _log_file(folder: Folder) -> Iterator[None]:
    try:
        handler = _LogFile(folder.log, encoding="utf-8")
    except OSError as error:
        raise storage_error(error, folder.log) from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.setLevel(logging.INFO)
    log.propagate = False
    with _handler(handler):
        yield


@contextmanager
def _heard_signals() -> Iterator[list[int]]:
    """The numbers of the signals that came, known at the end.

    The supervisor alone decides what a signal does; here it is only noted, for the exit code.
    """
    heard: list[int] = []
    receiving, sending = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = signal.set_wakeup_fd(sending, warn_on_full_buffer=False)
    try:
        yield heard
    finally:
        signal.set_wakeup_fd(before)
        os.close(sending)
        with contextlib.suppress(BlockingIOError):
            heard += os.read(receiving, 4096)
        os.close(receiving)


def _say_the_end(snapshot: Snapshot) -> None:
    if snapshot.campaign is not None:
        say(campaign_line(snapshot.campaign))
    if snapshot.tasks:
        line = Text("tasks: ")
        for state, style in (("done", GOOD), ("failed", ERROR), ("cancelled", ""), ("waiting", ""), ("ready", "")):
            number = count(snapshot, state)
            if number:
                line.append(f"{number} {state}", style=style).append("  ")
        line.rstrip()
        say(line)
    for step in next_steps(snapshot, alive=False):
        say(f"next:  {step}")
