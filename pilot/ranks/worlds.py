"""The supervisor's work in an allocation of several nodes: starting a world of ranks, and another when one dies.

Each world is a pilot of its own in the database (its id is the epoch), so that nothing of a dead world can write
any more. A node that is lost does not end its world; only the loss of rank 0 does, or of all.
"""

import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import db.errors
from db import pilot_table
from db.errors import MissingError, PilotError, StorageError
from pilot import host
from pilot.agent import monitor
from pilot.agent.peers import CURE, WORLD
from pilot.config import Config
from pilot.drain import End, Ends
from pilot.folder import Folder
from pilot.lease import Lease
from pilot.opening import agent_settings, begin_pilot, open_database
from pilot.orders import DrainOrder, EndOrder, Order, Orders
from pilot.ranks.plan import Plan
from pilot.ranks.world import World, start_world
from pilot.session import Observer
from pilot.slurm.allocation import Allocation
from pilot.slurm.client import Slurm
from pilot.snapshot import Snapshot, read_snapshot

log = logging.getLogger("pilot")

#: So long a world may take until rank 0 is heard.
START_S = 120.0
#: So many worlds in a row that die young, and no other is tried.
TRIES = 3
#: A world that has lived for so long was no failure to start.
YOUNG_S = 120.0
_LOOK_S = 0.2
_LAST_WORDS_S = 2.0
_SNAPSHOT_S = 1.0
#: an order to drain is obeyed, and recorded, within this
_OBEYED_S = 30.0


@dataclass(slots=True)
class _End:
    """How a world ended: in order, with a reason; or it died, and said something or nothing."""

    why: str = ""
    died: str = ""
    library: str = ""


def ends_at_the_start(allocation: Allocation | None) -> Ends:
    """What is known of the end of an allocation before SLURM is asked."""
    return Ends() if allocation is None else Ends().moved(End.ALLOCATION, allocation.ends_at)


