"""Packing: finished attempts lie in a few archives, not in thousands of folders.

The files are dealt with in a thread; the manager alone writes the database. The order is: the archive is made and read
back; the attempts are recorded as packed; their folders are removed, each only if the archive holds all that it holds.
So a crash leaves either folders that are packed again, or folders that the next pilot removes.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from db import attempt_table, room
from db.engine import Writer
from pilot import host
from pilot.contents import say_size
from pilot.folder import Folder
from pilot.packing import choice
from pilot.packing.archive import StoppedError
from pilot.packing.choice import Packable
from pilot.packing.errand import Errand, Pace
from pilot.packing.files import Made, Survey, count_beside, make, remove, survey
from pilot.run_tables import RunTable

log = logging.getLogger("pilot")

#: So often it is looked whether there is something to pack, if so many attempts have begun since.
LOOK_S = 10.0
LOOK_AFTER = 25
#: So often what lies beside the runs is counted.
COUNT_S = 600.0
#: After the disk has refused, nothing is tried for so long.
REST_S = 600.0
#: At the end of a pilot so much time is spent on what can be packed, and so much on giving up.
FINISH_S = 20.0
GIVE_UP_S = 2.0
_SLICE_S = 0.5


class Packer:
    """What is packed when, and the doing.

    Args:
        folder: of the campaign.
        writer: of its database.
        wanted: whether anything is packed; what was begun is finished in any case.
        largest: folders of more bytes are left alone.
        changed: called when there is something new to show.
    """

    def __init__(
        self,
        folder: Folder,
        writer: Writer,
        *,
        wanted: bool,
        largest: int,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._folder = folder
        self._writer = writer
        self._wanted = wanted
        self._largest = largest
        self._changed = changed
        self._errand: Errand[Any] | None = None
        self._surveyed = self._stopped = False
        self._left: set[int] = set()
        self._said: set[str] = set()
        self._rests_until = self._counted_at = float("-inf")
        self._look_again()
        self._last_moment: float | None = None

    def turn(self) -> None:
        """Go on with what is under way, or see what there is to do; never waits for a file.

        Raises:
            PilotError: the database was lost.
        """
        if self._stopped or (self._errand is not None and not self._errand.over):
            return
        if self._errand is not None:
            errand, self._errand = self._errand, None
            self._settle(errand)
        if self._errand is None and host.monotonic() >= self._rests_until:
            self._begin_something()

    def has_finished(self) -> bool:
        """At the end of a pilot, with nothing else to do: goes on for a moment, and says whether there is no more.

        Raises:
            PilotError: the database was lost.
        """
        now = host.monotonic()
        if self._last_moment is None:
            self._last_moment = now + FINISH_S
            self._look_again()
        until = min(self._last_moment, now + _SLICE_S)
        while not self._stopped and now < until:
            if self._errand is not None:
                self._errand.pace.hurried = True
                self._errand.wait(until - now)
            self.turn()
            if self._errand is None:
                return True
            now = host.monotonic()
        return self._stopped or now >= self._last_moment

    def give_up(self) -> None:
        """Leave what is under way, at once; the next pilot takes it up."""
        self._stopped = True
        if self._errand is not None:
            self._errand.pace.stop()

    def __enter__(self) -> "Packer":
        return self

    def __exit__(self, *_: object) -> None:
        self.give_up()
        if self._errand is not None:
            self._errand.wait(GIVE_UP_S)

    def _look_again(self) -> None:
        self._looked_at, self._seen = float("-inf"), -LOOK_AFTER

    def _settle(self, errand: Errand[Any]) -> None:
        match errand.error:
            case None:
                errand.settle()
            case StoppedError():
                pass
            case OSError() as error:
                self._say(f"packing finished runs has failed, and is tried again later: {error}")
                self._rests_until = host.monotonic() + REST_S
            case error:
                # files that nobody has thought of must not end a pilot
                self._say(f"packing finished runs has failed, and is given up: {type(error).__name__}: {error}")
                self._stopped = True

    def _begin_something(self) -> None:
        now = host.monotonic()
        if not self._surveyed:
            self._surveyed = True
            self._counted_at = now
            with self._writer.reading() as connection:
                named = room.read_archives(connection)
            self._send(lambda pace: survey(self._folder, named, pace), self._take_stock)
        elif self._wanted and self._is_time_to_look(now):
            self._look()
        elif now >= self._counted_at + COUNT_S:
            self._counted_at = now
            self._send(lambda _: count_beside(self._folder), self._record_beside)

    def _is_time_to_look(self, now: float) -> bool:
        if now < self._looked_at + LOOK_S:
            return False
        self._looked_at = now
        with self._writer.reading() as connection:
            newest = attempt_table.latest_attempt_id(connection)
        if newest < self._seen + LOOK_AFTER:
            return False
        self._seen = newest
        return True

    def _look(self) -> None:
        until = self._seen - choice.KEEP
        with self._writer.reading() as connection:
            rows = room.read_packable(connection, until) if until > 0 else []
            busy = room.read_busy_generations(connection, until) if rows else set()
        packable = [
            Packable(id_, directory, size, generation, (stage, number))
            for id_, directory, size, generation, stage, number in rows
            if id_ not in self._left
        ]
        lot = choice.choose(packable, busy)
        if lot is not None:
            self._send(lambda pace: make(self._folder, lot, self._largest, pace), self._record)

    def _record(self, made: Made) -> None:
        """It lies there whole: from now on it counts, and the folders can go."""
        self._left |= made.left.keys()
        for reason in made.left.values():
            if reason:
                self._say(f"a finished run is not packed: {reason}")
        # there may be more
        self._look_again()
        if not made.archive:
            return
        with self._writer.transaction() as connection:
            recorded = room.record_packed(connection, made.archive, made.size, made.ids)
            packed = room.read_packed(connection, recorded)
        log.info("%d finished runs were packed into %s (%s)", len(recorded), made.archive, say_size(made.size))
        self._changed()
        self._remove(packed)

    def _take_stock(self, found: Survey) -> None:
        """Finish what a dead pilot has begun."""
        with self._writer.transaction() as connection:
            for archive, (size, ids) in found.strays.items():
                recorded = room.record_packed(connection, archive, size, ids)
                if recorded:
                    log.info("%s, which a dead pilot has made, holds %d finished runs", archive, len(recorded))
                else:
                    self._say(f"{archive} belongs to no run that is recorded: it stays as it is")
            packed = room.read_packed(connection, found.folders)
            room.record_beside(connection, *found.beside)
        self._changed()
        self._remove(packed)

    def _remove(self, packed: list[tuple[str, str]]) -> None:
        if packed:
            self._send(lambda pace: remove(self._folder, packed, pace), self._say_all)

    def _record_beside(self, counted: tuple[int, int]) -> None:
        with self._writer.transaction() as connection:
            room.record_beside(connection, *counted)
        self._changed()

    def _send(self, work: Callable[[Pace], Any], then: Callable[[Any], None]) -> None:
        self._errand = Errand(work, then)

    def _say_all(self, lines: Sequence[str]) -> None:
        for line in lines:
            self._say(line)

    def _say(self, line: str) -> None:
        """Once is enough."""
        if line not in self._said:
            log.warning("%s", line)
        self._said.add(line)


def packer_of(folder: Folder, writer: Writer, run: RunTable, changed: Callable[[], None]) -> Packer:
    """The packer of a campaign folder, as its pilot.toml wishes it."""
    return Packer(folder, writer, wanted=run.pack, largest=run.pack_up_to_mb * 1_000_000, changed=changed)
