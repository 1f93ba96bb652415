"""How a pilot comes to its end: one path for `pilot drain`, for signals and for the clock.

Nothing starts that does not fit; what fits is finished; what does not is asked to stop in its own way, then SIGTERM,
then SIGKILL to its session; all of it is ready again for the next pilot; then the last commit and the last snapshot.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace

from sqlalchemy import Connection

from db import pilot_table
from db.engine import Writer
from db.states import PilotState
from pilot import drain, host
from pilot.drain import Drain, End, Phase, Urgency
from pilot.durations import say_duration
from pilot.memory import Running
from pilot.orders import DrainOrder, EndOrder, Order
from pilot.publisher import Publisher
from pilot.scheduler.policy import Clock
from pilot.terms import Terms

log = logging.getLogger("pilot")


class Ending:
    """What is known of the end, and the drain that leads there.

    Args:
        terms: with the ends that are known at the start.
    """

    def __init__(self, terms: Terms, writer: Writer, publisher: Publisher) -> None:
        self._terms = terms
        self._writer = writer
        self._publisher = publisher
        self._drain: Drain | None = None

    @property
    def draining(self) -> bool:
        """Whether a drain is under way."""
        return self._drain is not None

    @property
    def why(self) -> str:
        """Why it drains; "" if it does not."""
        return "" if self._drain is None else self._drain.why

    @property
    def first(self) -> str:
        """What ends the work, of all that could; "" if nothing does."""
        first = self._terms.ends.first
        return "" if first is None else first[0].value

    @property
    def starts(self) -> bool:
        """Whether tasks that will be done in time may start: never when those that run are asked to stop."""
        return self._drain is None or (self._drain.starts and self._drain.phase(host.now()) is Phase.FINISH)

    @property
    def soft_s(self) -> float:
        """How long a task gets to stop in its own way."""
        return self._terms.soft_stop_s if self._drain is None else self._drain.soft_s

    def clock(self) -> Clock:
        """The time that tasks have: once we were warned, not more than we had then, though the end may have moved."""
        clock = self._terms.clock(host.now())
        if self._drain is None or not self._drain.starts:
            return clock
        left_s = self._drain.stop_at - clock.now
        return replace(clock, left_s=left_s if clock.left_s is None else min(left_s, clock.left_s))

    def recall(self) -> None:
        """Take over the end that users have wished for whichever pilot works here; one that has passed is forgotten."""
        with self._writer.transaction() as connection:
            wished = pilot_table.wished_end(connection)
            if wished is not None and wished <= host.now():
                pilot_table.end_by(connection, None)
                wished = None
        if wished is not None:
            self._move(EndOrder(End.BY, wished))

    def obey(self, order: Order) -> None:
        """Do what the supervisor says."""
        match order:
            case DrainOrder():
                with self._writer.transaction() as connection:
                    self.begin(connection, order)
            case EndOrder():
                self._move(order)

    def end_by(self, at: float) -> None:
        """Everything must be over at ``at``: a user has said so."""
        self._move(EndOrder(End.BY, at))

    def begin(self, connection: Connection, order: DrainOrder) -> None:
        """Drain, or drain faster; recorded, so that a pilot that dies while it drains is not started again."""
        terms, now = self._terms, host.now()
        wait_s, soft_s = terms.drain_wait_s, terms.soft_stop_s
        wanted = drain.begin(order.why, order.urgency, now, stop_at=terms.stop_at, wait_s=wait_s, soft_s=soft_s)
        drained = wanted if self._drain is None else self._drain.and_also(wanted)
        if drained == self._drain:
            return
        self._drain = drained
        pilot_table.change_pilot(connection, self._writer.epoch, PilotState.DRAINING, at=now, reason=drained.why)
        log.info("draining (%s)%s", drained.why, ": at once" if drained.at_once else "")
        self._publisher.set_state(PilotState.DRAINING, drained.why, drained.stop_at)

    def resume(self, connection: Connection, running: Mapping[int, Running]) -> bool:
        """Take the drain back, and the end that a user has wished; False: there is none, or tasks were told to stop."""
        self._terms = self._terms.ending(End.BY, None)
        self._publisher.set_end(self._terms.ends.at)
        if self._drain is None or any(entry.stopping for entry in running.values()):
            return False
        self._drain = None
        pilot_table.change_pilot(connection, self._writer.epoch, PilotState.ACTIVE, at=host.now())
        log.info("resumed: tasks start again")
        self._publisher.set_state(PilotState.ACTIVE, "")
        return True

    def to_be_stopped(self, running: Mapping[int, Running]) -> Iterator[tuple[int, bool]]:
        """The attempts that are to be told to stop now, and whether in their own way.

        Each is asked once, and told once more when it is to end at once.
        """
        now = host.now()
        first, stop_at = self._terms.ends.first, self._terms.stop_at
        if first is not None and stop_at is not None and now >= stop_at:
            self._begin_by_the_clock(f"{first[0]} is near")
        if self._drain is None or self._drain.phase(now) is Phase.FINISH:
            return
        at_once = self._drain.phase(now) is Phase.KILL
        for attempt_id, entry in running.items():
            if not entry.stopping or (at_once and not entry.killed):
                entry.stopping, entry.killed = True, at_once
                yield attempt_id, not at_once

    def _begin_by_the_clock(self, why: str) -> None:
        if self._drain is None or self._drain.phase(host.now()) is Phase.FINISH:
            self.obey(DrainOrder(why, Urgency.WARNING))

    def _move(self, order: EndOrder) -> None:
        """SLURM was asked again (administrators change the end, and backfill shortens it), or a user has said so."""
        before = self._terms.ends.at
        self._terms = self._terms.ending(order.end, order.at)
        first = self._terms.ends.first
        if first is None:
            self._publisher.set_end(None)
        elif before is None or abs(first[1] - before) > 1.0:
            log.info("everything must be over in %s (%s)", say_duration(max(0.0, first[1] - host.now())), first[0])
            self._publisher.set_end(first[1])