class Worlds:
    """One after the other, until one comes to its end in order."""

    def __init__(
        self,
        folder: Folder,
        config: Config,
        lease: Lease,
        orders: Orders,
        allocation: Allocation,
        observer: Observer | None,
    ) -> None:
        self._folder = folder
        self._config = config
        self._lease = lease
        self._orders = orders
        self._allocation = allocation
        self._observer = observer
        self._way = "srun" if config.run.world == "auto" else config.run.world
        self._slurm = Slurm(os.environ)
        self._bad: set[str] = set()
        self._epoch = 0
        self._drained, self._drained_at = "", 0.0
        self._shown_at = 0.0
        self._starts_at = self._counts_from = allocation.starts_at or host.began_at()
        self._ends = ends_at_the_start(allocation)

    def run(self) -> str:
        """See :func:`pilot.supervisor.run_pilot`.

        Raises:
            MissingError: the ranks cannot be started, or die again and again.
            PilotError: what the manager could not go on with.
        """
        failures = 0
        nodes = tuple(node.name for node in self._allocation.nodes)
        while True:
            began, bad_before = host.monotonic(), len(self._bad)
            end = self._one_world(nodes)
            if end.why:
                return end.why
            log.error("the pilot's ranks died: %s", end.died)
            # its manager may only be frozen, on a node that does not answer, with the database open
            self._lease.took_over = True
            published = self._published()
            drained = self._why_drained()
            if drained:
                return f"its ranks died while it drained ({drained})"
            # it was taken back
            self._drained = ""
            # until now, it has counted what is reserved
            self._counts_from = host.now()
            lived_s, avoids = host.monotonic() - began, len(self._bad) > bad_before
            failures = 1 if avoids or lived_s > YOUNG_S else failures + 1
            if failures >= TRIES:
                raise MissingError(
                    f"the pilot's ranks have died {failures} times: {end.died}",
                    where=f"{WORLD}, started by {self._way} on {', '.join(nodes)}; they use {end.library or 'no MPI'}",
                    next_step=CURE,
                )
            nodes = self._nodes_that_are_left(nodes, published)
            log.info("starting again on %s", ", ".join(nodes))

    def _published(self) -> Snapshot | None:
        """What the latest world has published; None if it did not come to that."""
        try:
            snapshot = read_snapshot(self._folder)
        except StorageError:
            return None
        ours = snapshot is not None and snapshot.pilot is not None and snapshot.pilot.id == self._epoch
        return snapshot if ours else None

    def _why_drained(self) -> str:
        """Why the world that has died was draining, or would have been; "" if it was not."""
        with open_database(self._folder, self._config, self._lease) as opened, opened.writer.reading() as connection:
            recorded = pilot_table.drain_of(connection, self._epoch)
        # an order that it took with it into its grave; later than that, a user may have resumed
        return recorded or (self._drained if host.now() < self._drained_at + _OBEYED_S else "")

    def _nodes_that_are_left(self, before: tuple[str, ...], published: Snapshot | None) -> tuple[str, ...]:
        living = self._slurm.living_nodes(self._allocation.job_id) or before
        lost = {node.name for node in published.nodes if node.lost} if published is not None else set()
        left = tuple(name for name in before if name in living and name not in lost | self._bad)
        if not left:
            raise MissingError(
                "no node of the allocation is left",
                where=f"job {self._allocation.job_id}",
                next_step="`pilot submit` asks for another; nothing that was recorded is lost",
            )
        return left

    def _one_world(self, nodes: tuple[str, ...]) -> _End:
        plan = self._plan(nodes)
        path = plan.write(self._folder)
        rank = [sys.executable, "-P", "-m", "pilot.ranks.rank", str(path)]
        marks = {monitor.CAMPAIGN: plan.settings.campaign_id, monitor.EPOCH: str(plan.settings.epoch)}
        log.info("pilot %d begins on %s", plan.settings.epoch, ", ".join(nodes))
        try:
            world = start_world(self._way, nodes, rank, marks, job_nodes=len(self._allocation.nodes))
        except OSError as error:
            raise MissingError(
                f"the pilot's ranks cannot be started: {error.filename}: {error.strerror}",
                where=f"job {self._allocation.job_id}",
                next_step='set run.world in pilot.toml: "srun", "mpiexec", "mpirun", or "local" for one node only',
            ) from error
        try:
            return self._watch(world)
        finally:
            # to ask SLURM may take its time: only if there is something to end
            if world.step and not world.left:
                self._slurm.end_step(world.step)
            world.close()
            path.unlink(missing_ok=True)

    def _plan(self, nodes: tuple[str, ...]) -> Plan:
        run, allocation = self._config.run, self._allocation
        with open_database(self._folder, self._config, self._lease) as opened:
            begin_pilot(opened)
            settings = agent_settings(opened)
        self._epoch = settings.epoch
        return Plan(
            nonce=self._lease.holder.nonce,
            settings=settings,
            nodes={node.name: node for node in allocation.nodes if node.name in nodes},
            silence_s=run.silence,
            starts_at=self._starts_at,
            counts_from=self._counts_from,
            ends={end.value: at for end, at in self._ends.moments.items()},
            walltime_s=run.walltime,
            cores=run.cores,
        )

    def _watch(self, world: World) -> _End:
        began = host.monotonic()
        end = _End()
        while not (end.why or end.died):
            for event in world.hear(_LOOK_S):
                self._hear(event, world, end)
            for order in self._orders.take():
                self._note(order)
                world.tell(order)
            if self._drained and not world.ready:
                # nobody can have obeyed it, nor taken it back
                self._drained_at = host.now()
            self._show()
            if end.why or end.died:
                break
            if world.is_over():
                self._hear_last_words(world, end)
                if end.why:
                    break
                for line in world.last_words:
                    log.warning("of the ranks: %s", line)
                end.died = end.died or _last_word(world)
            elif not world.ready and host.monotonic() - began > START_S:
                end.died = f"rank 0 was not heard within {START_S:.0f} s"
        end.library = world.library
        self._bad |= world.unreached
        if end.why:
            world.wait()
            self._show(at_once=True)
        return end

    def _note(self, order: Order) -> None:
        """What the next world must know too, should this one die."""
        match order:
            case DrainOrder():
                self._drained, self._drained_at = order.why, host.now()
            case EndOrder():
                self._ends = self._ends.moved(order.end, order.at)

    def _hear_last_words(self, world: World, end: _End) -> None:
        """What rank 0 said before it left may take its time through the launcher."""
        deadline = host.monotonic() + _LAST_WORDS_S
        while not end.why and host.monotonic() < deadline:
            for event in world.hear(_LOOK_S):
                self._hear(event, world, end)

    def _hear(self, event: dict[str, Any], world: World, end: _End) -> None:
        match event["ev"]:
            case "log":
                log.log(event["level"], "%s", event["said"])
            case "ended":
                end.why = event["why"]
            case "failed":
                error = _error_of(event)
                if error is not None and (world.ready or error.where == WORLD):
                    raise error
                if not world.ready:
                    self._bad.add(event["node"])
                end.died = f"node {event['node']}: {event['what']}"

    def _show(self, *, at_once: bool = False) -> None:
        """Let the view have what the manager has published."""
        if self._observer is None or (host.monotonic() - self._shown_at < _SNAPSHOT_S and not at_once):
            return
        self._shown_at = host.monotonic()
        snapshot = self._published()
        if snapshot is not None:
            self._observer(snapshot)


def _last_word(world: World) -> str:
    if world.unreached:
        return f"{', '.join(sorted(world.unreached))} cannot be reached"
    return next(iter(reversed(world.last_words)), "") or "without a word"


def _error_of(event: dict[str, Any]) -> PilotError | None:
    """The error that a rank has reported; None if it was no error for users."""
    kind: Callable[..., PilotError] | None = getattr(db.errors, event["kind"], None) if event["kind"] else None
    return None if kind is None else kind(event["what"], where=event["where"], next_step=event["next"])
